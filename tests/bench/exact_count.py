"""Whether limits were kept, counted from when jobs started and ended: pure functions over whole microseconds.

A place is taken by the claim, under the gate's lock, and given back by the finish or by whoever takes the job back,
under the same lock. So of two runs that share a place the first has ended, by the database's time, before the second
starts.
"""

from collections.abc import Sequence

Run = tuple[int, int]
"""When it started and when it ended, in microseconds."""


def count_over_places(runs: Sequence[Run], allowed: int) -> int:
    """Starts that came while `allowed` or more were running."""
    # At the same microsecond an end comes before a start: the place was free.
    changes = sorted([(ended, -1) for _, ended in runs] + [(started, 1) for started, _ in runs])
    running = over = 0
    for _, change in changes:
        running += change
        if change > 0 and running > allowed:
            over += 1
    return over


def count_over_window(starts: Sequence[int], allowed: int, *, window: int) -> int:
    """Starts with `allowed` others in the window that ends with them, whichever window that is."""
    ordered = sorted(starts)
    return sum(1 for earlier, later in zip(ordered, ordered[allowed:], strict=False) if later - earlier < window)


def places_used(runs: Sequence[Run], allowed: int, *, settle: int) -> float:
    """The share of the places that were taken while work was in line.

    That is from `settle` after the first start until so few are left to start that they can't fill the places twice.
    """
    starts = sorted(started for started, _ in runs)
    begin, end = starts[0] + settle, starts[-min(len(starts), 2 * allowed)]
    if end <= begin:
        return 0.0
    taken = sum(max(0, min(ended, end) - max(started, begin)) for started, ended in runs)
    return taken / (allowed * (end - begin))


def starts_used(starts: Sequence[int], allowed: int, *, window: int) -> float:
    """The share of the starts that a sliding window allows: `allowed` at once, and as many each window after."""
    return len(starts) / (allowed * (1 + (max(starts) - min(starts)) // window))
