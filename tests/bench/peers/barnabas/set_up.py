"""A clean system for one phase of the harness: an empty database, empty topics, and all services but the worker.

The harness starts and ends workers itself. The rest is kept by a process that `keep_services.py` describes.
"""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import psutil
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka import admin as _untyped

from tests.bench.peers.barnabas.peer_state import KEEPER, OUT, told

_SECONDS = 90.0
_PAUSE_SECONDS = 0.1
_PREFIX = "barnabas."
_KEEPER = "tests.bench.peers.barnabas.keep_services"


def main() -> None:
    """Leave a system that accepts jobs."""
    _end_last_keeper()
    _delete_topics()
    asyncio.run(_drop_database())
    log = (OUT / "keeper.log").open("w")
    keeper = subprocess.Popen(
        [sys.executable, "-m", _KEEPER],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        start_new_session=True,
    )
    KEEPER.write_text(str(keeper.pid))
    deadline = time.monotonic() + _SECONDS
    while told() is None:
        if keeper.poll() is not None or time.monotonic() > deadline:
            sys.exit(f"the services did not start:\n{(OUT / 'keeper.log').read_text()[-3000:]}")
        time.sleep(_PAUSE_SECONDS)
    # It goes on without us.
    keeper.returncode = 0


def _end_last_keeper() -> None:
    """Stop the services of the phase before, if they are still there."""
    try:
        keeper = psutil.Process(int(KEEPER.read_text()))
        # The number may belong to a stranger by now.
        if _KEEPER in keeper.cmdline():
            os.kill(keeper.pid, signal.SIGTERM)
            keeper.wait(_SECONDS)
    except (FileNotFoundError, psutil.NoSuchProcess):
        return


def _delete_topics() -> None:
    """The harness's Kafka lives on from phase to phase; what the last one left there is of a database that is gone."""
    client = _untyped.AdminClient({"bootstrap.servers": os.environ["KAFKA"], "log_level": 0})

    def ours() -> list[str]:
        return [name for name in client.list_topics(timeout=10).topics if name.startswith(_PREFIX)]

    deadline = time.monotonic() + _SECONDS
    while (names := ours()) and time.monotonic() < deadline:
        for deleted in client.delete_topics(names, operation_timeout=30).values():
            try:
                deleted.result(40)
            except KafkaException as error:
                if error.args[0].code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                    raise
        time.sleep(_PAUSE_SECONDS)


async def _drop_database() -> None:
    server = urlunsplit(urlsplit(os.environ["DATABASE_URL"])._replace(path="/postgres"))
    connection = await asyncpg.connect(server)
    with contextlib.suppress(asyncpg.InvalidCatalogNameError):
        await connection.execute("DROP DATABASE barnabas WITH (FORCE)")
    await connection.close()


if __name__ == "__main__":
    main()
