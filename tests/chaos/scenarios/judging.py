"""The bounds of the table, in words that read like it."""

from tests.bench.targets import Target


def exactly(figure: str, value: float) -> Target:
    """A figure that may have one value only."""
    return Target(figure=figure, low=value, high=value)


def at_most(figure: str, high: float) -> Target:
    """A bound from above."""
    return Target(figure=figure, high=high)


def at_least(figure: str, low: float) -> Target:
    """A bound from below."""
    return Target(figure=figure, low=low)
