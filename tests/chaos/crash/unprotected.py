"""Databases with a protection switched off: what the product would be without its fence, outbox or de-duplication.

Each is off inside its block, and on again after it. The services run as they are: what protects is in the database.
"""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Protocol

# The finish asks for the holder of the newest claim with these.
_FENCE = ("AND job.fence = done.fence", "AND job.worker_id = p_worker")


class SwitchedOff(Protocol):
    """One of the functions below."""

    def __call__(self, database: Any) -> AbstractAsyncContextManager[None]:
        """`database` is a superuser's connection."""
        ...


@asynccontextmanager
async def nothing(database: Any) -> AsyncIterator[None]:
    """The product as it is: what shows a missing protection must show nothing here."""
    yield


@asynccontextmanager
async def fence(database: Any) -> AsyncIterator[None]:
    """Whoever says so ends a running job, whatever claim he holds."""
    name = await database.fetchval(
        "SELECT max(oid::regprocedure::text) FROM pg_proc WHERE proname LIKE 'finish_jobs_v%'"
    )
    whole: str = await database.fetchval("SELECT pg_get_functiondef($1::text::regprocedure)", name)
    cut = whole
    for condition in _FENCE:
        # The first is that of the DELETE.
        assert condition in cut, f"{name} has no {condition!r} any more"
        cut = cut.replace(condition, "", 1)
    await database.execute(cut)
    try:
        yield
    finally:
        await database.execute(whole)


@asynccontextmanager
async def outbox(database: Any) -> AsyncIterator[None]:
    """No row tells of what was committed: its writer alone knows."""
    await database.execute(
        """
        CREATE FUNCTION forget_outbox() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            DELETE FROM outbox WHERE outbox_id = NEW.outbox_id;
            RETURN NULL;
        END $$;
        CREATE TRIGGER forget_outbox AFTER INSERT ON outbox FOR EACH ROW EXECUTE FUNCTION forget_outbox();
        """
    )
    try:
        yield
    finally:
        await database.execute("DROP TRIGGER forget_outbox ON outbox; DROP FUNCTION forget_outbox()")


@asynccontextmanager
async def deduplication(database: Any) -> AsyncIterator[None]:
    """An event that comes twice makes two deliveries."""
    columns = await database.fetchval(
        "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = 'deliveries_pkey'"
    )
    await database.execute("ALTER TABLE deliveries DROP CONSTRAINT deliveries_pkey")
    try:
        yield
    finally:
        # In one transaction, and alone from its beginning: a notifier may be writing.
        await database.execute(
            "LOCK TABLE deliveries IN ACCESS EXCLUSIVE MODE;"
            "DELETE FROM deliveries AS one USING deliveries AS other WHERE one.delivery_id > other.delivery_id"
            " AND one.tenant_id = other.tenant_id AND one.event_id = other.event_id"
            " AND one.endpoint_id = other.endpoint_id;"
            f"ALTER TABLE deliveries ADD CONSTRAINT deliveries_pkey {columns}"
        )
