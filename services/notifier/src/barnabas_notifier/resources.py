"""Everything a notifier's loops share, opened in order and closed in reverse."""

import asyncio
import random
from collections import deque
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from importlib.metadata import version
from uuid import UUID

from barnabas.domain.ids import Uuid7Source
from barnabas.kafka.producer import Producer
from barnabas.kafka.teller import Teller
from barnabas.postgres.clock import open_clock
from barnabas.postgres.database import Database, open_database
from barnabas.postgres.deliveries import ClaimedDelivery, DeliveryKey, FinishingDelivery
from barnabas.postgres.identity import Identity
from barnabas.postgres.ids import id_source
from barnabas.postgres.live_endpoints import EndpointKey
from barnabas.runtime import metrics
from barnabas.runtime.clock import DatabaseClock
from barnabas_notifier.aside import Aside
from barnabas_notifier.caller import Caller, open_caller
from barnabas_notifier.holdings import Holdings
from barnabas_notifier.lanes import Held, Lanes
from barnabas_notifier.resolver import Lookup, SystemLookup
from barnabas_notifier.settings import NotifierSettings

NOWHERE = EndpointKey(UUID(int=0), UUID(int=0))
"""Before every endpoint."""


# Nothing on the notifier's loop takes long: a loop that stands still for a minute won't turn again.
_STALL_SECONDS = 60.0


@dataclass(frozen=True, slots=True, eq=False)
class Ended:
    """A held delivery whose try is over and not yet written. Decided once, so a repeated write says the same."""

    held: Held
    finishing: FinishingDelivery


@dataclass(slots=True)
class Progress:
    """How far the drain is: each part ends after the one that feeds it."""

    taking_over: asyncio.Event = field(default_factory=asyncio.Event)
    """Nothing more is claimed."""
    calling_over: asyncio.Event = field(default_factory=asyncio.Event)
    """No call is in flight, and what wasn't sent is handed back."""
    writing_over: asyncio.Event = field(default_factory=asyncio.Event)
    """Every outcome is written, or can't be."""


@dataclass(slots=True)
class Resources:
    """What the loops of one notifier share. All of it lives on the event loop."""

    settings: NotifierSettings
    database: Database
    producer: Producer
    teller: Teller
    clock: DatabaseClock
    ids: Uuid7Source
    identity: Identity
    caller: Caller
    lanes: Lanes
    aside: Aside = field(default_factory=Aside)
    """Events of tenants that had no endpoint when last asked."""
    holdings: Holdings = field(default_factory=Holdings)
    ended: deque[Ended] = field(default_factory=deque)
    early: list[tuple[datetime, DeliveryKey]] = field(default_factory=list)
    """A heap of deliveries whose record came a moment before they were due."""
    sweep_after: EndpointKey = NOWHERE
    """The endpoint at which the last sweep of parked deliveries ended."""
    to_claim: asyncio.Event = field(default_factory=asyncio.Event)
    """Set whenever the next of `early` may be another one."""
    to_send: asyncio.Event = field(default_factory=asyncio.Event)
    """Set whenever there may be something to send."""
    to_write: asyncio.Event = field(default_factory=asyncio.Event)
    """Set whenever a try is over."""
    to_take: asyncio.Event = field(default_factory=asyncio.Event)
    """Set whenever a lane may have room for parked deliveries."""
    progress: Progress = field(default_factory=Progress)
    connected: bool = True
    """Whether the last batch reached Postgres."""

    def jitter(self) -> float:
        """Uniform in [0, 1)."""
        return random.random()

    def hold(self, worker_id: UUID, batch_id: UUID, claimed: Sequence[ClaimedDelivery]) -> None:
        """A claim was answered: its deliveries go into their lanes."""
        if not self.identity.alive or worker_id != self.identity.worker_id:
            # The lease was lost meanwhile: the reaper finds them under the old id.
            claimed = ()
        held = [Held(one, worker_id, batch_id) for one in claimed]
        self.holdings.take(batch_id, held)
        self.lanes.push(held)
        self.to_send.set()

    def end(self, held: Held, finishing: FinishingDelivery) -> None:
        """A try is over: to be written with the next batch."""
        self.ended.append(Ended(held, finishing))
        self.to_write.set()

    def drop_all(self) -> None:
        """The lease is lost: nothing that was held is ours any more, and calls in flight end."""
        self.lanes.empty_all()
        self.ended.clear()
        metrics.superseded_writes.labels("delivery").inc(self.holdings.drop_all())


@asynccontextmanager
async def open_resources(settings: NotifierSettings, *, lookup: Lookup | None = None) -> AsyncIterator[Resources]:
    """Open what the loops need. `lookup` resolves endpoints' names; the machine's resolver when there is none."""
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(
            # One connection each for taking, parking, reading, writing, and the periodic statements.
            open_database(settings.postgres.get_secret_value(), login="engine", size_max=6)
        )
        clock = await open_clock(database)
        ids = id_source(clock)
        producer = await stack.enter_async_context(Producer(settings.kafka, client_id="barnabas-notifier"))
        if lookup is None:
            system = SystemLookup()
            stack.callback(system.close)
            lookup = system
        caller = await stack.enter_async_context(
            open_caller(
                lookup,
                clock=clock,
                call_seconds=settings.call_seconds,
                allow_private=settings.allow_private_endpoints,
                version=version("barnabas"),
            )
        )
        identity = Identity(
            settings.postgres.get_secret_value(),
            service="notifier",
            slots=settings.calls,
            type_ids=(),
            lease_seconds=settings.lease_seconds,
            ids=ids,
            on_cancel=lambda _: None,
            # Nobody asks for the end of a call under way: the lease is all that a renewal keeps.
            holds=lambda: False,
            stall_seconds=lambda: _STALL_SECONDS,
        )
        # For a drain that was cut short; after a whole one nothing is left to end.
        stack.push_async_callback(identity.end, holds_nothing=False)
        yield Resources(
            settings=settings,
            database=database,
            producer=producer,
            teller=Teller(producer),
            clock=clock,
            ids=ids,
            identity=identity,
            caller=caller,
            lanes=Lanes(
                lane_rows=settings.lane_rows,
                lanes_rows=settings.lanes_rows,
                calls=settings.calls,
                calls_per_tenant=settings.calls_per_tenant,
                calls_per_endpoint=settings.calls_per_endpoint,
            ),
        )


def unready(resources: Resources) -> Iterable[str]:
    """Why this notifier should not be counted on just now."""
    if not resources.identity.alive:
        yield "no lease"
    if not resources.connected:
        yield "Postgres is away"
