"""The life of a process, in this process: start, drain, failures. Signals and exit codes: `test_process`."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import aiohttp
from structlog.testing import capture_logs

from barnabas.runtime.service import EXIT_FAILED, EXIT_STOPPED, Loop, Service, serve
from barnabas.runtime.settings import ServiceSettings, load
from barnabas.runtime.stop import Stop
from tests.support.eventually import eventually

ENVIRON = {"BARNABAS_KAFKA": "k", "BARNABAS_POSTGRES": "p"}
Trace = list[str]


def settings(**changes: str) -> ServiceSettings:
    return load(ServiceSettings, ENVIRON | {f"BARNABAS_{name.upper()}": value for name, value in changes.items()})


@asynccontextmanager
async def traced(_settings: ServiceSettings) -> AsyncIterator[Trace]:
    trace: Trace = ["opened"]
    TRACES.append(trace)
    try:
        yield trace
    finally:
        trace.append("closed")


TRACES: list[Trace] = []


def service(
    *loops: Loop[Trace],
    resources: Callable[[ServiceSettings], AbstractAsyncContextManager[Trace]] = traced,
    unready: Callable[[Trace], list[str]] = lambda _: [],
) -> Service[ServiceSettings, Trace]:
    return Service("test", ServiceSettings, resources, loops, unready=unready)


async def until_stopped(trace: Trace, stop: Stop) -> None:
    await stop.requested()
    trace.append("drained")


async def run(what: Service[ServiceSettings, Trace], stop: Stop, **changes: str) -> tuple[int, Trace]:
    async with asyncio.timeout(60):
        code = await serve(what, settings(**changes), stop)
    return code, TRACES.pop() if TRACES else []


async def test_a_stop_lets_every_loop_finish_and_then_closes_the_resources() -> None:
    async def stop_it(_trace: Trace, stop: Stop) -> None:
        stop.set()
        stop.set()

    code, trace = await run(service(until_stopped, stop_it, until_stopped), Stop())

    assert code == EXIT_STOPPED
    assert trace == ["opened", "drained", "drained", "closed"]


async def test_a_loop_that_raises_ends_the_process_and_cancels_the_others() -> None:
    async def forever(trace: Trace, _stop: Stop) -> None:
        try:
            await asyncio.sleep(3_600)
        except asyncio.CancelledError:
            trace.append("cancelled")
            raise

    async def broken(_trace: Trace, _stop: Stop) -> None:
        raise KeyError("our own mistake")

    with capture_logs() as logged:
        code, trace = await run(service(forever, broken), Stop())

    assert code == EXIT_FAILED
    assert trace == ["opened", "cancelled", "closed"]
    assert [(line["event"], line["loop"]) for line in logged if line["log_level"] == "error"] == [
        ("loop_failed", "broken")
    ]


async def test_a_loop_that_returns_without_the_stop_ends_the_process() -> None:
    async def early(_trace: Trace, _stop: Stop) -> None:
        return

    with capture_logs() as logged:
        code, _ = await run(service(until_stopped, early), Stop())

    assert code == EXIT_FAILED
    assert [line["code"] for line in logged if line["log_level"] == "error"] == ["loop_ended"]


async def test_a_loop_that_something_inside_it_cancelled_ends_the_process() -> None:
    async def cancelled_inside(_trace: Trace, _stop: Stop) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        future.cancel()
        await future

    code, trace = await run(service(until_stopped, cancelled_inside), Stop())

    assert code == EXIT_FAILED
    assert trace[-1] == "closed"


async def test_after_the_drain_deadline_the_rest_is_cancelled() -> None:
    async def late(trace: Trace, stop: Stop) -> None:
        stop.set()
        try:
            await asyncio.sleep(3_600)
        finally:
            trace.append("cancelled")

    with capture_logs() as logged:
        code, trace = await run(service(until_stopped, late), Stop(), drain_seconds="0.05")

    assert code == EXIT_STOPPED
    assert trace == ["opened", "drained", "cancelled", "closed"]
    assert [line["loops"] for line in logged if line["event"] == "drain_deadline_passed"] == [["late"]]


async def test_a_loop_that_fails_while_draining_costs_the_others_nothing() -> None:
    failed = asyncio.Event()

    async def breaks_at_the_end(_trace: Trace, stop: Stop) -> None:
        stop.set()
        failed.set()
        raise KeyError("too late")

    async def finishes(trace: Trace, stop: Stop) -> None:
        await stop.requested()
        await failed.wait()
        await asyncio.sleep(0)
        trace.append("finished")

    code, trace = await run(service(finishes, breaks_at_the_end), Stop())

    assert code == EXIT_FAILED
    assert trace == ["opened", "finished", "closed"]


async def test_resources_that_cannot_be_opened_end_the_process() -> None:
    @asynccontextmanager
    async def failing(_settings: ServiceSettings) -> AsyncIterator[Trace]:
        if _settings.ops_port == 0:
            raise OSError("no such server")
        yield []

    with capture_logs() as logged:
        code, _ = await run(service(until_stopped, resources=failing), Stop())

    assert code == EXIT_FAILED
    assert [line["event"] for line in logged if line["log_level"] == "error"] == ["service_failed"]


async def test_a_stop_while_resources_are_being_opened_ends_the_process_at_once() -> None:
    stop = Stop()

    @asynccontextmanager
    async def never(_settings: ServiceSettings) -> AsyncIterator[Trace]:
        stop.set()
        await asyncio.sleep(3_600)
        yield []

    code, _ = await run(service(until_stopped, resources=never), stop)

    assert code == EXIT_STOPPED


async def test_a_taken_ops_port_ends_the_process_before_anything_is_opened() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        code, trace = await run(service(until_stopped), Stop(), ops_port=str(taken.getsockname()[1]))

    assert code == EXIT_FAILED
    assert trace == []


async def test_the_ops_port_tells_what_the_process_is_doing() -> None:
    reasons: list[str] = []

    async def watch(_trace: Trace, stop: Stop) -> None:
        port = next(line["port"] for line in logged if line["event"] == "ops_port_opened")
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as http:

            async def says(status: int, because: list[str]) -> None:
                # While this machine stands still, that is a reason of its own.
                await eventually(look, until=lambda seen: seen == (status, because))

            async def look() -> tuple[int, list[str]]:
                async with http.get("/readyz") as answer:
                    return answer.status, (await answer.json())["reasons"]

            await says(200, [])
            reasons.append("Postgres is away")
            await says(503, ["Postgres is away"])
            reasons.clear()
            async with http.get("/livez") as answer:
                assert answer.status == 200
            async with http.get("/metrics") as answer:
                assert "barnabas_ready 1.0" in await answer.text()
            stop.set()
            # The supervisor turns to draining on its next step, before this loop goes on.
            await asyncio.sleep(0)
            assert await look() == (503, ["draining"])

    with capture_logs() as logged:
        code, _ = await run(service(watch, unready=lambda _: list(reasons)), Stop())

    assert code == EXIT_STOPPED
