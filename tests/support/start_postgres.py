"""Starts a Postgres, prints its process id and waits: to be killed by the test that started it. Run as `python -m`."""

import asyncio
import sys
from pathlib import Path

from barnabas_local.postgres import Postgres


async def _main(directory: Path) -> None:
    server = Postgres(directory / "postgres", directory / "postgres.log", shared_buffers_mb=16)
    await server.start()
    assert server.child is not None
    sys.stdout.write(f"{server.child.pid}\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_main(Path(sys.argv[1])))
