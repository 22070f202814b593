"""`barnabas queues`: which there are, and how each divides its slots. Needs the administrator's key."""

from typing import TYPE_CHECKING, Annotated

import typer

from barnabas.cli.access import HOME, AdminKey, ApiUrl, DataDir, open_admin
from barnabas.cli.printing import AsJson, print_json, print_table

if TYPE_CHECKING:
    from barnabas.client.models import Queue

_PRIORITIES = ("critical", "high", "medium", "low")

_commands = typer.Typer(no_args_is_help=True, help="Queues and their shares (with the administrator's key).")

_Share = Annotated[int | None, typer.Option(min=1, max=1_000, metavar="PARTS", help="Its parts; as now, if not given.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(_commands, name="queues")


@_commands.command("list")
def list_(
    as_json: AsJson = False,
    api_url: ApiUrl = None,
    admin_key: AdminKey = None,
    data_dir: DataDir = HOME,
) -> None:
    """List all queues, and the parts of the slots that each priority has there."""
    with open_admin(api_url, admin_key, data_dir) as admin:
        found = admin.queues()
    _print(found, as_json=as_json)


@_commands.command("set")
def set_(
    name: Annotated[str, typer.Argument(metavar="QUEUE", help="The queue; made if it isn't there.")],
    critical: _Share = None,
    high: _Share = None,
    medium: _Share = None,
    low: _Share = None,
    as_json: AsJson = False,
    api_url: ApiUrl = None,
    admin_key: AdminKey = None,
    data_dir: DataDir = HOME,
) -> None:
    """Divide a queue's slots among the priorities: parts, of as many as there are together."""
    given = {"critical": critical, "high": high, "medium": medium, "low": low}
    wanted = {priority: parts for priority, parts in given.items() if parts is not None}
    with open_admin(api_url, admin_key, data_dir) as admin:
        now = next((queue.shares for queue in admin.queues() if queue.name == name), {})
        queue = admin.set_queue(name, shares={**now, **wanted})
    _print([queue], as_json=as_json)


def _print(queues: "list[Queue]", *, as_json: bool) -> None:
    if as_json:
        print_json(queues)
        return
    rows = [(queue.name, *(str(queue.shares.get(priority, "")) for priority in _PRIORITIES)) for queue in queues]
    print_table(("queue", *_PRIORITIES), rows, empty="No queues.")
