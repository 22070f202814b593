"""Everything that a retry-scheduler's loops share, opened in order and closed in reverse."""

import random
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field

from barnabas.domain.ids import Uuid7Source
from barnabas.errors import TransientError
from barnabas.kafka.admin import Admin
from barnabas.kafka.producer import Producer
from barnabas.kafka.routes import Routes
from barnabas.postgres.clock import open_clock
from barnabas.postgres.database import Database, open_database
from barnabas.postgres.ids import id_source
from barnabas.postgres.queues import Queues
from barnabas.runtime.clock import DatabaseClock
from barnabas_retry_scheduler.bells import Bells
from barnabas_retry_scheduler.delay_line import DelayLine
from barnabas_retry_scheduler.leadership import Leadership
from barnabas_retry_scheduler.lost_records import LostRecords
from barnabas_retry_scheduler.settings import RetrySchedulerSettings

# The question, and a few steps that a yes has woken; the rest waits its turn.
_CONNECTIONS_MAX = 5


@dataclass(slots=True)
class Resources:
    """What the loops of one retry-scheduler share. All of it lives on the event loop."""

    settings: RetrySchedulerSettings
    database: Database
    producer: Producer
    routes: Routes
    admin: Admin
    queues: Queues
    clock: DatabaseClock
    ids: Uuid7Source
    leadership: Leadership
    bells: Bells = field(default_factory=Bells)
    line: DelayLine = field(default_factory=DelayLine)
    lost: LostRecords = field(default_factory=LostRecords)
    identities: dict[str, tuple[str, str]] = field(default_factory=dict)
    """(cluster id, topic id) of each topic, as last seen."""
    seen_at: float | None = None
    """When that was, in Unix seconds by the database's clock; None before."""
    remembered: dict[str, tuple[str, str]] = field(default_factory=dict)
    """The same as Postgres remembers it."""

    def jitter(self) -> float:
        """Uniform in [0, 1)."""
        return random.random()


@asynccontextmanager
async def open_resources(settings: RetrySchedulerSettings) -> AsyncIterator[Resources]:
    """Open what the loops need."""
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(
            open_database(settings.postgres.get_secret_value(), login="engine", size_max=_CONNECTIONS_MAX)
        )
        clock = await open_clock(database)
        ids = id_source(clock)
        producer = await stack.enter_async_context(Producer(settings.kafka, client_id="barnabas-retry-scheduler"))
        queues = Queues(database)
        await queues.read()
        admin = await stack.enter_async_context(Admin(settings.kafka, client_id="barnabas-retry-scheduler"))
        bells = Bells()
        leadership = Leadership(ids.mint(), lease_seconds=settings.leader_lease_seconds)
        try:
            yield Resources(
                settings=settings,
                database=database,
                producer=producer,
                routes=Routes(queues.name_of),
                admin=admin,
                queues=queues,
                clock=clock,
                ids=ids,
                leadership=leadership,
                bells=bells,
                lost=LostRecords(on_wiped=bells.ring_wiped),
            )
        finally:
            # Without it the next leader waits for the lease to run out, which does no harm either.
            with suppress(TransientError):
                await leadership.give_up(database)


def unready(resources: Resources) -> Iterable[str]:
    """Why this process should not be counted on just now."""
    if resources.leadership.reached_seconds == 0.0:
        yield "Postgres is away"
