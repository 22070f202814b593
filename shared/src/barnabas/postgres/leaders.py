"""Leadership: one holder a role at a time, by a row with a lease.

Whoever leads spares the others their questions; nothing rests on there being only one. Every step of a leader is
guarded by the rows it moves, so two leaders for a moment do each thing once all the same.
"""

from datetime import timedelta
from uuid import UUID

from barnabas.postgres.database import Database, Session


async def take_lead(session: Session, role: str, holder: UUID, *, lease_seconds: float) -> bool:
    """Become the leader, or stay it; false while another one's lease holds."""
    return bool(await session.fetchval("take_lead", role, holder, timedelta(seconds=lease_seconds)))


async def give_up_lead(database: Database, role: str, holder: UUID) -> None:
    """Let the next one begin at once."""
    await database.execute("give_up_lead", role, holder)
