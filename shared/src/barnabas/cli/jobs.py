"""`barnabas jobs`: list, show, watch, cancel and retry."""

import time
from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Annotated

import typer

from barnabas.cli.access import HOME, ApiKey, ApiUrl, DataDir, open_client
from barnabas.cli.printing import (
    AsJson,
    Limit,
    as_compact,
    as_seconds,
    as_text,
    as_time,
    print_fields,
    print_json,
    print_table,
)

if TYPE_CHECKING:
    from barnabas.client.api import Client
    from barnabas.client.models import Attempt, Job, JobError

JobId = Annotated[str, typer.Argument(metavar="ID", help="The job's id.")]

_PAGE_MAX = 500
# What changes between two answers is shown this late at the most; the end is shown at once.
_HOLD_SECONDS = 0.5
# A server that answers a wait sooner must not be asked in a tight loop.
_ASK_AGAIN_SECONDS = 0.2

_commands = typer.Typer(no_args_is_help=True, help="Look at jobs, cancel them, send failed ones round again.")


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(_commands, name="jobs")


@_commands.command("list")
def list_(
    status: Annotated[str | None, typer.Option(help="Only these: queued, running, failed, ...")] = None,
    job_type: Annotated[str | None, typer.Option("--type", help="Only of this type.")] = None,
    limit: Limit = 20,
    as_json: AsJson = False,
    api_url: ApiUrl = None,
    api_key: ApiKey = None,
    data_dir: DataDir = HOME,
) -> None:
    """List jobs, newest first."""
    with open_client(api_url, api_key, data_dir) as client:
        found = list(islice(client.list(status=status, job_type=job_type, limit=min(limit, _PAGE_MAX)), limit))
    if as_json:
        print_json(found)
        return
    print_table(
        ("id", "type", "status", "attempt", "created", "error"),
        [
            (str(job.id), job.type or "", job.status, str(job.attempt), as_time(job.created_at), _error(job.error))
            for job in found
        ],
        empty="No jobs.",
    )


@_commands.command()
def show(
    job_id: JobId,
    as_json: AsJson = False,
    api_url: ApiUrl = None,
    api_key: ApiKey = None,
    data_dir: DataDir = HOME,
) -> None:
    """Show a job with its attempts and deliveries."""
    import msgspec

    with open_client(api_url, api_key, data_dir) as client:
        job = client.get(job_id)
        timeline = client.attempts(job_id)
    if as_json:
        extra = {"attempts": timeline.items, "deliveries": timeline.deliveries}
        print_json(msgspec.structs.asdict(job) | extra)
        return
    print_job(job)
    for attempt in timeline.items:
        typer.echo(f"  {attempt_line(attempt)}")
    for delivery in timeline.deliveries:
        answer = delivery.last_status or delivery.error or ""
        typer.echo(
            as_text(f"  webhook {delivery.id}: {delivery.status} after {delivery.attempt} attempts {answer}").rstrip()
        )


@_commands.command()
def watch(
    job_id: JobId,
    timeout: Annotated[float, typer.Option(min=0, metavar="SECONDS", help="Give up after so long.")] = 600.0,
    api_url: ApiUrl = None,
    api_key: ApiKey = None,
    data_dir: DataDir = HOME,
) -> None:
    """Follow a job to its end; exit code 1 unless it succeeds."""
    with open_client(api_url, api_key, data_dir) as client:
        last = None
        for job in changes(client, job_id, timeout=timeout):
            progress = "" if job.progress is None else f" {job.progress.percent:g} % {job.progress.message or ''}"
            typer.echo(as_text(f"{job.status} (attempt {job.attempt}){progress}").rstrip())
            last = job
        assert last is not None, "a job that exists has a first state"
        print_job(last)
    if last.status != "succeeded":
        raise typer.Exit(1)


@_commands.command()
def explain(
    job_id: JobId,
    as_json: AsJson = False,
    api_url: ApiUrl = None,
    api_key: ApiKey = None,
    data_dir: DataDir = HOME,
) -> None:
    """Say why a job isn't running: the first cause that holds it."""
    with open_client(api_url, api_key, data_dir) as client:
        found = client.explain(job_id)
    if as_json:
        print_json(found)
        return
    typer.echo(as_text(found.message))
    print_fields(
        [
            ("cause", found.cause),
            ("until", as_time(found.until)),
            *((name.replace("_", " "), _detail(value)) for name, value in found.details.items()),
        ]
    )


@_commands.command()
def cancel(
    job_id: JobId,
    as_json: AsJson = False,
    api_url: ApiUrl = None,
    api_key: ApiKey = None,
    data_dir: DataDir = HOME,
) -> None:
    """Cancel a job; a running handler hears of it within a second."""
    with open_client(api_url, api_key, data_dir) as client:
        job = client.cancel(job_id)
    if as_json:
        print_json(job)
    else:
        print_job(job)


@_commands.command()
def retry(
    job_id: JobId,
    as_json: AsJson = False,
    api_url: ApiUrl = None,
    api_key: ApiKey = None,
    data_dir: DataDir = HOME,
) -> None:
    """Send a failed job round again, as a new job."""
    with open_client(api_url, api_key, data_dir) as client:
        job = client.retry(job_id)
    if as_json:
        print_json(job)
    else:
        print_job(job)


def changes(client: "Client", job_id: str, *, timeout: float) -> Iterator["Job"]:
    """The job each time that it looks different, its end last; raises `JobNotEndedError` after `timeout` seconds."""
    from barnabas.client.errors import JobNotEndedError

    until = time.monotonic() + timeout
    seen = None
    while True:
        asked = time.monotonic()
        job = client.get(job_id, wait=None if seen is None else _HOLD_SECONDS)
        if job != seen:
            yield job
        if job.is_terminal:
            return
        if time.monotonic() >= until:
            raise JobNotEndedError(job, timeout)
        if seen is not None:
            time.sleep(max(0.0, _ASK_AGAIN_SECONDS - (time.monotonic() - asked)))
        seen = job


def print_job(job: "Job") -> None:
    """What is known of a job, for people."""
    attempts = f"{job.attempt}" if job.max_attempts is None else f"{job.attempt} of {job.max_attempts}"
    print_fields(
        [
            ("id", str(job.id)),
            ("type", job.type or ""),
            ("status", f"{job.status}, cancel requested" if job.cancel_requested else job.status),
            ("attempt", attempts if job.attempt else ""),
            ("created", as_time(job.created_at)),
            ("run at", as_time(job.run_at)),
            ("started", as_time(job.started_at)),
            ("finished", as_time(job.finished_at)),
            ("result", as_compact(job.result) if job.status == "succeeded" else ""),
            ("error", _error(job.error)),
            ("metadata", as_compact(job.metadata) if job.metadata else ""),
            ("redrive of", str(job.redrive_of or "")),
            ("ordering key", as_text(job.ordering_key or "")),
        ]
    )


def attempt_line(attempt: "Attempt") -> str:
    """One line of a timeline."""
    line = f"{attempt.kind} {attempt.attempt}: {attempt.outcome}"
    took = as_seconds(attempt.started_at, attempt.finished_at)
    line += f" after {took}" if took else ""
    line += f" - {_error(attempt.error)}" if attempt.error is not None else ""
    wait = as_seconds(attempt.finished_at, attempt.next_at)
    return as_text(line + (f"; again in {wait}" if wait else ""))


def _detail(value: object) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else as_compact(value)


def _error(error: "JobError | None") -> str:
    return "" if error is None else f"{error.code}: {error.message}"
