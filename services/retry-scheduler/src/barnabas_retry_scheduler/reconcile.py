"""The reconciler: finds what is ready in Postgres and has no record in Kafka any more, and sends it again.

It walks all open jobs by their key, a page at a time, counts them on the way, and is slow on purpose: it repairs what
never should happen. Only after a topic was wiped does it begin at once, and even then it sends so many a second only.
"""

import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from uuid import UUID

import structlog

from barnabas.contract import topics
from barnabas.contract.telling import job_keys, job_record
from barnabas.domain.jobs import JobState, Priority
from barnabas.domain.recovery import LOST_MARGIN_SECONDS, WALK_PAGE_ROWS, WALK_REST_SECONDS
from barnabas.kafka.lag import lag, oldest_unread_timestamp_ms
from barnabas.postgres.reconciling import FIRST, Page, Suspect, inspect_open_jobs, read_oldest_outbox
from barnabas.runtime import metrics
from barnabas.runtime.crash_points import CrashPoint, reach
from barnabas.runtime.stop import Stop
from barnabas_retry_scheduler.bells import repeat
from barnabas_retry_scheduler.keep_topics import remember_topics
from barnabas_retry_scheduler.lost_records import Horizons, Resent
from barnabas_retry_scheduler.reap_leases import take_back
from barnabas_retry_scheduler.reconcile_deliveries import DeliveryReconciler
from barnabas_retry_scheduler.resources import Resources
from barnabas_retry_scheduler.tell import send

log = structlog.get_logger(__name__)

WORKER_GROUP = "barnabas.worker"

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_STEP_SECONDS = 1.0
# The poller looks at every timer; what it has not looked at after this long has none.
_OVERDUE_SECONDS = 60.0


@dataclass(slots=True)
class Pass:
    """One walk over all open jobs."""

    topics: tuple[str, ...]
    """The jobs topics of all queues that were known when it began."""
    started_at: float
    """By the database's clock; a wipe noticed before it is made good by this walk."""
    horizons: Horizons
    told_before: float
    """What became ready before this has left the outbox."""
    after: tuple[UUID, UUID] = FIRST
    at_end: bool = False
    by_state: list[int] = field(default_factory=lambda: [0] * 5)
    oldest_ready: list[datetime | None] = field(default_factory=lambda: [None] * 4)
    lost: list[Suspect] = field(default_factory=list)
    """Found, and not sent again yet."""
    remembered: set[UUID] = field(default_factory=set)
    """Jobs that were sent again earlier and still wait."""
    oldest_lost_at: float | None = None
    """Since when the oldest of what is lost, or was sent again and still waits, has been ready."""
    crowded: bool = False
    """There was more than may be remembered: this walk doesn't make a wipe good."""
    resent: int = 0

    def saw_lost(self, ready_at: float) -> None:
        """Something that became ready then is lost, or was and still waits."""
        self.oldest_lost_at = ready_at if self.oldest_lost_at is None else min(self.oldest_lost_at, ready_at)


