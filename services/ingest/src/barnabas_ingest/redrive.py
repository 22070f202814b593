"""Redrive: a dead letter goes round again, once, whoever asks how often; many of them at a rate."""

from datetime import datetime
from typing import Literal
from uuid import UUID

from barnabas.contract.problems import refused
from barnabas.contract.telling import delivery_record, job_record
from barnabas.postgres.redrives import (
    DeliveryRedrive,
    JobRedrive,
    redrive_delivery,
    redrive_job,
    reserve_redrives,
)
from barnabas.runtime import metrics
from barnabas_ingest.resources import Resources

_JOBS = metrics.redrives.labels("jobs")
_DELIVERIES = metrics.redrives.labels("deliveries")


async def redrive_failed_job(resources: Resources, tenant_id: UUID, job_id: UUID) -> UUID:
    """The new job's id; the same again while that one is open. Raises `ProblemError` where there is no dead letter."""
    done = await try_redrive_job(resources, tenant_id, job_id)
    if done.answer == "absent":
        raise refused("not_found")
    if done.answer == "not_failed":
        raise refused("not_redrivable", "only a failed job can be redriven")
    if done.job_id is None:
        raise refused("dead_letter_closed", "this job's dead letter has been redriven or discarded")
    return done.job_id


async def due_times(
    resources: Resources, tenant_id: UUID, kind: Literal["jobs", "deliveries"], *, count: int, rate: float
) -> list[datetime]:
    """When each of so many redrives is due: `rate` a second, behind those that the tenant has asked for before."""
    return await resources.database.run(
        lambda session: reserve_redrives(session, tenant_id, kind, count=count, rate=rate)
    )


async def try_redrive_job(
    resources: Resources, tenant_id: UUID, job_id: UUID, *, due_at: datetime | None = None
) -> JobRedrive:
    """Redrive a job if it has an open dead letter, and tell Kafka of the new one unless it is due later."""
    new_id = resources.ids.mint()
    done = await resources.database.run(
        lambda session: redrive_job(session, tenant_id, job_id, new_id=new_id, due_at=due_at)
    )
    if done.answer == "redriven":
        _JOBS.inc()
    if done.outbox_id is not None:
        assert done.priority is not None, "told of what was made"
        assert done.queue_id is not None, "likewise"
        record = job_record(tenant_id, new_id, 0, done.priority, done.queue_id, done.type_id or 0)
        resources.teller.tell(done.outbox_id, [record])
    return done


async def try_redrive_delivery(
    resources: Resources, tenant_id: UUID, delivery_id: UUID, *, due_at: datetime | None = None
) -> DeliveryRedrive:
    """Let a dead delivery be tried again, and tell Kafka unless it is due later."""
    done = await resources.database.run(
        lambda session: redrive_delivery(session, tenant_id, delivery_id, due_at=due_at)
    )
    if done.answer == "redriven":
        _DELIVERIES.inc()
    if done.outbox_id is not None:
        assert done.event_id is not None, "an outbox row is made for a delivery that was found"
        assert done.endpoint_id is not None, "likewise"
        record = delivery_record(tenant_id, done.event_id, done.endpoint_id, done.fence or 0)
        resources.teller.tell(done.outbox_id, [record])
    return done
