"""Which faults a run puts on, when, and for how long: a pure function of the seed.

Faults come in rounds of one or two that overlap; after each round the system gets some seconds to heal. So there is
always progress in the end, however unlucky a seed is, and every fault has a system around it that works.
"""

import random
from collections.abc import Sequence, Set
from dataclasses import dataclass
from enum import StrEnum

WORKERS = ("worker", "worker-2")
SERVICES = ("ingest", *WORKERS, "notifier", "retry-scheduler")
SERVERS = ("postgres", "kafka")
LINES = ("postgres", "kafka", "door")
"""What has a proxy before it; the door is where clients come in."""

AT_ONCE_MAX = 2

# Loops have begun and the first jobs run; a system that is just starting is another story.
_FIRST_AT_SECONDS = 3.0
_PAUSE_SECONDS = (2.0, 6.0)
# What a killed process takes until it is back on a machine that has other things to do.
_BACK_SECONDS = 4.0
_TOGETHER = 0.6


class Kind(StrEnum):
    """What can be done to a target."""

    KILL = "kill"
    """kill -9; somebody starts it again."""
    TERM = "term"
    """SIGTERM; somebody starts it again once it has drained."""
    PAUSE = "pause"
    """SIGSTOP, for less than a lease."""
    FREEZE = "freeze"
    """SIGSTOP, for longer than a lease: when it goes on it is a zombie."""
    BACKENDS = "backends"
    """Some of Postgres's backends are told to end, again and again."""
    BACKEND_CRASH = "backend_crash"
    """One backend is killed with -9, whereupon Postgres restarts in itself."""
    WIPE = "wipe"
    """Killed, and what it has stored is gone: Kafka only."""
    CUT = "cut"
    RESET = "reset"
    DELAY = "delay"
    THROTTLE = "throttle"
    HALF_OPEN = "half_open"
    SILENCE = "silence"
    MEMBERS = "members"
    """Workers join the group and leave it, every few seconds."""


@dataclass(frozen=True, slots=True)
class Planned:
    """One fault."""

    number: int
    """Counts from 1, in the order of their beginnings."""
    round: int
    at: float
    """Seconds after the run began. One that is due while an earlier round still heals waits for it."""
    kind: Kind
    target: str
    seconds: float
    """How long it lasts, if it lasts: a kill is over when the process is back."""


@dataclass(frozen=True, slots=True)
class _Choice:
    """A kind of fault with what it can be done to, and how long."""

    kind: Kind
    targets: Sequence[str]
    seconds: tuple[float, float] = (0.0, 0.0)


def plan(seed: int, *, seconds: float, lease_seconds: float) -> list[Planned]:
    """The faults of a run of `seconds`, in the order of their beginnings; the last is over by its end.

    Every kind comes once before any comes again, so a run that is long enough has all of them.
    """
    choice = random.Random(f"schedule {seed}")
    deck: list[_Choice] = []
    faults: list[Planned] = []
    at, number = _FIRST_AT_SECONDS, 0
    while True:
        found: list[Planned] = []
        for _ in range(AT_ONCE_MAX if choice.random() < _TOGETHER else 1):
            picked, target = _draw(deck, {fault.target for fault in found}, choice, lease_seconds)
            found.append(
                Planned(
                    number=len(faults) + len(found) + 1,
                    round=number,
                    at=round(at + choice.uniform(0.0, 2.0) * len(found), 2),
                    kind=picked.kind,
                    target=target,
                    seconds=round(choice.uniform(*picked.seconds), 2),
                )
            )
        end = max(end_of(fault) for fault in found)
        if end > seconds:
            return faults
        faults += found
        at, number = end + choice.uniform(*_PAUSE_SECONDS), number + 1


def rounds(faults: Sequence[Planned]) -> list[list[Planned]]:
    """The faults by round."""
    grouped: dict[int, list[Planned]] = {}
    for fault in faults:
        grouped.setdefault(fault.round, []).append(fault)
    return list(grouped.values())


def end_of(fault: Planned) -> float:
    """When it is over, as far as one can know before."""
    is_lasting = fault.kind not in (Kind.KILL, Kind.TERM, Kind.WIPE, Kind.BACKEND_CRASH)
    return fault.at + fault.seconds + (0.0 if is_lasting else _BACK_SECONDS)


def _choices(lease_seconds: float) -> list[_Choice]:
    """One deck. A worker, a service and a server are killed in each."""
    return [
        _Choice(Kind.KILL, WORKERS),
        _Choice(Kind.KILL, SERVICES),
        _Choice(Kind.KILL, SERVERS),
        _Choice(Kind.TERM, SERVICES),
        _Choice(Kind.PAUSE, (*SERVICES, *SERVERS), (0.5, 0.4 * lease_seconds)),
        _Choice(Kind.FREEZE, (*WORKERS, "notifier", "retry-scheduler"), (1.2 * lease_seconds, 1.5 * lease_seconds)),
        _Choice(Kind.BACKENDS, ("postgres",), (1.0, 4.0)),
        _Choice(Kind.BACKEND_CRASH, ("postgres",)),
        _Choice(Kind.WIPE, ("kafka",)),
        _Choice(Kind.CUT, LINES, (1.0, 6.0)),
        _Choice(Kind.RESET, LINES, (0.2, 2.0)),
        _Choice(Kind.DELAY, LINES, (2.0, 8.0)),
        _Choice(Kind.THROTTLE, LINES, (2.0, 6.0)),
        _Choice(Kind.HALF_OPEN, LINES, (1.0, 6.0)),
        _Choice(Kind.SILENCE, LINES, (1.0, 8.0)),
        _Choice(Kind.MEMBERS, ("worker",), (8.0, 14.0)),
    ]


def _draw(deck: list[_Choice], taken: Set[str], choice: random.Random, lease_seconds: float) -> tuple[_Choice, str]:
    """The next of the deck that has a target left beside those of its round."""
    while True:
        for place, picked in enumerate(deck):
            targets = [target for target in picked.targets if target not in taken]
            if targets:
                del deck[place]
                return picked, choice.choice(targets)
        fresh = _choices(lease_seconds)
        choice.shuffle(fresh)
        deck += fresh
