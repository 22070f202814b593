"""Who may start and who waits where: gates, their sliding logs and their lines, as values.

This is the rule that `turn_jobs_v1` and what it calls follow in Postgres, where it counts over all workers; tests
run both side by side. Times are whole microseconds of one clock, as the database keeps them, so that nothing here
depends on how a fraction is rounded.
"""

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import Final, Generic, TypeVar

EXACT_MAX: Final = 100
"""Up to so many starts a window the log has each start's own time."""
PARTS: Final = 120
"""Above that it counts by this part of the window: 0.8 % of the rate is the price of a log that stays small."""
REWAKE_US: Final = 30_000_000
"""A woken job that hasn't asked for so long has lost its record: it is woken again."""
WAKE_MAX: Final = 500
"""So many seats of a line are looked at together."""

Job = TypeVar("Job", bound=Hashable)


@dataclass(frozen=True, slots=True, kw_only=True)
class StartLog:
    """How many started when, as far back as the window reaches: never more than `starts_allowed` in any window.

    An entry counts until its time plus the window. Above `EXACT_MAX` an entry's time is the end of the part of the
    window that the start fell into, so that it counts too long by one part and never too short.
    """

    starts_allowed: int
    window_us: int = 60_000_000
    entries: tuple[tuple[int, int], ...] = ()
    """(time, starts), oldest first, no time twice."""

    def __post_init__(self) -> None:
        """Refuse what is no limit."""
        assert self.starts_allowed > 0, "a limit allows something"
        assert self.window_us > 0, "a window has a length"

    def counting(self, at: int) -> int:
        """The starts that count at this time."""
        return sum(starts for time, starts in self.entries if time + self.window_us > at)

    def room(self, at: int) -> int:
        """How many more may start at this time."""
        return max(0, self.starts_allowed - self.counting(at))

    def add(self, at: int, starts: int) -> "StartLog":
        """The log after so many starts; what no longer counts is dropped.

        A time before the last entry, which is a clock that was set back, is the last entry's: the log stays in order,
        and what was counted stays counted.
        """
        if not starts:
            return self
        kept = [entry for entry in self.entries if entry[0] + self.window_us > at]
        time = at if self.starts_allowed <= EXACT_MAX else self._end_of_part(at)
        if self.entries:
            time = max(time, self.entries[-1][0])
        if kept and kept[-1][0] == time:
            kept[-1] = (time, kept[-1][1] + starts)
        else:
            kept.append((time, starts))
        return replace(self, entries=tuple(kept))

    def opens_at(self, at: int) -> int:
        """When the next may start: now, or when enough of the oldest entries no longer count."""
        excess = self.counting(at) - self.starts_allowed
        if excess < 0:
            return at
        for time, starts in self.entries:
            if time + self.window_us > at:
                excess -= starts
                if excess < 0:
                    return time + self.window_us
        raise AssertionError("a log with nothing in it has room")

    def _end_of_part(self, at: int) -> int:
        # Two divisions rounded up in whole numbers: the part's number, and its end in microseconds.
        part = -(-at * PARTS // self.window_us)
        return -(-part * self.window_us // PARTS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """A limited scope: how many of it may run at once, and how many may start within a window. None is no limit."""

    allowed: int | None = None
    used: int = 0
    log: StartLog | None = None

    def room(self, at: int) -> int | None:
        """How many more may start now; None is any number. Zero, not less, when a limit was set below what runs."""
        rooms = [] if self.allowed is None else [max(0, self.allowed - self.used)]
        if self.log is not None:
            rooms.append(self.log.room(at))
        return min(rooms, default=None)

    def start(self, at: int, starts: int) -> "Gate":
        """So many have started; where running ones are limited each has a place now."""
        used = self.used if self.allowed is None else self.used + starts
        return replace(self, used=used, log=None if self.log is None else self.log.add(at, starts))

    def end(self, places: int) -> "Gate":
        """So many places are given back. Their jobs still count as starts."""
        assert places <= self.used, "only a place that is held can be given back"
        return replace(self, used=self.used - places)


class LineKind(IntEnum):
    """What a parked job waits for. The numbers are stored in `waiting.kind`."""

    TENANT = 1
    """Room at its tenant's gate."""
    TYPE = 2
    """Room at the gate of its type."""
    UNHANDLED = 3
    """A worker that has its type."""
    BACKLOG = 4
    """A worker's look-ahead with room."""


Line = tuple[LineKind, int]
"""A tenant's line: its kind and, of kinds 2 and 3, the type; of kind 4 the queue; 0 of kind 1."""
Place = tuple[int, int]
"""(precedence, seq): the order within each line and between them. Precedence is 3 minus the priority."""

TENANT_LINE: Final[Line] = (LineKind.TENANT, 0)


def type_line(type_id: int) -> Line:
    """The line at the gate of a type."""
    return (LineKind.TYPE, type_id)


@dataclass(frozen=True, slots=True)
class Seat:
    """A parked job's place: the seq is kept from line to line, so that no job is overtaken for ever."""

    line: Line
    seq: int
    woken_at: int | None = None
    """When it was last told to ask, or None."""

    def is_asleep(self, at: int) -> bool:
        """Whether it isn't on its way to a claim: it was never told, or that got lost."""
        return self.woken_at is None or self.woken_at < at - REWAKE_US


@dataclass(frozen=True, slots=True)
class Asking(Generic[Job]):
    """A job of one tenant that a worker wants to start."""

    job: Job
    precedence: int
    type_id: int
    seat: Seat | None = None


@dataclass(slots=True)
class Admission(Generic[Job]):
    """Who starts, and in which line each of the others waits."""

    started: list[Job] = field(default_factory=list)
    waits: dict[Job, Line] = field(default_factory=dict)


def admit(
    asking: Sequence[Asking[Job]],
    *,
    tenant_gate: Gate | None,
    type_gates: Mapping[int, Gate],
    heads: Mapping[Line, Place],
    at: int,
) -> Admission[Job]:
    """Judge a batch of one tenant's jobs, in the order in which they ask; `heads` has each line that isn't empty.

    A job passes its type's gate first, then the tenant's. At each gate those in turn pass while there is room: the
    seated by precedence and seq, then the others by precedence and the order of asking. Who isn't let through waits
    there.
    """
    answer = Admission[Job]()
    passed: list[tuple[int, Asking[Job]]] = []
    by_type: dict[int, list[tuple[int, Asking[Job]]]] = {}
    for entry in enumerate(asking):
        by_type.setdefault(entry[1].type_id, []).append(entry)
    for type_id, entries in by_type.items():
        line = type_line(type_id)
        through, stopped = _pass(entries, type_gates.get(type_id), line, heads.get(line), at)
        passed += through
        answer.waits.update((one.job, line) for _, one in stopped)
    through, stopped = _pass(passed, tenant_gate, TENANT_LINE, heads.get(TENANT_LINE), at)
    answer.started += [one.job for _, one in sorted(through, key=_by_order)]
    answer.waits.update((one.job, TENANT_LINE) for _, one in stopped)
    return answer


def is_in_turn(one: Asking[Job], line: Line, head: Place | None) -> bool:
    """Whether a job needn't go behind this line: it is empty, the job was woken from it, or is not behind its head."""
    if head is None:
        return True
    if one.seat is None:
        # Whoever arrives while others wait goes behind them, however urgent: its place is by precedence from then on.
        return False
    if one.seat.line == line and one.seat.woken_at is not None:
        return True
    return (one.precedence, one.seat.seq) <= head


def choose_moved(
    line: Sequence[Asking[Job]], *, room: int, type_gates: Mapping[int, Gate], heads: Mapping[Line, Place], at: int
) -> list[Job]:
    """Who of a tenant's line, in its order, goes to wait at the gate of its type before the first `room` are woken.

    Those who couldn't pass it, because others of their type come first and take its room, here or in the type's own
    line: the tenant's room would be promised to them and lie idle. Nobody moves while they are behind that room.
    """
    stuck, in_the_way = [], False
    ranks: Counter[int] = Counter()
    for number, one in enumerate(line[:WAKE_MAX]):
        assert one.seat is not None, "who waits has a seat"
        ranks[one.type_id] += 1
        gate = type_gates.get(one.type_id)
        type_room = None if gate is None else gate.room(at)
        if type_room is None or not one.seat.is_asleep(at):
            continue
        own = type_line(one.type_id)
        if ranks[one.type_id] > type_room or not is_in_turn(one, own, heads.get(own)):
            stuck.append(one.job)
            in_the_way |= number < room
    return stuck if in_the_way else []


def choose_woken(line: Iterable[tuple[Job, Seat]], *, room: int, at: int) -> list[Job]:
    """Whom to tell to ask: of a line in its order the first `room`, but those that were told not long ago."""
    chosen = []
    for number, (job, seat) in enumerate(line):
        if number >= room:
            break
        if seat.is_asleep(at):
            chosen.append(job)
    return chosen


_Entry = tuple[int, Asking[Job]]


def _pass(
    entries: Sequence[_Entry[Job]], gate: Gate | None, line: Line, head: Place | None, at: int
) -> tuple[list[_Entry[Job]], list[_Entry[Job]]]:
    """Those whom a gate lets through and those it doesn't, with their place in the order of asking."""
    room = None if gate is None else gate.room(at)
    if room is None:
        # A gate without a limit holds nobody, not even while the line of its former limit is still there.
        return list(entries), []
    in_turn = sorted((entry for entry in entries if is_in_turn(entry[1], line, head)), key=_by_place)
    through = in_turn[:room]
    numbers = {number for number, _ in through}
    return through, [entry for entry in entries if entry[0] not in numbers]


def _by_order(entry: _Entry[Job]) -> int:
    return entry[0]


def _by_place(entry: _Entry[Job]) -> tuple[bool, int, int, int]:
    # Seats come first, whatever the priority of those who have none yet.
    number, one = entry
    return one.seat is None, one.precedence, 0 if one.seat is None else one.seat.seq, number
