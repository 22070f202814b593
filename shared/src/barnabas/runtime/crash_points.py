"""Places at which a process may die in a proof: named, and without any effect in the product.

Each stands where a kill leaves the most behind: between two stores that must agree, or between a durable step and its
announcement. `reach` does nothing unless `arm` was called in this process, and nothing in the product calls it: a test
build does, before the service starts. One call for a batch, never for a job.
"""

from collections.abc import Callable
from enum import StrEnum


class CrashPoint(StrEnum):
    """The name of a place, as `part.moment`, with what is true there."""

    meaning: str

    def __new__(cls, name: str, meaning: str = "") -> "CrashPoint":
        """A name that has its meaning with it."""
        point = str.__new__(cls, name)
        point._value_ = name
        point.meaning = meaning
        return point

    INGEST_BEFORE_STORE = "ingest.before_store", "a flush is gathered, and nothing of it is written"
    INGEST_AFTER_STORE = "ingest.after_store", "a flush is committed; neither Kafka nor the callers know"
    INGEST_AFTER_KEYS = "ingest.after_keys", "a flush and its idempotency keys are committed; nobody knows"
    INGEST_AFTER_TELL = "ingest.after_tell", "the records of a flush are on their way, and nobody has his answer"
    INGEST_BEFORE_FORGET = "ingest.before_forget", "Kafka has acknowledged outbox rows that are still there"
    INTAKE_BEFORE_COMMIT = "intake.before_commit", "records are stored and their offsets moved, uncommitted"
    INTAKE_AFTER_COMMIT = "intake.after_commit", "records are jobs now; neither Kafka nor its offsets say so"
    INTAKE_AFTER_OFFSETS = "intake.after_offsets", "records are jobs now, and Kafka's offset is about to move"

    WORKER_AFTER_CLAIM = "worker.after_claim", "jobs are claimed, and none of them has begun"
    WORKER_BEFORE_FINISH = "worker.before_finish", "handlers have ended, and nothing of it is written"
    WORKER_AFTER_FINISH = "worker.after_finish", "ends or releases are committed, and Kafka hasn't been told"
    WORKER_AFTER_TELL = "worker.after_tell", "ends or releases are committed, and their records are on their way"
    WORKER_BEFORE_FORGET = "worker.before_forget", "Kafka has acknowledged outbox rows that are still there"
    WORKER_BEFORE_OFFSETS = "worker.before_offsets", "records have their verdict, and their offsets haven't moved"
    WORKER_AFTER_PARK = "worker.after_park", "the surplus is in the backlog, and still in the look-ahead"
    WORKER_AFTER_FETCH = "worker.after_fetch", "jobs of a backlog are chosen, and in nobody's memory"
    WORKER_BEFORE_RECALL = "worker.before_recall", "Postgres has said what it takes this worker to hold"
    WORKER_BEFORE_HAND_BACK = "worker.before_hand_back", "the drain's patience is over, and handlers still run"
    WORKER_AFTER_HAND_BACK = "worker.after_hand_back", "the drain is over, and the lease still stands"

    LEASE_AFTER_BEGIN = "lease.after_begin", "a new lease is committed, and its holder doesn't use it yet"
    LEASE_AFTER_RENEWAL = "lease.after_renewal", "a lease was renewed a moment ago: it lasts as long as it can"
    DATABASE_BEFORE_COMMIT = "database.before_commit", "a transaction has written everything, and isn't committed"
    KAFKA_BEFORE_OFFSETS = "kafka.before_offsets", "offsets are about to be sent to the broker"
    KAFKA_AFTER_OFFSETS = "kafka.after_offsets", "offsets were sent to the broker, and its answer isn't known"

    LEAD_AFTER_TAKE = "lead.after_take", "a new leader is written down, and does nothing yet"
    RELAY_BEFORE_SEND = "relay.before_send", "rows that others left behind are read, and not told yet"
    TELL_AFTER_SEND = "tell.after_send", "Kafka has acknowledged what outbox rows say, and the rows are still there"
    TIMERS_AFTER_TAKE = "timers.after_take", "due timers are taken and committed, and Kafka hasn't been told"
    REAPER_BEFORE_COMMIT = "reaper.before_commit", "a dead worker is buried and its jobs released, uncommitted"
    REAPER_AFTER_COMMIT = "reaper.after_commit", "what a dead worker held is released, and Kafka hasn't been told"
    DELAYS_AFTER_SEND = "delays.after_send", "records have hopped on, and their old offsets are open"
    RECONCILER_AFTER_SEND = "reconciler.after_send", "jobs were sent again, and the loss isn't made good yet"
    REPLAY_AFTER_SEND = "replay.after_send", "events were sent again, and the loss isn't made good yet"
    PARTITIONS_AFTER_MAKE = "partitions.after_make", "the coming days are made, and those that are over still there"

    NOTIFIER_BEFORE_DELIVERIES = "notifier.before_deliveries", "events are read, and have no deliveries"
    NOTIFIER_AFTER_DELIVERIES = "notifier.after_deliveries", "deliveries are committed, and in nobody's memory"
    NOTIFIER_AFTER_CLAIM = "notifier.after_claim", "due deliveries are claimed, and in nobody's memory"
    NOTIFIER_BEFORE_OFFSETS = "notifier.before_offsets", "events have their deliveries, and offsets haven't moved"
    NOTIFIER_BEFORE_OUTCOMES = "notifier.before_outcomes", "endpoints have answered, and nothing of it is written"
    NOTIFIER_BEFORE_TELL = "notifier.before_tell", "retries or dead letters are rows, and not records"
    NOTIFIER_BEFORE_FORGET = "notifier.before_forget", "Kafka has acknowledged outbox rows that are still there"
    NOTIFIER_BEFORE_HAND_BACK = "notifier.before_hand_back", "the drain has begun, and deliveries wait in memory"


_armed: list[Callable[[CrashPoint], None]] = []


def reach(point: CrashPoint) -> None:
    """The process is at this place."""
    for callback in _armed:
        callback(point)


def arm(callback: Callable[[CrashPoint], None]) -> None:
    """Have `callback` called at every place, on whichever thread gets there. For test builds alone."""
    _armed.append(callback)


def disarm() -> None:
    """Call nobody any more."""
    _armed.clear()
