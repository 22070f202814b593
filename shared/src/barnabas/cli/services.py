"""`barnabas ingest`, `worker`, `notifier`, `retry-scheduler`: run one service in this process, until SIGTERM."""

import os
from importlib import import_module
from typing import Annotated

import typer

from barnabas.errors import RejectedError


class ServiceMissingError(RejectedError):
    """This service is a package of its own and is not installed."""

    code = "service_missing"


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(ingest)
    app.command()(worker)
    app.command()(notifier)
    app.command("retry-scheduler")(retry_scheduler)


def ingest() -> None:
    """Run the service that takes jobs in by HTTP and Kafka; settings are BARNABAS_* variables."""
    _run("ingest")


def worker(
    handlers: Annotated[
        str | None, typer.Option("--app", help="Your own handlers, as module:app; BARNABAS_APP if not given.")
    ] = None,
    queues: Annotated[
        str | None,
        typer.Option(metavar="NAME,...", help="Run the jobs of these queues only; BARNABAS_QUEUES if not given."),
    ] = None,
) -> None:
    """Run the service that runs jobs; settings are BARNABAS_* variables."""
    if handlers is not None:
        # The service reads its settings from the environment, once; the processes of isolated jobs get them from it.
        os.environ["BARNABAS_APP"] = handlers
    if queues is not None:
        os.environ["BARNABAS_QUEUES"] = queues
    _run("worker")


def notifier() -> None:
    """Run the service that sends webhooks; settings are BARNABAS_* variables."""
    _run("notifier")


def retry_scheduler() -> None:
    """Run the service that brings back what waits; settings are BARNABAS_* variables."""
    _run("retry_scheduler")


def _run(name: str) -> None:
    package = f"barnabas_{name}"
    try:
        module = import_module(f"{package}.main")
    except ModuleNotFoundError as missing:
        if missing.name != package:
            raise
        raise ServiceMissingError(f"{package.replace('_', '-')} is not installed") from missing
    from barnabas.runtime.service import main

    main(module.SERVICE)
