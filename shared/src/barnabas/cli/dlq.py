"""`barnabas dlq`: what needs a person, and sending it round again."""

from datetime import datetime
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from barnabas.cli.access import HOME, ApiKey, ApiUrl, DataDir, open_client
from barnabas.cli.printing import AsJson, Limit, as_time, print_json, print_table

if TYPE_CHECKING:
    from barnabas.client.models import DeadLetter

Kind = Annotated[Literal["jobs", "deliveries"], typer.Option(help="Failed jobs, or webhooks that were given up.")]

_PAGE_MAX = 500
# As many as one request may name.
_IDS_MAX = 100

_commands = typer.Typer(no_args_is_help=True, help="Dead letters: list them, send them round again.")


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(_commands, name="dlq")


@_commands.command("list")
def list_(
    kind: Kind = "jobs",
    limit: Limit = 20,
    as_json: AsJson = False,
    api_url: ApiUrl = None,
    api_key: ApiKey = None,
    data_dir: DataDir = HOME,
) -> None:
    """List open dead letters, newest first."""
    with open_client(api_url, api_key, data_dir) as client:
        found = list(islice(client.dlq(kind=kind, limit=min(limit, _PAGE_MAX)), limit))
    if as_json:
        print_json(found)
        return
    print_table(
        ("id", "what", "reason", "since", "error"),
        [(str(letter.id), _what(letter), letter.reason, as_time(letter.at), _error(letter)) for letter in found],
        empty=f"No dead letters of {kind}.",
    )


@_commands.command()
def redrive(
    ids: Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="Which; or --all.")] = None,
    kind: Kind = "jobs",
    every: Annotated[bool, typer.Option("--all", help="All that are open now.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count what matches.")] = False,
    rate: Annotated[
        float | None, typer.Option(min=0.01, max=10_000, help="So many a second at the most; else all at once.")
    ] = None,
    as_json: AsJson = False,
    api_url: ApiUrl = None,
    api_key: ApiKey = None,
    data_dir: DataDir = HOME,
) -> None:
    """Send dead letters round again; exit code 1 unless all that were named were open."""
    if bool(ids) == every:
        raise typer.BadParameter("name ids, or give --all")
    with open_client(api_url, api_key, data_dir) as client:
        # A job that fails again becomes a new dead letter: what to redrive is settled before the first one goes.
        wanted = list(dict.fromkeys(ids or [str(letter.id) for letter in client.dlq(kind=kind, limit=_PAGE_MAX)]))
        matched = done = 0
        last_at: datetime | None = None
        for start in range(0, len(wanted), _IDS_MAX):
            answer = client.redrive(wanted[start : start + _IDS_MAX], kind=kind, dry_run=dry_run, rate=rate or 0)
            matched += answer.matched
            done += answer.done
            last_at = answer.last_at or last_at
    if as_json:
        told = {"matched": matched, "done": done, "dry_run": dry_run}
        print_json(told if last_at is None else told | {"last_at": last_at})
    else:
        typer.echo(
            f"{matched} of {len(wanted)} are open dead letters; "
            + ("nothing sent" if dry_run else f"{done} sent round again")
            + (f", the last one at {as_time(last_at)}" if last_at is not None else "")
        )
    if ids and (matched if dry_run else done) < len(wanted):
        raise typer.Exit(1)


def _what(letter: "DeadLetter") -> str:
    if letter.job is not None:
        return letter.job.type or ""
    return "" if letter.delivery is None else f"to {letter.delivery.endpoint_id}"


def _error(letter: "DeadLetter") -> str:
    if letter.job is not None and letter.job.error is not None:
        return f"{letter.job.error.code}: {letter.job.error.message}"
    return "" if letter.delivery is None else str(letter.delivery.error or letter.delivery.last_status or "")
