"""How many workers there should be: decided by the leader every few seconds, shown to whoever starts and stops them.

Nothing is started here. What waits and what ended comes from Kafka's offsets; Postgres is asked only while something
moves or waits, so an idle system pays nothing for it.
"""

import time
from dataclasses import dataclass, field

import structlog

from barnabas.contract import topics
from barnabas.domain.scaling import Observation, Reason, ScalingState, begin, decide
from barnabas.kafka.flow import Flow, flow
from barnabas.postgres.measures import Workers, measure_workers
from barnabas.runtime import metrics
from barnabas.runtime.stop import Stop
from barnabas_retry_scheduler.bells import repeat
from barnabas_retry_scheduler.resources import Resources

log = structlog.get_logger(__name__)

_IDLE_SECONDS = 1.0
# A worker that came or went while nothing moves is seen within this time.
_ASK_SECONDS = 60.0
_GROUP = "barnabas.worker"


@dataclass(slots=True)
class Scaling:
    """What one leader remembers from one look to the next."""

    state: ScalingState | None = None
    seen: Flow | None = None
    workers: Workers = field(default_factory=lambda: Workers(0, 0))
    asked_at: float = 0.0
    moves: bool = True
    """Whether anything moved or waited at the last look."""

    def forget(self) -> None:
        """Somebody else leads: its numbers are other ones by the time that this process leads again."""
        self.state = self.seen = None


async def scale_workers(resources: Resources, stop: Stop) -> None:
    """Decide anew every few seconds while this process leads."""
    scaling = Scaling()

    async def step() -> float:
        if not resources.leadership.is_held:
            scaling.forget()
            return _IDLE_SECONDS
        seen = await look_once(resources)
        await scale_workers_once(resources, scaling, seen, now=time.monotonic())
        # A look costs 6 ms of CPU: half as many while there is nothing to see.
        return resources.settings.workers_look_seconds * (1 if scaling.moves else 2)

    await repeat(step, stop)


async def look_once(resources: Resources) -> Flow:
    """What goes through the workers of all queues."""
    jobs = [topic.name for topic in topics.topics_of_queues(resources.queues.names)]
    return await flow(resources.admin, _GROUP, into=jobs, out_of=topics.RESULTS.name)


async def scale_workers_once(resources: Resources, scaling: Scaling, seen: Flow, *, now: float) -> int:
    """Decide and show; returns the number of workers that there should be."""
    before, known = scaling.seen, scaling.workers
    scaling.moves = seen != before or seen.waiting > 0 or known.waiting > 0
    if scaling.moves or now - scaling.asked_at >= _ASK_SECONDS:
        async with resources.database.session() as session:
            scaling.workers = await measure_workers(session)
        scaling.asked_at = now
    scaling.seen = seen
    policy, workers = resources.settings.scaling, scaling.workers
    backlog = seen.waiting + workers.waiting
    if scaling.state is None or before is None:
        scaling.state = begin(policy, workers=workers.live, backlog=backlog, now=now)
        desired, reason = scaling.state.desired, Reason.ADOPTED
    else:
        # What workers read and put aside, because no look-ahead has room for it, waits as it did before.
        put_aside = max(0, workers.waiting - known.waiting)
        observation = Observation(
            backlog=backlog,
            ended=max(0, seen.came_out - before.came_out),
            left=max(0, seen.read - before.read - put_aside),
            workers=workers.live,
        )
        was = scaling.state.desired
        scaling.state, desired, reason = decide(scaling.state, observation, now, policy=policy)
        if desired != was:
            log.info(
                "workers_desired",
                desired=desired,
                before=was,
                reason=reason.value,
                live=workers.live,
                backlog=backlog,
                rate=round(scaling.state.rate, 3),
            )
    _show(scaling.state, workers, backlog, desired, reason)
    return desired


def forget_scaling() -> None:
    """Show nothing that somebody else decides now."""
    for gauge in (metrics.workers, metrics.workers_desired, metrics.worker_service_rate, metrics.backlog_jobs):
        gauge.set(0)
    metrics.workers_reason.clear()


def _show(state: ScalingState, workers: Workers, backlog: int, desired: int, reason: Reason) -> None:
    metrics.workers.set(workers.live)
    metrics.workers_desired.set(desired)
    metrics.worker_service_rate.set(state.rate)
    metrics.backlog_jobs.set(backlog)
    metrics.workers_reason.clear()
    metrics.workers_reason.labels(reason.value).set(1)
