"""The handlers of all workers and the endpoints of all tenants: they do what the plan says, and write the ledger."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from random import Random
from typing import Any
from uuid import UUID

import msgspec

from barnabas.domain.backoff import RetryPolicy
from barnabas.domain.deliveries import ConnectFailed, HttpAnswer, TimedOut
from barnabas.postgres.live_endpoints import LiveEndpoint
from barnabas.sdk.app import App
from barnabas.sdk.context import Context
from barnabas.sdk.errors import PermanentError, RetryableError, Snooze
from barnabas_notifier.caller import Called
from tests.chaos.ledger import Began, CrashPoint, Effect, Event, Received
from tests.simulator.loop import Process, VirtualLoop
from tests.simulator.plan import JOB_TYPES, TIMEOUT_SECONDS, JobPlan, Plan
from tests.simulator.services import ModelIsolatedAttempt, process_now

_OK = 200


class Handlers:
    """The handlers of all workers: they do what the plan says."""

    def __init__(
        self,
        plan: Plan,
        loop: VirtualLoop,
        random: Random,
        *,
        kill: Callable[[Process], None],
        is_redriven: Callable[[UUID, UUID], bool],
    ) -> None:
        self.ledger: list[Event] = []
        self.app = App()
        self._is_redriven = is_redriven
        self._jobs = {job.number: job for job in plan.jobs}
        self._loop = loop
        self._random = random
        self._kill = kill
        self._snoozed: Counter[UUID] = Counter()
        retry = RetryPolicy(base_seconds=0.5, factor=2.0, cap_seconds=4.0, jitter="full")
        for name in JOB_TYPES:
            self.app.handler(name, timeout=TIMEOUT_SECONDS, retry=retry)(self._function())

    def _function(self) -> Callable[[Any, Context], Awaitable[Any]]:
        async def handle(payload: Any, ctx: Context) -> Any:
            return await self._run(self._jobs[payload["n"]], ctx)

        return handle

    async def _run(self, job: JobPlan, ctx: Context) -> Any:
        who: dict[str, Any] = {
            "tenant": str(ctx.tenant_id),
            "job": str(ctx.job_id),
            "attempt": ctx.attempt,
            "losses": ctx.losses,
        }
        pid = process_now().pid
        self.ledger.append(Began(self._loop.now, pid=pid, **who))
        await asyncio.sleep(job.seconds * (0.5 + 0.5 * self._random.random()))
        # Whoever sends a job round again has seen to it that it works.
        is_mended = self._is_redriven(ctx.tenant_id, ctx.job_id)
        if ctx.losses < job.crashes and not is_mended:
            await self._crash(ctx)
        if self._snoozed[ctx.job_id] < job.snoozes:
            self._snoozed[ctx.job_id] += 1
            raise Snooze(self._random.choice((0.3, 2.0)))
        match "ok" if is_mended else job.attempts[min(ctx.attempt, len(job.attempts)) - 1]:
            case "ok":
                result = f"{self._random.getrandbits(64):x}"
                self.ledger.append(Effect(self._loop.now, pid=pid, result_hash=result, **who))
                return {"token": result}
            case "fail":
                raise RetryableError("planned")
            case "later":
                raise RetryableError("planned", retry_after=2.0)
            case "permanent":
                raise PermanentError("planned")
            case _:
                # Longer than it may take.
                return await asyncio.sleep(1e6)

    async def _crash(self, ctx: Context) -> None:
        process = process_now()
        self.ledger.append(CrashPoint(self._loop.now, "handler", process.pid))
        if ctx in ModelIsolatedAttempt.running:
            ModelIsolatedAttempt.dead.add(ctx)
            raise RetryableError("its process is dead")
        self._kill(process)
        await asyncio.sleep(1e6)


class Receiver:
    """All endpoints. In the place of the notifier's caller."""

    def __init__(self, plan: Plan, loop: VirtualLoop, random: Random) -> None:
        self.ledger: list[Event] = []
        self._refusals = {tenant.tenant: tenant.refusals for tenant in plan.tenants}
        self._loop = loop
        self._random = random
        self.calm = False
        """Whether every call is answered well."""

    async def call(self, endpoint: LiveEndpoint, event_id: UUID, body: bytes) -> Called:
        """One webhook."""
        random, tenant = self._random, endpoint.key.tenant_id
        await asyncio.sleep(0.001 + 0.02 * random.random())
        is_refused = not self.calm and random.random() < self._refusals[tenant]
        how = random.choice(("500", "503", "lost", "timeout")) if is_refused else "200"
        status = int(how) if how.isdigit() else _OK if how == "lost" else 0
        told = msgspec.json.decode(body)
        received = Received(
            self._loop.now,
            str(tenant),
            str(endpoint.key.endpoint_id),
            str(event_id),
            told["data"]["id"],
            told["type"],
            signed=True,
            answered=0 if how == "lost" else status,
        )
        self.ledger.append(received)
        if how == "timeout":
            await asyncio.sleep(1.0)
            return Called(TimedOut(1.0))
        await asyncio.sleep(0.001 + 0.01 * random.random())
        if how == "lost":
            return Called(ConnectFailed("reset"))
        return Called(HttpAnswer(status), status, b"")
