"""Slots: long-lived tasks that run one attempt after another.

A task per job would cost more than an echo does. The pool grows to its size on demand; a slot whose sync handler was
given up stays taken until the thread returns.
"""

import asyncio
import time
from collections.abc import Callable

import structlog

from barnabas.runtime import metrics
from barnabas.sdk.running import Run
from barnabas_worker.deadlines import Deadlines
from barnabas_worker.holdings import Held

log = structlog.get_logger(__name__)


STUCK_SHARE_MAX = 0.25
"""Above this share of slots held by threads that won't return, a new process is worth more than what is left."""


class Slots:
    """`size` attempts at once.

    On the loop, `on_end(held, run, seconds)` is called when an attempt is over, and `on_too_many_stuck` when more than
    a quarter of the slots belong to threads that went on after theirs.
    """

    def __init__(
        self,
        size: int,
        group: asyncio.TaskGroup,
        deadlines: Deadlines,
        *,
        on_end: Callable[[Held, Run, float], None],
        on_too_many_stuck: Callable[[], None],
    ) -> None:
        self.size = size
        self._on_too_many_stuck = on_too_many_stuck
        self._group = group
        self._deadlines = deadlines
        self._on_end = on_end
        self._idle: list[asyncio.Future[Held]] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self.stuck = 0
        """Slots whose attempt has ended and whose thread has not."""
        self._busy = 0
        metrics.slots_total.set(size)
        # Read when somebody looks: setting it twice a job costs more than the job's place in a heap.
        metrics.slots_busy.set_function(lambda: self._busy)

    @property
    def busy(self) -> int:
        """Slots that are taken."""
        return self._busy

    @property
    def free(self) -> int:
        """Attempts that may be started now."""
        return self.size - self._busy

    def start(self, held: Held) -> None:
        """Run it now; the caller has claimed for free slots only."""
        self._busy += 1
        while self._idle:
            waiting = self._idle.pop()
            if not waiting.done():
                waiting.set_result(held)
                return
        task = self._group.create_task(self._work(held), name="slot")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def close(self) -> None:
        """End the slots; what still runs in them is dropped by the caller."""
        for task in self._tasks:
            task.cancel()

    async def _work(self, held: Held) -> None:
        loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        while True:
            started = time.monotonic()
            due = self._deadlines.add(held.deadline, held.attempt)
            run = await held.attempt.run(task)
            held.ended, due.attempt = True, None
            self._on_end(held, run, time.monotonic() - started)
            if run.still_running is not None:
                # The thread can't be ended: its slot comes back when it does.
                self.stuck += 1
                log.warning("thread_still_running", job_type=held.handler.type, stuck=self.stuck)
                if self.stuck > self.size * STUCK_SHARE_MAX:
                    self._on_too_many_stuck()
                await asyncio.wait([asyncio.wrap_future(run.still_running)])
                self.stuck -= 1
            self._busy -= 1
            waiting: asyncio.Future[Held] = loop.create_future()
            self._idle.append(waiting)
            # An idle slot keeps nothing of what it has run, whose payload may be a megabyte.
            del held, run
            held = await waiting
