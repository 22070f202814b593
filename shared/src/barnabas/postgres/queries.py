"""Queries by name: one file each under `sql/`, read once."""

from functools import cache
from importlib.resources import files


@cache
def query(name: str) -> str:
    """The text of `sql/<name>.sql`; a missing file is our own mistake and raises `FileNotFoundError`."""
    return (files("barnabas.postgres") / "sql" / f"{name}.sql").read_text()
