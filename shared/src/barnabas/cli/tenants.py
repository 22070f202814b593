"""`barnabas tenants`: whose work it is. Needs the administrator's key."""

from itertools import islice
from typing import Annotated

import typer

from barnabas.cli.access import HOME, AdminKey, ApiUrl, DataDir, open_admin
from barnabas.cli.printing import AsJson, Limit, as_time, print_fields, print_json, print_table

_commands = typer.Typer(no_args_is_help=True, help="Tenants (with the administrator's key).")


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(_commands, name="tenants")


@_commands.command()
def create(
    name: Annotated[str, typer.Argument(help="A name that no other tenant has.")],
    as_json: AsJson = False,
    api_url: ApiUrl = None,
    admin_key: AdminKey = None,
    data_dir: DataDir = HOME,
) -> None:
    """Make a tenant."""
    with open_admin(api_url, admin_key, data_dir) as admin:
        tenant = admin.create_tenant(name)
    if as_json:
        print_json(tenant)
    else:
        print_fields([("id", str(tenant.id)), ("name", tenant.name)])


@_commands.command("list")
def list_(
    limit: Limit = 100,
    as_json: AsJson = False,
    api_url: ApiUrl = None,
    admin_key: AdminKey = None,
    data_dir: DataDir = HOME,
) -> None:
    """List tenants, newest first."""

    with open_admin(api_url, admin_key, data_dir) as admin:
        found = list(islice(admin.tenants(limit=100), limit))
    if as_json:
        print_json(found)
        return
    rows = [(str(tenant.id), tenant.name, as_time(tenant.created_at)) for tenant in found]
    print_table(("id", "name", "created"), rows, empty="No tenants.")
