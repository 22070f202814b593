"""docs/reference/topics.md: every topic, from the one table of them."""

from barnabas.contract import intake, topics
from barnabas.contract.topics import Topic
from barnabas.generate import markdown
from barnabas.generate.markdown import code

_HOUR_MS = 3_600_000

_INTRODUCTION = """
The product makes these topics, and a loop of the retry-scheduler restores partitions and settings that somebody
changed. The broker must not make topics by itself (`auto.create.topics.enable=false`). Every key is the tenant's id as
text, partitioned by murmur2 as Java's client does it, so all records of a tenant share a partition; but for the ready
jobs of a tenant that sends more than its share of them, which go over up to 32 keys `tenant/bucket`.

`barnabas.jobs.<priority>` are the topics of the queue `default`. Every other queue has four of its own,
`barnabas.jobs.<queue>.<priority>`, made with its first job or its first worker.

Internal topics (`jobs.*`, `retries`, `delay.*`, `deliveries.retry`) carry a fixed binary envelope that only this
product reads: it names a row in Postgres. The others carry JSON; their schemas are in
`shared/src/barnabas/contract/schemas/`.
"""

_WRITERS_AND_READERS = {
    topics.INTAKE.name: ("direct producers", "ingest", "job_input.json"),
    topics.INTAKE_REJECTED.name: ("ingest", "people", "the record as it came"),
    **{topic.name: ("ingest, worker, retry-scheduler", "worker", "envelope") for topic in topics.JOBS},
    topics.RETRIES.name: ("worker, notifier, retry-scheduler", "retry-scheduler", "envelope"),
    **{topic.name: ("retry-scheduler", "retry-scheduler", "envelope") for topic in topics.DELAY_TIERS},
    topics.RESULTS.name: ("worker, ingest, retry-scheduler", "notifier, operators", "job_event.json"),
    topics.DELIVERIES_RETRY.name: ("ingest, notifier, retry-scheduler", "notifier", "envelope"),
    topics.JOBS_DLQ.name: ("worker, retry-scheduler", "people", "job_event.json"),
    topics.DELIVERIES_DLQ.name: ("notifier, retry-scheduler", "people", "dead_delivery.json"),
}


def text() -> str:
    """The page."""
    head = ("topic", "written by", "read by", "value", "kept", "partitions", "delay")
    headers = [
        (code(intake.AUTHORIZATION_HEADER), "an API key, with or without `Bearer ` before it"),
        (
            code(intake.IDEMPOTENCY_KEY_HEADER),
            "1 to 255 printable ASCII characters; the same key and value is the same job",
        ),
        (code(intake.PRIORITY_HEADER), "0 to 3, or low, medium, high, critical; stands above the one in the value"),
        (code(intake.TRACE_HEADER), "W3C trace context, kept with the job"),
        (code(intake.PROBLEM_HEADER), "on a rejected record only: why, as a problem document (`problem.json`)"),
    ]
    return markdown.page(
        "Topics",
        "`barnabas/contract/topics.py`",
        _INTRODUCTION,
        markdown.table(head, [_row(topic) for topic in topics.ALL]),
        "## Headers of an intake record",
        markdown.table(("header", "meaning"), headers),
    )


def _row(topic: Topic) -> tuple[str, ...]:
    written, read, value = _WRITERS_AND_READERS[topic.name]
    delay = f"{topic.delay_seconds:g} s" if topic.delay_seconds else ""
    kept = f"{topic.retention_ms / (24 * _HOUR_MS):g} d"
    return code(topic.name), written, read, value, kept, str(topic.partitions), delay
