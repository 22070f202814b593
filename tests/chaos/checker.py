"""The checker: joins the ledger with the final state and says which promises were broken.

Pure, and linear in what it reads. The same twelve invariants judge a chaos run on real processes and a run of the
simulator.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from tests.chaos.evidence import Evidence, gather
from tests.chaos.final import Final
from tests.chaos.history import history
from tests.chaos.invariants_accepts import accepts, books, keys, tenants
from tests.chaos.invariants_claims import claims, due_times, ends, overlaps, waits
from tests.chaos.invariants_effects import effects, extra_runs
from tests.chaos.invariants_events import kafka, results
from tests.chaos.invariants_webhooks import webhooks
from tests.chaos.ledger import Event
from tests.chaos.violation import Rules, Violation

__all__ = ["INVARIANTS", "Rules", "Tally", "Violation", "check", "history", "tally"]

INVARIANTS: dict[int, Callable[[Evidence], Iterator[Violation]]] = {
    1: accepts,
    2: keys,
    3: ends,
    4: claims,
    5: overlaps,
    6: effects,
    7: results,
    8: webhooks,
    9: due_times,
    10: kafka,
    11: books,
    12: tenants,
}
"""By number; what each means says its docstring."""


def check(events: Sequence[Event], final: Final, rules: Rules | None = None) -> list[Violation]:
    """Every promise that was broken, in the order of invariants; none when all of them held.

    `events` are in the order of time, as `read_ledgers` gives them.
    """
    evidence = gather(events, final, rules or Rules())
    return [violation for judge in INVARIANTS.values() for violation in judge(evidence)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """What a run was like, for its report. Lateness is how long after its time a retry was claimed, in seconds."""

    wishes: int
    jobs: int
    faults: int
    runs: int
    extra_runs: int
    effects: int
    extra_effects: int
    events: int
    repeated_events: int
    webhooks: int
    repeated_webhooks: int
    lateness_median: float
    lateness_p99: float
    lateness_max: float

    @property
    def extra_runs_share(self) -> float:
        """Extra runs for each run."""
        return self.extra_runs / self.runs if self.runs else 0.0


def tally(events: Sequence[Event], final: Final, rules: Rules | None = None) -> Tally:
    """Count what the invariants allow but a reader wants to know."""
    evidence = gather(events, final, rules or Rules())
    cases = evidence.cases.values()
    watched = [case for case in cases if evidence.is_watched(case)]
    late = sorted(start - due for case in cases for due, start in waits(case))
    succeeded = sum(case.ended[0].state == "succeeded" for case in watched if case.ended and case.effects)
    effects_count = sum(len(case.effects) for case in watched)
    told = sum(len(case.events) for case in cases)
    calls = [call for calls in evidence.received.values() for call in calls]
    taken = [call for call in calls if 200 <= call.answered < 300]
    return Tally(
        wishes=len(evidence.wishes),
        jobs=sum(case.exists for case in cases),
        faults=evidence.fault_count,
        runs=sum(len(case.began) for case in watched),
        extra_runs=sum(max(0, extra_runs(case)) for case in watched),
        effects=effects_count,
        extra_effects=effects_count - succeeded,
        events=told,
        repeated_events=told - sum(bool(case.events) for case in cases),
        webhooks=len(calls),
        repeated_webhooks=len(taken) - len({(call.webhook_id, call.endpoint) for call in taken}),
        lateness_median=_quantile(late, 0.5),
        lateness_p99=_quantile(late, 0.99),
        lateness_max=late[-1] if late else 0.0,
    )


def _quantile(values: Sequence[float], share: float) -> float:
    """The smallest value that this share of the sorted values doesn't exceed; 0 without any."""
    return values[max(0, math.ceil(len(values) * share) - 1)] if values else 0.0
