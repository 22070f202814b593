"""Whether this process leads, by its own monotonic clock, and for how long Postgres has been within reach.

Both are judged pessimistically: the lead from before the statement that took it was sent, reach from after the first
answer that came in good time.
"""

import time
from uuid import UUID

from barnabas.postgres.database import Database, Session
from barnabas.postgres.leaders import give_up_lead, take_lead
from barnabas.runtime.crash_points import CrashPoint, reach

ROLE = "retry-scheduler"

# Three chances to renew before anyone else may lead.
_RENEWALS_A_LEASE = 3.0
# An answer that took longer came over a connection or from a server that stood still; workers met the same.
_PROMPT_SECONDS = 2.0


class Leadership:
    """One per process."""

    def __init__(self, holder: UUID, *, lease_seconds: float) -> None:
        self.holder = holder
        self.lease_seconds = lease_seconds
        self._held_until = 0.0
        self._renew_at = 0.0
        self._reached_since: float | None = None
        self.led = False
        """Whether it led when it was last asked, for those who say so."""

    @property
    def is_held(self) -> bool:
        """Whether this process leads now."""
        return time.monotonic() < self._held_until

    @property
    def renewal_is_due(self) -> bool:
        """Whether the next question should renew the lead."""
        return time.monotonic() >= self._renew_at

    async def take(self, session: Session) -> bool:
        """Take the lead; false while somebody else has it."""
        sent_at = time.monotonic()
        took = await take_lead(session, ROLE, self.holder, lease_seconds=self.lease_seconds)
        if took:
            reach(CrashPoint.LEAD_AFTER_TAKE)
        self.renewed(took, sent_at=sent_at)
        return took

    def renewed(self, renewed: bool, *, sent_at: float) -> None:
        """The statement that was sent then has renewed the lead, or found that somebody else has it."""
        self._held_until = sent_at + self.lease_seconds if renewed else 0.0
        self._renew_at = sent_at + self.lease_seconds / _RENEWALS_A_LEASE

    async def give_up(self, database: Database) -> None:
        """Let another one lead at once."""
        if self.is_held:
            self._held_until = 0.0
            await give_up_lead(database, ROLE, self.holder)

    def answered(self, seconds: float) -> None:
        """Postgres has answered, after so long."""
        if seconds > _PROMPT_SECONDS:
            self._reached_since = None
        elif self._reached_since is None:
            self._reached_since = time.monotonic()

    def unanswered(self) -> None:
        """Postgres could not be reached."""
        self._reached_since = None

    @property
    def reached_seconds(self) -> float:
        """For how long Postgres has answered without a break."""
        return 0.0 if self._reached_since is None else time.monotonic() - self._reached_since
