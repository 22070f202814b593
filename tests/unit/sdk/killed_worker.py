"""A worker for one test: runs a handler that never ends in a child, and waits to be killed.

Its arguments are the app, the handler, and the file in which that says which processes there are.
"""

import asyncio
import json
import sys

from barnabas.sdk.isolated import IsolatedAttempt
from barnabas.sdk.loading import load_handlers
from barnabas.sdk.processes import ChildProcesses
from barnabas.sdk.starting import ChildStarter
from tests.unit.sdk.builders import context


async def main(app: str, job_type: str, path: str) -> None:
    # A machine that runs many tests at once may take long to start a process.
    children = ChildProcesses(ChildStarter(app=app, log_level="warning"), running_max=1, wait_seconds=60)
    handler = load_handlers(app)[job_type]
    await IsolatedAttempt(handler, json.dumps(path).encode(), context(), children=children).run()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
