"""The four services on the models: their own loops, unchanged, with models in the place of Postgres, Kafka and HTTP."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, ClassVar, cast
from uuid import UUID

from barnabas.domain.attempts import Lost
from barnabas.domain.ids import Uuid7Source
from barnabas.kafka.routes import Routes
from barnabas.kafka.teller import Teller
from barnabas.postgres.clock import open_clock
from barnabas.postgres.dictionaries import job_types
from barnabas.postgres.heartbeat import Heartbeat
from barnabas.postgres.identity import Identity
from barnabas.postgres.ids import make_id
from barnabas.postgres.queues import Queues
from barnabas.runtime.clock import DatabaseClock
from barnabas.runtime.stop import Stop
from barnabas.sdk.app import Handler
from barnabas.sdk.running import Attempt, Run
from barnabas_ingest import resources as ingest_resources
from barnabas_ingest.budget import Budget
from barnabas_ingest.flush import Flush
from barnabas_ingest.intake import GROUP as INTAKE_GROUP
from barnabas_ingest.intake import Intake
from barnabas_ingest.lane import Lane
from barnabas_notifier import claim, finish, send, take, unpark, upkeep
from barnabas_notifier import resources as notifier_resources
from barnabas_notifier.aside import Aside
from barnabas_notifier.lanes import Lanes
from barnabas_retry_scheduler import (
    carry_delays,
    keep_topics,
    lead,
    poll_timers,
    reap_leases,
    reconcile,
    relay_outbox,
    replay_events,
    sweep_waiting,
)
from barnabas_retry_scheduler import resources as scheduler_resources
from barnabas_retry_scheduler.bells import Bells
from barnabas_retry_scheduler.leadership import Leadership
from barnabas_retry_scheduler.lost_records import LostRecords
from barnabas_worker import backlog, look_ahead, recall, sharing, turns
from barnabas_worker import resources as worker_resources
from barnabas_worker import take as worker_take
from barnabas_worker.deadlines import Deadlines
from barnabas_worker.holdings import Holdings
from barnabas_worker.news import News
from tests.simulator.broker import ModelBroker
from tests.simulator.consumer import ModelAdmin, ModelProducer
from tests.simulator.database import ModelDatabase, ModelServer, ModelSession
from tests.simulator.loop import PROCESS, Process, VirtualLoop

Loop = Callable[[Any, Stop], Awaitable[None]]

_STALL_SECONDS = 1e9
NOTHING: Any = None
"""What nobody asks for in here."""

WORKER_LOOPS: tuple[Loop, ...] = (
    worker_take.take_records, turns.take_turns, backlog.fetch_backlogs, sharing.keep_sharing, recall.recall_batches,
)  # fmt: skip
SCHEDULER_LOOPS: tuple[Loop, ...] = (
    carry_delays.carry_delays, lead.lead, poll_timers.poll_timers, relay_outbox.relay_outbox, reap_leases.reap_leases,
    reap_leases.reap_overdue_attempts, sweep_waiting.sweep_gates, sweep_waiting.sweep_types, reconcile.reconcile,
    replay_events.replay_events, keep_topics.keep_topics,
)  # fmt: skip
NOTIFIER_LOOPS: tuple[Loop, ...] = (
    take.take_records, claim.claim_early, unpark.take_parked, send.send_deliveries, finish.write_outcomes,
    finish.tidy_outbox, upkeep.keep_identity, upkeep.keep_endpoints, upkeep.sweep_parked, upkeep.recall_batches,
)  # fmt: skip
"""All but those that only measure."""


@dataclass(slots=True)
class Surroundings:
    """What all processes have in common."""

    loop: VirtualLoop
    random: Random
    server: ModelServer
    broker: ModelBroker
    settings: Any
    """The settings of all services in one."""
    handlers: dict[str, Handler]
    caller: Any
    """Makes the notifier's calls."""
    credentials: Any
    """Knows whose a credential is."""


