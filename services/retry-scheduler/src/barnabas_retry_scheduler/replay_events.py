"""After the results topic was wiped: events that nobody had read yet are sent again.

Which ones those are is not known, so they are all events of jobs that ended since an hour (a setting) before the topic
was last seen, belong to a tenant with an endpoint, and have no delivery. One that the notifier knows already makes no
second delivery.
"""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import structlog

from barnabas.contract import topics
from barnabas.contract.telling import Told, event_records
from barnabas.domain.ids import RANDOM_BYTES, uuid7
from barnabas.postgres.outbox import read_events
from barnabas.postgres.reconciling import list_told_tenants, list_undelivered_jobs
from barnabas.runtime.crash_points import CrashPoint, reach
from barnabas.runtime.stop import Stop
from barnabas_retry_scheduler.bells import repeat
from barnabas_retry_scheduler.keep_topics import remember_topics
from barnabas_retry_scheduler.resources import Resources
from barnabas_retry_scheduler.tell import send

log = structlog.get_logger(__name__)

_TOPIC = topics.RESULTS.name
_LOOK_SECONDS = 1.0


async def replay_events(resources: Resources, stop: Stop) -> None:
    """Replay once for each wipe, while this process leads."""

    async def step() -> float | None:
        if resources.leadership.is_held and _TOPIC in resources.lost.wiped:
            await replay_once(resources, stop)
        return _LOOK_SECONDS if _TOPIC in resources.lost.wiped else None

    await repeat(step, stop, bell=resources.bells.events_wiped)


async def replay_once(resources: Resources, stop: Stop) -> int:
    """Send the events again, a bounded number a second; returns how many. Unfinished, it begins anew next time."""
    settings = resources.settings
    began_at = resources.clock.now().timestamp()
    # However long Kafka was away, or this took: what was unread then is as old as it was then.
    whole_at = min(began_at, resources.lost.whole_at(_TOPIC))
    since = datetime.fromtimestamp(whole_at, UTC) - timedelta(minutes=settings.results_replay_minutes)
    # The smallest id of that moment.
    since_event = uuid7(int(since.timestamp() * 1_000), bytes(RANDOM_BYTES))
    async with resources.database.session() as session:
        tenants = await list_told_tenants(session)
    sent = 0
    for tenant_id in tenants:
        after = UUID(int=0)
        while True:
            async with resources.database.session() as session:
                jobs = await list_undelivered_jobs(
                    session, tenant_id, after=after, since_event=since_event, limit=settings.republish_per_second
                )
                events = await read_events(session, [tenant_id] * len(jobs), jobs)
            # The copies for people are there already, or gone with their own topic.
            records: list[Told] = [event_records(event)[0] for event in events]
            await send(resources, records)
            if records:
                reach(CrashPoint.REPLAY_AFTER_SEND)
            sent += len(records)
            if len(jobs) < settings.republish_per_second:
                break
            after = jobs[-1]
            if await stop.wait(1.0):
                return sent
    log.warning("events_sent_again", events=sent, tenants=len(tenants))
    await remember_topics(resources, resources.lost.made_good({_TOPIC}, before=began_at))
    return sent
