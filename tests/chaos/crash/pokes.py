"""How a process is brought to a point that ordinary load hardly ever leads to; each poke may be repeated."""

import asyncio
import signal
from collections.abc import Awaitable, Callable, Mapping

from barnabas.contract.telling import OutboxKind
from barnabas.domain.jobs import JobState
from barnabas.runtime.crash_points import CrashPoint
from tests.chaos.crash.load import Load
from tests.chaos.crash.system import System
from tests.chaos.ledger import FaultBegan, FaultEnded, Ledger, now
from tests.support.eventually import eventually

_FLOOD_JOBS = 800
_IDLE_JOBS = 3
_RUNNING_SECONDS = 120.0

Poke = Callable[["Poking"], Awaitable[None]]


class Poking:
    """What the pokes work on. Whatever they break is in the ledger as a fault."""

    def __init__(self, system: System, load: Load, ledger: Ledger) -> None:
        self.system = system
        self._load = load
        self._ledger = ledger
        self._faults = 0
        # Two lanes may fill it at once, and once is enough.
        self._filling = asyncio.Lock()

    async def flood(self) -> None:
        """More than the look-ahead holds."""
        await self._load.flood(_FLOOD_JOBS)

    async def signalled(self, service: str, number: signal.Signals) -> None:
        """A signal to the process of one service."""
        with self._fault(number.name, service):
            for kept in self.system.named(service):
                kept.send(number)

    async def stop_a_busy_worker(self) -> None:
        """SIGTERM while a handler runs."""
        async with self.system.database() as database:
            running = f"SELECT count(*) FROM jobs WHERE state = {JobState.RUNNING.value}"
            await eventually(lambda: database.fetchval(running), timeout=_RUNNING_SECONDS)
        await self.signalled("worker", signal.SIGTERM)

    async def leave_a_row(self) -> None:
        """An outbox row whose writer died some seconds ago, for jobs that were told long since."""
        async with self.system.database() as database:
            await database.execute(
                "INSERT INTO outbox (kind, tenant_ids, ref_ids, fences, created_at)"
                " SELECT $1, array_agg(tenant_id), array_agg(job_id), array_agg(fence), now() - interval '10 seconds'"
                "   FROM (SELECT tenant_id, job_id, fence FROM job_results LIMIT 5) AS told HAVING count(*) > 0",
                int(OutboxKind.READY_JOBS),
            )

    async def pretend_a_wipe(self) -> None:
        """Every topic is another one than was last seen: what it held is sent again. Some jobs are ready all along."""
        async with self._filling:
            if not self._load.idle:
                await self._load.fill_idle_queue(_IDLE_JOBS)
        async with self.system.database() as database:
            await database.execute("UPDATE kafka_topics SET topic_id = 'another'")
        # Whoever leads looks at what was last seen only when he begins.
        await self.signalled("retry-scheduler", signal.SIGKILL)

    def _fault(self, name: str, target: str) -> "_Fault":
        self._faults += 1
        return _Fault(self._ledger, FaultBegan(now(), name, target, self._faults))


class _Fault:
    """A fault in the ledger for as long as the block lasts."""

    def __init__(self, ledger: Ledger, began: FaultBegan) -> None:
        self._ledger = ledger
        self._began = began

    def __enter__(self) -> None:
        self._ledger.write(self._began)

    def __exit__(self, *_: object) -> None:
        self._ledger.write(FaultEnded(now(), self._began.number))


def _signals(service: str, number: signal.Signals) -> Poke:
    return lambda poking: poking.signalled(service, number)


POKES: Mapping[CrashPoint, Poke] = {
    CrashPoint.WORKER_AFTER_PARK: Poking.flood,
    CrashPoint.WORKER_AFTER_FETCH: Poking.flood,
    CrashPoint.WORKER_BEFORE_HAND_BACK: Poking.stop_a_busy_worker,
    CrashPoint.WORKER_AFTER_HAND_BACK: _signals("worker", signal.SIGTERM),
    CrashPoint.NOTIFIER_BEFORE_HAND_BACK: _signals("notifier", signal.SIGTERM),
    CrashPoint.LEASE_AFTER_BEGIN: _signals("worker", signal.SIGKILL),
    CrashPoint.REAPER_BEFORE_COMMIT: _signals("worker", signal.SIGKILL),
    CrashPoint.REAPER_AFTER_COMMIT: _signals("worker", signal.SIGKILL),
    CrashPoint.LEAD_AFTER_TAKE: _signals("retry-scheduler", signal.SIGKILL),
    CrashPoint.PARTITIONS_AFTER_MAKE: _signals("retry-scheduler", signal.SIGKILL),
    CrashPoint.RELAY_BEFORE_SEND: Poking.leave_a_row,
    CrashPoint.RECONCILER_AFTER_SEND: Poking.pretend_a_wipe,
    CrashPoint.REPLAY_AFTER_SEND: Poking.pretend_a_wipe,
}
"""Points that are not on every job's way."""