class Reconciler:
    """Walks. Lives on one event loop; everything it knows of earlier walks is how often it sent which job again."""

    def __init__(self, resources: Resources, *, page_rows: int = WALK_PAGE_ROWS) -> None:
        self._resources = resources
        self._page_rows = page_rows
        self._pass: Pass | None = None
        self._sent: Resent[UUID] = Resent()
        self._deliveries = DeliveryReconciler(resources)
        self._next_pass_at = 0.0

    async def step(self) -> float:
        """One page, or one second's worth of lost records; returns the seconds to rest, until the next walk when one
        is over. Nothing unless this process leads.
        """
        resources = self._resources
        if not resources.leadership.is_held:
            self._pass = None
        elif self._pass is not None:
            if await self._go_on(self._pass):
                self._pass = None
                self._next_pass_at = time.monotonic() + WALK_REST_SECONDS
                return _STEP_SECONDS if resources.lost.wiped.intersection(_topics(resources)) else WALK_REST_SECONDS
        elif time.monotonic() >= self._next_pass_at or resources.lost.wiped.intersection(_topics(resources)):
            self._pass = await self._begin()
            return 0.0
        return _STEP_SECONDS

    async def reconcile_once(self) -> int:
        """A whole walk without rests; returns how many jobs were sent again."""
        walk = await self._begin()
        while not await self._go_on(walk):
            pass
        return walk.resent

    async def _begin(self) -> Pass:
        resources = self._resources
        # The outbox first: what has left it by now is in the logs whose ends are read next.
        async with resources.database.session() as session:
            told_before = await read_oldest_outbox(session)
        await resources.queues.read()
        names = _topics(resources)
        started_at = resources.clock.now().timestamp()
        lags = await lag(resources.admin, WORKER_GROUP, names)
        oldest = await oldest_unread_timestamp_ms(resources.admin, lags)
        return Pass(names, started_at, Horizons(lags, oldest, measured_at=started_at), told_before.timestamp())

    async def _go_on(self, walk: Pass) -> bool:
        """One step of a walk; true when that was its last."""
        if not walk.lost and not walk.at_end:
            await self._read_page(walk)
        await self._send_some(walk)
        if walk.lost or not walk.at_end:
            return False
        await self._end(walk)
        return True

    async def _read_page(self, walk: Pass) -> None:
        resources = self._resources
        wiped_at = max(resources.lost.wiped_at(topic) for topic in walk.topics)
        now = resources.clock.now()
        async with resources.database.session() as session:
            page = await inspect_open_jobs(
                session,
                walk.after,
                limit=self._page_rows,
                ready_before=_moment(max(walk.horizons.latest - LOST_MARGIN_SECONDS, wiped_at)),
                overdue_before=now - timedelta(seconds=_OVERDUE_SECONDS),
                started_before=now - timedelta(seconds=resources.settings.lease_seconds),
            )
        walk.after = page.last
        walk.at_end = page.seen < self._page_rows
        _count(walk, page)
        for suspect in page.suspects:
            self._judge(walk, suspect)
        for worker_id, keys in page.orphans.items():
            taken = await take_back(resources, worker_id, keys)
            log.warning("orphans_taken_back", worker_id=str(worker_id), requeued=taken.requeued, ended=taken.ended)

    def _judge(self, walk: Pass, suspect: Suspect) -> None:
        queue = self._resources.queues.name_of(suspect.queue_id)
        if queue is None:
            return  # younger than this walk: the next one looks
        topic = topics.job_topic(queue, suspect.priority)
        ready_at = suspect.ready_at.timestamp()
        if ready_at >= walk.told_before:
            return
        last_sent = self._sent.last(suspect.job_id)
        if last_sent > 0:
            walk.remembered.add(suspect.job_id)
            walk.saw_lost(ready_at)
        since = max(self._resources.lost.in_kafka_since(ready_at), last_sent)
        # Its record is under one of these keys: the tenant may have been spread when it was sent, by whoever sent it.
        keys = job_keys(suspect.tenant_id, suspect.job_id)
        horizon = min(walk.horizons.of(topic, key) for key in keys)
        if self._resources.lost.is_lost(topic, in_kafka_since=since, horizon=horizon):
            walk.lost.append(suspect)
            walk.saw_lost(ready_at)
            if last_sent < 0:
                metrics.reconciler_found.labels("job", self._reason(topic, suspect, since)).inc()

    def _reason(self, topic: str, suspect: Suspect, since: float) -> str:
        if since < self._resources.lost.wiped_at(topic):
            return "wiped"
        return "unread" if suspect.state == JobState.QUEUED else "overdue"

    async def _send_some(self, walk: Pass) -> None:
        """Send what was found, at most a second's worth."""
        resources = self._resources
        now = resources.clock.now().timestamp()
        chosen: list[Suspect] = []
        rest: list[Suspect] = []
        for suspect in walk.lost:
            if len(chosen) == resources.settings.republish_per_second:
                rest.append(suspect)
            elif self._sent.may(suspect.job_id, now, more=len(chosen)):
                chosen.append(suspect)
            elif suspect.job_id not in walk.remembered:
                walk.crowded = True
        walk.lost = rest
        if not chosen:
            return
        # Noted before it is known to have arrived: what did not is found again after the first interval.
        for suspect in chosen:
            self._sent.note(suspect.job_id, now)
            walk.remembered.add(suspect.job_id)
        records = [
            job_record(job.tenant_id, job.job_id, job.fence, job.priority, job.queue_id, job.type_id) for job in chosen
        ]
        await send(resources, records)
        reach(CrashPoint.RECONCILER_AFTER_SEND)
        walk.resent += len(chosen)
        metrics.reconciler_republished.labels("job").inc(len(chosen))
        log.warning("lost_jobs_sent_again", jobs=len(chosen), first_job_id=str(chosen[0].job_id))

    async def _end(self, walk: Pass) -> None:
        resources = self._resources
        self._sent.keep_only(walk.remembered)
        _show(walk, now=resources.clock.now())
        self._show_lost(walk, now=resources.clock.now().timestamp())
        await self._deliveries.reconcile_once()
        if not walk.crowded:
            await remember_topics(resources, resources.lost.made_good(set(walk.topics), before=walk.started_at))

    def _show_lost(self, walk: Pass, *, now: float) -> None:
        metrics.reconciler_untaken.set(len(self._sent))
        next_at = self._sent.next_at
        metrics.reconciler_next_seconds.set(max(0.0, next_at - now) if len(self._sent) else 0.0)
        oldest_at = walk.oldest_lost_at
        metrics.reconciler_oldest_seconds.set(0.0 if oldest_at is None else max(0.0, now - oldest_at))
        metrics.reconciler_walk_seconds.set(max(0.0, now - walk.started_at))


async def reconcile(resources: Resources, stop: Stop) -> None:
    """Walk, rest, walk again, while this process leads."""
    await repeat(Reconciler(resources).step, stop, bell=resources.bells.jobs_wiped)


def _topics(resources: Resources) -> tuple[str, ...]:
    return tuple(topic.name for topic in topics.topics_of_queues(resources.queues.names))


def _count(walk: Pass, page: Page) -> None:
    walk.by_state = [sum(pair) for pair in zip(walk.by_state, page.by_state, strict=True)]
    walk.oldest_ready = [
        min((at for at in pair if at is not None), default=None)
        for pair in zip(walk.oldest_ready, page.oldest_ready, strict=True)
    ]


def _show(walk: Pass, *, now: datetime) -> None:
    for state, count in enumerate(walk.by_state):
        metrics.jobs.labels(JobState(state).label).set(count)
    for priority, at in enumerate(walk.oldest_ready):
        age = 0.0 if at is None else max(0.0, (now - at).total_seconds())
        metrics.oldest_waiting_seconds.labels(Priority(priority).label).set(age)


def _moment(seconds: float) -> datetime:
    return _EPOCH if seconds <= 0 else datetime.fromtimestamp(seconds, UTC)
