"""Everybody around the product: who asks for jobs, the handlers, the receivers of webhooks, and the person in charge.

They write the ledger, and nothing of theirs goes through the product's own memory.
"""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from random import Random
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import msgspec

from barnabas.contract.problems import ProblemError
from barnabas.contract.topics import INTAKE
from barnabas.errors import BarnabasError, TransientError
from barnabas_ingest.cancel import cancel_job
from barnabas_ingest.redrive import try_redrive_delivery, try_redrive_job
from barnabas_ingest.submit import submit_job
from tests.chaos.ledger import (
    Accepted,
    Accepting,
    Cancelled,
    Event,
    Redriven,
    Refused,
    Unknown,
)
from tests.simulator.broker import ModelBroker
from tests.simulator.loop import STARTED_AT, Process, ProcessKilledError, VirtualLoop
from tests.simulator.plan import JobPlan, Plan
from tests.simulator.tables import Tables, at

_PATIENCE_SECONDS = 4.0
_UNAVAILABLE = 503
_OK = 200
# Dead letters of this kind are deliveries.
_DELIVERY = 2


class Door:
    """The ingest that answers requests just now."""

    def __init__(self, loop: VirtualLoop, random: Random) -> None:
        self.process: Process | None = None
        self.resources: Any = None
        self.lost_answers = 0.0
        """How many answers never reach whoever asked."""
        self._loop = loop
        self._random = random

    def open(self, process: Process, resources: Any) -> None:
        """It answers from now on."""
        self.process, self.resources = process, resources

    async def ask(self, request: Callable[[Any], Awaitable[Any]]) -> Any:
        """The answer to a request; raises TimeoutError when none comes, and what the door refuses it with."""
        await asyncio.sleep(0.001 + 0.004 * self._random.random())
        if self.process is None or not self.process.alive:
            raise TimeoutError
        task = self._loop.spawn(self._answered(request(self.resources)), self.process)
        done, _ = await asyncio.wait([task], timeout=_PATIENCE_SECONDS)
        await asyncio.sleep(0.001 + 0.004 * self._random.random())
        if not done or self._random.random() < self.lost_answers:
            raise TimeoutError
        if isinstance(task.exception(), ProcessKilledError):
            raise TimeoutError
        answer = task.result()
        if isinstance(answer, BarnabasError):
            raise answer
        return answer

    async def _answered(self, answer: Awaitable[Any]) -> Any:
        try:
            return await answer
        except BarnabasError as error:
            return error


class Client:
    """Asks for the jobs of the plan, and asks again until each has its answer."""

    def __init__(self, plan: Plan, loop: VirtualLoop, random: Random, door: Door, broker: ModelBroker) -> None:
        self.open = 0
        """Wishes that aren't settled."""
        self.kafka_keys: set[tuple[UUID, str]] = set()
        """What was written to the intake topic, and must become a job unless the topic is lost."""
        self.ledger: list[Event] = []
        self.errors: list[str] = []
        self._plan = plan
        self._loop = loop
        self._random = random
        self._door = door
        self._broker = broker

    def begin(self) -> None:
        """Start every wish at its time."""
        for job in self._plan.jobs:
            for number in range(1 + job.asked_twice + job.other_body):
                self.open += 1
                body = self.body(job, other=job.other_body and number == 1 + job.asked_twice)
                later = self._random.choice((0.0, 0.003, 1.0)) if number else 0.0
                self._loop.outside(self._spawn, job, body, delay=job.at + later)

    def body(self, job: JobPlan, *, other: bool = False) -> bytes:
        """What is sent."""
        fields: dict[str, Any] = {
            "type": job.type,
            "payload": {"n": job.number},
            "priority": job.priority,
            "max_attempts": job.max_attempts,
            "idempotency_key": job.key,
        }
        if job.delay is not None:
            fields["run_at"] = at(STARTED_AT + job.at + job.delay).isoformat()
        if job.ordering_key is not None:
            fields["ordering_key"] = job.ordering_key
        if other:
            fields["metadata"] = {"other": True}
        return msgspec.json.encode(fields)

    def _spawn(self, job: JobPlan, body: bytes) -> None:
        self._loop.spawn(self._wish(job, body))

    async def _wish(self, job: JobPlan, body: bytes) -> None:
        try:
            while True:
                is_settled = await (self._by_kafka if job.via == "kafka" else self._by_http)(job, body)
                if is_settled or job.given_up:
                    return
                await asyncio.sleep(0.2 + 1.5 * self._random.random())
        except Exception as error:  # noqa: BLE001 - told with the run's verdict
            self.errors.append(f"wish {job.key}: {error!r}")
        finally:
            self.open -= 1

    def _note_asking(self, job: JobPlan, body: bytes) -> str:
        body_hash = hashlib.sha256(body).hexdigest()[:12]
        self.ledger.append(
            Accepting(
                self._loop.now,
                job.key,
                str(job.tenant.tenant),
                via=job.via,
                body_hash=body_hash,
                jobs_type=job.type,
                expected=job.expected,
                due_at=None if job.delay is None else STARTED_AT + job.at + job.delay,
                max_attempts=job.max_attempts,
                ordering_key=job.ordering_key,
            )
        )
        return body_hash

    async def _by_http(self, job: JobPlan, body: bytes) -> bool:
        tenant, body_hash = str(job.tenant.tenant), self._note_asking(job, body)

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": body, "more_body": False}

        scope = {"headers": [(b"authorization", b"Bearer " + tenant.encode()), (b"content-length", b"%d" % len(body))]}
        try:
            answer = await self._door.ask(lambda resources: submit_job(resources, scope, receive))
        except TimeoutError:
            self.ledger.append(Unknown(self._loop.now, job.key, tenant))
            return False
        except ProblemError as error:
            self.ledger.append(Refused(self._loop.now, job.key, tenant, error.problem.status, body_hash))
            return True
        except TransientError:
            self.ledger.append(Refused(self._loop.now, job.key, tenant, _UNAVAILABLE, body_hash))
            return False
        if answer.status >= 400:
            self.ledger.append(Refused(self._loop.now, job.key, tenant, answer.status, body_hash))
            return False
        job_id = msgspec.json.decode(answer.body)["id"]
        self.ledger.append(Accepted(self._loop.now, job.key, tenant, job_id, body_hash))
        if job.cancel_after is not None:
            self.open += 1
            self._loop.outside(lambda: self._loop.spawn(self._cancel(job, UUID(job_id))), delay=job.cancel_after)
        return True

    async def _by_kafka(self, job: JobPlan, body: bytes) -> bool:
        tenant = str(job.tenant.tenant)
        body_hash = self._note_asking(job, body)
        await asyncio.sleep(0.005)
        if self._broker.is_away:
            self.ledger.append(Unknown(self._loop.now, job.key, tenant))
            return False
        headers = (("authorization", tenant.encode()),)
        self._broker.append(INTAKE.name, tenant.encode(), body, headers, self._loop.now)
        if job.other_body or self._plan.wiped or job.tenant.admission is not None:
            # Which of the two is rejected, whether it was above the rate, and what a wiped topic took, isn't told here.
            self.ledger.append(Unknown(self._loop.now, job.key, tenant))
        else:
            self.kafka_keys.add((job.tenant.tenant, job.key))
            self.ledger.append(Accepted(self._loop.now, job.key, tenant, "", body_hash))
        return True

    async def _cancel(self, job: JobPlan, job_id: UUID) -> None:
        try:
            answer = await self._door.ask(lambda resources: cancel_job(resources, job.tenant.tenant, job_id))
            if answer != "absent":
                self.ledger.append(Cancelled(self._loop.now, str(job.tenant.tenant), str(job_id)))
        except (TimeoutError, TransientError):
            pass  # whoever cancels in vain lets it be
        finally:
            self.open -= 1


