"""Keeps ingest, notifier and retry-scheduler on the harness's servers for one phase.

It ends when it is told to, and when the harness has deleted the phase's folder: that is the sign that this peer is
done, and that the next one may not find anything of ours beside it.
"""

import asyncio
import os
import shutil
import signal
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from barnabas_local.paths import Home
from barnabas_local.services import ServiceProcess, plan_services
from barnabas_local.stack_file import Stack
from barnabas_local.supervisor import Options, held, supervise
from tests.bench.peers.barnabas.peer_state import OUT, tell

_LOOK_SECONDS = 0.5


async def _keep(home: Home) -> None:
    engine: dict[str, str] = {}

    def plan(**facts: Any) -> list[ServiceProcess]:
        engine["dsn"] = facts["logins"].engine_dsn
        return [service for service in plan_services(**facts) if service.kind != "worker"]

    def ready(stack: Stack) -> None:
        tell(api_url=stack.api_url, api_key=stack.api_key, kafka=stack.kafka, postgres=engine["dsn"])

    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    options = Options(
        home=home,
        port=0,
        kafka=os.environ["KAFKA"],
        postgres=urlunsplit(urlsplit(os.environ["DATABASE_URL"])._replace(path="/postgres")),
    )
    async with asyncio.TaskGroup() as group:
        watching = group.create_task(_until_folder_is_gone(stop))
        await supervise(options, stop=stop, say=print, ready=ready, plan=plan)
        watching.cancel()


async def _until_folder_is_gone(stop: asyncio.Event) -> None:
    while OUT.exists():
        await asyncio.sleep(_LOOK_SECONDS)
    stop.set()


def main() -> None:
    """Until the end of the phase."""
    directory = Path(tempfile.mkdtemp(prefix="barnabas-peer-"))
    try:
        with held(Home(directory)):
            asyncio.run(_keep(Home(directory)))
    finally:
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main()
