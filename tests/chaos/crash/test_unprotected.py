"""The checker bites: without the fence, the outbox or the de-duplication it finds what that protection is there for.

Each scenario is run twice, on the product as it is and with its one protection switched off, with a tenant of its own.
"""

import asyncio
import os
import secrets
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import confluent_kafka
import pytest

from barnabas.contract import topics
from barnabas.kafka.client_settings import common
from barnabas.kafka.producer import Producer
from barnabas.runtime.crash_points import CrashPoint
from tests.chaos.crash import unprotected
from tests.chaos.crash.settling import judge
from tests.chaos.crash.system import System, open_system
from tests.chaos.crash.tenants import CrashTenant, noted
from tests.chaos.crash.unprotected import SwitchedOff
from tests.chaos.ledger import Accepted, Accepting, Began, FaultBegan, Ledger, now, read_ledgers
from tests.chaos.rows import until_quiet
from tests.chaos.violation import Violation
from tests.support.eventually import eventually
from tests.support.receiver import Receiver, open_receiver

# Longer than all its waits together, which say better what is wrong.
pytestmark = pytest.mark.timeout(1800)

_SECONDS = 240.0
# A worker that lost its lease because the machine stood still would leave the job to nobody, whom no zombie can rob.
_LEASE_SECONDS = 12


@dataclass(frozen=True, slots=True)
class Scene:
    """What a scenario works with."""

    system: System
    receiver: Receiver
    ledger: Ledger
    database: Any
    tenant: CrashTenant

    async def submit(self, key: str, job_type: str = "effect", **payload: object) -> str:
        """One accepted job; its id."""
        key = f"{self.tenant.name}-{key}"
        self.ledger.write(Accepting(now(), key, self.tenant.id, jobs_type=job_type, expected="succeeded"))
        async with self.system.client(self.tenant.api_key) as client:
            body = payload or {"key": key}
            job = str((await client.submit(job_type, body, idempotency_key=key)).id)
        self.ledger.write(Accepted(now(), key, self.tenant.id, job))
        return job

    def has_fault(self, name: str, target: str) -> None:
        """A fault that lasts to the end: what it excuses is not what the missing protection lets happen."""
        self.ledger.write(FaultBegan(now(), name, target, int(now() * 1_000_000)))

    async def has_ended(self, job: str) -> bool:
        """Whether the job's final row is there."""
        return bool(await self.database.fetchval("SELECT count(*) FROM job_results WHERE job_id = $1::text::uuid", job))

    async def broken(self, *, at_rest: bool = True) -> list[Violation]:
        """What the checker says of this tenant, once everything is at rest if it will ever be."""
        if at_rest:
            await until_quiet(self.database, timeout=_SECONDS)
        _, _, violations = await judge(self.system, self.database)
        return [violation for violation in violations if violation.tenant == self.tenant.id]


Scenario = Callable[[Scene], Awaitable[None]]


async def a_zombie_finishes(scene: Scene) -> None:
    """A worker is frozen past its lease while it runs a job; it thaws, and finishes, while another one runs it."""
    directory = scene.system.directory / f"go-{scene.tenant.name}"
    directory.mkdir()
    job = await scene.submit("held", "hold", directory=str(directory))
    first = await _began(scene, job, 1)
    frozen = next(kept for kept in scene.system.named("worker") if kept.pid == first.pid)
    scene.has_fault("freeze", "worker")
    # It may have been refused before, when it was the frozen one of another scenario.
    log = frozen.service.log
    refused_before = log.read_text().count("results_superseded")
    frozen.send(signal.SIGSTOP)
    try:
        second = await _began(scene, job, 2)
        (directory / str(first.pid)).touch()
    finally:
        frozen.send(signal.SIGCONT)

    async def is_answered() -> bool:
        return await scene.has_ended(job) or log.read_text().count("results_superseded") > refused_before

    await eventually(is_answered, timeout=_SECONDS)
    (directory / str(second.pid)).touch()
    await eventually(lambda: scene.has_ended(job), timeout=_SECONDS)


async def a_worker_dies_before_it_tells(scene: Scene) -> None:
    """A finish is committed, and its worker dies before Kafka hears of it."""
    scene.has_fault("kill", "worker")
    scene.system.arming.arm(CrashPoint.WORKER_AFTER_FINISH)
    job = await scene.submit("untold")
    await eventually(lambda: not scene.system.arming.is_armed(CrashPoint.WORKER_AFTER_FINISH), timeout=_SECONDS)
    await eventually(lambda: scene.has_ended(job), timeout=_SECONDS)
    await scene.system.until_ready()


