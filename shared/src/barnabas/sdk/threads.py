"""Threads for sync handlers: an executor whose threads never hold up the end of the process.

A handler that hangs can't be killed in its thread. The standard pool joins its threads when the interpreter ends, so
one such handler would keep a drained worker alive for ever; these are daemon threads and die with the process.
"""

import contextvars
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class HandlerThreads(Executor):
    """At most `threads_max` daemon threads, started as they are needed.

    Work beyond that waits in line; the worker never hands in more than it has slots.
    """

    def __init__(self, threads_max: int) -> None:
        assert threads_max >= 1, "an executor without threads runs nothing"
        self._threads_max = threads_max
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._idle = threading.Semaphore(0)
        self._lock = threading.Lock()
        self._started = 0
        self._closed = False

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Run `fn` in a thread, with the context variables of the caller."""
        future: Future[T] = Future()
        context = contextvars.copy_context()

        def work() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                result = context.run(fn, *args, **kwargs)
            # Whatever it is belongs to the caller, who gets it from the future.
            except BaseException as error:  # noqa: BLE001
                future.set_exception(error)
            else:
                future.set_result(result)

        with self._lock:
            if self._closed:
                raise RuntimeError("the handler threads are closed")
            self._work.put(work)
            if not self._idle.acquire(blocking=False) and self._started < self._threads_max:
                self._started += 1
                threading.Thread(target=self._run, name=f"handler-{self._started}", daemon=True).start()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more work. Never waits, whatever `wait` says: a hung handler would make that for ever."""
        with self._lock:
            self._closed = True
            for _ in range(self._started):
                self._work.put(None)

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            work()
            # A cycle through the last job's frame would keep its payload alive while the thread is idle.
            del work
            self._idle.release()
