"""The simulation's event loop: virtual time, one heap, and processes that can be killed and paused at any step.

What asyncio would do in real time happens here at once and always in the same order: the services' own tasks, timers
and events run on it unchanged. Each callback carries its context, and the context says whose process it belongs to: a
killed process' callbacks are dropped, without any clean-up, and those of a paused one wait until it goes on.
"""

import asyncio
import contextvars
from collections import deque
from collections.abc import Callable, Coroutine
from heapq import heappop, heappush
from typing import Any, TypeVar

T = TypeVar("T")

STARTED_AT = 1_000.0
"""The first moment. Not zero, so that nothing is taken for the beginning of time."""

# A run that makes so many steps goes round in circles.
_STEPS_MAX = 2_000_000


class Process:
    """One incarnation of a process of the simulated machine."""

    def __init__(self, name: str, pid: int) -> None:
        self.name = name
        self.pid = pid
        self.alive = True
        self.paused = False
        self.waiting: list[_Handle] = []
        """Callbacks that wait for the end of a pause."""

    def __repr__(self) -> str:
        return f"{self.name}#{self.pid}"


PROCESS: contextvars.ContextVar[Process | None] = contextvars.ContextVar("PROCESS", default=None)


class EndlessRunError(Exception):
    """The run doesn't come to an end."""


class ProcessKilledError(BaseException):
    """Ends the code that runs in a process which was killed a moment ago."""


class _Handle:
    """A callback that is due, or a timer."""

    __slots__ = ("_args", "_callback", "_when", "context", "dropped")

    def __init__(
        self, callback: Callable[..., object], args: tuple[Any, ...], context: contextvars.Context, when: float
    ) -> None:
        self._callback = callback
        self._args = args
        self._when = when
        self.context = context
        self.dropped = False

    def cancel(self) -> None:
        self.dropped = True

    def cancelled(self) -> bool:
        return self.dropped

    def when(self) -> float:
        return self._when

    def run(self) -> None:
        self.context.run(self._callback, *self._args)


class VirtualLoop(asyncio.AbstractEventLoop):
    """As much of an event loop as asyncio's tasks, futures, events and time-outs ask for."""

    def __init__(self) -> None:
        self.now = STARTED_AT
        self.steps = 0
        self.errors: list[str] = []
        """What escaped from somewhere: each is a mistake of the product or of the simulator."""
        self.tasks: list[asyncio.Task[Any]] = []
        """All of them, so that none ends before its time because nobody remembers it."""
        self._ready: deque[_Handle] = deque()
        self._timers: list[tuple[float, int, _Handle]] = []
        self._number = 0
        self._free = contextvars.Context()

    # What asyncio calls.

    def time(self) -> float:
        return self.now

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return False

    def call_soon(  # type: ignore[override]  # asyncio's handles can do more than anybody asks of them
        self, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> _Handle:
        handle = _Handle(callback, args, contextvars.copy_context() if context is None else context, self.now)
        self._ready.append(handle)
        return handle

    call_soon_threadsafe = call_soon  # type: ignore[assignment]  # there is one thread

    def call_later(  # type: ignore[override]  # as above
        self, delay: float, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> _Handle:
        return self.call_at(self.now + delay, callback, *args, context=context)

    def call_at(  # type: ignore[override]  # as above
        self, when: float, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> _Handle:
        handle = _Handle(callback, args, contextvars.copy_context() if context is None else context, when)
        self._number += 1
        heappush(self._timers, (when, self._number, handle))
        return handle

    def create_future(self) -> "asyncio.Future[Any]":
        return asyncio.Future(loop=self)

    def create_task(  # type: ignore[override]  # a coroutine is all that is ever given
        self, coro: Coroutine[Any, Any, T], *, name: str | None = None, context: contextvars.Context | None = None
    ) -> "asyncio.Task[T]":
        task = asyncio.Task(coro, loop=self, name=name, context=context)
        self.tasks.append(task)
        return task

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        self.errors.append(f"{context.get('message')}: {context.get('exception')!r}")

    # What the simulation calls.

    def outside(self, callback: Callable[..., object], *args: Any, delay: float = 0.0) -> _Handle:
        """Call something that belongs to no process: it happens whoever is dead or paused."""
        return self.call_later(delay, callback, *args, context=self._free.copy())

    def spawn(self, coroutine: Coroutine[Any, Any, T], process: Process | None = None) -> "asyncio.Task[T]":
        """Start a task that belongs to a process, or to none."""
        context = self._free.copy()
        context.run(PROCESS.set, process)
        task = self.create_task(coroutine, context=context)
        task.add_done_callback(self._note_failure, context=context)
        return task

    async def sleep(self, seconds: float) -> None:
        """As asyncio's own, which asks for the running loop each time; most of what happens here is a short rest."""
        future: asyncio.Future[None] = asyncio.Future(loop=self)
        self.call_at(self.now + seconds, _wake, future)
        await future

    def kill(self, process: Process) -> None:
        """Nothing of it ever happens again."""
        process.alive = False
        process.waiting.clear()

    def pause(self, process: Process) -> None:
        """Nothing of it happens until it goes on."""
        process.paused = True

    def go_on(self, process: Process) -> None:
        """What was due meanwhile happens now, in its order."""
        if process.paused:
            process.paused = False
            self._ready.extend(process.waiting)
            process.waiting = []

    def run(self, until: float, *, done: Callable[[], bool] | None = None) -> None:
        """Let time pass until then, or until `done` says so after a step."""
        ready, timers = self._ready, self._timers
        while True:
            while ready:
                self._step(ready.popleft())
                if done is not None and done():
                    return
            if not timers or timers[0][0] > until:
                self.now = max(self.now, until)
                return
            when, _, handle = heappop(timers)
            if not handle.dropped:
                self.now = max(self.now, when)
                ready.append(handle)

    def close(self) -> None:
        """End what is left of the tasks, so that nothing of this run is left for the next."""
        self._ready.clear()
        self._timers.clear()
        for task in self.tasks:
            if not task.done():
                # Nobody waits for it: that it was never finished is no news.
                task._log_destroy_pending = False  # type: ignore[attr-defined]
                try:
                    task.get_coro().close()
                except BaseException:  # noqa: BLE001 - it would await something on its way out; there is no time left
                    pass
        self.tasks.clear()

    def _note_failure(self, task: "asyncio.Task[Any]") -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, ProcessKilledError):
            self.errors.append(f"{PROCESS.get()}: {error!r}")

    def _step(self, handle: _Handle) -> None:
        if handle.dropped:
            return
        process = handle.context.get(PROCESS)
        if process is not None:
            if not process.alive:
                return
            if process.paused:
                process.waiting.append(handle)
                return
        self.steps += 1
        if self.steps > _STEPS_MAX:
            raise EndlessRunError(f"{_STEPS_MAX} steps by {self.now - STARTED_AT:.3f} s")
        try:
            handle.run()
        except ProcessKilledError:
            return
        except Exception as error:  # noqa: BLE001 - told with the run's verdict
            self.errors.append(f"{process}: {error!r}")


def _wake(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)
