"""All deadlines of a worker in one heap, with one timer for the next of them."""

import asyncio
import heapq
import itertools
import time

from barnabas.sdk.running import Interruption
from barnabas_worker.holdings import Held


class Deadlines:
    """Interrupts attempts that run past their deadline; those that ended before are simply passed over."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._heap: list[tuple[float, int, Held]] = []
        self._order = itertools.count()
        self._timer: asyncio.TimerHandle | None = None

    def add(self, deadline: float, held: Held) -> None:
        """`deadline` is by the event loop's clock."""
        heapq.heappush(self._heap, (deadline, next(self._order), held))
        if self._timer is None or deadline < self._timer.when():
            self._arm()
        # Ended attempts leave the heap by their deadline only; a flood of short ones is swept out before it matters.
        if len(self._heap) > 20_000:
            self._heap = [entry for entry in self._heap if not entry[2].ended]
            heapq.heapify(self._heap)

    def longest(self) -> float:
        """Seconds until the latest deadline of what runs; 0 when nothing does."""
        # Asked for by the heartbeat's thread: the heap is copied in one step, and the clock is the same as the loop's.
        latest = max((deadline for deadline, _, held in list(self._heap) if not held.ended), default=0.0)
        return max(0.0, latest - time.monotonic())

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._heap and self._heap[0][2].ended:
            heapq.heappop(self._heap)
        if self._heap:
            self._timer = self._loop.call_at(self._heap[0][0], self._fire)

    def _fire(self) -> None:
        self._timer = None
        now = self._loop.time()
        while self._heap and self._heap[0][0] <= now:
            _, _, held = heapq.heappop(self._heap)
            if not held.ended:
                held.attempt.interrupt(Interruption.TIMEOUT)
        self._arm()
