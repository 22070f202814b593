"""The child processes of a worker: used again while they end well, and bounded in number.

`isolated.py` runs attempts in them. A child is killed with all that it has started; it can't outlive its worker,
because it ends when its wire closes.

Few are started at a time, and a start belongs to nobody: it goes on when whoever it was for has given up, and its child
goes to the next in line. Where a child can't be forked, its start is a second of CPU. With all of them at once, each
thrown away by the first who lost patience, four workers on two cores ran none of 1,200 jobs in six minutes.

Tenants take turns (`lines.py`): whoever has none running is next when a place comes free, however many wait of another.
"""

import asyncio
import os
from uuid import UUID

import structlog

from barnabas.sdk.child import TERMINATE_SECONDS, Child, ChildNotStartedError
from barnabas.sdk.lines import Lines
from barnabas.sdk.starting import ChildStarter

log = structlog.get_logger(__name__)

WAIT_SECONDS = 6.0
"""With the kill's grace this stays below the ten seconds after which an overdue attempt is taken back.

Where minute-long runs hold all places nobody's turn comes that soon. Then the attempt is handed back and comes again at
once, and its tenant keeps its place between the tenants meanwhile.
"""

# A child that isn't ready by then is stuck, however slow the machine.
_START_SECONDS = 60.0
# For each that may run, so many may wait, of each tenant an equal part of them: the next ones would only hold slots
# that others can use.
_WAITING_SHARE = 2
# A tenant may always have one in line, but no more tenants than so many for each that may run: a quarter of the slots,
# with what both are by default.
_WAITING_TENANTS_SHARE = 16
# A child that was used this often is replaced: whatever leaks in handlers leaks for so long and no longer.
_RUNS_MAX = 100
# An idle child holds some 50 MB; after this long without work it was a burst.
_IDLE_SECONDS = 60.0


