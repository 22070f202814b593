"""Deliveries that may be tried now and whose record Kafka has lost are told again.

A delivery is pending only for a moment and carries no time of its own, so its age counts from when it was first seen
here. Those that wait for their backoff have timers, those in a notifier's hands a lease, parked ones its sweep.
"""

from barnabas.contract import topics
from barnabas.contract.telling import delivery_record, tenant_key
from barnabas.kafka.lag import lag, oldest_unread_timestamp_ms
from barnabas.postgres.deliveries import DeliveryKey
from barnabas.postgres.reconciling import list_pending_deliveries, read_oldest_outbox
from barnabas.runtime import metrics
from barnabas_retry_scheduler.keep_topics import remember_topics
from barnabas_retry_scheduler.lost_records import Horizons, Resent
from barnabas_retry_scheduler.resources import Resources
from barnabas_retry_scheduler.tell import send

NOTIFIER_GROUP = "barnabas.notifier"

_TOPIC = topics.DELIVERIES_RETRY.name
_ROWS = 2_000

Seen = tuple[DeliveryKey, int]
"""A delivery and its fence: with another fence it is pending anew."""


class DeliveryReconciler:
    """What one leader has seen and sent again."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        self._first_seen: dict[Seen, float] = {}
        self._sent: Resent[Seen] = Resent(size_max=_ROWS)

    async def reconcile_once(self) -> int:
        """Look at the oldest pending deliveries and tell lost ones again; returns how many."""
        resources = self._resources
        now = resources.clock.now().timestamp()
        async with resources.database.session() as session:
            pending = await list_pending_deliveries(session, limit=_ROWS)
            told_before = (await read_oldest_outbox(session)).timestamp() if pending else now
        self._first_seen = {seen: self._first_seen.get(seen, now) for seen in pending}
        self._sent.keep_only(set(pending))
        lost = await self._lost(pending, told_before=told_before, now=now) if pending else []
        if lost:
            for seen in lost:
                if self._sent.last(seen) < 0:
                    is_wiped = self._first_seen[seen] < resources.lost.wiped_at(_TOPIC)
                    metrics.reconciler_found.labels("delivery", "wiped" if is_wiped else "unread").inc()
                self._sent.note(seen, now)
            await send(resources, [delivery_record(*key, fence) for key, fence in lost])
            metrics.reconciler_republished.labels("delivery").inc(len(lost))
        await remember_topics(resources, resources.lost.made_good({_TOPIC}, before=now))
        return len(lost)

    async def _lost(self, pending: list[Seen], *, told_before: float, now: float) -> list[Seen]:
        resources = self._resources
        lags = await lag(resources.admin, NOTIFIER_GROUP, [_TOPIC])
        horizons = Horizons(lags, await oldest_unread_timestamp_ms(resources.admin, lags), measured_at=now)
        lost: list[Seen] = []
        for seen in pending:
            first_seen = self._first_seen[seen]
            since = max(resources.lost.in_kafka_since(first_seen), self._sent.last(seen))
            if (
                first_seen < told_before
                and resources.lost.is_lost(
                    _TOPIC, in_kafka_since=since, horizon=horizons.of(_TOPIC, tenant_key(seen[0].tenant_id))
                )
                and self._sent.may(seen, now, more=len(lost))
            ):
                lost.append(seen)
        return lost[: resources.settings.republish_per_second]
