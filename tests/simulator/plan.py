"""What a seed stands for: tenants with their limits, the jobs they will ask for, and what is broken when."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from uuid import UUID

from barnabas.domain.attempts import LOSSES_MAX
from barnabas.domain.gates import Gate, StartLog

SUBMIT_SECONDS = 10.0
"""All jobs are asked for within so long."""
FAULT_SECONDS = 22.0
"""After so long nothing is broken any more, and everything has to come to its end."""
JOB_TYPES = ("a", "b")
TIMEOUT_SECONDS = 4.0
PROCESSES = ("ingest", "worker-1", "worker-2", "scheduler-1", "scheduler-2", "notifier-1", "notifier-2")

_WORKERS = ("worker-1", "worker-2")

PROFILES = ("calm", "network", "crashes", "pauses", "outages", "kafka", "everything")
_WEIGHTS = (1, 2, 3, 3, 3, 2, 6)


@dataclass(frozen=True, slots=True)
class TenantPlan:
    """A tenant, its limits, and what its endpoint is like."""

    tenant: UUID
    gate: Gate | None
    type_gate: Gate | None
    """Of the first job type."""
    admission: Gate | None
    endpoint: UUID | None
    schedule: tuple[float, ...]
    refusals: float
    """How many of its calls the receiver answers with an error, or not at all."""


@dataclass(frozen=True, slots=True)
class JobPlan:
    """A job that is asked for, and how its handler's runs will end."""

    number: int
    tenant: TenantPlan
    key: str
    at: float
    via: str
    type: str
    priority: int
    attempts: tuple[str, ...]
    """How each attempt ends; the last again where there are more."""
    max_attempts: int
    seconds: float
    crashes: int
    """So many of its runs kill their process."""
    snoozes: int
    delay: float | None
    ordering_key: str | None
    asked_twice: bool
    other_body: bool
    """Another body is sent under its key as well."""
    cancel_after: float | None
    given_up: bool
    """Whoever asked for it doesn't ask again after an unknown answer."""

    may_time_out: bool
    """Whether its worker may stand still while it runs."""

    @property
    def expected(self) -> str:
        """The state that it must end in; empty where that depends on who is first."""
        if self.cancel_after is not None or self.may_time_out:
            return ""
        if self.crashes >= LOSSES_MAX:
            return "failed"
        for number in range(self.max_attempts):
            end = self.attempts[min(number, len(self.attempts) - 1)]
            if end == "ok":
                return "succeeded"
            if end == "permanent":
                return "failed"
        return "failed"


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that is broken from some moment on for some time."""

    at: float
    name: str
    target: str
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """All of it."""

    seed: int
    profile: str
    tenants: tuple[TenantPlan, ...]
    jobs: tuple[JobPlan, ...]
    faults: tuple[Fault, ...]
    crash_points: float
    """How likely it is that a process ends at a named point that it reaches, while faults are on."""
    hold_dead: bool
    slots: int
    look_ahead_bytes: int
    redrives: float
    """How many dead letters are sent round again."""
    wiped: bool = field(default=False)


def plan_of(seed: int) -> Plan:
    """The world of that seed."""
    random = Random(seed)
    profile = random.choices(PROFILES, _WEIGHTS)[0]
    tenants = tuple(_tenant(random, number) for number in range(random.randint(2, 4)))
    faults = tuple(sorted(_faults(random, profile), key=lambda fault: fault.at))
    jobs = tuple(_job(random, number, tenants, profile) for number in range(random.randint(10, 26)))
    return Plan(
        seed=seed,
        profile=profile,
        tenants=tenants,
        jobs=jobs,
        faults=faults,
        crash_points=random.choice((0.0, 0.005, 0.02)) if profile in ("crashes", "everything") else 0.0,
        hold_dead=random.random() < 0.3,
        slots=random.choice((1, 2, 4, 16)),
        look_ahead_bytes=random.choice((800, 2_000, 1 << 20)),
        redrives=random.choice((0.0, 0.5, 1.0)),
        wiped=any(fault.name == "kafka_wiped" for fault in faults),
    )


def _tenant(random: Random, number: int) -> TenantPlan:
    endpoint = UUID(int=(0xE << 64) + random.getrandbits(40)) if random.random() < 0.85 else None
    return TenantPlan(
        tenant=UUID(int=((number + 1) << 100) + random.getrandbits(64)),
        gate=_gate(random) if random.random() < 0.5 else None,
        type_gate=_gate(random) if random.random() < 0.3 else None,
        admission=Gate(log=StartLog(starts_allowed=4, window_us=2_000_000)) if random.random() < 0.15 else None,
        endpoint=endpoint,
        schedule=random.choice(((1.0, 3.0), (0.5, 1.0, 2.0), (2.0,))),
        refusals=random.choice((0.0, 0.0, 0.2, 0.6)),
    )


def _gate(random: Random) -> Gate:
    allowed = random.choice((None, 1, 1, 2, 3))
    log = StartLog(starts_allowed=random.choice((2, 4)), window_us=3_000_000)
    return Gate(allowed=allowed, log=log if allowed is None or random.random() < 0.3 else None)


def _job(random: Random, number: int, tenants: Sequence[TenantPlan], profile: str) -> JobPlan:
    tenant = random.choice(tenants)
    seconds = random.choice((0.0, 0.05, 0.5, 2.0, 3.8))
    ends = tuple(
        random.choices(("ok", "fail", "permanent", "hang", "later"), (60, 25, 5, 5, 5))[0]
        for _ in range(random.randint(1, 3))
    )
    return JobPlan(
        number=number,
        tenant=tenant,
        key=f"k{number}",
        at=random.random() * SUBMIT_SECONDS,
        via="kafka" if random.random() < 0.2 else "http",
        type=random.choice(JOB_TYPES),
        priority=random.randrange(4),
        attempts=ends,
        max_attempts=random.randint(1, 3),
        seconds=seconds,
        crashes=random.choice((1, 3)) if profile in ("crashes", "everything") and random.random() < 0.06 else 0,
        snoozes=1 if random.random() < 0.08 else 0,
        delay=random.choice((0.5, 2.0, 6.0)) if random.random() < 0.15 else None,
        ordering_key=random.choice(("x", "y")) if random.random() < 0.3 else None,
        asked_twice=random.random() < 0.15,
        other_body=random.random() < 0.05,
        cancel_after=random.random() * 4.0 if random.random() < 0.1 else None,
        given_up=profile != "calm" and random.random() < 0.1,
        may_time_out=seconds > 0.0 and profile in ("pauses", "everything"),
    )


def _faults(random: Random, profile: str) -> list[Fault]:
    if profile == "calm":
        return []
    faults: list[Fault] = []

    def some(name: str, most: int, targets: Sequence[str], shortest: float, longest: float) -> None:
        for _ in range(random.randint(0, most)):
            at = random.random() * (FAULT_SECONDS - 4.0)
            seconds = shortest + (longest - shortest) * random.random()
            faults.append(Fault(at, name, random.choice(targets), min(seconds, FAULT_SECONDS - at)))

    everything = profile == "everything"
    if everything or profile == "network":
        some("network", 3, ("postgres", "kafka", "both"), 2.0, 10.0)
        some("cut_off", 2, PROCESSES, 1.0, 8.0)
    if everything or profile == "crashes":
        some("killed", 4, PROCESSES, 0.1, 5.0)
        some("stopped", 2, PROCESSES, 0.1, 2.0)
    if everything or profile == "pauses":
        some("paused", 3, PROCESSES, 0.5, 9.0)
        # Longer than a lease, so that somebody else has its jobs when it goes on.
        some("paused", 2, _WORKERS, 3.5, 7.0)
        some("cut_off", 2, PROCESSES, 1.0, 8.0)
    if everything or profile == "outages":
        some("postgres_away", 3, ("postgres",), 0.2, 7.0)
        some("stopped", 2, PROCESSES, 0.1, 2.0)
    if everything or profile == "kafka":
        some("kafka_away", 2, ("kafka",), 0.5, 12.0)
        some("kafka_wiped", 1, ("kafka",), 0.0, 0.0)
    return faults
