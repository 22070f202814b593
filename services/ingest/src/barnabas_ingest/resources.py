"""Everything that ingest's loops and routes share, opened in order and closed in reverse."""

import secrets
import socket
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import structlog

from barnabas.domain.ids import Uuid7Source
from barnabas.kafka.admin import Admin
from barnabas.kafka.producer import Producer
from barnabas.kafka.routes import Routes
from barnabas.kafka.teller import Teller
from barnabas.postgres.clock import open_clock
from barnabas.postgres.database import Database, open_database
from barnabas.postgres.dictionaries import Dictionary, job_types
from barnabas.postgres.ids import id_source
from barnabas.postgres.queues import Queues
from barnabas.runtime.clock import DatabaseClock
from barnabas_ingest.budget import Budget
from barnabas_ingest.credentials import Credentials
from barnabas_ingest.flush import Flush
from barnabas_ingest.lane import Lane
from barnabas_ingest.listener import listen
from barnabas_ingest.queues import QueueMaker
from barnabas_ingest.settings import IngestSettings
from barnabas_ingest.waits import Waits

log = structlog.get_logger(__name__)

# The lanes and the intake hold one each for good; the rest is for credentials, cancels and redrives.
_ENGINE_CONNECTIONS_MAX = 8
_API_CONNECTIONS_MAX = 8
# Shorter than a client's patience: a Postgres that doesn't answer is away.
_COMMAND_SECONDS = 10.0


@dataclass(slots=True)
class Resources:
    """What everything in one ingest process shares. All of it lives on the event loop."""

    settings: IngestSettings
    database: Database
    """The engine login: many tenants at once."""
    api: Database
    """The login that acts for one tenant at a time."""
    listings: Database
    """The same on a replica that may be a little late, where there is one."""
    producer: Producer
    teller: Teller
    clock: DatabaseClock
    ids: Uuid7Source
    types: Dictionary
    queues: Queues
    queue_maker: QueueMaker
    credentials: Credentials
    budget: Budget
    flush: Flush
    plain: Lane
    keyed: Lane
    waits: Waits
    listener: socket.socket

    @property
    def http_port(self) -> int:
        """The public port in use."""
        return int(self.listener.getsockname()[1])

    def random_bytes(self, count: int) -> bytes:
        """For secrets."""
        return secrets.token_bytes(count)


@asynccontextmanager
async def open_resources(settings: IngestSettings) -> AsyncIterator[Resources]:
    """Open what the loops need; raises before anything is accepted when a part of it can't be had."""
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(
            open_database(
                settings.postgres.get_secret_value(),
                login="engine",
                size_max=_ENGINE_CONNECTIONS_MAX,
                command_seconds=_COMMAND_SECONDS,
            )
        )
        api = await stack.enter_async_context(
            open_database(
                settings.postgres_api.get_secret_value(),
                login="api",
                size_max=_API_CONNECTIONS_MAX,
                command_seconds=_COMMAND_SECONDS,
            )
        )
        listings = api
        if settings.postgres_read is not None:
            listings = await stack.enter_async_context(
                open_database(
                    settings.postgres_read.get_secret_value(),
                    login="api",
                    size_max=_API_CONNECTIONS_MAX,
                    command_seconds=_COMMAND_SECONDS,
                )
            )
        clock = await open_clock(database)
        producer = await stack.enter_async_context(Producer(settings.kafka, client_id="barnabas-ingest"))
        queues = Queues(database)
        await queues.read()
        admin = await stack.enter_async_context(Admin(settings.kafka, client_id="barnabas-ingest"))
        queue_maker = QueueMaker(
            queues, admin, queues_max=settings.queues_max, topic_replication=settings.topic_replication
        )
        teller = Teller(producer, Routes(queues.name_of))
        flush = Flush(teller)
        listener = stack.enter_context(listen(settings.http_host, settings.http_port, shared=settings.http_shared))
        yield Resources(
            settings=settings,
            database=database,
            api=api,
            listings=listings,
            producer=producer,
            teller=teller,
            clock=clock,
            ids=id_source(clock),
            types=job_types(database),
            queues=queues,
            queue_maker=queue_maker,
            credentials=Credentials(database, admin_key=settings.admin_key.get_secret_value()),
            budget=Budget(settings.queue_bytes_max),
            flush=flush,
            plain=Lane("accept", database, flush.write_plain, flights=2),
            keyed=Lane("accept_keyed", database, flush.write_keyed, flights=2),
            waits=Waits(database),
            listener=listener,
        )


def unready(resources: Resources) -> Iterable[str]:
    """Why this process should get no requests just now."""
    if not (resources.plain.connected and resources.keyed.connected):
        yield "Postgres is away"
