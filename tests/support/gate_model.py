"""One tenant's gates and lines in memory, moved by the pure rules: what Postgres must say, too."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from barnabas.domain.gates import (
    TENANT_LINE,
    WAKE_MAX,
    Admission,
    Asking,
    Gate,
    Line,
    LineKind,
    Place,
    Seat,
    admit,
    choose_moved,
    choose_woken,
    type_line,
)


@dataclass(frozen=True, slots=True)
class ModelJob:
    """A job as its submission made it; `number` names it."""

    number: int
    precedence: int
    type_id: int


@dataclass(slots=True)
class GateModel:
    """`gates` by line: the tenant's own, and those of types."""

    gates: dict[Line, Gate] = field(default_factory=dict)
    seats: dict[ModelJob, Seat] = field(default_factory=dict)
    running: dict[ModelJob, list[Line]] = field(default_factory=dict)
    """What runs, and at which gates each holds a place."""
    last_seq: int = 0

    def copy(self) -> "GateModel":
        """The same, to try something on."""
        running = {job: list(held) for job, held in self.running.items()}
        return GateModel(dict(self.gates), dict(self.seats), running, self.last_seq)

    def ask(self, jobs: Sequence[ModelJob], at: int) -> Admission[ModelJob]:
        """A claim of these jobs, none of which runs or has ended."""
        verdict = admit(
            [Asking(job, job.precedence, job.type_id, self.seats.get(job)) for job in jobs],
            tenant_gate=self.gates.get(TENANT_LINE),
            type_gates=self.type_gates(),
            heads=self.heads(),
            at=at,
        )
        gated = [(job, line) for job in verdict.started for line in lines_of(job) if line in self.gates]
        self.running.update((job, []) for job in verdict.started)
        for job, line in gated:
            if self.gates[line].allowed is not None:
                self.running[job].append(line)
        for line, starts in Counter(line for _, line in gated).items():
            self.gates[line] = self.gates[line].start(at, starts)
        for job in jobs:
            if job in verdict.waits:
                self.park(job, verdict.waits[job])
            else:
                self.seats.pop(job, None)
        return verdict

    def park(self, job: ModelJob, line: Line) -> None:
        """At the end of a line, or in its own place if it has one; not woken."""
        held = self.seats.get(job)
        if held is None:
            self.last_seq += 1
            held = Seat(line, self.last_seq)
        self.seats[job] = replace(held, line=line, woken_at=None)

    def end(self, jobs: Iterable[ModelJob]) -> None:
        """These run no more: they ended or were released."""
        for line, places in Counter(line for job in jobs for line in self.running.pop(job)).items():
            self.gates[line] = self.gates[line].end(places)

    def wake(self, at: int) -> list[ModelJob]:
        """The next of all lines that their gates have room for."""
        self.make_way(at)
        return [job for line in sorted(self.gates) for job in self.wake_line(line, at)]

    def make_way(self, at: int) -> None:
        """Who waits at the tenant's gate and couldn't pass its type's goes there, if it would be woken in vain."""
        if TENANT_LINE not in self.gates:
            return
        moved = choose_moved(
            [Asking(job, job.precedence, job.type_id, self.seats[job]) for job in self.line(TENANT_LINE)],
            room=self.room(TENANT_LINE, at),
            type_gates=self.type_gates(),
            heads=self.heads(),
            at=at,
        )
        for job in moved:
            self.park(job, type_line(job.type_id))

    def wake_line(self, line: Line, at: int) -> list[ModelJob]:
        """The next of a line that its gate has room for."""
        waiting = ((job, self.seats[job]) for job in self.line(line))
        chosen = choose_woken(waiting, room=self.room(line, at), at=at)
        for job in chosen:
            self.seats[job] = replace(self.seats[job], woken_at=at)
        return chosen

    def room(self, line: Line, at: int) -> int:
        """How many may be woken; a gate without a limit lets them go in portions."""
        room = self.gates[line].room(at)
        return WAKE_MAX if room is None else room

    def type_gates(self) -> dict[int, Gate]:
        """The gates of types, by type."""
        return {line[1]: gate for line, gate in self.gates.items() if line[0] is LineKind.TYPE}

    def set_gate(self, line: Line, gate: Gate) -> None:
        """A limit as it is from now on; what runs counts."""
        for job, held in self.running.items():
            if line in lines_of(job) and line not in held and gate.allowed is not None:
                held.append(line)
        self.gates[line] = replace(gate, used=sum(line in held for held in self.running.values()))

    def line(self, line: Line) -> list[ModelJob]:
        """Who waits in a line, in order."""
        return sorted((job for job, seat in self.seats.items() if seat.line == line), key=self.place)

    def place(self, job: ModelJob) -> Place:
        """A parked job's place."""
        return job.precedence, self.seats[job].seq

    def heads(self) -> dict[Line, Place]:
        """The first of each line that isn't empty."""
        heads: dict[Line, Place] = {}
        for job, seat in self.seats.items():
            heads[seat.line] = min(self.place(job), heads.get(seat.line, self.place(job)))
        return heads


def lines_of(job: ModelJob) -> tuple[Line, Line]:
    """The gates that a job has to pass, where they are."""
    return (type_line(job.type_id), TENANT_LINE)
