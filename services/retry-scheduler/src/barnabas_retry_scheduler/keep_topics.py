"""Topics are held as the table says, and recognised: another id, or another cluster, means another, empty log.

Postgres remembers each topic's identity. The new one is written down only when what the old topic held has been made
good, so a process that dies in between begins again.
"""

from collections.abc import Iterable

import structlog

from barnabas.contract import topics
from barnabas.postgres.queues import Queues
from barnabas.postgres.reconciling import read_kafka_topics, write_kafka_topics
from barnabas.runtime.stop import Stop
from barnabas_retry_scheduler.bells import repeat
from barnabas_retry_scheduler.resources import Resources

log = structlog.get_logger(__name__)

_LOOK_SECONDS = 15.0
_IDLE_SECONDS = 1.0


def made_good(queues: Queues) -> frozenset[str]:
    """Topics whose loss somebody makes good here: the reconciler, the replay of events.

    What delay tiers and `retries` held has timers; intake is its producers'; dead letters are rows, and their topics
    copies.
    """
    jobs = (topic.name for topic in topics.topics_of_queues(queues.names))
    return frozenset({*jobs, topics.DELIVERIES_RETRY.name, topics.RESULTS.name})


async def keep_topics(resources: Resources, stop: Stop) -> None:
    """Look at the topics while this process leads, at once when it begins to."""

    async def step() -> float:
        if not resources.leadership.is_held:
            return _IDLE_SECONDS
        await keep_topics_once(resources)
        return _LOOK_SECONDS

    await repeat(step, stop)


async def keep_topics_once(resources: Resources) -> list[str]:
    """Make, widen and configure topics; returns those that are other ones than Postgres remembers.

    Those of every queue too. Raises `BrokerUnavailableError` when Kafka is away.
    """
    await resources.queues.read()
    wanted = {topic.name: topic for topic in (*topics.ALL, *topics.topics_of_queues(resources.queues.names))}
    await resources.admin.ensure_topics(
        replication_factor=resources.settings.topic_replication, topics=list(wanted.values())
    )
    cluster_id, topic_ids = await resources.admin.topic_ids(list(wanted))
    before, seen_at, now = resources.identities, resources.seen_at, resources.clock.now().timestamp()
    resources.identities = {topic: (cluster_id, topic_id) for topic, topic_id in topic_ids.items()}
    resources.seen_at = now
    if resources.identities == resources.remembered:
        return []
    async with resources.database.session() as session:
        known = resources.remembered = await read_kafka_topics(session)
    # One that nobody had looked at yet, of a queue made a moment ago, went with its cluster as all others did.
    is_other_cluster = any(known[topic][0] != cluster_id for topic in topic_ids if topic in known)
    changed = sorted(
        topic
        for topic, identity in resources.identities.items()
        if (known[topic] != identity if topic in known else is_other_cluster)
    )
    repaired = made_good(resources.queues)
    for topic in changed:
        # A second wipe takes what was sent again after the first.
        is_news = topic not in resources.lost.wiped or before.get(topic) != resources.identities[topic]
        if topic in repaired and is_news:
            resources.lost.topic_wiped(topic, now, whole_at=seen_at)
            _, was = known.get(topic, ("", None))
            log.error("topic_wiped", topic=topic, known=was, found=resources.identities[topic][1])
    settled = [topic for topic in resources.identities if topic not in known and topic not in changed]
    settled += [topic for topic in changed if topic not in repaired]
    await remember_topics(resources, settled)
    return changed


async def remember_topics(resources: Resources, names: Iterable[str]) -> None:
    """Write down these topics' identities as last seen: nothing of what the old ones held is missing any more."""
    seen = {name: resources.identities[name] for name in names if name in resources.identities}
    if seen:
        async with resources.database.session() as session:
            await write_kafka_topics(session, seen)
        resources.remembered = resources.remembered | seen
