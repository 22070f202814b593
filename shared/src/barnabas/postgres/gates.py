"""Gates: a tenant's exact limits, set while jobs run.

A gate made for a tenant that runs jobs already must count them, once each. Claims that began before the gate was
visible don't see it; so the gate is made first, and what runs is counted only when every older transaction is over.
"""

import asyncio
from uuid import UUID

from barnabas.errors import DatabaseUnavailableError
from barnabas.postgres.database import Database, Session

_HORIZON_POLL_SECONDS = 0.02
# Longer than any statement of ours may take.
_HORIZON_LIMIT_SECONDS = 60.0


async def set_concurrency(database: Database, tenant_id: UUID, allowed: int | None) -> None:
    """At most `allowed` jobs of the tenant run at once, over all workers; None = no limit.

    Jobs that run already go on, and are counted when this returns: from then on no job starts above the limit. Raises
    `DatabaseUnavailableError` if an older transaction doesn't end; calling again then completes the change.
    """
    transaction_id = await database.fetchval("set_gate", tenant_id, allowed)
    try:
        async with asyncio.timeout(_HORIZON_LIMIT_SECONDS):
            while not await database.fetchval("is_transaction_past", transaction_id):
                await asyncio.sleep(_HORIZON_POLL_SECONDS)
    except TimeoutError as error:
        raise DatabaseUnavailableError("an older transaction is still open") from error
    await database.run(lambda session: _count_running(session, tenant_id))


async def read_concurrency(database: Database, tenant_id: UUID) -> tuple[int | None, int]:
    """The limit (None = no limit) and how many places are taken."""
    row = await database.fetchrow("read_gate", tenant_id)
    return (None, 0) if row is None else (row["allowed"], row["used"])


async def _count_running(session: Session, tenant_id: UUID) -> None:
    # Whom a raised limit lets pass is woken by the retry-scheduler's sweep, within a second.
    await session.fetch("lock_gates", [tenant_id])
    await session.execute("count_running_jobs", tenant_id)
