"""The ledger and the final state, joined by job: what every invariant looks at. Built once, in one pass over each.

Who is who: a wish is a submission with its key, a case is a job with all that was written about it anywhere.
"""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from tests.chaos.final import AttemptRow, DeliveryRow, EndedJob, EventRecord, Final, OpenJob
from tests.chaos.ledger import (
    Accepted,
    Accepting,
    Began,
    Cancelled,
    CrashPoint,
    Effect,
    Event,
    FaultBegan,
    FaultEnded,
    Received,
    Redriven,
    Refused,
    Unknown,
)
from tests.chaos.violation import Rules

# Only these are a clear no; what is above says nothing about what happened behind the door.
_CLIENT_ERROR = 400
_SERVER_ERROR = 500


@dataclass(slots=True)
class Wish:
    """One key of one tenant, and every answer to it."""

    tenant: str
    key: str
    asked: Accepting | None = None
    """How it was asked first."""
    bodies: dict[str, None] = field(default_factory=dict)
    """Hashes of all bodies that were sent under this key."""
    last_body: str = ""
    sent: int = 0
    accepted: list[Accepted] = field(default_factory=list)
    accepted_bodies: dict[str, None] = field(default_factory=dict)
    refused: list[Refused] = field(default_factory=list)
    refused_clearly: int = 0
    stored: list[str] = field(default_factory=list)
    """The jobs that the key stands for in the end."""

    @property
    def is_refused(self) -> bool:
        """Whether it was asked for, and every single answer was a clear no."""
        return 0 < self.sent <= self.refused_clearly

    def jobs(self) -> dict[str, None]:
        """Every job that was ever named for it, in the order in which they came up."""
        return dict.fromkeys([*(one.job for one in self.accepted if one.job), *self.stored])


@dataclass(slots=True)
class Case:
    """One job."""

    job: str
    wish: Wish | None = None
    dead: str | None = None
    """The dead letter whose redrive it is."""
    open: list[OpenJob] = field(default_factory=list)
    ended: list[EndedJob] = field(default_factory=list)
    claims: list[AttemptRow] = field(default_factory=list)
    """In the order of their fences."""
    began: list[Began] = field(default_factory=list)
    effects: list[Effect] = field(default_factory=list)
    events: list[EventRecord] = field(default_factory=list)
    dead_events: list[EventRecord] = field(default_factory=list)
    cancelled: list[Cancelled] = field(default_factory=list)

    @property
    def exists(self) -> bool:
        """Whether it has a row."""
        return bool(self.open or self.ended)

    @property
    def row(self) -> EndedJob | OpenJob | None:
        """Its row, the final one first."""
        return self.ended[0] if self.ended else self.open[0] if self.open else None

    @property
    def tenant(self) -> str:
        """Whose it is: by its wish, or by its row where no wish is known."""
        if self.wish is not None:
            return self.wish.tenant
        row = self.row
        return "" if row is None else row.tenant

    @property
    def type(self) -> str:
        """Its type as its row has it, or its wish."""
        row = self.row
        if row is not None and row.type:
            return row.type
        return self.wish.asked.jobs_type if self.wish is not None and self.wish.asked is not None else ""


class Faults:
    """When something was being broken, with a margin on both sides."""

    def __init__(self, spans: Iterable[tuple[float, float]], window_seconds: float) -> None:
        self._begins: list[float] = []
        self._ends: list[float] = []
        for begin, end in sorted((begin - window_seconds, end + window_seconds) for begin, end in spans):
            if self._ends and begin <= self._ends[-1]:
                self._ends[-1] = max(self._ends[-1], end)
            else:
                self._begins.append(begin)
                self._ends.append(end)

    def near(self, at: float) -> bool:
        """Whether a fault was near at that moment."""
        index = bisect_right(self._begins, at) - 1
        return index >= 0 and at <= self._ends[index]

    def near_span(self, begin: float, end: float) -> bool:
        """Whether a fault was near at any moment between the two."""
        index = bisect_right(self._begins, end) - 1
        return index >= 0 and begin <= self._ends[index]


