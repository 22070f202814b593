"""The leader's question: one a second, and a bell for each yes.

A process that doesn't lead asks only whether it may. Nothing here acts; the steps do, each in its own file.
"""

import time
from datetime import timedelta

import structlog

from barnabas.domain.recovery import OUTBOX_STALE_SECONDS, OVERDUE_GRACE_SECONDS, QUESTION_SECONDS
from barnabas.errors import TransientError
from barnabas.postgres.database import Session
from barnabas.runtime.periodic import every, retry_pause
from barnabas.runtime.stop import Stop
from barnabas_retry_scheduler.leadership import ROLE
from barnabas_retry_scheduler.measure import forget_measures
from barnabas_retry_scheduler.resources import Resources

log = structlog.get_logger(__name__)

_CLOCK_SECONDS = 60.0


async def lead(resources: Resources, stop: Stop) -> None:
    """Ask until the stop, then let another one lead."""
    failures = 0
    while not stop.is_set():
        try:
            # One connection for as long as it lasts: to hand it back each second would cost a statement each time.
            async with resources.database.session() as session:
                while not stop.is_set():
                    await _ask_and_say(resources, session)
                    failures = 0
                    await stop.wait(QUESTION_SECONDS)
        except TransientError as error:
            resources.leadership.unanswered()
            failures += 1
            pause = retry_pause(QUESTION_SECONDS, failures, jitter=resources.jitter())
            log.warning("question_unanswered", code=error.code, reason=str(error), failures=failures)
            await stop.wait(pause)


async def _ask_and_say(resources: Resources, session: Session) -> None:
    leadership = resources.leadership
    led, leads = leadership.led, await ask_once(resources, session)
    leadership.led = leads
    if leads and not led:
        log.info("lead_taken", holder=str(leadership.holder))
    elif led and not leads:
        log.warning("lead_lost", holder=str(leadership.holder))
        forget_measures()


async def ask_once(resources: Resources, session: Session) -> bool:
    """Hold the lead and ask; rings the bells. False when somebody else leads."""
    leadership, bells = resources.leadership, resources.bells
    asked_at = time.monotonic()
    if not leadership.is_held and not await leadership.take(session):
        leadership.answered(time.monotonic() - asked_at)
        return False
    renews = leadership.renewal_is_due
    row = await session.fetchrow(
        "ask_what_waits",
        timedelta(seconds=OUTBOX_STALE_SECONDS),
        timedelta(seconds=OVERDUE_GRACE_SECONDS),
        ROLE,
        leadership.holder,
        timedelta(seconds=leadership.lease_seconds),
        renews,
    )
    assert row is not None
    leadership.answered(time.monotonic() - asked_at)
    if renews:
        leadership.renewed(row["renewed"], sent_at=asked_at)
        if not row["renewed"]:
            return False
    # A second ahead: the poller itself wakes to the millisecond.
    if row["timer_at"] is not None and row["timer_at"] <= resources.clock.now() + timedelta(seconds=QUESTION_SECONDS):
        bells.timers.ring()
    if row["outbox_stale"]:
        bells.outbox.ring()
    if row["lease_over"]:
        bells.leases.ring()
    if row["batch_old"]:
        bells.overdue.ring()
    if row["gate_open"]:
        bells.gates.ring()
    if row["type_handled"]:
        bells.types.ring()
    return True


async def keep_clock(resources: Resources, stop: Stop) -> None:
    """Follow the database's clock."""
    await every(_CLOCK_SECONDS, resources.clock.synchronise, stop)
