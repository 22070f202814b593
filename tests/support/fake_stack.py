"""`barnabas up` with stand-ins for the services: real servers, real supervisor.

Run as `python -m` with a directory, and with BARNABAS_KAFKA and BARNABAS_POSTGRES set for servers that already run.
"""

import os
import sys
from pathlib import Path
from typing import Any

from barnabas_local.launch import run_here
from barnabas_local.paths import Home
from barnabas_local.services import ServiceProcess, plan_services
from barnabas_local.supervisor import Options

_FAKE = Path(__file__).with_name("fake_service.py")


def plan(**given: Any) -> list[ServiceProcess]:
    """The real plan with another program in each process."""
    services = plan_services(**given)
    for service in services:
        service.argv = (sys.executable, str(_FAKE), service.kind)
    return services


def main(directory: str) -> None:
    """Run until SIGTERM."""

    def say(line: str) -> None:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()

    kafka, postgres = os.environ.get("BARNABAS_KAFKA"), os.environ.get("BARNABAS_POSTGRES")
    options = Options(home=Home(Path(directory)), port=0, workers=2, kafka=kafka, postgres=postgres)
    if not run_here(options, say=say, ready=lambda stack: say(f"READY {stack.api_url}"), plan=plan):
        say("ALREADY")


if __name__ == "__main__":
    main(sys.argv[1])
