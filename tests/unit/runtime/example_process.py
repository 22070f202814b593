"""The smallest service, run by `test_process` as a process of its own."""

import asyncio
import sys
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog

from barnabas.runtime import service as skeleton
from barnabas.runtime.service import Service, main
from barnabas.runtime.settings import ServiceSettings
from barnabas.runtime.stop import Stop

log = structlog.get_logger(__name__)


@asynccontextmanager
async def nothing(_settings: ServiceSettings) -> AsyncIterator[None]:
    yield None


async def good(_resources: None, stop: Stop) -> None:
    await stop.requested()
    log.info("finished_what_it_held")


async def slow_drain(_resources: None, stop: Stop) -> None:
    await stop.requested()
    # It holds something until whoever started it says a word.
    await asyncio.to_thread(sys.stdin.readline)
    log.info("finished_what_it_held")


async def broken(_resources: None, _stop: Stop) -> None:
    raise KeyError("our own mistake")


async def blocking(_resources: None, stop: Stop) -> None:
    await asyncio.sleep(0)
    log.info("standing_still")
    time.sleep(600)  # noqa: ASYNC251 - what a careless handler does
    await stop.requested()


async def stuck_thread(_resources: None, stop: Stop) -> None:
    stuck = asyncio.get_running_loop().run_in_executor(None, threading.Event().wait)
    await stop.requested()
    stuck.cancel()


LOOPS = {loop.__name__: loop for loop in (good, slow_drain, broken, blocking, stuck_thread)}

if __name__ == "__main__":
    if sys.argv[1] == "stuck_thread":
        # The real limit is for real work; waiting for it is not what is tested.
        skeleton._CLOSE_LIMIT_SECONDS = 0.3
    main(Service("example", ServiceSettings, nothing, (LOOPS[sys.argv[1]],), stalled_seconds=0.5))
