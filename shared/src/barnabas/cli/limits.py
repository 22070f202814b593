"""`barnabas limits`: how much of a tenant's work may run at once. Needs the administrator's key."""

from typing import TYPE_CHECKING, Annotated

import typer

from barnabas.cli.access import HOME, AdminKey, ApiUrl, DataDir, open_admin
from barnabas.cli.keys import TenantId
from barnabas.cli.printing import AsJson, print_fields, print_json

if TYPE_CHECKING:
    from barnabas.client.models import Limits

_commands = typer.Typer(no_args_is_help=True, help="A tenant's limits (with the administrator's key).")


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(_commands, name="limits")


@_commands.command()
def show(
    tenant_id: TenantId,
    as_json: AsJson = False,
    api_url: ApiUrl = None,
    admin_key: AdminKey = None,
    data_dir: DataDir = HOME,
) -> None:
    """Show a tenant's limits."""

    with open_admin(api_url, admin_key, data_dir) as admin:
        limits = admin.limits(tenant_id)
    _print(limits, as_json=as_json)


@_commands.command("set")
def set_(
    tenant_id: TenantId,
    concurrency: Annotated[int | None, typer.Option(min=1, help="Jobs that may run at once.")] = None,
    unlimited: Annotated[bool, typer.Option("--unlimited", help="Take the limit away.")] = False,
    as_json: AsJson = False,
    api_url: ApiUrl = None,
    admin_key: AdminKey = None,
    data_dir: DataDir = HOME,
) -> None:
    """Set a tenant's limits."""
    if (concurrency is None) != unlimited:
        raise typer.BadParameter("give --concurrency or --unlimited")
    with open_admin(api_url, admin_key, data_dir) as admin:
        limits = admin.set_limits(tenant_id, concurrency=concurrency)
    _print(limits, as_json=as_json)


def _print(limits: "Limits", *, as_json: bool) -> None:
    if as_json:
        print_json({"concurrency": limits.concurrency})
    else:
        print_fields([("concurrency", "no limit" if limits.concurrency is None else str(limits.concurrency))])