class ModelHeartbeat(Heartbeat):
    """The real one on the simulation's loop, since there are no threads."""

    server: ModelServer

    async def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._live())
        await asyncio.wrap_future(self._started)

    async def stop(self, delete_row: bool) -> None:
        self._delete_row = delete_row
        self._stopping.set()
        if self._wake is not None:
            self._wake()
        await self._task

    async def _session(self) -> Any:
        if self._connection is None or self._connection.connection.is_closed():
            self._connection = ModelSession(self.server, process_now())
        return self._connection

    async def _disconnect(self) -> None:
        self._connection = None


class RevivedHeartbeat(ModelHeartbeat):
    """One that never takes its lease for over: a mistake that can be switched on."""

    async def _renew(self) -> bool:
        await super()._renew()
        return True


class ModelIsolatedAttempt(Attempt):
    """An attempt in a process of its own, whose death harms nobody else."""

    __slots__ = ()
    running: ClassVar[set[Any]] = set()
    """The contexts of those that run."""
    dead: ClassVar[set[Any]] = set()
    """The contexts of those whose process is dead."""

    def __init__(self, handler: Handler, raw_payload: bytes, ctx: Any, *, children: Any, **limits: Any) -> None:
        super().__init__(handler, raw_payload, ctx, threads=children, **limits)

    async def run(self, task: "asyncio.Task[Any] | None" = None) -> Run:
        self.running.add(self.ctx)
        run = await super().run(task)
        self.running.discard(self.ctx)
        return Run(Lost()) if self.ctx in self.dead and self._reason is None else run


class ModelSuspects:
    """Where lost jobs run alone: few at a time, so that some seeds have more."""

    room = 2


def process_now() -> Process:
    """Whose code runs just now."""
    process = PROCESS.get()
    assert process is not None, "services run in processes"
    return process


async def run_worker(around: Surroundings, stop: Stop) -> None:
    """A worker's life."""
    database, clock, ids = await _opened(around)
    numbers = await job_types(database).ids(around.handlers)
    queues = Queues(database)
    await queues.read()
    by_number = {numbers[name]: handler for name, handler in around.handlers.items()}
    producer: Any = ModelProducer(around.broker, around.random)
    news, holdings, deadlines = News(), Holdings(), Deadlines(around.loop)
    identity = Identity(
        "", service="worker", slots=around.settings.slots, type_ids=list(by_number), queue_ids=[0],
        lease_seconds=around.settings.lease_seconds, ids=ids, on_cancel=holdings.cancel, on_news=news.hear,
        holds=lambda: bool(holdings.batches), stall_seconds=lambda: _STALL_SECONDS,
    )  # fmt: skip
    resources = worker_resources.Resources(
        settings=around.settings, database=database, producer=producer,
        teller=Teller(producer, Routes(queues.name_of, monotonic=around.loop.time)), clock=clock, ids=ids,
        handlers=by_number,
        timeouts_ms={number: max(1, round(handler.timeout * 1000)) for number, handler in by_number.items()},
        queues=queues, queue_ids=[0], news=news, identity=identity,
        records=look_ahead.Records(bytes_max=around.settings.look_ahead_bytes), threads=NOTHING, children=NOTHING,
        suspects=cast("Any", ModelSuspects()), holdings=holdings, deadlines=deadlines,
    )  # fmt: skip
    await _run_loops(WORKER_LOOPS, resources, stop)


async def run_scheduler(around: Surroundings, stop: Stop) -> None:
    """A retry-scheduler's life."""
    database, clock, ids = await _opened(around)
    queues = Queues(database)
    await queues.read()
    bells = Bells()
    producer: Any = ModelProducer(around.broker, around.random)
    admin: Any = ModelAdmin(around.broker)
    leadership = Leadership(ids.mint(), lease_seconds=around.settings.leader_lease_seconds)
    resources = scheduler_resources.Resources(
        settings=around.settings, database=database, producer=producer,
        routes=Routes(queues.name_of, monotonic=around.loop.time), admin=admin, queues=queues,
        clock=clock, ids=ids, leadership=leadership, bells=bells, lost=LostRecords(on_wiped=bells.ring_wiped),
    )  # fmt: skip
    await _run_loops(SCHEDULER_LOOPS, resources, stop)
    await leadership.give_up(database)


