"""Cancel: durable at once; a job that runs is asked to end, any other ends here."""

from typing import Any, Literal
from uuid import UUID

from barnabas.contract.telling import event_records, job_record
from barnabas.postgres.database import Session
from barnabas.postgres.outbox import read_events
from barnabas_ingest.resources import Resources

Answer = Literal["cancelled", "requested", "absent"]


async def cancel_job(resources: Resources, tenant_id: UUID, job_id: UUID) -> Answer:
    """Cancel a job; returns `absent` for one that isn't open. Its end is told as any other's."""

    async def step(session: Session) -> Any:
        row = await session.fetchrow("cancel_job", tenant_id, job_id)
        assert row is not None, "the function always answers"
        return row

    row = await resources.database.run(step)
    if row["next_outbox"] is not None:
        # Whoever stood behind it in the line of its ordering key.
        job = (row["next_job"], row["next_fence"], row["next_priority"], row["next_queue"], row["next_type"])
        resources.teller.tell(row["next_outbox"], [job_record(tenant_id, *job)])
    if row["outbox"] is not None:
        async with resources.database.session() as session:
            events = await read_events(session, [tenant_id], [job_id])
        resources.teller.tell(row["outbox"], [record for event in events for record in event_records(event)])
    answer: Answer = row["answer"]
    return answer
