"""`barnabas up`, `down`, `status`, `logs`, `reset`: the whole system on this machine.

Thin: the work is done by the package `barnabas_local`, which is a distribution of its own and need not be there where
only the client or a single service is installed.
"""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from barnabas.errors import RejectedError

if TYPE_CHECKING:
    from barnabas_local.paths import Home
    from barnabas_local.stack_file import Stack

_DIRECTORY = ".barnabas"
_WORKERS_MAX = 64

DataDir = Annotated[
    Path, typer.Option("--data-dir", envvar="BARNABAS_DATA_DIR", help="Where data, logs and stack.json are kept.")
]


class LocalStackMissingError(RejectedError):
    """The local stack is a package of its own: install barnabas-local."""

    code = "local_stack_missing"


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (up, down, status, logs, reset):
        app.command()(command)


def up(
    data_dir: DataDir = Path(_DIRECTORY),
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Return when everything is ready.")] = False,
    workers: Annotated[
        str,
        typer.Option(
            envvar="BARNABAS_WORKERS",
            metavar="N|MIN..MAX",
            help="How many workers; 1..8 starts and stops them as the load asks for it.",
        ),
    ] = "1",
    ingest: Annotated[
        int, typer.Option(min=1, max=64, envvar="BARNABAS_INGEST", help="How many ingest processes, on one port.")
    ] = 1,
    handlers: Annotated[
        str | None, typer.Option("--app", envvar="BARNABAS_APP", help="Your own handlers, as module:app.")
    ] = None,
    host: Annotated[str, typer.Option(envvar="BARNABAS_HOST", help="Address on which jobs are taken.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65_535, envvar="BARNABAS_PORT", help="Port for it; 0 finds a free one.")
    ] = 8080,
    kafka: Annotated[
        str | None, typer.Option(envvar="BARNABAS_KAFKA", help="Bootstrap servers of a Kafka that already runs.")
    ] = None,
    postgres: Annotated[
        str | None,
        typer.Option(
            envvar="BARNABAS_POSTGRES",
            help="Address of a Postgres that already runs, for a login that may make roles and databases.",
        ),
    ] = None,
    topic_replication: Annotated[
        int,
        typer.Option(
            min=1, max=10, envvar="BARNABAS_TOPIC_REPLICATION", help="Copies of each topic; 1 of a Kafka of its own."
        ),
    ] = 1,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds that the services may take to be ready.")] = 60.0,
) -> None:
    """Start Kafka, Postgres and the four services, and make a demo tenant."""
    least, most = _range_of(workers)
    home = _home(data_dir)
    from barnabas_local.launch import run_detached, run_here, wait_for_other
    from barnabas_local.supervisor import Options

    options = Options(
        home=home,
        host=host,
        port=port,
        workers=least,
        workers_max=most,
        ingest=ingest,
        app=handlers,
        kafka=kafka,
        postgres=postgres,
        topic_replication=topic_replication,
        ready_seconds=timeout,
    )
    if detach:
        stack = run_detached(options, say=typer.echo)
        if stack is not None:
            _welcome(stack)
            return
    elif run_here(options, say=typer.echo, ready=_welcome):
        return
    typer.echo(f"Barnabas already runs in {home.root}; nothing was changed.")
    _welcome(wait_for_other(home))


def down(data_dir: DataDir = Path(_DIRECTORY)) -> None:
    """Stop everything that `up` started; data is kept."""
    from barnabas_local.control import stop_stack

    stopped = stop_stack(_home(data_dir), say=typer.echo)
    typer.echo("Barnabas is down; its data is kept." if stopped else "Nothing was running.")


def status(data_dir: DataDir = Path(_DIRECTORY)) -> None:
    """Show the processes; exit code 1 unless all of them run."""
    home = _home(data_dir)
    from barnabas_local.control import states
    from barnabas_local.stack_file import read_stack

    found = states(home)
    stack = read_stack(home)
    if not found:
        typer.echo("Barnabas is not running.")
        raise typer.Exit(1)
    for each in found:
        state = "runs" if each.runs else "gone"
        typer.echo(f"{each.name:<16} {state:<5} {each.pid:>8} {each.memory_bytes / 1e6:>7.0f} MB  {each.address}")
    if stack.is_ready:
        typer.echo(f"\n{stack.api_url}")
    if stack.scaling:
        told = stack.scaling
        wanted = f"{told['desired']} wanted ({told['reason']})" if "desired" in told else "nobody has said how many"
        typer.echo(f"workers: {told['running']} of {told['min']}..{told['max']}, {wanted}")
    if not stack.is_ready or not all(each.runs for each in found):
        raise typer.Exit(1)


def logs(
    name: Annotated[str | None, typer.Argument(help="Of one process only: worker, kafka, supervisor, ...")] = None,
    data_dir: DataDir = Path(_DIRECTORY),
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as lines are added.")] = False,
) -> None:
    """Show the last lines of the logs."""
    home = _home(data_dir)
    from barnabas_local.log_reader import read_logs

    try:
        for process, line in read_logs(home, name, follow=follow):
            typer.echo(line if name else f"{process:<16} {line}")
    except KeyboardInterrupt:
        # That is how one stops following.
        raise typer.Exit(0) from None


def reset(
    data_dir: DataDir = Path(_DIRECTORY),
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")] = False,
) -> None:
    """Stop everything and throw all data away: jobs, topics, keys, logs."""
    home = _home(data_dir)
    from barnabas_local.control import stop_stack, throw_away

    if not yes:
        typer.confirm(f"Delete {home.root} with every job in it?", abort=True)
    stop_stack(home, say=typer.echo)
    throw_away(home)
    typer.echo(f"{home.root} is gone. Servers that were given with --kafka or --postgres were left as they are.")


def _range_of(workers: str) -> tuple[int, int | None]:
    """The number, or the two of a range; without a second one the number stays as it is."""
    given = re.fullmatch(r"(\d{1,3})(?:\.\.(\d{1,3}))?", workers.strip())
    least = int(given[1]) if given else 0
    most = int(given[2]) if given and given[2] else None
    if not 1 <= least <= (_WORKERS_MAX if most is None else most) <= _WORKERS_MAX:
        raise typer.BadParameter(
            f"{workers!r} is neither a number from 1 to {_WORKERS_MAX} nor a range of them like 1..8",
            param_hint="--workers",
        )
    return least, most


def _home(directory: Path) -> "Home":
    try:
        from barnabas_local.paths import Home
    except ModuleNotFoundError as missing:
        raise LocalStackMissingError from missing
    return Home(directory.resolve())


def _welcome(stack: "Stack") -> None:
    typer.echo(
        f"\nBarnabas is up: {stack.api_url}   (interactive reference: {stack.api_url}/docs)\n\n"
        "Submit a job and wait for its result:\n\n"
        f"  curl -s {stack.api_url}/v1/jobs \\\n"
        f"    -H 'Authorization: Bearer {stack.api_key}' -H 'Content-Type: application/json' \\\n"
        """    -d '{"type": "echo", "payload": {"hello": "world"}}'\n\n"""
        "Stop with Ctrl-C here, or with `barnabas down`."
    )
