"""`barnabas limits`: what a tenant may use. Needs the administrator's key."""

from typing import TYPE_CHECKING, Annotated

import typer

from barnabas.cli.access import HOME, AdminKey, ApiUrl, DataDir, open_admin
from barnabas.cli.keys import TenantId
from barnabas.cli.printing import AsJson, print_fields, print_json

if TYPE_CHECKING:
    from barnabas.client.models import Limits, TypeLimits

_NONE = "none"
_TYPE_FIELDS = ("concurrency", "starts_per_minute")

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
    """Show a tenant's limits, and how much of them is used."""
    with open_admin(api_url, admin_key, data_dir) as admin:
        limits = admin.limits(tenant_id)
    _print(limits, as_json=as_json)


@_commands.command("set")
def set_(
    tenant_id: TenantId,
    concurrency: Annotated[
        str | None, typer.Option(metavar="N|none", help="Jobs that may run at once; none takes the limit away.")
    ] = None,
    starts_per_minute: Annotated[
        str | None, typer.Option(metavar="N|none", help="Jobs that may start a minute.")
    ] = None,
    submits_per_minute: Annotated[str | None, typer.Option(metavar="N|none", help="Jobs accepted a minute.")] = None,
    weight: Annotated[
        int | None, typer.Option(min=1, help="Jobs that start where one of weight 1 starts, while both tenants wait.")
    ] = None,
    job_type: Annotated[
        list[str] | None,
        typer.Option(
            "--type",
            metavar="TYPE:LIMITS",
            help="Limits of one job type, as scoring:concurrency=2,starts_per_minute=10 or scoring:none; repeatable.",
        ),
    ] = None,
    unlimited: Annotated[
        bool, typer.Option("--unlimited", help="Take all limits away first; the weight stays.")
    ] = False,
    as_json: AsJson = False,
    api_url: ApiUrl = None,
    admin_key: AdminKey = None,
    data_dir: DataDir = HOME,
) -> None:
    """Change a tenant's limits; those that aren't named stay as they are."""
    changed = {
        name: _read_number(text, name="--" + name.replace("_", "-"))
        for name, text in (
            ("concurrency", concurrency),
            ("starts_per_minute", starts_per_minute),
            ("submits_per_minute", submits_per_minute),
        )
        if text is not None
    }
    changed_types = dict(_read_type(text) for text in job_type or ())
    if not (changed or changed_types or weight is not None or unlimited):
        raise typer.BadParameter("say what to change, for example --concurrency 5; --unlimited takes all limits away")
    with open_admin(api_url, admin_key, data_dir) as admin:
        before = admin.limits(tenant_id)
        numbers = {
            "concurrency": before.concurrency,
            "starts_per_minute": before.starts_per_minute,
            "submits_per_minute": before.submits_per_minute,
        }
        types = {**({} if unlimited else before.types), **changed_types}
        limits = admin.set_limits(
            tenant_id,
            **(changed if unlimited else numbers | changed),
            weight=before.weight if weight is None else weight,
            types={name: each for name, each in types.items() if each is not None},
        )
    _print(limits, as_json=as_json)


def _read_type(text: str) -> "tuple[str, TypeLimits | None]":
    """A type and its limits; None for taking them away."""
    from barnabas.client.models import TypeLimits

    # From the right: a type's name may have colons.
    name, _, given = text.rpartition(":")
    if not name:
        raise typer.BadParameter(f"{text!r} is not like scoring:concurrency=2", param_hint="--type")
    if given == _NONE:
        return name, None
    numbers = {}
    for part in given.split(","):
        key, is_pair, value = part.partition("=")
        key = key.strip().replace("-", "_")
        if not is_pair or key not in _TYPE_FIELDS:
            raise typer.BadParameter(f"{part!r} is not {' or '.join(_TYPE_FIELDS)} with =N", param_hint="--type")
        numbers[key] = _read_number(value.strip(), name="--type")
    return name, TypeLimits(**numbers)


def _read_number(text: str, *, name: str) -> int | None:
    if text == _NONE:
        return None
    if not (text.isascii() and text.isdigit()):
        raise typer.BadParameter(f"{text!r} is neither a whole number nor {_NONE}", param_hint=name)
    return int(text)


def _print(limits: "Limits", *, as_json: bool) -> None:
    if as_json:
        print_json(limits)
        return
    use = limits.use
    fields = [
        ("concurrency", _line(limits.concurrency, use.running, "running")),
        ("starts per minute", _line(limits.starts_per_minute, use.starts, "started in the last minute")),
        ("submits per minute", _line(limits.submits_per_minute, use.submits, "submitted in the last minute")),
        ("weight", str(limits.weight)),
    ]
    for name, each in limits.types.items():
        used = use.types.get(name)
        running, starts = (None, None) if used is None else (used.running, used.starts)
        fields += [
            (f"{name} concurrency", _line(each.concurrency, running, "running")),
            (f"{name} starts per minute", _line(each.starts_per_minute, starts, "started in the last minute")),
        ]
    print_fields(fields)


def _line(limit: int | None, used: int | None, what: str) -> str:
    if limit is None:
        return "no limit"
    return str(limit) if used is None else f"{limit} ({used} {what})"