class ChildProcesses:
    """Children of one worker, made by `starter`, which is closed by whoever made it, after this.

    At most `running_max` run attempts at a time, at most `starting_max` start (half as many as the machine has CPUs,
    unless set otherwise), and at most `idle_max` are kept for the next ones. Where children can't be forked each takes
    some 50 MB, and `unforked_max` is the limit of those that run, if it is lower. A child whose memory has had a peak
    above `retire_above_bytes` is not used again.
    """

    def __init__(
        self,
        starter: ChildStarter,
        *,
        running_max: int,
        unforked_max: int | None = None,
        starting_max: int | None = None,
        idle_max: int = 2,
        retire_above_bytes: int = 512 << 20,
        wait_seconds: float = WAIT_SECONDS,
    ) -> None:
        self.wait_seconds = wait_seconds
        """How long an attempt may wait for a child, for room and start together."""
        self._starter = starter
        self._forked_max = running_max
        self._unforked_max = running_max if unforked_max is None else min(running_max, unforked_max)
        self._starting_max = max(1, (os.cpu_count() or 2) // 2) if starting_max is None else starting_max
        self._idle_max = idle_max
        self._retire_above_bytes = retire_above_bytes
        self._lines: Lines[asyncio.Future[Child]] = Lines()
        self._holders: dict[Child, UUID] = {}
        """Whose attempt each taken child runs."""
        self._starts: set[asyncio.Task[None]] = set()
        self._idle: list[Child] = []
        self._alive: set[Child] = set()
        self._is_closed = False

    @property
    def alive(self) -> int:
        """How many child processes there are."""
        return len(self._alive)

    @property
    def _running_max(self) -> int:
        return self._forked_max if self._starter.forks else self._unforked_max

    @property
    def room(self) -> int:
        """How many attempts more would have a child as soon as it is started."""
        return max(0, self._running_max - len(self._holders) - len(self._lines))

    def is_crowded_for(self, tenant_id: UUID) -> bool:
        """Whether so many of this tenant wait for a child already that one more had better come again later.

        Never because of another tenant's line: only where a great many tenants wait is there no room for one more.
        """
        return self._lines.is_full_for(
            tenant_id,
            waiters_max=_WAITING_SHARE * self._running_max,
            tenants_max=_WAITING_TENANTS_SHARE * self._running_max,
        )

    async def take(self, tenant_id: UUID) -> "Child":
        """A child that is ready, once it is this tenant's turn; give it back after. The caller limits the wait.

        Raises `ChildNotStartedError` when a child could not be started.
        """
        loop = asyncio.get_running_loop()
        place: asyncio.Future[Child] = loop.create_future()
        self._lines.join(tenant_id, place, now=loop.time())
        self._hand_out()
        try:
            return await place
        except BaseException:
            if place.done() and not place.cancelled() and place.exception() is None:
                # It came in the very moment in which the caller gave up.
                self.give_back(place.result())
            else:
                self._lines.leave(tenant_id, place, now=loop.time())
            raise

    def give_back(self, child: "Child") -> None:
        """Say that a taken child has nothing to do any more. It is kept for the next attempt, or ended."""
        self._lines.end(self._holders.pop(child), now=asyncio.get_running_loop().time())
        if child.runs < _RUNS_MAX and child.peak_bytes <= self._retire_above_bytes:
            self._keep(child)
        else:
            child.retire()
        self._hand_out()

    async def close(self) -> None:
        """End every child, by force those that don't end themselves within a second."""
        self._is_closed = True
        for start in self._starts:
            start.cancel()
        for child in self._idle:
            child.retire()
        self._idle.clear()
        gone = [child.exited for child in self._alive]
        if gone:
            await asyncio.wait(gone, timeout=TERMINATE_SECONDS)
        for child in list(self._alive):
            child.kill_now()
        gone = [child.exited for child in self._alive]
        if gone:
            await asyncio.wait(gone, timeout=TERMINATE_SECONDS)

    def _keep(self, child: "Child") -> None:
        if child.is_usable and not self._is_closed and (len(self._lines) or len(self._idle) < self._idle_max):
            self._idle.append(child)
            child.rest(_IDLE_SECONDS, self._retire)
        else:
            child.retire()

    def _hand_out(self) -> None:
        """Idle children go to those who wait, as the tenants' turns are; what is missing is started."""
        while len(self._holders) < self._running_max and (first := self._first()) is not None:
            child = self._take_idle()
            if child is None:
                break
            tenant_id, place = first
            self._lines.start(tenant_id)
            self._holders[child] = tenant_id
            place.set_result(child)
        missing = min(len(self._lines), self._running_max - len(self._holders))
        while not self._is_closed and len(self._starts) < min(missing, self._starting_max):
            start = asyncio.get_running_loop().create_task(self._add(), name="start_child")
            self._starts.add(start)
            start.add_done_callback(self._has_started)

    def _first(self) -> "tuple[UUID, asyncio.Future[Child]] | None":
        """Whose turn it is, of those who haven't given up."""
        while (first := self._lines.first()) is not None and first[1].done():
            self._lines.leave(*first, now=asyncio.get_running_loop().time())
        return first

    def _take_idle(self) -> "Child | None":
        while self._idle:
            child = self._idle.pop()
            if child.is_usable:
                child.wake()
                return child
        return None

    def _has_started(self, start: "asyncio.Task[None]") -> None:
        self._starts.discard(start)
        self._hand_out()

    async def _add(self) -> None:
        """One child more; whoever is next learns it when there can't be one."""
        child: Child | None = None
        try:
            async with asyncio.timeout(_START_SECONDS):
                child = await self._starter.start()
                self._count(child)
                await child.ready
        except Exception as error:  # noqa: BLE001 - if nobody learns of it, the next start follows at once
            if child is not None:
                child.kill_now()
            log.warning("child_not_started", reason=str(error) or type(error).__name__)
            if (first := self._first()) is not None:
                tenant_id, place = first
                # That was its turn: the next failure is another tenant's.
                self._lines.start(tenant_id)
                self._lines.end(tenant_id, now=asyncio.get_running_loop().time())
                place.set_exception(ChildNotStartedError(str(error) or type(error).__name__))
        except BaseException:
            if child is not None:
                child.kill_now()
            raise
        else:
            self._keep(child)

    def _count(self, child: "Child") -> None:
        self._alive.add(child)
        child.exited.add_done_callback(lambda _: self._alive.discard(child))

    def _retire(self, child: "Child") -> None:
        if child in self._idle:
            self._idle.remove(child)
        child.retire()
