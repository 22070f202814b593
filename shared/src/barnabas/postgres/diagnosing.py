"""What `barnabas doctor` reads in Postgres, as the facts that `domain.doctor` judges. Reads only."""

from dataclasses import dataclass
from typing import Any

from barnabas.domain.doctor import Gate, Server, Waiting
from barnabas.postgres.database import Session, translated
from barnabas.postgres.migrate import migrations
from barnabas.postgres.reconciling import read_kafka_topics
from barnabas.postgres.verifying import open_for_looking

_GATES_MAX = 20
_PLACES_MAX = 10_000
_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Facts:
    """All that Postgres tells, of one moment or nearly so."""

    server: Server
    waiting: Waiting
    gates: list[Gate]
    queues: list[str]
    topics: dict[str, tuple[str, str]]
    """(cluster id, topic id) by topic: those whose records are accounted for."""


async def read_facts(dsn: str) -> Facts:
    """Ask, within seconds.

    Raises `DatabaseUnavailableError`, and `VerifyRefusedError` for a login that doesn't see every tenant.
    """
    async with open_for_looking(dsn, name="barnabas-doctor") as session:
        with translated(session.connection):
            async with session.connection.transaction(readonly=True):
                await session.execute("verify_settings", str(int(_SECONDS * 1_000)))
                return Facts(
                    await _read_server(session),
                    await _read_waiting(session),
                    await _read_gates(session),
                    [row["name"] for row in await session.fetch("list_queues")],
                    await read_kafka_topics(session),
                )


async def _read_server(session: Session) -> Server:
    row = await session.fetchrow("diagnose_server")
    assert row is not None, "an aggregate gives one row"
    applied = {each["name"] for each in await session.fetch("list_migrations")}
    known = [migration.name for migration in migrations()]
    days = [(each["parent"], each["missing"]) for each in await session.fetch("diagnose_days")]
    return Server(
        now=row["now"],
        version=row["version"],
        is_standby=row["is_standby"],
        is_read_only=row["is_read_only"],
        started_at=row["started_at"],
        connections=row["connections"],
        connections_max=row["connections_max"],
        oldest_transaction_at=row["oldest_transaction_at"],
        unlimited=tuple(row["unlimited"]),
        missing_migrations=tuple(name for name in known if name not in applied),
        unknown_migrations=tuple(sorted(applied - set(known))),
        missing_days=tuple(days),
    )


async def _read_waiting(session: Session) -> Waiting:
    row = await session.fetchrow("diagnose_waiting")
    assert row is not None, "an aggregate gives one row"
    fields: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in row.items()}
    return Waiting(**fields)


async def _read_gates(session: Session) -> list[Gate]:
    return [
        Gate(
            tenant=row["tenant"],
            type=row["type"],
            allowed=row["allowed"],
            used=row["used"],
            starts_allowed=row["starts_allowed"],
            waiting=row["waiting"],
            since=row["since"],
            room=row["room"],
        )
        for row in await session.fetch("diagnose_gates", _GATES_MAX, _PLACES_MAX)
    ]
