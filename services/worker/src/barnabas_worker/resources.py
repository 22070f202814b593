"""Everything a worker's loops share, opened in order and closed in reverse."""

import asyncio
import random
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

from barnabas.contract.topics import topics_of_queue
from barnabas.domain.grouping import RateMeter
from barnabas.domain.ids import Uuid7Source
from barnabas.kafka.admin import Admin
from barnabas.kafka.producer import Producer
from barnabas.kafka.routes import Routes
from barnabas.kafka.teller import Teller
from barnabas.postgres.clock import open_clock
from barnabas.postgres.database import Database, open_database
from barnabas.postgres.dictionaries import job_types
from barnabas.postgres.identity import Identity
from barnabas.postgres.ids import id_source
from barnabas.postgres.queues import Queues
from barnabas.runtime.clock import DatabaseClock
from barnabas.sdk.app import Handler
from barnabas.sdk.loading import load_handlers
from barnabas.sdk.processes import ChildProcesses
from barnabas.sdk.starting import ChildStarter
from barnabas.sdk.threads import HandlerThreads
from barnabas_worker.deadlines import Deadlines
from barnabas_worker.holdings import Ended, Holdings
from barnabas_worker.look_ahead import Records
from barnabas_worker.news import News
from barnabas_worker.settings import WorkerSettings
from barnabas_worker.slots import Slots

# A main loop that doesn't turn can end no attempt: longer than that and the longest deadline, and the process must go.
_STALL_SECONDS = 30.0


@dataclass(slots=True)
class Resources:
    """What the loops of one worker share. All of it lives on the event loop."""

    settings: WorkerSettings
    database: Database
    producer: Producer
    teller: Teller
    clock: DatabaseClock
    ids: Uuid7Source
    handlers: Mapping[int, Handler]
    """By the number of their type."""
    timeouts_ms: Mapping[int, int]
    """How long an attempt may take, by the number of its type."""
    queues: Queues
    """All queues; those of the settings are there."""
    queue_ids: Sequence[int]
    """The numbers of the queues that this worker serves."""
    news: News
    identity: Identity
    records: Records
    threads: HandlerThreads
    children: ChildProcesses
    """For handlers that ask for a process of their own."""
    suspects: ChildProcesses
    """For jobs that were lost with the process that they ran in."""
    holdings: Holdings
    deadlines: Deadlines
    finished: list[Ended] = field(default_factory=list)
    """Attempts that are over and not yet written."""
    arrivals: RateMeter = field(default_factory=RateMeter)
    work: asyncio.Event = field(default_factory=asyncio.Event)
    """Set whenever there may be something for a turn to do."""
    slots: Slots | None = None
    """Set by the loop that takes turns."""
    connected: bool = True
    """Whether the last turn reached Postgres."""

    def jitter(self) -> float:
        """Uniform in [0, 1)."""
        return random.random()


@asynccontextmanager
async def open_resources(settings: WorkerSettings) -> AsyncIterator[Resources]:
    """Open what the loops need; raises before anything is taken when a part of it can't be had."""
    handlers = load_handlers(settings.app, allow_private_targets=settings.allow_private_endpoints)
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(
            # A connection for each turn, one for the recall and the rest of the periodic statements.
            open_database(settings.postgres.get_secret_value(), login="engine", size_max=settings.turns + 4)
        )
        clock = await open_clock(database)
        ids = id_source(clock)
        numbers = await job_types(database).ids(handlers)
        queues = Queues(database)
        await queues.read()
        queue_ids = await _make_queues(queues, settings)
        producer = await stack.enter_async_context(Producer(settings.kafka, client_id="barnabas-worker"))
        by_number = {numbers[name]: handler for name, handler in handlers.items()}
        threads = HandlerThreads(settings.slots)
        stack.callback(threads.shutdown, wait=False)
        starter = ChildStarter(
            app=settings.app,
            allow_private_targets=settings.allow_private_endpoints,
            log_level=settings.log_level,
            log_form=settings.log_format,
        )
        stack.push_async_callback(starter.close)
        children = ChildProcesses(starter, running_max=settings.children)
        stack.push_async_callback(children.close)
        suspects = ChildProcesses(starter, running_max=settings.suspects, unforked_max=settings.children, idle_max=0)
        stack.push_async_callback(suspects.close)
        news = News()
        holdings, deadlines = Holdings(), Deadlines(asyncio.get_running_loop())
        identity = Identity(
            settings.postgres.get_secret_value(),
            service="worker",
            slots=settings.slots,
            type_ids=list(by_number),
            queue_ids=queue_ids,
            lease_seconds=settings.lease_seconds,
            ids=ids,
            on_cancel=holdings.cancel,
            on_news=news.hear,
            holds=lambda: bool(holdings.batches),
            stall_seconds=lambda: max(_STALL_SECONDS, deadlines.longest() + 10.0),
        )
        yield Resources(
            settings=settings,
            database=database,
            producer=producer,
            teller=Teller(producer, Routes(queues.name_of)),
            clock=clock,
            ids=ids,
            handlers=by_number,
            timeouts_ms={number: max(1, round(handler.timeout * 1000)) for number, handler in by_number.items()},
            queues=queues,
            queue_ids=queue_ids,
            news=news,
            identity=identity,
            records=Records(bytes_max=settings.look_ahead_bytes),
            threads=threads,
            children=children,
            suspects=suspects,
            holdings=holdings,
            deadlines=deadlines,
        )


async def _make_queues(queues: Queues, settings: WorkerSettings) -> list[int]:
    """The numbers of this worker's queues; those that are new are made, so a pool may come before its first job."""

    async def make_topics(name: str) -> None:
        async with Admin(settings.kafka, client_id="barnabas-worker") as admin:
            await admin.ensure_topics(topics=topics_of_queue(name), replication_factor=settings.topic_replication)

    return [
        await queues.make(name, queues_max=settings.queues_max, make_topics=make_topics) for name in settings.queues
    ]


def unready(resources: Resources) -> Iterable[str]:
    """Why this worker should not be counted on just now."""
    if not resources.identity.alive:
        yield "no lease"
    if not resources.connected:
        yield "Postgres is away"