@dataclass(slots=True)
class Evidence:
    """All of it, by job, by key and by delivery."""

    final: Final
    rules: Rules
    wishes: dict[tuple[str, str], Wish] = field(default_factory=dict)
    cases: dict[str, Case] = field(default_factory=dict)
    received: dict[tuple[str, str], list[Received]] = field(default_factory=dict)
    """By webhook id and endpoint, in the order of time."""
    deliveries: dict[tuple[str, str], list[DeliveryRow]] = field(default_factory=dict)
    """By event and endpoint."""
    redriven: list[Redriven] = field(default_factory=list)
    faults: Faults = field(default_factory=lambda: Faults((), 0.0))
    fault_count: int = 0
    records_from: float = float("-inf")
    """Records that were made before are gone: Kafka was wiped then."""

    def case(self, job: str) -> Case:
        """The job's case, made where it is new."""
        case = self.cases.get(job)
        if case is None:
            case = self.cases[job] = Case(job)
        return case

    def is_watched(self, case: Case) -> bool:
        """Whether its handler writes the ledger."""
        return case.type not in self.rules.unwatched_types


def gather(events: Sequence[Event], final: Final, rules: Rules) -> Evidence:
    """Join everything. `events` are in the order of time."""
    evidence = Evidence(final, rules)
    _note_events(events, evidence)
    _note_rows(final, evidence)
    return evidence


def _note_events(events: Sequence[Event], evidence: Evidence) -> None:
    began: dict[int, FaultBegan] = {}
    spans: list[tuple[float, float]] = []
    case_of = evidence.case
    for event in events:
        match event:
            case Began():
                case_of(event.job).began.append(event)
            case Effect():
                case_of(event.job).effects.append(event)
            case Received():
                evidence.received.setdefault((event.webhook_id, event.endpoint), []).append(event)
            case Accepting() | Accepted() | Refused() | Unknown():
                _note_submission(event, evidence)
            case FaultBegan():
                began[event.number] = event
                evidence.fault_count += 1
            case FaultEnded():
                fault = began.pop(event.number, None)
                # An end without its beginning is the end of something short.
                spans.append((event.at if fault is None else fault.at, event.at))
                if fault is not None and "wipe" in fault.name:
                    evidence.records_from = max(evidence.records_from, event.at)
            case CrashPoint():
                spans.append((event.at, event.at))
                evidence.fault_count += 1
            case Redriven():
                evidence.redriven.append(event)
            case Cancelled():
                case_of(event.job).cancelled.append(event)
    # What never ended lasts to the end.
    spans += [(fault.at, float("inf")) for fault in began.values()]
    evidence.faults = Faults(spans, evidence.rules.fault_window_seconds)


def _note_submission(event: Accepting | Accepted | Refused | Unknown, evidence: Evidence) -> None:
    key = (event.tenant, event.key)
    wish = evidence.wishes.get(key)
    if wish is None:
        wish = evidence.wishes[key] = Wish(event.tenant, event.key)
    match event:
        case Accepting():
            wish.asked = wish.asked or event
            wish.sent += 1
            wish.last_body = event.body_hash
            wish.bodies[event.body_hash] = None
        case Accepted():
            wish.accepted.append(event)
            wish.accepted_bodies[event.body_hash or wish.last_body] = None
        case Refused():
            wish.refused.append(event)
            wish.refused_clearly += _CLIENT_ERROR <= event.status < _SERVER_ERROR
        case Unknown():
            pass  # it adds nothing: what isn't clearly refused may have happened


def _note_rows(final: Final, evidence: Evidence) -> None:
    case_of = evidence.case
    for opened in final.open:
        case_of(opened.job).open.append(opened)
    for ended in final.ended:
        case_of(ended.job).ended.append(ended)
    for claim in final.attempts:
        case_of(claim.job).claims.append(claim)
    for case in evidence.cases.values():
        if len(case.claims) > 1:
            case.claims.sort(key=lambda claim: claim.fence)
    for record in final.events or ():
        case_of(record.job).events.append(record)
    for record in final.dead_jobs or ():
        case_of(record.job).dead_events.append(record)
    for delivery in final.deliveries:
        evidence.deliveries.setdefault((delivery.event_id, delivery.endpoint), []).append(delivery)
    for stored in final.keys:
        key = (stored.tenant, stored.key)
        wish = evidence.wishes.get(key)
        if wish is None:
            wish = evidence.wishes[key] = Wish(*key)
        wish.stored.append(stored.job)
    for wish in evidence.wishes.values():
        for job in wish.jobs():
            case = case_of(job)
            case.wish = case.wish or wish
    for redrive in final.redrives:
        case_of(redrive.job).dead = redrive.dead
