"""What every statement of the model database uses: the time, the outbox, the lines of gates and of ordering keys."""

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from msgspec.structs import replace

from barnabas.contract.telling import OutboxKind
from barnabas.domain.gates import (
    TENANT_LINE,
    WAKE_MAX,
    Asking,
    Line,
    LineKind,
    Place,
    choose_moved,
    choose_woken,
    type_line,
)
from barnabas.domain.gates import Seat as PureSeat
from barnabas.domain.jobs import Command, Hook, JobState, apply
from barnabas.domain.ordering import OrderedLine
from tests.simulator.switches import Switches
from tests.simulator.tables import Job, JobKey, OutboxRow, Seat, Tables, Timer, at

# A record that a tier lost is late by so much; what is due later than the longest tier waits in its timer alone.
_TIER_GRACE = timedelta(seconds=5)
_TIERS_REACH = timedelta(hours=1)


class Statements:
    """The statements' common part; each is a method named as its file in `sql/`."""

    def __init__(self, clock: Callable[[], float], switches: Switches, *, hold_dead: bool) -> None:
        self.tables = Tables()
        self.switches = switches
        self.started_at = at(clock())
        """Since when the server has run."""
        self.violations: list[str] = []
        """What no ledger could tell: a limit that was passed, a move that the table of transitions doesn't have."""
        self.lapsed: set[UUID] = set()
        """Workers whose lease was found to be over: it never holds again."""
        self.moves: dict[str, list[str]] = {}
        """What happened to each job, in words, for who has to understand a violation."""
        self._clock = clock
        self._hold_dead = hold_dead
        self._types: dict[str, int] = {}

    @property
    def seconds(self) -> float:
        """The time as the loop has it."""
        return self._clock()

    @property
    def now(self) -> datetime:
        """The time as the database tells it."""
        return at(self._clock())

    @property
    def now_us(self) -> int:
        """The time as gates count it."""
        return round(self._clock() * 1_000_000)

    def moved(self, job: Job, command: Command, **changes: Any) -> Job:
        """A job after a command; the state follows from the table of transitions."""
        after = replace(job, state=apply(job.state, command), **changes)
        self.note(
            job.job,
            f"{command.value}: {job.state.label} -> {after.state.label}, fence {after.fence}, attempt {after.attempt}, "
            f"losses {after.losses}, worker {after.worker or job.worker}",
        )
        return after

    def note(self, job_id: UUID, what: str) -> None:
        """Write it into the job's history."""
        self.moves.setdefault(str(job_id), []).append(f"{self.seconds:9.3f}  database: {what}")

    def insert_outbox(
        self,
        kind: int,
        tenants: Sequence[UUID],
        refs: Sequence[UUID],
        endpoints: Sequence[UUID] | None,
        fences: Sequence[int],
    ) -> list[tuple[int]]:
        """Kafka must be told of these."""
        return [(self.tell(kind, tenants, refs, fences, endpoints),)]

    def tell(
        self,
        kind: int,
        tenants: Sequence[UUID],
        refs: Sequence[UUID],
        fences: Sequence[int],
        endpoints: Sequence[UUID] | None = None,
    ) -> int:
        """The id of a new outbox row."""
        tables = self.tables
        tables.last_outbox += 1
        if not self.switches.outbox_dropped:
            tables.outbox[tables.last_outbox] = OutboxRow(
                self.now, kind, list(tenants), list(refs), None if endpoints is None else list(endpoints), list(fences)
            )
        return tables.last_outbox

    def tell_jobs(self, kind: OutboxKind, jobs: Sequence[Job]) -> int | None:
        """The id of an outbox row for these jobs, None without any."""
        if not jobs:
            return None
        return self.tell(kind, [job.tenant for job in jobs], [job.job for job in jobs], [job.fence for job in jobs])

    def delete_outbox(self, ids: Iterable[int]) -> list[Any]:
        """Kafka has them."""
        for outbox_id in ids:
            self.tables.outbox.pop(outbox_id, None)
        return []

    def set_timer(
        self, tenant: UUID, ref: UUID, endpoint: UUID, *, kind: int, fence: int, due_at: datetime, carried: bool
    ) -> None:
        """A due time; `carried` when a delay topic may bring it, so that the poller looks a little later."""
        late = carried and due_at <= self.now + _TIERS_REACH
        poll_at = due_at + _TIER_GRACE if late else due_at
        self.tables.timers[tenant, ref, endpoint] = Timer(kind, fence, due_at, poll_at)

    def is_carried(self, due_at: datetime) -> bool:
        """Whether a delay topic brings what is due then."""
        return due_at <= self.now + _TIERS_REACH

    # The lines of gates.

    def scopes_of(self, tenant: UUID) -> list[tuple[UUID, LineKind, int]]:
        """The tenant's gates for what runs, in key order."""
        return sorted(key for key in self.tables.gates if key[0] == tenant)

    def seats_of(self, tenant: UUID, line: Line) -> list[tuple[JobKey, Seat]]:
        """Who waits in a line, in its order."""
        seats = [(key, seat) for key, seat in self.tables.waiting.items() if key[0] == tenant and seat.line == line]
        return sorted(seats, key=lambda one: (one[1].precedence, one[1].seq))

    def heads_of(self, tenant: UUID) -> dict[Line, Place]:
        """The first of each line at a gate that says it is crowded: the others' lines aren't looked at."""
        heads: dict[Line, Place] = {}
        for _, kind, type_id in self.scopes_of(tenant):
            if self.tables.gates[tenant, kind, type_id].crowded:
                seats = self.seats_of(tenant, (kind, type_id))
                if seats:
                    heads[kind, type_id] = (seats[0][1].precedence, seats[0][1].seq)
        return heads

    def room_at(self, key: tuple[UUID, LineKind, int]) -> int:
        """How many may be woken at a gate; one without a limit lets them go in portions."""
        room = self.tables.gates[key].gate.room(self.now_us)
        return WAKE_MAX if room is None else room

    def asking(self, key: JobKey, job: Job) -> Asking[JobKey]:
        """A job as the rule of gates sees it."""
        seat = self.tables.waiting.get(key) if job.hooks & Hook.PARKED else None
        return Asking(key, 3 - job.priority, job.type_id, None if seat is None else _pure(seat))

    def park(self, key: JobKey, line: Line, priority: int) -> None:
        """At the end of a line, or in its own place if it has one; not woken."""
        tables = self.tables
        seat = tables.waiting.get(key)
        if seat is None:
            tables.last_seq += 1
            seat = Seat(line, 3 - priority, tables.last_seq)
        tables.waiting[key] = replace(seat, line=line, woken_at=None)
        scope = tables.gates.get((key[0], line[0], line[1]))
        if scope is not None and not scope.crowded:
            tables.gates[key[0], line[0], line[1]] = replace(scope, crowded=True)

    def make_way(self, tenant: UUID) -> None:
        """Who waits at the tenant's gate and couldn't pass its type's goes there, if it would be woken in vain."""
        key = (tenant, *TENANT_LINE)
        scope = self.tables.gates.get(key)
        if scope is None or not scope.crowded or self.room_at(key) <= 0:
            return
        seats = self.seats_of(tenant, TENANT_LINE)[:WAKE_MAX]
        line = [
            Asking(place, seat.precedence, self.tables.jobs[place].type_id, _pure(seat))
            for place, seat in seats
            if place in self.tables.jobs
        ]
        moved = choose_moved(
            line,
            room=self.room_at(key),
            type_gates=self.type_gates(tenant),
            heads=self.heads_of(tenant),
            at=self.now_us,
        )
        for place in moved:
            job = self.tables.jobs[place]
            self.park(place, type_line(job.type_id), job.priority)

    def type_gates(self, tenant: UUID) -> dict[int, Any]:
        """The gates of its types, by type."""
        return {
            type_id: scope.gate
            for (owner, kind, type_id), scope in self.tables.gates.items()
            if owner == tenant and kind is LineKind.TYPE
        }

    def wake_waiting(self, tenants: Iterable[UUID]) -> list[Job]:
        """The next that these tenants' gates have room for, marked woken; a gate without a line is crowded no more."""
        woken: list[Job] = []
        tables = self.tables
        for tenant in tenants:
            for key in self.scopes_of(tenant):
                scope = tables.gates[key]
                if not scope.crowded:
                    continue
                seats = self.seats_of(tenant, (key[1], key[2]))
                if not seats:
                    tables.gates[key] = replace(scope, crowded=False)
                    continue
                line = ((place, _pure(seat)) for place, seat in seats)
                for place in choose_woken(line, room=min(self.room_at(key), WAKE_MAX), at=self.now_us):
                    tables.waiting[place] = replace(tables.waiting[place], woken_at=self.seconds)
                    if place in tables.jobs:
                        woken.append(tables.jobs[place])
        return woken

    # The lines of ordering keys.

    def line_of(self, tenant: UUID, ordering_key: str) -> OrderedLine[UUID]:
        """The line of an ordering key."""
        line = self.tables.lines.get((tenant, ordering_key))
        if line is None:
            line = self.tables.lines[tenant, ordering_key] = OrderedLine(hold_dead=self._hold_dead)
        return line

    def line_with(self, key: JobKey) -> OrderedLine[UUID] | None:
        """The line that a job stands in, None for one without an ordering key."""
        ordering_key = self.tables.payloads[key].ordering_key
        return None if ordering_key is None else self.tables.lines.get((key[0], ordering_key))

    def pass_order(self, ended: Iterable[JobKey], dead: Iterable[UUID]) -> list[Job]:
        """These have left their lines: the next of each that is ready now, after those due later have their timers."""
        died, ready = set(dead), []
        for key in ended:
            line = self.line_with(key)
            if line is None or key[1] not in line.orders():
                continue
            if key[1] in died:
                following, seq = line.die(key[1])
                place = (key[0], 1, key[1])
                self.tables.dead[place] = replace(self.tables.dead[place], order_seq=seq)
            else:
                following = line.end(key[1])
            for job_id in following:
                job = self.tables.jobs.get((key[0], job_id))
                if job is None or job.state is not JobState.BLOCKED:
                    continue
                freed = self.freed(job)
                self.tables.jobs[key[0], job_id] = freed
                if freed.state is JobState.QUEUED:
                    ready.append(freed)
        return ready

    def freed(self, job: Job) -> Job:
        """A blocked job whose turn it is; one due later gets its timer."""
        if job.due_at is not None and job.due_at > self.now:
            self.set_timer(job.tenant, job.job, UUID(int=0), kind=1, fence=job.fence, due_at=job.due_at, carried=False)
            return replace(job, state=JobState.SCHEDULED, ready_at=job.due_at)
        return self.moved(job, Command.UNBLOCK, ready_at=self.now)


def _pure(seat: Seat) -> PureSeat:
    woken_at = None if seat.woken_at is None else round(seat.woken_at * 1_000_000)
    return PureSeat(seat.line, seat.seq, woken_at)
