"""The verdict on one seed: the checker's invariants, what never ended, and the history of an offending job."""

from dataclasses import dataclass

from tests.chaos.checker import check
from tests.chaos.ledger import Event, FaultBegan, FaultEnded
from tests.chaos.violation import Rules
from tests.simulator.plan import plan_of
from tests.simulator.switches import Switches
from tests.simulator.world import Outcome, simulate

RULES = Rules(fault_window_seconds=15.0, slack_seconds=0.05)
"""Leases are 3 s in here, and all clocks are one."""

_EVENTS_MAX = 200


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is wrong with a seed; nothing, if `problems` is empty."""

    seed: int
    profile: str
    problems: tuple[str, ...]
    history: tuple[str, ...]
    """Of one offending job."""
    jobs: int
    steps: int
    seconds: float
    """In virtual time."""


def judge(seed: int, switches: Switches | None = None) -> Verdict:
    """Run a seed's world and look at what it left behind."""
    outcome = simulate(plan_of(seed), switches)
    violations = check(outcome.ledger, outcome.final, RULES)
    problems = [str(violation) for violation in violations]
    problems += [f"stuck: {what}" for what in outcome.stuck]
    problems += outcome.errors
    job = next((violation.job for violation in violations if violation.job), "")
    history = _history(outcome, job) if problems else []
    return Verdict(
        seed, outcome.plan.profile, tuple(problems), tuple(history), len(outcome.plan.jobs), outcome.steps,
        outcome.seconds,
    )  # fmt: skip


def _history(outcome: Outcome, job: str) -> list[str]:
    """The faults, and everything about that job, in the order of time."""
    lines = [_told(event) for event in outcome.ledger if _is_about(event, job, outcome)]
    lines += outcome.moves.get(job, [])
    final = outcome.final
    rows: list[object] = [row for row in final.ended if row.job == job]
    rows += [row for row in final.attempts if row.job == job]
    rows += [row for row in final.deliveries if row.job == job]
    return [*sorted(lines)[:_EVENTS_MAX], *(f"           in the end: {row}" for row in rows)]


def _is_about(event: Event, job: str, outcome: Outcome) -> bool:
    if isinstance(event, FaultBegan | FaultEnded):
        return True
    if not job:
        return False
    if getattr(event, "job", "") == job:
        return True
    stored = {(row.tenant, row.key) for row in outcome.final.keys if row.job == job}
    return (getattr(event, "tenant", ""), getattr(event, "key", "")) in stored


def _told(event: Event) -> str:
    name = type(event).__name__
    return f"{event.at:9.3f}  {name}: " + ", ".join(
        f"{field} {value}"
        for field in event.__struct_fields__
        if field not in ("at", "tenant", "job") and (value := getattr(event, field)) not in ("", None)
    )
