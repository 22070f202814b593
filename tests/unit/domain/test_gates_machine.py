"""Gates through any order of claims, ends, wakes, lost records, changed limits and clock steps."""

from collections import Counter
from dataclasses import replace

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from barnabas.domain.gates import REWAKE_US, TENANT_LINE, Asking, Gate, Line, Seat, StartLog, is_in_turn, type_line
from tests.support.gate_model import GateModel, ModelJob, lines_of

SECOND = 1_000_000
WINDOW = 10 * SECOND
TYPES = (1, 2)
LINES = (TENANT_LINE, *(type_line(type_id) for type_id in TYPES))

gates = st.builds(
    lambda allowed, starts: Gate(
        allowed=allowed, log=None if starts is None else StartLog(starts_allowed=starts, window_us=WINDOW)
    ),
    st.none() | st.integers(1, 4),
    st.none() | st.integers(1, 6) | st.just(130),
)


class Gates(RuleBasedStateMachine):
    """One tenant's jobs and gates. `queued` may ask at any time: a record comes twice, late, or from the sweep."""

    def __init__(self) -> None:
        super().__init__()
        self.model = GateModel()
        self.queued: dict[int, ModelJob] = {}
        self.made = 0
        self.true_time = 0
        self.set_back = 0
        self.step = 0
        self.parked_at: dict[ModelJob, int] = {}
        self.woken_at: dict[ModelJob, int] = {}
        self.starts: dict[Line, list[int]] = {line: [] for line in LINES}

    @property
    def at(self) -> int:
        return 1_700_000_000 * SECOND + self.true_time - self.set_back

    @initialize(tenant=st.none() | gates, types=st.lists(st.none() | gates, min_size=2, max_size=2))
    def limit(self, tenant: Gate | None, types: list[Gate | None]) -> None:
        self.model.gates = {line: gate for line, gate in zip(LINES, (tenant, *types), strict=True) if gate is not None}

    @rule(jobs=st.lists(st.tuples(st.integers(0, 3), st.sampled_from(TYPES)), min_size=1, max_size=6))
    def submit(self, jobs: list[tuple[int, int]]) -> None:
        for precedence, type_id in jobs:
            self.made += 1
            self.queued[self.made] = ModelJob(self.made, precedence, type_id)

    @precondition(lambda self: self.queued)
    @rule(data=st.data())
    def ask(self, data: st.DataObject) -> None:
        numbers = data.draw(st.lists(st.sampled_from(sorted(self.queued)), min_size=1, max_size=8, unique=True))
        self.claim([self.queued[number] for number in numbers])

    @precondition(lambda self: self.model.running)
    @rule(data=st.data(), again=st.booleans())
    def end(self, data: st.DataObject, again: bool) -> None:
        running = sorted(self.model.running, key=lambda job: job.number)
        ended = data.draw(st.lists(st.sampled_from(running), min_size=1, max_size=4, unique=True))
        self.model.end(ended)
        if again:
            # Released: they are queued again, without a seat.
            self.queued.update((job.number, job) for job in ended)
        self.wake()

    @rule()
    def wake(self) -> None:
        self.step += 1
        before = dict(self.model.seats)
        woken = self.model.wake(self.at)
        for job, seat in self.model.seats.items():
            if seat.line != before[job].line:
                self.parked_at[job] = self.step
                self.woken_at.pop(job, None)
        self.woken_at.update(dict.fromkeys(woken, self.step))
        self.check_no_room_is_promised_in_vain([job for job in woken if self.model.seats[job].line == TENANT_LINE])
        self.check_no_room_idles()

    @rule(microseconds=st.integers(0, 2 * WINDOW))
    def pass_time(self, microseconds: int) -> None:
        self.true_time += microseconds

    @rule(microseconds=st.integers(1, 3 * WINDOW))
    def set_the_clock_back(self, microseconds: int) -> None:
        self.set_back += microseconds

    @rule(line=st.sampled_from(LINES), gate=gates)
    def set_limit(self, line: Line, gate: Gate) -> None:
        before = self.model.gates.get(line)
        if gate.log is not None and before is not None and before.log is not None:
            gate = replace(gate, log=replace(gate.log, entries=before.log.entries))
        elif gate.log is not None:
            # Starts are counted from here on.
            self.starts[line].clear()
        self.model.set_gate(line, gate)

    @precondition(lambda self: self.queued)
    @rule()
    def drain(self) -> None:
        """However it stands, nobody is stuck: with ends, windows, wakes and no new work all of them start."""
        for _ in range(3 * len(self.queued) + 3):
            self.model.end(list(self.model.running))
            self.true_time += WINDOW + WINDOW // 100 + REWAKE_US + self.set_back
            self.wake()
            unseated = [job for job in self.queued.values() if job not in self.model.seats]
            woken = [job for job, seat in self.model.seats.items() if seat.woken_at is not None]
            self.claim(woken + unseated)
            if not self.queued:
                return
        raise AssertionError(f"stuck: {self.model}")

    @invariant()
    def every_place_is_held_by_a_running_job(self) -> None:
        held = Counter(line for lines in self.model.running.values() for line in lines)
        assert {line: gate.used for line, gate in self.model.gates.items()} == {
            line: held[line] for line in self.model.gates
        }

    @invariant()
    def who_waits_does_not_run(self) -> None:
        assert not self.model.seats.keys() & self.model.running.keys()

    def claim(self, jobs: list[ModelJob]) -> None:
        self.step += 1
        rooms = {line: gate.room(self.at) for line, gate in self.model.gates.items()}
        seats = dict(self.model.seats)
        lines = {line: self.model.line(line) for line in LINES}
        heads = self.model.heads()

        verdict = self.model.ask(jobs, self.at)

        assert sorted(job.number for job in [*verdict.started, *verdict.waits]) == sorted(job.number for job in jobs)
        through = Counter(line for job in verdict.started for line in lines_of(job))
        for line, room in rooms.items():
            assert room is None or through[line] <= room
            self.check_windows(line, through[line])
            if room is not None:
                for job in verdict.started:
                    self.check_not_overtaken(job, line, ahead(job, lines[line], seats), set(verdict.started))
        for job, line in verdict.waits.items():
            room = rooms[line]
            assert room is not None, "only a limit holds a job"
            # Nobody waits for nothing: others are before it, or took the room with this very batch.
            asking = Asking(job, job.precedence, job.type_id, seats.get(job))
            if is_in_turn(asking, line, heads.get(line)):
                passed = [
                    one for one in jobs if line in lines_of(one) and verdict.waits.get(one) not in stops(line, one)
                ]
                assert len(passed) >= room
            self.parked_at[job] = self.step
            self.woken_at.pop(job, None)
        for job in verdict.started:
            del self.queued[job.number]
            self.woken_at.pop(job, None)

    def check_no_room_is_promised_in_vain(self, woken: list[ModelJob]) -> None:
        """Whom a tenant's gate calls would start, if they asked now."""
        assert self.model.copy().ask(woken, self.at).started == woken

    def check_no_room_idles(self) -> None:
        """After a wake as many are on their way as the tenant's gate has room for, or nobody else could start."""
        gate = self.model.gates.get(TENANT_LINE)
        room = None if gate is None else gate.room(self.at)
        asleep = [job for job, seat in self.model.seats.items() if seat.is_asleep(self.at)]
        if room is None or len(self.model.seats) - len(asleep) >= room:
            return
        # Who was told once and lost his turn may still ask: before those who are on their way now, he could start.
        told = [job for job in self.model.seats if job not in asleep]
        for job in asleep:
            started = self.model.copy().ask([*told, job], self.at).started
            assert job not in started, f"{job} could start, and nobody has told it"

    def check_windows(self, line: Line, starts: int) -> None:
        log = self.model.gates[line].log
        if log is None:
            return
        times = self.starts[line]
        times += [self.true_time] * starts
        within = sum(time > self.true_time - WINDOW for time in times)
        # A limit that was lowered while starts were in the window stops further ones and calls none back.
        assert not starts or within <= log.starts_allowed

    def check_not_overtaken(self, job: ModelJob, line: Line, ahead: list[ModelJob], started: set[ModelJob]) -> None:
        """Who starts before one that waited ahead of it had been woken before that one came."""
        if line not in lines_of(job):
            return
        for other in ahead:
            if other in started or other in self.woken_at:
                continue
            assert job in self.woken_at, f"{job} overtook {other}, which nobody has woken"
            assert self.woken_at[job] < self.parked_at[other], f"{job} was woken before {other}, which was ahead of it"


def ahead(job: ModelJob, waiting: list[ModelJob], seats: dict[ModelJob, Seat]) -> list[ModelJob]:
    """Of a line those whose place is before a job's; all of them if it had none."""
    own = seats.get(job)
    if own is None:
        return waiting
    return [other for other in waiting if (other.precedence, seats[other].seq) < (job.precedence, own.seq)]


def stops(line: Line, job: ModelJob) -> tuple[Line, ...]:
    """Where a job may have been stopped if it didn't get through a gate: at it, or at the one before."""
    return lines_of(job)[: lines_of(job).index(line) + 1]


TestGates = Gates.TestCase
TestGates.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
