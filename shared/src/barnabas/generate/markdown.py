"""The little Markdown that the generated pages need."""

from collections.abc import Iterable, Sequence


def page(title: str, made_from: str, *parts: str) -> str:
    """A whole page, which says that it is generated and from what."""
    note = f"<!-- Generated from {made_from} by `make generate`. Change it there. -->"
    return "\n\n".join([f"# {title}", note, *(part.strip("\n") for part in parts)]) + "\n"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; cells may hold any text but newlines, which become spaces."""
    lines = [f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}"]
    lines += [f"| {' | '.join(_cell(each) for each in row)} |" for row in rows]
    return "\n".join(lines)


def code(text: object) -> str:
    """Text as it is typed."""
    return f"`{text}`"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
