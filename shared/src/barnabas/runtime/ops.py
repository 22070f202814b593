"""The ops port of every process: `/livez`, `/readyz`, `/metrics`.

It answers from a thread with a loop of its own, so that a step that holds the main loop can't hide what the process is
doing just then. It asks for no credentials and shows no data of tenants.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future

import structlog
from aiohttp import web

from barnabas.runtime import metrics
from barnabas.runtime.stop import Stop

log = structlog.get_logger(__name__)

_SAMPLE_SECONDS = 1.0
_START_LIMIT_SECONDS = 10.0
# A loop that hasn't turned for this long takes no new work, whatever it is doing.
_UNREADY_AFTER_SECONDS = 5.0

_CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Health:
    """What `/livez` and `/readyz` say. Written by the main thread, read by the ops thread: single plain fields only."""

    __slots__ = ("_beat_at", "_phase", "_reasons", "_stalled_seconds")

    def __init__(self, *, stalled_seconds: float) -> None:
        self._phase = "starting"
        self._beat_at = time.monotonic()
        self._reasons: Callable[[], Iterable[str]] = tuple
        self._stalled_seconds = stalled_seconds

    def started(self, reasons: Callable[[], Iterable[str]]) -> None:
        """The resources are open: from now on the process is ready unless `reasons` names why it isn't."""
        self._reasons = reasons
        self._phase = "running"
        metrics.ready.set(1)

    def draining(self) -> None:
        """The process takes no new work from here on."""
        self._phase = "draining"
        metrics.ready.set(0)

    def beat(self) -> None:
        """The main loop has turned."""
        self._beat_at = time.monotonic()

    @property
    def loop_silent_seconds(self) -> float:
        """How long ago the main loop last turned."""
        return time.monotonic() - self._beat_at

    @property
    def is_live(self) -> bool:
        """False when the main loop has stood still for longer than any of its work may take."""
        return self.loop_silent_seconds < self._stalled_seconds

    def unready_because(self) -> list[str]:
        """Why the process is not ready; empty when it is."""
        if self._phase != "running":
            return [self._phase]
        reasons = list(self._reasons())
        if self.loop_silent_seconds > _UNREADY_AFTER_SECONDS:
            reasons.append(f"the event loop has not turned for {self.loop_silent_seconds:.1f} s")
        return reasons


class OpsPort:
    """The server and its thread."""

    def __init__(self, health: Health, *, host: str, port: int) -> None:
        self._health = health
        self._host = host
        self._wanted_port = port
        self._loop = asyncio.new_event_loop()
        self._opened: Future[int] = Future()
        self._thread = threading.Thread(target=self._serve, name="ops-port", daemon=True)
        self.port = port
        """The port in use once `open` has returned."""

    async def open(self) -> None:
        """Listen; raises `OSError` when the port is taken."""
        self._thread.start()
        async with asyncio.timeout(_START_LIMIT_SECONDS):
            self.port = await asyncio.wrap_future(self._opened)
        log.info("ops_port_opened", host=self._host, port=self.port)

    async def close(self) -> None:
        """Stop listening; open requests have a second to end."""
        if self._opened.done() and self._opened.exception() is None:
            self._loop.call_soon_threadsafe(self._loop.stop)
        await asyncio.to_thread(self._thread.join, _START_LIMIT_SECONDS)

    def _serve(self) -> None:
        try:
            runner = self._loop.run_until_complete(self._listen())
        except BaseException as error:  # noqa: BLE001 - handed to the thread that waits in `open`
            self._opened.set_exception(error)
            self._loop.close()
            return
        self._opened.set_result(int(runner.addresses[0][1]))
        try:
            self._loop.run_forever()
        finally:
            self._loop.run_until_complete(runner.cleanup())
            self._loop.close()

    async def _listen(self) -> web.AppRunner:
        app = web.Application()
        app.router.add_get("/livez", self._livez)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/metrics", self._metrics)
        runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=1.0)
        await runner.setup()
        try:
            await web.TCPSite(runner, self._host, self._wanted_port).start()
        except BaseException:
            await runner.cleanup()
            raise
        return runner

    async def _livez(self, _request: web.Request) -> web.Response:
        silent = self._health.loop_silent_seconds
        body = {"live": self._health.is_live, "loop_silent_seconds": round(silent, 3)}
        return web.json_response(body, status=200 if self._health.is_live else 503)

    async def _readyz(self, _request: web.Request) -> web.Response:
        reasons = self._health.unready_because()
        return web.json_response({"ready": not reasons, "reasons": reasons}, status=503 if reasons else 200)

    async def _metrics(self, _request: web.Request) -> web.Response:
        return web.Response(body=metrics.exposition(), headers={"Content-Type": _CONTENT_TYPE})


async def sample_loop_lag(health: Health, stop: Stop) -> None:
    """Measure how late the main loop turns, until the stop."""
    while True:
        expected = time.monotonic() + _SAMPLE_SECONDS
        stopping = await stop.wait(_SAMPLE_SECONDS)
        if stopping:
            return
        metrics.loop_lag_seconds.observe(max(0.0, time.monotonic() - expected))
        health.beat()
