"""The skeleton of the four processes: settings, resources, loops, drain.

A process starts completely or not at all, tells the orchestrator when it is ready, and ends in one of three ways: 0
after a stop, 1 when a loop failed, 2 when its settings were refused. A loop that raises, or returns without the stop,
ends the process: the orchestrator restarts it; nothing limps.
"""

import asyncio
import gc
import os
import signal
import sys
import threading
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass
from typing import Generic, NoReturn, TypeVar

import structlog
import uvloop

from barnabas.errors import BarnabasError, SettingsError
from barnabas.runtime import logs
from barnabas.runtime.ops import Health, OpsPort, sample_loop_lag
from barnabas.runtime.settings import ServiceSettings, load
from barnabas.runtime.stop import Stop

log = structlog.get_logger(__name__)

S = TypeVar("S", bound=ServiceSettings)
R = TypeVar("R")
Loop = Callable[[R, Stop], Awaitable[None]]

EXIT_STOPPED = 0
EXIT_FAILED = 1
EXIT_BAD_SETTINGS = 2

# What is left after the drain (cancelled loops, closing connections, a thread that won't end) may take this long.
_CLOSE_LIMIT_SECONDS = 15.0


def _always_ready(_resources: object) -> Iterable[str]:
    return ()


def _no_last_resort(_seconds: float, _code: int) -> None:
    """For tests that run a service inside their own process."""


@dataclass(frozen=True, slots=True)
class Service(Generic[S, R]):
    """One kind of process.

    `loops` run together from ready to stop, each `async (resources, stop) -> None`. `unready` names why the process
    should get no work just now (a dependency that is away); it is called from the ops thread and may only read plain
    fields. `stalled_seconds` is how long the main loop may stand still before `/livez` says so.
    """

    name: str
    settings: type[S]
    resources: Callable[[S], AbstractAsyncContextManager[R]]
    loops: tuple[Loop[R], ...]
    unready: Callable[[R], Iterable[str]] = _always_ready
    stalled_seconds: float = 60.0


class LoopEndedError(BarnabasError):
    """A loop returned although nobody had asked it to stop."""

    code = "loop_ended"


def main(service: Service[S, R]) -> NoReturn:
    """Run the process and exit with its code."""
    sys.exit(run(service))


def run(service: Service[S, R], environ: Mapping[str, str] | None = None) -> int:
    """Run until SIGTERM or SIGINT, or until a loop fails; returns the exit code."""
    try:
        settings = load(service.settings, os.environ if environ is None else environ)
    except SettingsError as error:
        for line in str(error).splitlines():
            sys.stderr.write(f"barnabas {service.name}: {line}\n")
        return EXIT_BAD_SETTINGS
    logs.configure(service=service.name, level=settings.log_level, form=settings.log_format)
    # Kafka's thread, the ops port and the lease keeper share the interpreter with the loop; by default each waits 5 ms.
    sys.setswitchinterval(0.001)
    # Batches hold thousands of rows and records, hardly ever in a cycle: looking for one each 700 objects took ingest
    # 1 us a job (of 13), and each 10,000 takes it next to nothing.
    gc.set_threshold(10_000)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_serve_until_signalled(service, settings))


async def _serve_until_signalled(service: Service[S, R], settings: S) -> int:
    stop = Stop()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _stop_on_signal, number, stop)
    code = await serve(service, settings, stop, last_resort=_exit_after)
    # Closing the runner joins the threads of the default executor, and that has no limit of its own.
    _exit_after(_CLOSE_LIMIT_SECONDS, code)
    return code


def _stop_on_signal(number: signal.Signals, stop: Stop) -> None:
    # A second signal changes nothing: Ctrl-C reaches a whole process group, and its supervisor passes on its own.
    log.info("stop_requested", signal=number.name, again=stop.is_set())
    stop.set()


def _exit_after(seconds: float, code: int) -> None:
    """End the process with `code` if it still exists in `seconds`: a thread that never returns must not keep it."""

    def end() -> None:
        log.error("exit_forced", threads=[thread.name for thread in threading.enumerate()], exit_code=code)
        sys.stdout.flush()
        os._exit(code)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()


