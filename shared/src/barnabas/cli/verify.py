"""`barnabas verify`: recount what must agree, on a living system, and name what nobody will bring back.

Reads only. Exit code 0: nothing was found; 1: something was, or a check couldn't be finished.
"""

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer

from barnabas.cli.access import HOME, DataDir
from barnabas.cli.printing import AsJson, print_json, print_table
from barnabas.cli.servers import Postgres, find_address, refusals

if TYPE_CHECKING:
    from barnabas.postgres.verifying import Checked

# A page of a terminal; JSON has all of them.
_SHOWN_MAX = 20


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(verify)


def verify(
    postgres: Postgres = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Also read the days that are over: results, deliveries, payloads.")
    ] = False,
    patience: Annotated[
        float, typer.Option(min=0, max=3_600, help="Seconds until the second look; only what stayed is reported.")
    ] = 15.0,
    seconds: Annotated[float, typer.Option(min=1, max=3_600, help="How long one check may take.")] = 30.0,
    as_json: AsJson = False,
    data_dir: DataDir = HOME,
) -> None:
    """Recount gates, leases, timers, lines and letters; name each that nobody will bring back."""
    from barnabas.postgres.verifying import verify as look

    dsn = find_address(postgres, data_dir, key="postgres", option="--postgres or BARNABAS_POSTGRES")

    def wait(count: int) -> None:
        if not as_json:
            typer.echo(f"{count} to be looked at again in {patience:g} s ...", err=True)

    with refusals():
        checked = asyncio.run(
            look(dsn, everything=everything, patience_seconds=patience, check_seconds=seconds, on_suspects=wait)
        )
    is_clean = all(each.is_clean for each in checked)
    if as_json:
        print_json({"clean": is_clean, "checks": [_as_json(each) for each in checked]})
    else:
        _show(checked)
    if not is_clean:
        raise typer.Exit(1)


def _show(checked: "list[Checked]") -> None:
    print_table(
        ("check", "found", "passing", "seconds", "what it finds"),
        [
            (
                each.check.name,
                "?" if each.reason is not None else str(len(each.findings)),
                str(each.passing),
                f"{each.seconds:.2f}",
                each.check.about,
            )
            for each in checked
        ],
        empty="Nothing was asked.",
    )
    for each in checked:
        if each.reason is not None:
            typer.echo(f"\n{each.check.name}: {each.reason}")
        if each.findings:
            typer.echo(f"\n{each.check.name}: {each.check.about}")
            print_table(
                ("tenant", "id", "detail"),
                [(str(one.tenant_id or ""), str(one.ref_id or ""), one.detail) for one in each.findings[:_SHOWN_MAX]],
                empty="",
            )
            if len(each.findings) > _SHOWN_MAX:
                typer.echo(f"... and {len(each.findings) - _SHOWN_MAX} more (--json has them)")
    found = sum(len(each.findings) for each in checked)
    unfinished = sum(each.reason is not None for each in checked)
    typer.echo(f"\n{found} found" + (f", {unfinished} checks not finished" if unfinished else ""))


def _as_json(each: "Checked") -> dict[str, object]:
    return {
        "name": each.check.name,
        "about": each.check.about,
        "clean": each.is_clean,
        "seconds": round(each.seconds, 3),
        "passing": each.passing,
        "reason": each.reason,
        "findings": [
            {"tenant_id": one.tenant_id, "id": one.ref_id, "mark": one.mark, "detail": one.detail}
            for one in each.findings
        ],
    }
