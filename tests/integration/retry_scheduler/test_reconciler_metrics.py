"""The reconciler shows its work: what it found lost and why, what nobody has taken, when it tries again."""

from datetime import timedelta

from prometheus_client import Counter, Gauge

from barnabas.contract import topics
from barnabas.kafka.admin import Admin
from barnabas.runtime import metrics
from barnabas_retry_scheduler import reconcile
from barnabas_retry_scheduler.measure import forget_measures
from barnabas_retry_scheduler.reconcile import Reconciler
from barnabas_retry_scheduler.resources import Resources
from tests.integration.retry_scheduler.test_reconciling import grow_old, read_all, readers, walk
from tests.support.world import World

__all__ = ["readers"]


def value(metric: Counter | Gauge, *labels: str) -> float:
    """What the metric exports now."""
    child = metric.labels(*labels) if labels else metric
    (sample, *_) = next(iter(child.collect())).samples
    return float(sample.value)


async def test_a_lost_job_is_shown_until_somebody_takes_it(world: World, scheduler: Resources, readers: Admin) -> None:
    tenant_id = await world.tenant()
    await world.submit(tenant_id)
    overdue = await world.submit(tenant_id, run_at=await world.now() + timedelta(minutes=1))
    await world.superuser.execute("DELETE FROM timers WHERE ref_id = ANY ($1)", overdue)
    await read_all(readers, reconcile.WORKER_GROUP, [topic.name for topic in topics.JOBS])
    await grow_old(world, tenant_id, 600)
    before = {reason: value(metrics.reconciler_found, "job", reason) for reason in ("unread", "overdue", "wiped")}
    reconciler = Reconciler(scheduler)

    assert await walk(reconciler) == 2
    # A second walk finds the same two: each is counted once.
    await walk(reconciler)

    found = {reason: value(metrics.reconciler_found, "job", reason) - before[reason] for reason in before}
    assert found == {"unread": 1, "overdue": 1, "wiped": 0}
    assert value(metrics.reconciler_untaken) == 2
    assert value(metrics.reconciler_oldest_seconds) > 500
    assert 0 < value(metrics.reconciler_next_seconds) <= 30
    assert value(metrics.reconciler_walk_seconds) > 0

    await world.superuser.execute("DELETE FROM jobs WHERE tenant_id = $1", tenant_id)
    await walk(reconciler)

    assert value(metrics.reconciler_untaken) == 0
    assert value(metrics.reconciler_oldest_seconds) == 0
    assert value(metrics.reconciler_next_seconds) == 0
    forget_measures()
    assert value(metrics.reconciler_walk_seconds) == 0
