"""All deadlines of a worker in one heap, with one timer for the next of them."""

import asyncio
import heapq
import itertools
import time

import msgspec

from barnabas.sdk.running import Interruption
from barnabas_worker.holdings import Running


class Due(msgspec.Struct, eq=False):
    """An attempt's place among the deadlines."""

    attempt: Running | None
    """None once it has ended: with its payload it may be a megabyte, and its deadline an hour away."""


class Deadlines:
    """Interrupts attempts that run past their deadline; those that ended before are simply passed over."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._heap: list[tuple[float, int, Due]] = []
        self._order = itertools.count()
        self._timer: asyncio.TimerHandle | None = None

    def add(self, deadline: float, attempt: Running) -> Due:
        """`deadline` is by the event loop's clock; whoever sees the attempt end takes it out of what is returned."""
        due = Due(attempt)
        heapq.heappush(self._heap, (deadline, next(self._order), due))
        if self._timer is None or deadline < self._timer.when():
            self._arm()
        # Places leave the heap by their deadline only; a flood of short attempts is swept out before it matters.
        if len(self._heap) > 20_000:
            self._heap = [entry for entry in self._heap if entry[2].attempt is not None]
            heapq.heapify(self._heap)
        return due

    def longest(self) -> float:
        """Seconds until the latest deadline of what runs; 0 when nothing does."""
        # Asked for by the heartbeat's thread: the heap is copied in one step, and the clock is the same as the loop's.
        latest = max((deadline for deadline, _, due in list(self._heap) if due.attempt is not None), default=0.0)
        return max(0.0, latest - time.monotonic())

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._heap and self._heap[0][2].attempt is None:
            heapq.heappop(self._heap)
        if self._heap:
            self._timer = self._loop.call_at(self._heap[0][0], self._fire)

    def _fire(self) -> None:
        self._timer = None
        now = self._loop.time()
        while self._heap and self._heap[0][0] <= now:
            _, _, due = heapq.heappop(self._heap)
            if due.attempt is not None:
                due.attempt.interrupt(Interruption.TIMEOUT)
        self._arm()