async def an_event_comes_twice(scene: Scene) -> None:
    """The record of an event is in its partition twice; what comes behind it shows that both were read."""
    scene.has_fault("duplicate", "kafka")
    async with scene.system.client(scene.tenant.api_key) as client:
        path = f"/{scene.tenant.name}"
        endpoint = await client.create_endpoint(scene.receiver.url(path))
    assert endpoint.secret is not None
    scene.receiver.script(path, noted(scene.ledger, scene.tenant.id, str(endpoint.id), endpoint.secret, lambda: 204))
    job = await scene.submit("told-twice")
    await scene.receiver.until(path, 1, timeout=_SECONDS)
    record = await asyncio.to_thread(_event_of, scene.system.kafka, job)
    async with Producer(scene.system.kafka) as producer:
        await producer.send(topics.RESULTS.name, [record])
    behind = await scene.submit("behind")
    await eventually(lambda: any(behind.encode() in each.body for each in scene.receiver.at(path)), timeout=_SECONDS)


CASES = [
    (a_zombie_finishes, unprotected.fence, 6),
    (a_worker_dies_before_it_tells, unprotected.outbox, 7),
    (an_event_comes_twice, unprotected.deduplication, 8),
]


@pytest.fixture(scope="module")
async def system() -> AsyncIterator[System]:
    env = {"BARNABAS_LEASE_SECONDS": str(_LEASE_SECONDS)}
    async with open_system(workers=2, app="tests.chaos.crash.handlers:app", env=env) as running:
        yield running


@pytest.fixture
async def scene(system: System) -> AsyncIterator[Scene]:
    # A tenant's name is nobody else's.
    name = f"scene-{secrets.token_hex(4)}"
    async with system.client() as admin:
        made = await admin.create_tenant(name)
        key = (await admin.create_key(made.id, "scene")).key
    assert key is not None
    tenant = CrashTenant(str(made.id), key, name)
    with Ledger(system.ledger / f"{name}.jsonl") as ledger:
        async with system.database() as database, open_receiver() as receiver:
            yield Scene(system, receiver, ledger, database, tenant)


@pytest.mark.parametrize(("scenario", "protection", "invariant"), CASES)
async def test_the_checker_finds_nothing_while_every_protection_is_on(
    scene: Scene, scenario: Scenario, protection: SwitchedOff, invariant: int
) -> None:
    await scenario(scene)

    assert await scene.broken() == []


@pytest.mark.parametrize(("scenario", "protection", "invariant"), CASES)
async def test_the_checker_finds_what_a_missing_protection_lets_happen(
    scene: Scene, scenario: Scenario, protection: SwitchedOff, invariant: int
) -> None:
    async with protection(scene.database):
        await scenario(scene)
        # Two rows under one key: which of them a notifier's outcome is for, nobody can say, so none may come to rest.
        broken = await scene.broken(at_rest=protection is not unprotected.deduplication)
    for violation in broken:
        print(violation)

    assert invariant in {violation.invariant for violation in broken}


async def _began(scene: Scene, job: str, count: int) -> Began:
    """The run of that number, once it has begun."""

    def begun() -> list[Began]:
        return [event for event in read_ledgers(scene.system.ledger) if isinstance(event, Began) and event.job == job]

    return (await eventually(begun, until=lambda found: len(found) >= count, timeout=_SECONDS))[count - 1]


def _event_of(bootstrap: str, job: str) -> tuple[bytes | None, bytes | None, None]:
    """The record that tells of the job's end."""
    consumer: Any = confluent_kafka.Consumer(
        common(bootstrap, "crash-scenes") | {"group.id": f"crash-scenes-{os.getpid()}", "enable.auto.commit": False}
    )
    try:
        partitions = consumer.list_topics(topics.RESULTS.name, timeout=_SECONDS).topics[topics.RESULTS.name].partitions
        consumer.assign([confluent_kafka.TopicPartition(topics.RESULTS.name, each, 0) for each in partitions])
        for _ in range(int(_SECONDS)):
            for message in consumer.consume(1_000, timeout=1.0):
                if message.error() is None and job.encode() in message.value():
                    return message.key(), message.value(), None
    finally:
        consumer.close()
    raise AssertionError(f"no record tells of {job}")
