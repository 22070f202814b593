"""What the checker finds, and what it is told to allow."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Violation:
    """A promise that was broken. `invariant` is its number, 1 to 12; `job` is empty where no single one is meant."""

    invariant: int
    what: str
    tenant: str = ""
    job: str = ""

    def __str__(self) -> str:
        whose = (
            f" (tenant {self.tenant}, job {self.job})" if self.job else f" (tenant {self.tenant})" * bool(self.tenant)
        )
        return f"invariant {self.invariant}: {self.what}{whose}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What a run allows."""

    fault_window_seconds: float = 30.0
    """How far from a fault its consequences may lie, before it begins and after it ends: a lease must run out, the
    reaper must be sure, and the next worker must get to it."""
    slack_seconds: float = 1.0
    """By how much clocks and the order of writing may differ where nothing is wrong."""
    unwatched_types: frozenset[str] = frozenset({"echo", "sleep", "fail", "http_request"})
    """Job types whose handlers write no ledger: nothing is said about their runs and effects."""
    conflict_statuses: frozenset[int] = frozenset({409, 422})
    """How the door refuses a known key with another body."""
    lateness_seconds_max: float | None = None
    """How late a due job may start where no fault is near; None sets no limit."""
    open_allowed: bool = False
    """Whether jobs may be open at the end."""
