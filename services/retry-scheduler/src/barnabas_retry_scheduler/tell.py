"""Tell Kafka what committed outbox rows have to say, and delete the rows that it has acknowledged.

For rows that this process has just written and for rows that others left behind alike. No transaction is open while
records are on their way.
"""

import asyncio
from collections.abc import Sequence

import structlog

from barnabas.errors import BrokerUnavailableError, OverloadedError, UnknownQueueError
from barnabas.kafka.routes import Outgoing
from barnabas.postgres.outbox import OutboxRow, read_outbox, records_of
from barnabas.runtime.crash_points import CrashPoint, reach
from barnabas_retry_scheduler.resources import Resources

log = structlog.get_logger(__name__)


async def tell_committed(resources: Resources, outbox_ids: Sequence[int | None]) -> None:
    """Tell of rows just committed, None among them ignored; what Kafka doesn't acknowledge stays for the relay."""
    ids = [outbox_id for outbox_id in outbox_ids if outbox_id is not None]
    if not ids or not resources.producer.accepting:
        return
    async with resources.database.session() as session:
        rows = await read_outbox(session, ids)
    try:
        await tell_rows(resources, rows)
    except (BrokerUnavailableError, OverloadedError) as error:
        log.info("outbox_left_to_relay", rows=len(ids), code=error.code)


async def tell_rows(resources: Resources, rows: Sequence[OutboxRow]) -> int:
    """Send what these rows say now, wait for the acknowledgement, delete the rows; returns how many records.

    Raises `BrokerUnavailableError` when the outcome of any is unknown: then all the rows stay.
    """
    if not rows:
        return 0
    async with resources.database.session() as session:
        records = await records_of(session, rows)
    await send(resources, records)
    reach(CrashPoint.TELL_AFTER_SEND)
    await resources.database.execute("delete_outbox", [row.outbox_id for row in rows])
    return len(records)


async def send(resources: Resources, records: Sequence[Outgoing]) -> None:
    """Send and wait until all are acknowledged; raises `BrokerUnavailableError` when any is unknown."""
    try:
        by_topic = resources.routes.by_topic(records)
    except UnknownQueueError:
        await resources.queues.read()
        by_topic = resources.routes.by_topic(records)
    sent = [resources.producer.start_send(topic, group) for topic, group in by_topic.items()]
    results = await asyncio.gather(*sent, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
