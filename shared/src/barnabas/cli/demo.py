"""`barnabas demo`: the whole path in a minute, shown while it happens.

Makes an endpoint of its own and a receiver for it, tells the story of `demo_story.py`, and deletes the endpoint however
that ends. Exit code 0 means that everything shown was checked.
"""

import asyncio
import signal
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from barnabas.cli.access import HOME, ApiKey, ApiUrl, DataDir, open_async_client
from barnabas.cli.printing import as_seconds, print_table
from barnabas.errors import BarnabasError

if TYPE_CHECKING:
    from barnabas.cli.demo_stage import Stage
    from barnabas.cli.demo_story import Finding
    from barnabas.client.api import AsyncClient

# A lost delivery is tried again at once, so that it can still be shown.
_RETRY_SCHEDULE_SECONDS = (1.0, 2.0, 5.0)
_DELETE_SECONDS = 15.0


class DemoFailedError(BarnabasError):
    """The demo could not show what it set out to show."""

    code = "demo_failed"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(demo)


def demo(
    plain: Annotated[bool, typer.Option("--plain", help="Lines instead of a live display.")] = False,
    timeout: Annotated[float, typer.Option(min=1, metavar="SECONDS", help="Give up after so long.")] = 60.0,
    api_url: ApiUrl = None,
    api_key: ApiKey = None,
    data_dir: DataDir = HOME,
) -> None:
    """Show a job, its retries, its signed webhook and a dead letter redriven; needs a stack on this machine."""
    from barnabas.cli.demo_stage import open_stage

    def client() -> "AsyncClient":
        return open_async_client(api_url, api_key, data_dir)

    # Both ways of being stopped end the same way: with the endpoint deleted.
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    with open_stage(plain=plain) as stage:
        findings = asyncio.run(show(client, stage, timeout=timeout))
    typer.echo()
    print_table(
        ("what", "job", "ended", "attempts", "accepted to end", "submitted to webhook"),
        [
            (
                each.what,
                str(each.job.id),
                each.job.status,
                str(each.job.attempt),
                as_seconds(each.job.created_at, each.job.finished_at),
                f"{each.webhook_seconds:.3f} s",
            )
            for each in findings
        ],
        empty="",
    )


async def show(open_client: "Callable[[], AsyncClient]", stage: "Stage", *, timeout: float) -> "list[Finding]":
    """Tell the story; raises `DemoFailedError` when something of it did not happen, in time or at all."""
    from barnabas.cli.demo_receiver import open_receiver
    from barnabas.cli.demo_story import tell_story

    async with open_client() as client, open_receiver() as receiver:
        try:
            async with asyncio.timeout(timeout):
                endpoint = await client.create_endpoint(
                    receiver.webhook_url, retry_schedule_seconds=_RETRY_SCHEDULE_SECONDS
                )
                assert endpoint.secret is not None, "the answer to a creation has the secret"
                receiver.secret = endpoint.secret
                try:
                    findings = await tell_story(client, receiver, stage)
                finally:
                    is_deleted = await _delete(client, endpoint.id)
        except TimeoutError:
            refused = f"; {receiver.refused} webhooks had no good signature" if receiver.refused else ""
            raise DemoFailedError(f"not done within {timeout:g} s; the last was: {stage.last}{refused}") from None
    if not is_deleted:
        raise DemoFailedError(f"the demo's endpoint {endpoint.id} could not be deleted")
    return findings


async def _delete(client: "AsyncClient", endpoint_id: UUID) -> bool:
    try:
        async with asyncio.timeout(_DELETE_SECONDS):
            await client.delete_endpoint(endpoint_id)
    except (BarnabasError, TimeoutError):
        # Whatever went wrong before is what a person has to hear of.
        return False
    return True
