"""`barnabas endpoints`: the URLs that hear of ended jobs."""

from itertools import islice
from typing import TYPE_CHECKING, Annotated

import typer

from barnabas.cli.access import HOME, ApiKey, ApiUrl, DataDir, open_client
from barnabas.cli.printing import AsJson, Limit, as_time, print_fields, print_json, print_table

if TYPE_CHECKING:
    from barnabas.client.calls import EventType

_EVENTS: "dict[str, EventType]" = {
    "job.succeeded": "job.succeeded",
    "job.failed": "job.failed",
    "job.cancelled": "job.cancelled",
}

_commands = typer.Typer(no_args_is_help=True, help="URLs that get a signed webhook when a job ends.")


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(_commands, name="endpoints")


@_commands.command()
def create(
    url: Annotated[str, typer.Argument(help="Where webhooks go, http or https.")],
    event: Annotated[list[str] | None, typer.Option(help="Only job.succeeded, ...; may be repeated.")] = None,
    retry: Annotated[
        list[float] | None, typer.Option(min=0, metavar="SECONDS", help="Wait before the next try; repeat for more.")
    ] = None,
    as_json: AsJson = False,
    api_url: ApiUrl = None,
    api_key: ApiKey = None,
    data_dir: DataDir = HOME,
) -> None:
    """Make an endpoint; its signing secret is shown this one time."""
    unknown = [each for each in event or () if each not in _EVENTS]
    if unknown:
        raise typer.BadParameter(f"{unknown[0]!r} is none of {', '.join(_EVENTS)}", param_hint="--event")
    events = [_EVENTS[each] for each in event or ()]
    with open_client(api_url, api_key, data_dir) as client:
        endpoint = client.create_endpoint(url, event_types=events or None, retry_schedule_seconds=retry or None)
    if as_json:
        print_json(endpoint)
        return
    print_fields([("id", str(endpoint.id)), ("url", endpoint.url), ("secret", endpoint.secret or "")])
    typer.echo("Keep the secret: receivers verify signatures with it, and nobody can show it again.", err=True)


@_commands.command("list")
def list_(
    limit: Limit = 100,
    as_json: AsJson = False,
    api_url: ApiUrl = None,
    api_key: ApiKey = None,
    data_dir: DataDir = HOME,
) -> None:
    """List endpoints, newest first."""
    with open_client(api_url, api_key, data_dir) as client:
        found = list(islice(client.endpoints(), limit))
    if as_json:
        print_json(found)
        return
    print_table(
        ("id", "url", "events", "status", "created"),
        [
            (
                str(each.id),
                each.url,
                "all" if each.event_types is None else " ".join(each.event_types),
                each.status if each.disabled_reason is None else f"{each.status}: {each.disabled_reason}",
                as_time(each.created_at),
            )
            for each in found
        ],
        empty="No endpoints.",
    )


@_commands.command()
def delete(
    endpoint_id: Annotated[str, typer.Argument(metavar="ID", help="The endpoint's id.")],
    api_url: ApiUrl = None,
    api_key: ApiKey = None,
    data_dir: DataDir = HOME,
) -> None:
    """Delete an endpoint: nothing is sent to it from now on."""
    with open_client(api_url, api_key, data_dir) as client:
        client.delete_endpoint(endpoint_id)
    typer.echo(f"{endpoint_id} is deleted.")
