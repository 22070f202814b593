"""How commands print: aligned columns for people, one JSON document for machines.

What tenants wrote (types, messages, names) may hold control characters, which a terminal would obey: they are replaced
here. Nothing is cut to the width of a terminal: ids are copied from these lines.
"""

import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")]
Limit = Annotated[int, typer.Option("--limit", "-n", min=1, help="How many at most, newest first.")]


def print_json(value: object) -> None:
    """One JSON document."""
    import msgspec

    typer.echo(msgspec.json.format(msgspec.json.encode(value), indent=2))


def print_table(names: Sequence[str], rows: Iterable[Sequence[str]], *, empty: str) -> None:
    """Columns with their names, or one sentence where there are no rows."""
    shown = [[as_text(cell) for cell in row] for row in rows]
    if not shown:
        typer.echo(empty)
        return
    table = [[name.upper() for name in names], *shown]
    widths = [max(len(row[column]) for row in table) for column in range(len(names))]
    for row in table:
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def print_fields(fields: Iterable[tuple[str, str]]) -> None:
    """One line each; what is empty is left out."""
    present = [(name, as_text(value)) for name, value in fields if value]
    width = max((len(name) for name, _ in present), default=0)
    for name, value in present:
        typer.echo(f"{name.ljust(width)}  {value}")


def as_text(value: str) -> str:
    """The text with everything replaced that isn't there to be seen."""
    return "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in value)


def as_time(moment: datetime | None) -> str:
    """A time in UTC, to the millisecond; nothing for none."""
    return "" if moment is None else f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S}.{moment.microsecond // 1000:03d}Z"


def as_seconds(start: datetime | None, end: datetime | None) -> str:
    """How long it took; nothing if that isn't known."""
    return "" if start is None or end is None else f"{(end - start).total_seconds():.3f} s"


def as_compact(value: Any) -> str:
    """JSON on one line."""
    return json.dumps(value, ensure_ascii=False, separators=(", ", ": "))
