"""Cancel: durable at once; a job that runs is asked to end, any other ends here."""

from typing import Literal
from uuid import UUID

from barnabas.contract.telling import event_records
from barnabas.postgres.database import Session
from barnabas.postgres.outbox import read_events
from barnabas_ingest.resources import Resources

Answer = Literal["cancelled", "requested", "absent"]


async def cancel_job(resources: Resources, tenant_id: UUID, job_id: UUID) -> Answer:
    """Cancel a job; returns `absent` for one that isn't open. Its end is told as any other's."""

    async def step(session: Session) -> tuple[Answer, int | None]:
        row = await session.fetchrow("cancel_job", tenant_id, job_id)
        assert row is not None, "the function always answers"
        return row["answer"], row["outbox"]

    answer, outbox_id = await resources.database.run(step)
    if outbox_id is not None:
        async with resources.database.session() as session:
            events = await read_events(session, [tenant_id], [job_id])
        resources.teller.tell(outbox_id, [record for event in events for record in event_records(event)])
    return answer
