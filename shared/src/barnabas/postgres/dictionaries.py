"""Names once, small numbers everywhere else: job types, cached for good since they never change."""

from collections.abc import Iterable

import asyncpg

from barnabas.postgres.database import Database


class Dictionary:
    """One dictionary table, seen through a cache in both directions."""

    def __init__(self, database: Database, *, find: str, list_names: str) -> None:
        self._database = database
        self._find = find
        self._list_names = list_names
        self._ids: dict[str, int] = {}
        self._names: dict[int, str] = {}

    def known_id(self, name: str) -> int | None:
        """The number of a name seen before, without asking the database."""
        return self._ids.get(name)

    async def ids(self, names: Iterable[str]) -> dict[str, int]:
        """Numbers of these names; an unknown name is given one."""
        wanted = set(names)
        if missing := wanted - self._ids.keys():
            self._learn(await self._database.fetch(self._find, sorted(missing)))
        # A row that another process inserted at the same moment is invisible to the statement that lost: ask once more.
        if missing := wanted - self._ids.keys():
            self._learn(await self._database.fetch(self._find, sorted(missing)))
        return {name: self._ids[name] for name in wanted}

    async def names(self, numbers: Iterable[int]) -> dict[int, str]:
        """Names of these numbers; every number in a row of ours has one."""
        wanted = set(numbers)
        if missing := wanted - self._names.keys():
            self._learn(await self._database.fetch(self._list_names, sorted(missing)))
        return {number: self._names[number] for number in wanted}

    def _learn(self, rows: list[asyncpg.Record]) -> None:
        for row in rows:
            number, name = row["id"], row["name"]
            self._ids[name] = number
            self._names[number] = name


def job_types(database: Database) -> Dictionary:
    """The dictionary of job types."""
    return Dictionary(database, find="find_type_ids", list_names="list_type_names")