async def serve(
    service: Service[S, R],
    settings: S,
    stop: Stop,
    *,
    last_resort: Callable[[float, int], None] = _no_last_resort,
) -> int:
    """Open the ops port and the resources, run the loops until the stop, close in reverse; returns the exit code.

    `last_resort(seconds, code)` is told when the end has begun, so that it can force what doesn't come by itself.
    """
    health = Health(stalled_seconds=service.stalled_seconds)
    failures: list[str] = []
    try:
        async with AsyncExitStack() as open_things:
            ops = OpsPort(health, host=settings.ops_host, port=settings.ops_port)
            open_things.push_async_callback(ops.close)
            await ops.open()
            try:
                async with asyncio.timeout(None) as opening, _abandoned_on(stop, opening):
                    resources = await open_things.enter_async_context(service.resources(settings))
            except TimeoutError:
                if not opening.expired():
                    raise
                log.info("service_stopped_before_it_was_ready")
                return EXIT_STOPPED
            await _run_loops(service, resources, settings, health, stop, failures, last_resort)
    except Exception as error:
        health.draining()
        if not failures:
            log.exception("service_failed", code=getattr(error, "code", "internal"))
        return EXIT_FAILED
    log.info("service_stopped", failed_loops=failures)
    return EXIT_FAILED if failures else EXIT_STOPPED


class _abandoned_on:  # noqa: N801 - reads as the clause it is
    """Ends the opening of resources when the stop comes first: a server that is away must not hold up an exit."""

    def __init__(self, stop: Stop, opening: asyncio.Timeout) -> None:
        self._stop = stop
        self._opening = opening

    async def __aenter__(self) -> None:
        self._watcher = asyncio.create_task(self._watch(), name="abandon_opening_on_stop")

    async def __aexit__(self, *_: object) -> None:
        self._watcher.cancel()

    async def _watch(self) -> None:
        await self._stop.requested()
        self._opening.reschedule(0)


async def _run_loops(
    service: Service[S, R],
    resources: R,
    settings: S,
    health: Health,
    stop: Stop,
    failures: list[str],
    last_resort: Callable[[float, int], None],
) -> None:
    """Run every loop until the stop, then drain. `failures` receives the names of loops that failed."""

    async def guarded(loop: Loop[R]) -> None:
        try:
            await _run_loop(loop, resources, stop)
        except Exception as error:
            log.exception("loop_failed", loop=_name_of(loop), code=getattr(error, "code", "internal"))
            failures.append(_name_of(loop))
            # During the drain one loop's failure must not cost the others what they still hold.
            if not stop.is_set():
                last_resort(_CLOSE_LIMIT_SECONDS, EXIT_FAILED)
                raise

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(guarded(loop), name=_name_of(loop)) for loop in service.loops]
        sampler = group.create_task(sample_loop_lag(health, stop), name="sample_loop_lag")
        health.started(lambda: service.unready(resources))
        log.info("service_ready", loops=[task.get_name() for task in tasks])
        await stop.requested()
        health.draining()
        last_resort(settings.drain_seconds + _CLOSE_LIMIT_SECONDS, EXIT_FAILED)
        _, late = await asyncio.wait([sampler, *tasks], timeout=settings.drain_seconds)
        if late:
            log.warning("drain_deadline_passed", loops=sorted(task.get_name() for task in late))
        for task in late:
            task.cancel()


async def _run_loop(loop: Loop[R], resources: R, stop: Stop) -> None:
    task = asyncio.current_task()
    try:
        await loop(resources, stop)
    except asyncio.CancelledError as error:
        if stop.is_set() or (task is not None and task.cancelling()):
            raise
        # Something that the loop awaited was cancelled, not the loop: a task group would take that for a quiet end.
        raise LoopEndedError(f"the loop {_name_of(loop)} was ended by a cancellation from inside") from error
    if not stop.is_set():
        raise LoopEndedError(f"the loop {_name_of(loop)} returned although nobody had asked it to stop")


def _name_of(loop: Loop[R]) -> str:
    return getattr(loop, "__name__", repr(loop))
