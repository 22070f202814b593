"""What `barnabas verify` asks: does each thing that waits or is held still have somebody who brings it back?

Reads only, one statement and one snapshot for each check, each with a time of its own. A living system passes through
states that look wrong for a moment (a batch of a worker that was just buried), so what is found is looked at again
after a while, and only what stayed exactly as it was is a finding.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final
from uuid import UUID

import asyncpg

from barnabas.domain.attempts import LOSSES_MAX
from barnabas.errors import RejectedError
from barnabas.postgres.connecting import connect
from barnabas.postgres.database import Session, translated
from barnabas.postgres.queries import query

PATIENCE_SECONDS: Final = 15.0
"""The lease by default and half of it again: by then the reaper, the poller and the relay have done what they do."""

CHECK_SECONDS: Final = 30.0
FINDINGS_MAX: Final = 10_000
"""Of one check; more than that need no list."""

_CONNECT_SECONDS = 10.0
_ANSWER_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Check:
    """One question. `about` is what is wrong with everything that it finds, and what the query returns."""

    name: str
    query: str
    about: str
    arguments: tuple[object, ...] = ()
    reads_history: bool = False
    """It reads days that are over, and may take minutes."""


CHECKS: Final = (
    Check("gates", "verify_gates", "a gate counts other jobs than those that run under it"),
    Check("running", "verify_running_jobs", "a job runs and no live lease holds it"),
    Check("leases", "verify_lease_batches", "a lease is over, or its worker gone, and nobody took back what it held"),
    Check("stranded", "verify_stranded_jobs", "a job waits and nobody will bring it back"),
    Check("parked", "verify_parked_jobs", "a place in a line from which nobody is called"),
    Check("timers", "verify_timers", "a timer of something that does not wait for it"),
    Check("orders", "verify_orders", "a line of an ordering key that stands for ever"),
    Check("dead_letters", "verify_dead_letters", "a dead letter of what did not fail, or can't be redriven"),
    Check("outbox", "verify_outbox", "an outbox row that nobody tells Kafka"),
    Check("ended", "verify_ended_jobs", "a job that has ended is open"),
    Check("attempts", "verify_attempts", "more attempts or losses than a job may have", (LOSSES_MAX,)),
    Check("keys", "verify_keys", "an idempotency key of a job that never was"),
    Check("payloads", "verify_payloads", "an open job without its payload", reads_history=True),
    Check("results", "verify_results", "a job that ended twice, or after too many attempts", reads_history=True),
    Check("deliveries", "verify_deliveries", "an open delivery that nobody holds", reads_history=True),
    Check("undelivered", "verify_undelivered", "an event without a delivery that was wanted", reads_history=True),
)


class VerifyRefusedError(RejectedError):
    """This login doesn't see every tenant's rows: use the engine's or the owner's."""

    code = "verify_refused"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong. The same thing seen twice is equal."""

    tenant_id: UUID | None
    ref_id: UUID | None
    """The job, delivery, batch or worker that it is about."""
    mark: str
    """Changes when it is another state of affairs: a fence, a count."""
    detail: str


@dataclass(frozen=True, slots=True)
class Checked:
    """What one check came to."""

    check: Check
    findings: tuple[Finding, ...] = ()
    passing: int = 0
    """What looked wrong and was gone, or had changed, at the second look."""
    seconds: float = 0.0
    reason: str | None = None
    """Why it could not be finished; None when it was."""

    @property
    def is_clean(self) -> bool:
        """Whether it was finished and found nothing."""
        return self.reason is None and not self.findings


@asynccontextmanager
async def open_for_looking(dsn: str, *, name: str) -> AsyncIterator[Session]:
    """A connection whose login sees every tenant's rows; raises `VerifyRefusedError` for one that doesn't."""
    with translated(None):
        connection = await connect(dsn, timeout=_CONNECT_SECONDS, server_settings={"application_name": name})
    try:
        session = Session(connection)
        sight = await session.fetchrow("describe_sight")
        if sight is None:
            raise VerifyRefusedError("this database has no tables of Barnabas, or the login may not see them")
        if not sight["sees_all"]:
            raise VerifyRefusedError(f"{sight['name']} does not see every tenant's rows: use barnabas_engine")
        yield session
    finally:
        connection.terminate()


async def verify(
    dsn: str,
    *,
    everything: bool = False,
    patience_seconds: float = PATIENCE_SECONDS,
    check_seconds: float = CHECK_SECONDS,
    on_suspects: Callable[[int], object] = lambda _count: None,
) -> list[Checked]:
    """Ask every check, those of the days that are over with `everything`; in the order of `CHECKS`.

    `on_suspects` is told how many suspicions wait for the second look, before the wait. Never longer than two times
    the checks' seconds and the patience. Raises `DatabaseUnavailableError` and `VerifyRefusedError`.
    """
    async with open_for_looking(dsn, name="barnabas-verify") as session:
        chosen = [check for check in CHECKS if everything or not check.reads_history]
        first = [await _look(session, check, seconds=check_seconds) for check in chosen]
        suspects = sum(len(each.findings) for each in first)
        if not suspects or patience_seconds <= 0:
            return first
        on_suspects(suspects)
        await asyncio.sleep(patience_seconds)
        return [await _look_again(session, each, seconds=check_seconds) if each.findings else each for each in first]


async def _look_again(session: Session, first: Checked, *, seconds: float) -> Checked:
    again = await _look(session, first.check, seconds=seconds)
    if again.reason is not None:
        return again
    # Equal in all but the text: that may say when it was looked at.
    seen = {_identity(finding) for finding in first.findings}
    stayed = tuple(finding for finding in again.findings if _identity(finding) in seen)
    return Checked(first.check, stayed, len(first.findings) - len(stayed), first.seconds + again.seconds)


def _identity(finding: Finding) -> tuple[UUID | None, UUID | None, str]:
    return finding.tenant_id, finding.ref_id, finding.mark


async def _look(session: Session, check: Check, *, seconds: float) -> Checked:
    connection, started = session.connection, time.monotonic()
    with translated(connection):
        try:
            async with connection.transaction(readonly=True):
                await connection.fetch(query("verify_settings"), str(int(seconds * 1_000)))
                # The server ends a statement that is over its time; this limit is for a server that doesn't answer.
                limit = seconds + _ANSWER_SECONDS
                rows = await connection.fetch(query(check.query), FINDINGS_MAX, *check.arguments, timeout=limit)
        except (asyncpg.QueryCanceledError, asyncpg.LockNotAvailableError) as error:
            return Checked(check, seconds=time.monotonic() - started, reason=f"not finished in {seconds:g} s: {error}")
    findings = tuple(Finding(row["tenant_id"], row["ref_id"], row["mark"], row["detail"]) for row in rows)
    return Checked(check, findings, seconds=time.monotonic() - started)