async def run_notifier(around: Surroundings, stop: Stop) -> None:
    """A notifier's life."""
    database, clock, ids = await _opened(around)
    settings = around.settings
    producer: Any = ModelProducer(around.broker, around.random)
    identity = Identity(
        "", service="notifier", slots=settings.calls, type_ids=(), lease_seconds=settings.lease_seconds, ids=ids,
        on_cancel=lambda _: None, holds=lambda: False, stall_seconds=lambda: _STALL_SECONDS,
    )  # fmt: skip
    resources = notifier_resources.Resources(
        settings=settings, database=database, producer=producer,
        teller=Teller(producer, Routes(monotonic=around.loop.time)), clock=clock, ids=ids, identity=identity,
        caller=around.caller, aside=Aside(monotonic=around.loop.time),
        lanes=Lanes(
            lane_rows=settings.lane_rows, lanes_rows=settings.lanes_rows, calls=settings.calls,
            calls_per_tenant=settings.calls_per_tenant, calls_per_endpoint=settings.calls_per_endpoint,
        ),
    )  # fmt: skip
    await _run_loops(NOTIFIER_LOOPS, resources, stop)


async def run_ingest(around: Surroundings, stop: Stop, opened: Callable[[Any], None]) -> None:
    """An ingest's life; `opened` is told the resources that requests are answered with."""
    database, clock, ids = await _opened(around)
    queues = Queues(database)
    await queues.read()
    producer: Any = ModelProducer(around.broker, around.random)
    teller = Teller(producer, Routes(queues.name_of, monotonic=around.loop.time))
    flush = Flush(teller)
    resources = ingest_resources.Resources(
        settings=around.settings, database=database, api=database, listings=database, producer=producer,
        teller=teller, clock=clock, ids=ids, types=job_types(database), queues=queues, queue_maker=NOTHING,
        credentials=around.credentials, budget=Budget(1 << 24), flush=flush,
        plain=Lane("accept", database, flush.write_plain, flights=2),
        keyed=Lane("accept_keyed", database, flush.write_keyed, flights=2), waits=NOTHING, listener=NOTHING,
    )  # fmt: skip
    opened(resources)

    async def take_intake(_: Any, stop: Stop) -> None:
        intake = Intake(resources, ModelAdmin(around.broker))  # type: ignore[arg-type]  # a model
        async with intake.consumer(INTAKE_GROUP) as consumer:
            await intake.run(consumer, stop)

    async def run_lane(lane: Lane) -> None:
        stop.on_set(lane.close)
        await lane.run()

    await _run_loops(
        (take_intake, lambda _, __: run_lane(resources.plain), lambda _, __: run_lane(resources.keyed)), resources, stop
    )


async def _opened(around: Surroundings) -> tuple[Any, DatabaseClock, Uuid7Source]:
    database: Any = ModelDatabase(around.server, process_now())
    clock = await open_clock(database)
    ids = Uuid7Source(now_ms=clock.now_ms, random_bytes=around.random.randbytes, make=make_id)
    return database, clock, ids


async def _run_loops(loops: Sequence[Loop], resources: Any, stop: Stop) -> None:
    async with asyncio.TaskGroup() as group:
        for loop in loops:
            group.create_task(loop(resources, stop))  # type: ignore[arg-type]  # every loop is a coroutine function


def tenant_of(credential: bytes) -> UUID:
    """In the simulation a credential is the tenant's id."""
    return UUID(credential.decode())
