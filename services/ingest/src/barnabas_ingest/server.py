"""The public port: uvicorn inside this process' own loop, with the lanes and the waiters that its requests need.

On the stop it takes no more connections, lets requests end, and only then closes the lanes: a request that was taken in
is answered.
"""

import asyncio
import contextlib
import time
from collections.abc import Iterator

import structlog
import uvicorn

from barnabas.runtime.stop import Stop
from barnabas_ingest.app import Front
from barnabas_ingest.protocol import GuardedProtocol
from barnabas_ingest.resources import Resources

log = structlog.get_logger(__name__)

# Load balancers keep connections for a minute; whoever closes first should be they.
_KEEP_ALIVE_SECONDS = 65
_SWEEP_SECONDS = 1.0
# Left of the drain's time for the lanes, after the requests.
_LANES_SECONDS = 5.0


class _Server(uvicorn.Server):
    """uvicorn's server without its signal handlers: the process has its own."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ending = Stop()
        """Set together with `should_exit`."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone."""
        yield

    async def main_loop(self) -> None:
        """Write the date of answers once a second; uvicorn's own loop wakes ten times for that."""
        while not await self.on_tick(0):
            await self.ending.wait(1.0)


async def serve_http(resources: Resources, stop: Stop) -> None:
    """Answer requests until the stop, then let those in progress end."""
    drain_seconds = max(1.0, resources.settings.drain_seconds - _LANES_SECONDS)
    config = uvicorn.Config(
        Front(resources),
        http=GuardedProtocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=int(drain_seconds),
        # A proxy in front has no say in what is logged or answered here.
        proxy_headers=False,
    )
    server = _Server(config)
    async with asyncio.TaskGroup() as group:
        lanes = [group.create_task(lane.run(), name=lane.name) for lane in (resources.plain, resources.keyed)]
        group.create_task(resources.waits.run(stop), name="waits")
        serving = group.create_task(server.serve(sockets=[resources.listener]), name="uvicorn")
        log.info("http_port_opened", host=resources.settings.http_host, port=resources.http_port)
        sweep = Sweep(server, limit_seconds=resources.settings.request_seconds)
        while not await stop.wait(_SWEEP_SECONDS):
            sweep.once(time.monotonic())
            assert not serving.done(), "uvicorn ends at the stop only"
        server.should_exit = True
        server.ending.set()
        while not serving.done():
            sweep.once(time.monotonic())
            await asyncio.wait([serving], timeout=_SWEEP_SECONDS)
        resources.plain.close()
        resources.keyed.close()
        await asyncio.wait(lanes)
    if resources.producer.accepting:
        await resources.producer.flush(_LANES_SECONDS / 2)


class Sweep:
    """Ends connections that are too slow, unless it was this process that was."""

    def __init__(self, server: uvicorn.Server, *, limit_seconds: float) -> None:
        self._server = server
        self._limit_seconds = limit_seconds
        self._last = time.monotonic()

    def once(self, now: float) -> None:
        """Look at every connection. While the loop stood still nobody's bytes were read: that is excused."""
        stood_still = max(0.0, now - self._last - 2 * _SWEEP_SECONDS)
        self._last = now
        for connection in list(self._server.server_state.connections):
            if isinstance(connection, GuardedProtocol):
                connection.enforce(now, self._limit_seconds, excused_seconds=stood_still)
