"""One run: the world of a seed, its faults, the end of all faults, and what is there when nothing moves any more."""

import asyncio
import random as chance
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from random import Random
from typing import Any
from unittest.mock import patch

from barnabas.domain.gates import LineKind
from barnabas.errors import TransientError
from barnabas.runtime import crash_points
from barnabas.runtime.stop import Stop
from tests.chaos.final import Final
from tests.chaos.ledger import CrashPoint, Event, FaultBegan, FaultEnded
from tests.simulator.actors import Client, Credentials, Door, Person, settings_of
from tests.simulator.broker import ModelBroker
from tests.simulator.consumer import ModelConsumer, model_lag, model_oldest
from tests.simulator.database import ModelServer
from tests.simulator.final_state import final_of, unfinished
from tests.simulator.handlers import Handlers, Receiver
from tests.simulator.loop import PROCESS, STARTED_AT, Process, ProcessKilledError, VirtualLoop
from tests.simulator.plan import FAULT_SECONDS, JOB_TYPES, PROCESSES, Fault, Plan
from tests.simulator.services import (
    ModelHeartbeat,
    ModelIsolatedAttempt,
    RevivedHeartbeat,
    Surroundings,
    run_ingest,
    run_notifier,
    run_scheduler,
    run_worker,
)
from tests.simulator.statements_deliveries import ModelStatements
from tests.simulator.switches import Switches
from tests.simulator.tables import Endpoint, LimitedScope

# Leases, the reaper's patience, a reconciler's walks, timers: all of it several times over.
_DRAIN_SECONDS = 600.0
_LOOK_SECONDS = 1.0
# Nothing may begin again after it seemed to be over.
_REST_SECONDS = 2.0
_RESTART_SECONDS = 0.3


