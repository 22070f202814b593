"""Every metric of the product, declared once: name, type, labels, help.

Base units in the names, bounded labels only, never an id. `CATALOGUE` lists the same facts for the reference page and
for the tests that compare dashboards and alerts with it. Hot paths keep the children (`labels(...)` once) and feed them
per batch (`observe_all`): a look-up and an observe cost 3.7 us, too much for each job.
"""

import bisect
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.exposition import generate_latest

REGISTRY = CollectorRegistry()
"""Our own registry: what a library puts into the default one is not part of the product."""

ProcessCollector(registry=REGISTRY)


@dataclass(frozen=True, slots=True)
class Metric:
    """What a reader of the reference page is told about a metric."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    labels: tuple[str, ...]
    help: str

    @property
    def sample_names(self) -> tuple[str, ...]:
        """The names under which its samples are exported; what a query may mention."""
        if self.kind == "histogram":
            return (f"{self.name}_bucket", f"{self.name}_sum", f"{self.name}_count")
        return (self.name,)


_declared: list[Metric] = []

# From a fast statement to a slow webhook: about three buckets a decade.
_DURATIONS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
# Waiting may last for hours when a tenant is over its limit.
_DELAYS = (0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.25, 2.5, 5.0, 15.0, 60.0, 300.0, 1_800.0, 7_200.0)
_BATCHES = (1.0, 2.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1_000.0, 2_500.0)


def _counter(name: str, about: str, *labels: str) -> Counter:
    _declared.append(Metric(name, "counter", labels, about))
    return Counter(name, about, labels, registry=REGISTRY)


def _gauge(name: str, about: str, *labels: str) -> Gauge:
    _declared.append(Metric(name, "gauge", labels, about))
    return Gauge(name, about, labels, registry=REGISTRY)


def _histogram(name: str, about: str, *labels: str, buckets: Sequence[float]) -> Histogram:
    _declared.append(Metric(name, "histogram", labels, about))
    return Histogram(name, about, labels, registry=REGISTRY, buckets=buckets)


# Ingest.
submissions = _counter(
    "barnabas_submissions_total",
    "Jobs handed in, by source (http, batch, kafka) and outcome (accepted, replayed, rejected, limited, refused).",
    "source",
    "outcome",
)
accept_seconds = _histogram(
    "barnabas_accept_seconds", "From a job's arrival to the commit that accepts it.", "source", buckets=_DURATIONS
)
ingest_queue_bytes = _gauge("barnabas_ingest_queue_bytes", "Bytes of submissions that wait for their flush.")
flush_rows = _histogram(
    "barnabas_flush_rows",
    "Rows that one group commit carried, by step (accept, turn, deliver, ...).",
    "step",
    buckets=_BATCHES,
)
flush_seconds = _histogram(
    "barnabas_flush_seconds", "How long one group commit took, by step.", "step", buckets=_DURATIONS
)

# Jobs and attempts.
jobs = _gauge("barnabas_jobs", "Open jobs by state.", "state")
oldest_waiting_seconds = _gauge(
    "barnabas_oldest_waiting_seconds", "Age of the oldest job that is ready and doesn't run, by priority.", "priority"
)
claims = _counter(
    "barnabas_claims_total",
    "Records that got a durable verdict: claimed, parked, backlog, early, unhandled, stale, poison.",
    "verdict",
)
start_delay_seconds = _histogram(
    "barnabas_start_delay_seconds",
    "From the moment a job became ready (accepted, due) to the start of its attempt, by priority.",
    "priority",
    buckets=_DELAYS,
)
attempts = _counter(
    "barnabas_attempts_total",
    "Attempts that ended: succeeded, retryable, permanent, timeout, cancelled, handed_back, snoozed.",
    "outcome",
)
attempt_seconds = _histogram(
    "barnabas_attempt_seconds", "How long an attempt ran, by outcome.", "outcome", buckets=_DURATIONS
)
slots_busy = _gauge("barnabas_slots_busy", "Slots of this worker that run an attempt.")
slots_total = _gauge("barnabas_slots", "Slots that this worker has.")
superseded_writes = _counter(
    "barnabas_superseded_writes_total",
    "Results that were dropped because a newer fence holds the row, by what (job, delivery, intake).",
    "what",
)
leases_expired = _counter(
    "barnabas_leases_expired_total", "Leases that ran out and were taken back, by what (job, delivery).", "what"
)
losses = _counter("barnabas_losses_total", "Attempts whose worker process died under them.")

# Scaling.
workers = _gauge("barnabas_workers", "Workers that are alive.")
workers_desired = _gauge("barnabas_workers_desired", "Workers that there should be; 0 where nobody has decided.")
workers_reason = _gauge(
    "barnabas_workers_reason",
    "1 at the reason for that number: adopted, steady, arrivals, backlog, maximum, warming, draining, holding, quiet, "
    "trial.",
    "reason",
)
worker_service_rate = _gauge(
    "barnabas_worker_service_rate", "Jobs a second that one worker does, learned while workers are busy."
)
backlog_jobs = _gauge(
    "barnabas_backlog_jobs", "Jobs that could start if a slot were free, in Kafka and in Postgres; not what is parked."
)

# Retries, timers and due times.
timers = _gauge("barnabas_timers", "Rows that wait for their due time.")
timer_lateness_seconds = _histogram(
    "barnabas_timer_lateness_seconds", "How late a due job was handed out, against its due time.", buckets=_DELAYS
)
retry_lateness_seconds = _histogram(
    "barnabas_retry_lateness_seconds",
    "How late a record left its delay tier, against its due time.",
    "tier",
    buckets=_DELAYS,
)

# Deliveries.
deliveries = _counter(
    "barnabas_deliveries_total", "Deliveries that ended for good: delivered, dead, disabled.", "outcome"
)
delivery_attempts = _counter(
    "barnabas_delivery_attempts_total",
    "Calls to endpoints: delivered, refused (an answer other than 2xx), timeout, unreachable, forbidden, gone.",
    "outcome",
)
delivery_attempt_seconds = _histogram(
    "barnabas_delivery_attempt_seconds", "How long one call to an endpoint took.", "outcome", buckets=_DURATIONS
)
delivery_end_to_end_seconds = _histogram(
    "barnabas_delivery_end_to_end_seconds", "From the end of a job to its acknowledged delivery.", buckets=_DELAYS
)
deliveries_open = _gauge("barnabas_deliveries_open", "Deliveries that have not ended, by state.", "state")

# Dead letters.
dead_letters = _gauge("barnabas_dead_letters", "Open dead letters by kind (jobs, deliveries).", "kind")
dead_letter_oldest_seconds = _gauge(
    "barnabas_dead_letter_oldest_seconds", "Age of the oldest open dead letter by kind; 0 without one.", "kind"
)
redrives = _counter("barnabas_redrives_total", "Dead letters that were sent round again, by kind.", "kind")

# Outbox, relay, reconciler.
outbox_rows = _gauge("barnabas_outbox_rows", "Outbox rows whose records the broker has not acknowledged.")
outbox_oldest_seconds = _gauge("barnabas_outbox_oldest_seconds", "Age of the oldest outbox row; 0 without one.")
relay_published = _counter("barnabas_relay_published_total", "Records that the relay sent for outbox rows left behind.")
reconciler_republished = _counter(
    "barnabas_reconciler_republished_total",
    "Records that Kafka had lost and that were sent again, by what (job, delivery).",
    "what",
)
reconciler_found = _counter(
    "barnabas_reconciler_found_total",
    "Lost records that were found, each once, by what (job, delivery) and reason: unread (its partition was read past "
    "it), wiped (the topic was made anew), overdue (due, and no timer).",
    "what",
    "reason",
)
reconciler_untaken = _gauge(
    "barnabas_reconciler_untaken_records",
    "Jobs that were sent again and that nobody has taken since, as of the last walk.",
)
reconciler_oldest_seconds = _gauge(
    "barnabas_reconciler_oldest_seconds",
    "For how long the oldest job that is lost, or was sent again and not taken, has been ready; 0 without one.",
)
reconciler_next_seconds = _gauge(
    "barnabas_reconciler_next_seconds", "Until the first of those may be sent once more, as of the last walk."
)
reconciler_walk_seconds = _gauge(
    "barnabas_reconciler_walk_seconds", "How long the last walk over all open jobs took; 0 before the first."
)

# Kafka.
consumer_lag_records = _gauge(
    "barnabas_consumer_lag_records", "Records not yet committed, by group and topic.", "group", "topic"
)
consumer_lag_seconds = _gauge(
    "barnabas_consumer_lag_seconds", "Age of the oldest record not yet committed, by group and topic.", "group", "topic"
)
rebalances = _counter(
    "barnabas_rebalances_total",
    "Changes of this process's partitions, by group and event (assigned, revoked, lost, rebuilt).",
    "group",
    "event",
)
consumer_inbox_records = _gauge(
    "barnabas_consumer_inbox_records", "Records consumed and not yet taken by their step, by group.", "group"
)
consumer_inbox_bytes = _gauge("barnabas_consumer_inbox_bytes", "Bytes of those records, by group.", "group")
consumer_pauses = _counter(
    "barnabas_consumer_pauses_total",
    "Times that a consumer stopped fetching because its inbox was full, by group.",
    "group",
)
malformed_records = _counter(
    "barnabas_malformed_records_total", "Records that could not be read and were skipped, by topic.", "topic"
)
produce_queue_records = _gauge("barnabas_produce_queue_records", "Records sent and not yet acknowledged.")
produce_oldest_seconds = _gauge("barnabas_produce_oldest_seconds", "Age of the oldest record not yet acknowledged.")
produced = _counter("barnabas_produced_total", "Records sent, by outcome (acknowledged, unknown).", "outcome")

# The process.
loop_lag_seconds = _histogram(
    "barnabas_loop_lag_seconds", "How late the event loop turned, sampled twice a second.", buckets=_DURATIONS
)
ready = _gauge("barnabas_ready", "1 while the process is ready for work.")

CATALOGUE: tuple[Metric, ...] = tuple(_declared)
"""All of the product's metrics, in the order of this file."""


def exposition() -> bytes:
    """The metrics in Prometheus's text format."""
    return generate_latest(REGISTRY)


def observe_all(histogram: Histogram, values: Iterable[float]) -> None:
    """Observe many values at once: one increment per bucket that was hit, instead of one lock per value.

    `histogram` has no labels, or is the child for its labels. Reaches into prometheus_client's own fields, because its
    interface takes one value at a time; a test compares the two ways.
    """
    child: Any = histogram
    bounds = child._upper_bounds  # noqa: SLF001 - see above
    hits: dict[int, int] = {}
    total = 0.0
    for value in values:
        # A bucket holds what is less than or equal to its bound.
        at = bisect.bisect_left(bounds, value)
        hits[at] = hits.get(at, 0) + 1
        total += value
    if not hits:
        return
    child._sum.inc(total)  # noqa: SLF001 - see above
    for at, count in hits.items():
        child._buckets[at].inc(count)  # noqa: SLF001 - see above