class Person:
    """Sends dead letters round again."""

    def __init__(self, plan: Plan, loop: VirtualLoop, random: Random, door: Door, tables: Callable[[], Tables]) -> None:
        self.ledger: list[Event] = []
        self._plan = plan
        self._loop = loop
        self._random = random
        self._door = door
        self._tables = tables
        self._seen: set[UUID] = set()

    async def look(self) -> None:
        """For ever, every few seconds. A dead letter that holds a line is always sent round, once."""
        while True:
            await asyncio.sleep(1.0 + 2.0 * self._random.random())
            tables = self._tables()
            for tenant, kind, job_id in sorted(tables.dead):
                if job_id in self._seen:
                    continue
                if kind == _DELIVERY:
                    if self._random.random() >= self._plan.redrives or await self._redrive_delivery(tenant, job_id):
                        self._seen.add(job_id)
                    continue
                sent = tables.payloads[tenant, job_id]
                holds = self._plan.hold_dead and sent.ordering_key is not None
                is_wanted = self._random.random() < self._plan.redrives and sent.redrive_of is None
                if not holds and not is_wanted:
                    self._seen.add(job_id)
                    continue
                if await self._redrive(tenant, job_id):
                    self._seen.add(job_id)

    async def _redrive(self, tenant: UUID, job_id: UUID) -> bool:
        due_at = at(self._loop.now + 2.0) if self._random.random() < 0.3 else None
        try:
            done = await self._door.ask(lambda resources: try_redrive_job(resources, tenant, job_id, due_at=due_at))
        except (TimeoutError, TransientError):
            return False
        if done.answer in ("redriven", "open"):
            self.ledger.append(Redriven(self._loop.now, str(tenant), str(job_id), str(done.job_id)))
        return True

    async def _redrive_delivery(self, tenant: UUID, delivery: UUID) -> bool:
        due_at = at(self._loop.now + 2.0) if self._random.random() < 0.3 else None
        try:
            await self._door.ask(lambda resources: try_redrive_delivery(resources, tenant, delivery, due_at=due_at))
        except (TimeoutError, TransientError):
            return False
        return True


class Credentials:
    """Whose a credential is: in here it is the tenant's id."""

    async def tenant_of(self, headers: dict[bytes, bytes]) -> UUID:
        return await self.tenant_of_key(headers[b"authorization"].removeprefix(b"Bearer "))

    async def tenant_of_key(self, credential: bytes) -> UUID:
        return UUID(credential.decode())


def settings_of(plan: Plan) -> SimpleNamespace:
    """The settings of all services, small enough for a small world."""
    return SimpleNamespace(
        kafka="", kafka_group_protocol="consumer", lease_seconds=3.0, leader_lease_seconds=2.0,
        ordered_dead_letters="block" if plan.hold_dead else "continue", slots=plan.slots, turns=2, claim_rows_max=20,
        look_ahead_bytes=plan.look_ahead_bytes, drain_seconds=8.0, cancel_grace_seconds=0.5, queues=("default",),
        republish_per_second=50, results_replay_minutes=60, topic_replication=1, call_seconds=1.0, calls=4,
        calls_per_tenant=3, calls_per_endpoint=2, lane_rows=3, lanes_rows=8,
    )  # fmt: skip