@dataclass(slots=True)
class Seat:
    """One of the processes that should run, and its present incarnation."""

    name: str
    process: Process | None = None
    stop: Stop | None = None
    starts_at: float | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run left behind."""

    plan: Plan
    ledger: list[Event]
    final: Final
    stuck: list[str]
    """What was not over in time."""
    errors: list[str]
    """What no checker can see: processes that ended by a mistake, limits that were passed."""
    seconds: float
    """How long it took, in virtual time."""
    steps: int
    moves: dict[str, list[str]]
    """What happened to each job in the model database, in words."""


class World:
    """Everything of one run."""

    def __init__(self, plan: Plan, switches: Switches) -> None:
        self.plan = plan
        self.loop = VirtualLoop()  # type: ignore[abstract]  # nobody asks for sockets and threads in here
        self.random = Random(plan.seed + 1)
        statements = ModelStatements(self.loop.time, switches, hold_dead=plan.hold_dead)
        self.server = ModelServer(self.loop, self.random, statements)
        self.broker = ModelBroker(self.loop, self.random)
        self.door = Door(self.loop, self.random)
        self.client = Client(plan, self.loop, self.random, self.door, self.broker)
        self.handlers = Handlers(
            plan, self.loop, self.random, kill=self._die,
            is_redriven=lambda tenant, job: statements.tables.payloads[tenant, job].redrive_of is not None,
        )  # fmt: skip
        self.receiver = Receiver(plan, self.loop, self.random)
        self.person = Person(plan, self.loop, self.random, self.door, lambda: statements.tables)
        self.around = Surroundings(
            self.loop, self.random, self.server, self.broker, settings_of(plan), dict(self.handlers.app.handlers),
            self.receiver, Credentials(),
        )  # fmt: skip
        self.seats = {name: Seat(name) for name in PROCESSES}
        self.faults: list[Event] = []
        self.errors: list[str] = []
        self._pids = 0
        self._fault_number = 0
        self._calm = False
        self._make_tenants()

    def run(self) -> Outcome:
        """Until nothing moves any more, or the patience is over."""
        loop = self.loop
        for name in PROCESSES:
            loop.outside(self._start, name, delay=0.05 * self.random.random())
        loop.outside(self.client.begin)
        loop.outside(lambda: loop.spawn(self.person.look()))
        for fault in self.plan.faults:
            loop.outside(self._break, fault, delay=fault.at)
        loop.run(STARTED_AT + FAULT_SECONDS)
        self._mend()
        stuck = self._drain()
        tables = self.server.statements.tables
        final = final_of(self.server.statements, self.broker)
        lost = [key for key in self.client.kafka_keys if key not in tables.keys]
        errors = [*self.errors, *loop.errors, *self.client.errors, *self.server.statements.violations]
        errors += [f"the intake's record with the key {key} became no job" for _, key in sorted(lost)]
        ledger = sorted(
            [*self.faults, *self.client.ledger, *self.handlers.ledger, *self.receiver.ledger, *self.person.ledger],
            key=lambda event: event.at,
        )
        moves = self.server.statements.moves
        return Outcome(self.plan, ledger, final, stuck, errors, loop.now - STARTED_AT, loop.steps, moves)

    def _make_tenants(self) -> None:
        statements = self.server.statements
        statements.find_type_ids(JOB_TYPES)
        tables = statements.tables
        # The system has lived before: it knows its topics.
        tables.kafka_topics.update({name: ("model", topic) for name, topic in self.broker.topic_ids.items()})
        for tenant in self.plan.tenants:
            if tenant.gate is not None:
                tables.gates[tenant.tenant, LineKind.TENANT, 0] = LimitedScope(tenant.gate)
            if tenant.type_gate is not None:
                tables.gates[tenant.tenant, LineKind.TYPE, 1] = LimitedScope(tenant.type_gate)
            if tenant.admission is not None:
                tables.admissions[tenant.tenant] = tenant.admission
            if tenant.endpoint is not None:
                endpoint = Endpoint(tenant.tenant, tenant.endpoint, tenant.schedule, STARTED_AT - 100.0)
                tables.endpoints[tenant.tenant, tenant.endpoint] = endpoint

    def _drain(self) -> list[str]:
        """What is still unfinished when the patience is over; nothing, if all is well."""
        loop = self.loop
        ends_at = loop.now + _DRAIN_SECONDS
        while loop.now < ends_at:
            loop.run(loop.now + _LOOK_SECONDS)
            if not self._unfinished():
                loop.run(loop.now + _REST_SECONDS)
                if not self._unfinished():
                    return []
        return self._unfinished()

    def _unfinished(self) -> list[str]:
        wishes = [f"{self.client.open} wishes are open"] if self.client.open else []
        return wishes + unfinished(self.server.statements.tables, self.broker)

    # Processes.

    def _start(self, name: str) -> None:
        seat = self.seats[name]
        seat.starts_at = None
        if seat.process is not None and seat.process.alive:
            return
        self._pids += 1
        seat.process, seat.stop = Process(name, self._pids), Stop()
        self.loop.spawn(self._live(seat.process, seat.stop), seat.process)

    async def _live(self, process: Process, stop: Stop) -> None:
        try:
            await self._service(process, stop)
        except TransientError:
            pass  # what it needs to begin with isn't there
        except asyncio.CancelledError:
            raise
        except ProcessKilledError:
            return
        except BaseException as error:  # noqa: BLE001 - the end of the process
            if not process.alive:
                return
            self.errors.append(f"{process.name} ended by {_shown(error)}")
        if self.door.process is process:
            self.door.process = None
        self.loop.outside(self._ended, process)

    async def _service(self, process: Process, stop: Stop) -> None:
        match process.name.partition("-")[0]:
            case "worker":
                await run_worker(self.around, stop)
            case "scheduler":
                await run_scheduler(self.around, stop)
            case "notifier":
                await run_notifier(self.around, stop)
            case _:
                await run_ingest(self.around, stop, lambda resources: self.door.open(process, resources))

    def _ended(self, process: Process) -> None:
        self.loop.kill(process)
        self._start_later(process.name, _RESTART_SECONDS)

    def _start_later(self, name: str, seconds: float) -> None:
        seat = self.seats[name]
        if seat.starts_at is None:
            seat.starts_at = self.loop.now + seconds
            self.loop.outside(self._start, name, delay=seconds)

    def _die(self, process: Process) -> None:
        """A process is killed from within."""
        self.loop.kill(process)
        self._start_later(process.name, 0.1 + 2.0 * self.random.random())

    def reached(self, point: crash_points.CrashPoint) -> None:
        """A process is at a named point: perhaps it ends here."""
        process = PROCESS.get()
        if process is None or self._calm or not self.plan.crash_points:
            return
        if not process.alive:
            raise ProcessKilledError
        if self.random.random() < self.plan.crash_points:
            self.faults.append(CrashPoint(self.loop.now, str(point), process.pid))
            self._die(process)
            raise ProcessKilledError

    # Faults.

    def _break(self, fault: Fault) -> None:
        self._fault_number += 1
        number = self._fault_number
        self.faults.append(FaultBegan(self.loop.now, fault.name, fault.target, number))
        seat = self.seats.get(fault.target)
        until = self.loop.now + fault.seconds
        match fault.name:
            case "killed":
                if seat is not None and seat.process is not None and seat.process.alive:
                    self.loop.kill(seat.process)
                self._start_later(fault.target, fault.seconds)
            case "stopped":
                if seat is not None and seat.stop is not None and seat.process is not None and seat.process.alive:
                    # As the signal does: on the process' own loop.
                    self.loop.spawn(_stop(seat.stop), seat.process)
            case "paused":
                if seat is not None and seat.process is not None:
                    self.loop.pause(seat.process)
                    self.loop.outside(self.loop.go_on, seat.process, delay=fault.seconds)
            case "cut_off":
                self.server.faults.cut_until[fault.target] = until
            case "postgres_away":
                self.server.stop_for(fault.seconds)
            case "kafka_away":
                self.broker.stop_for(fault.seconds)
            case "kafka_wiped":
                self.broker.wipe()
            case _:
                self._shake(fault.target)
                self.loop.outside(self._settle, fault.target, delay=fault.seconds)
        self.loop.outside(self._note_end, number, delay=fault.seconds)

    def _note_end(self, number: int) -> None:
        self.faults.append(FaultEnded(self.loop.now, number))

    def _shake(self, target: str) -> None:
        much = self.random.choice((0.02, 0.1))
        if target in ("postgres", "both"):
            faults = self.server.faults
            faults.lost_requests = faults.lost_answers = faults.conflicts = much
            faults.hangs = much / 4
            self.door.lost_answers = much
        if target in ("kafka", "both"):
            sends = self.broker.faults
            sends.lost_sends = sends.lost_acks = sends.repeats = sends.late = much
            sends.stale_commits = self.random.random() < 0.3

    def _settle(self, target: str) -> None:
        if target in ("postgres", "both"):
            faults = self.server.faults
            faults.lost_requests = faults.lost_answers = faults.conflicts = faults.hangs = 0.0
            self.door.lost_answers = 0.0
        if target in ("kafka", "both"):
            sends = self.broker.faults
            sends.lost_sends = sends.lost_acks = sends.repeats = sends.late = 0.0
            sends.stale_commits = False

    def _mend(self) -> None:
        """Whatever is still broken is whole again."""
        self._calm = self.receiver.calm = True
        self._settle("both")
        for seat in self.seats.values():
            if seat.process is not None:
                self.loop.go_on(seat.process)


@dataclass(slots=True)
class Installed:
    """What is put into the place of the real things for the time of a run."""

    patches: list[Any] = field(default_factory=list)

    def set(self, target: str, value: object) -> None:
        """Put `value` there."""
        self.patches.append(patch(target, value))


@contextmanager
def installed(world: World, switches: Switches) -> Iterator[None]:
    """Models instead of adapters, the virtual clock instead of the machine's, and one source of chance."""
    consumer = type(
        "Consumer",
        (ModelConsumer,),
        {"broker": world.broker, "random": world.random, "commits_at_once": switches.offset_first},
    )
    heartbeat = type(
        "Heartbeat", (RevivedHeartbeat if switches.lease_revived else ModelHeartbeat,), {"server": world.server}
    )
    things = Installed()
    for module in ("barnabas_worker.take", "barnabas_notifier.take", "barnabas_retry_scheduler.carry_delays"):
        things.set(f"{module}.Consumer", consumer)
    things.set("barnabas_ingest.intake.Consumer", consumer)
    for module in ("reconcile", "reconcile_deliveries"):
        things.set(f"barnabas_retry_scheduler.{module}.lag", model_lag)
        things.set(f"barnabas_retry_scheduler.{module}.oldest_unread_timestamp_ms", model_oldest)
    things.set("barnabas.postgres.identity.Heartbeat", heartbeat)
    things.set("barnabas_worker.start.IsolatedAttempt", ModelIsolatedAttempt)
    before, state, monotonic = asyncio._get_running_loop(), chance.getstate(), time.monotonic
    try:
        for one in things.patches:
            one.start()
        asyncio._set_running_loop(world.loop)
        time.monotonic = world.loop.time
        chance.seed(world.plan.seed)
        crash_points.arm(world.reached)
        yield
    finally:
        crash_points.disarm()
        world.loop.close()
        time.monotonic = monotonic
        chance.setstate(state)
        asyncio._set_running_loop(before)
        for one in things.patches:
            one.stop()
        ModelIsolatedAttempt.running.clear()
        ModelIsolatedAttempt.dead.clear()


def simulate(plan: Plan, switches: Switches | None = None) -> Outcome:
    """Run the world of a plan."""
    switches = switches or Switches()
    world = World(plan, switches)
    with installed(world, switches):
        return world.run()


async def _stop(stop: Stop) -> None:
    stop.set()


def _shown(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    # The deepest functions say which step met it.
    places = [f"{frame.name}" for frame in traceback.extract_tb(error.__traceback__)]
    return f"{error!r} in {' > '.join(places[-6:])}"
