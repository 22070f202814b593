"""`barnabas submit`: one job in, and with `--wait` its result out."""

import json
import math
import re
from datetime import datetime
from typing import Annotated, Any, Literal

import typer

from barnabas.cli.access import HOME, ApiKey, ApiUrl, DataDir, open_client
from barnabas.cli.jobs import print_job
from barnabas.cli.printing import AsJson, print_json

Priority = Literal["low", "medium", "high", "critical"]

# As the API has it: refused here before it is a header.
_IDEMPOTENCY_KEY = re.compile(r"[ -~]{1,255}")


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(submit)


def submit(
    job_type: Annotated[str, typer.Argument(metavar="TYPE", help="Which handler: echo, sleep, or one of yours.")],
    payload: Annotated[str, typer.Argument(metavar="PAYLOAD|-", help="JSON; - reads it from standard input.")] = "null",
    priority: Annotated[Priority | None, typer.Option(help="medium, if not given.")] = None,
    delay: Annotated[float | None, typer.Option(min=0, metavar="SECONDS", help="Start no sooner than that.")] = None,
    run_at: Annotated[
        str | None, typer.Option(metavar="TIME", help="Start no sooner, as 2026-01-31T12:00:00Z.")
    ] = None,
    key: Annotated[str | None, typer.Option(help="Idempotency key: the same one twice is one job.")] = None,
    metadata: Annotated[str | None, typer.Option(metavar="JSON", help="An object that is kept with the job.")] = None,
    queue: Annotated[str | None, typer.Option(help="Its queue; default, if not given.")] = None,
    ordering_key: Annotated[
        str | None, typer.Option(metavar="KEY", help="Jobs with the same one run one after the other.")
    ] = None,
    max_attempts: Annotated[int | None, typer.Option(min=1, help="Attempts before it is a dead letter.")] = None,
    wait: Annotated[
        bool, typer.Option("--wait", "-w", help="Wait for its end; exit code 1 unless it succeeds.")
    ] = False,
    timeout: Annotated[float, typer.Option(min=0, metavar="SECONDS", help="How long --wait waits.")] = 60.0,
    as_json: AsJson = False,
    api_url: ApiUrl = None,
    api_key: ApiKey = None,
    data_dir: DataDir = HOME,
) -> None:
    """Submit a job."""
    if key is not None and not _IDEMPOTENCY_KEY.fullmatch(key):
        raise typer.BadParameter("an idempotency key has 1 to 255 printable ASCII characters", param_hint="--key")
    if delay is not None and not math.isfinite(delay):
        raise typer.BadParameter("not a number of seconds", param_hint="--delay")
    if delay is not None and run_at is not None:
        raise typer.BadParameter("give --delay or --run-at, not both")
    about = None if metadata is None else read_json(metadata, name="--metadata")
    if about is not None and not isinstance(about, dict):
        raise typer.BadParameter("not a JSON object", param_hint="--metadata")
    text = typer.get_binary_stream("stdin").read() if payload == "-" else payload
    content = read_json(text, name="PAYLOAD")
    due = None if run_at is None else read_time(run_at, name="--run-at")
    with open_client(api_url, api_key, data_dir) as client:
        submitted = client.submit(
            job_type,
            content,
            idempotency_key=key,
            priority=priority,
            delay_seconds=delay,
            run_at=due,
            metadata=about,
            max_attempts=max_attempts,
            queue=queue,
            ordering_key=ordering_key,
        )
        if not wait:
            job = submitted.job
        else:
            if not as_json:
                typer.echo(f"{submitted.id} submitted; waiting for its end", err=True)
            job = client.wait(submitted.id, timeout=timeout)
    if as_json:
        print_json(job)
    else:
        print_job(job)
        if submitted.is_replayed:
            typer.echo("The same job was submitted before with this key; it is not submitted again.", err=True)
    if wait and job.status != "succeeded":
        raise typer.Exit(1)


def read_json(text: str | bytes, *, name: str) -> Any:
    """The value; a usage error if it is not JSON that the API would take."""
    try:
        value = json.loads(text, parse_constant=_refuse_constant)
        # 1e999 is a number to the parser and infinity to Python.
        json.dumps(value, allow_nan=False)
    except (ValueError, RecursionError) as error:
        reason = "nested too deep" if isinstance(error, RecursionError) else error
        raise typer.BadParameter(f"not JSON: {reason} (text needs its quotes: '\"text\"')", param_hint=name) from None
    return value


def read_time(text: str, *, name: str) -> datetime:
    """A time with its zone; a usage error if it is none."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(f"not a time like 2026-01-31T12:00:00Z: {text!r}", param_hint=name) from None
    if moment.tzinfo is None:
        raise typer.BadParameter(f"a time needs its zone, for example {text}Z", param_hint=name)
    return moment


def _refuse_constant(text: str) -> None:
    raise ValueError(f"{text} is not a JSON number")
