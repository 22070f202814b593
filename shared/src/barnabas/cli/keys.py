"""`barnabas keys`: a tenant's API keys. Needs the administrator's key."""

from itertools import islice
from typing import Annotated

import typer

from barnabas.cli.access import HOME, AdminKey, ApiUrl, DataDir, open_admin
from barnabas.cli.printing import AsJson, Limit, as_time, print_fields, print_json, print_table

TenantId = Annotated[str, typer.Argument(metavar="TENANT", help="The tenant's id.")]

_commands = typer.Typer(no_args_is_help=True, help="A tenant's API keys (with the administrator's key).")


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(_commands, name="keys")


@_commands.command()
def create(
    tenant_id: TenantId,
    name: Annotated[str, typer.Option(help="For people: what the key is for.")] = "command line",
    as_json: AsJson = False,
    api_url: ApiUrl = None,
    admin_key: AdminKey = None,
    data_dir: DataDir = HOME,
) -> None:
    """Make a key; it is shown this one time."""
    with open_admin(api_url, admin_key, data_dir) as admin:
        key = admin.create_key(tenant_id, name)
    if as_json:
        print_json(key)
        return
    print_fields([("id", str(key.id)), ("key", key.key or "")])
    typer.echo("Keep the key: nobody can show it again.", err=True)


@_commands.command("list")
def list_(
    tenant_id: TenantId,
    limit: Limit = 100,
    as_json: AsJson = False,
    api_url: ApiUrl = None,
    admin_key: AdminKey = None,
    data_dir: DataDir = HOME,
) -> None:
    """List a tenant's keys by their prefixes, newest first."""

    with open_admin(api_url, admin_key, data_dir) as admin:
        found = list(islice(admin.keys(tenant_id, limit=100), limit))
    if as_json:
        print_json(found)
        return
    print_table(
        ("id", "prefix", "name", "created", "revoked"),
        [(str(key.id), key.prefix, key.name, as_time(key.created_at), as_time(key.revoked_at)) for key in found],
        empty="No keys.",
    )


@_commands.command()
def revoke(
    tenant_id: TenantId,
    key_id: Annotated[str, typer.Argument(metavar="KEY_ID", help="The key's id.")],
    api_url: ApiUrl = None,
    admin_key: AdminKey = None,
    data_dir: DataDir = HOME,
) -> None:
    """Revoke a key: refused everywhere within 5 seconds."""
    with open_admin(api_url, admin_key, data_dir) as admin:
        admin.delete_key(tenant_id, key_id)
    typer.echo(f"{key_id} is revoked.")
