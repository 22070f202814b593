"""`barnabas migrate` and `barnabas topics`: bring Postgres and Kafka to what this release needs.

Both may be run as often as one likes; what is there already stays as it is.
"""

import asyncio
from pathlib import Path
from types import TracebackType
from typing import Annotated

import typer

from barnabas.cli.access import HOME, DataDir, read_stack
from barnabas.cli.stack import LocalStackMissingError
from barnabas.errors import RejectedError


class NoServerError(RejectedError):
    """It isn't known where the server is."""

    code = "no_server"


class DatabaseRefusedError(RejectedError):
    """Postgres refused a statement or the login."""

    code = "database_refused"


Postgres = Annotated[
    str | None,
    typer.Option(
        "--postgres",
        envvar="BARNABAS_POSTGRES",
        help="Address with the engine's or the owner's login, if not the local stack's.",
    ),
]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(migrate)
    app.command()(topics)


def migrate(
    postgres: Annotated[
        str | None,
        typer.Option(
            "--postgres",
            envvar="BARNABAS_POSTGRES",
            help="Address with the owner's login; with --prepare, one that may make roles and databases.",
        ),
    ] = None,
    prepare: Annotated[bool, typer.Option("--prepare", help="Make the logins and the database first.")] = False,
    data_dir: DataDir = HOME,
) -> None:
    """Apply the migrations that the database lacks."""
    dsn = find_address(postgres, data_dir, key="postgres", option="--postgres or BARNABAS_POSTGRES")
    if prepare and not postgres:
        raise typer.BadParameter("--prepare needs --postgres: stack.json has the owner's login only")
    with refusals():
        applied = asyncio.run(_prepare_and_migrate(dsn) if prepare else _migrate(dsn))
    for name in applied:
        typer.echo(f"applied {name}")
    if not applied:
        typer.echo("All migrations are applied already.")


def topics(
    kafka: Annotated[
        str | None, typer.Option(envvar="BARNABAS_KAFKA", help="Bootstrap servers, host:port, comma-separated.")
    ] = None,
    replication: Annotated[
        int, typer.Option(min=1, envvar="BARNABAS_TOPIC_REPLICATION", help="Copies of each new topic.")
    ] = 1,
    data_dir: DataDir = HOME,
) -> None:
    """Make the topics that Kafka lacks, and set what differs."""
    from barnabas.kafka.admin import ensure_topics

    bootstrap = find_address(kafka, data_dir, key="kafka", option="--kafka or BARNABAS_KAFKA")
    changes = asyncio.run(ensure_topics(bootstrap, replication_factor=replication))
    for change in changes:
        typer.echo(change)
    if not changes:
        typer.echo("All topics are as they should be.")


def find_address(given: str | None, data_dir: Path, *, key: str, option: str) -> str:
    """The address given, else the local stack's; raises `NoServerError` naming the option."""
    address = given or str(read_stack(data_dir).get(key) or "")
    if not address:
        raise NoServerError(f"no address: give {option}, or run this where `barnabas up` was ({data_dir})")
    return address


async def _migrate(owner_dsn: str) -> list[str]:
    from barnabas.postgres.database import translated
    from barnabas.postgres.migrate import migrate as apply

    with translated(None):
        return await apply(owner_dsn)


async def _prepare_and_migrate(superuser_dsn: str) -> list[str]:
    try:
        from barnabas_local.database import prepare_database
    except ModuleNotFoundError as missing:
        raise LocalStackMissingError from missing
    return await _migrate((await prepare_database(superuser_dsn)).owner_dsn)


class refusals:  # noqa: N801 - reads as the clause it is
    """What Postgres itself refuses is a message too: its driver's errors are known here by their SQLSTATE only."""

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        sqlstate = getattr(error, "sqlstate", None)
        if sqlstate is not None:
            raise DatabaseRefusedError(f"Postgres: {error} ({sqlstate})") from error
