"""What a handler raises to say how its attempt ended.

Anything else that a handler raises counts as retryable, with a code made from the exception's class. Messages and codes
are stored and shown to the tenant: they are no place for secrets.
"""

from datetime import timedelta


class HandlerError(Exception):
    """A failure that the handler describes itself.

    `code` is snake_case and meant for machines; without one it is the error's class (`retryable_error`).
    """

    def __init__(self, message: str = "", *, code: str | None = None) -> None:
        super().__init__(message)
        self.code = code


class RetryableError(HandlerError):
    """This attempt failed; another may work.

    The next attempt is made no earlier than `retry_after` (seconds, or a timedelta; a day at most) from now.
    """

    def __init__(
        self, message: str = "", *, retry_after: float | timedelta | None = None, code: str | None = None
    ) -> None:
        super().__init__(message, code=code)
        self.retry_after_seconds = None if retry_after is None else seconds_of(retry_after)


class PermanentError(HandlerError):
    """No further attempt will work: the job fails now and becomes a dead letter."""


class Snooze(Exception):  # noqa: N818 - nothing went wrong: it is a wish, raised or returned
    """Not now: run the job again in `seconds` (or a timedelta). It doesn't count as an attempt."""

    def __init__(self, seconds: float | timedelta) -> None:
        self.seconds = seconds_of(seconds)
        super().__init__(f"again in {self.seconds:g} s")


class CancelledByRequest(Exception):  # noqa: N818 - the handler obeyed: it is an ending, not an error
    """The handler stopped because it was asked to; `Context.raise_if_cancelled` raises it."""


def seconds_of(value: float | timedelta) -> float:
    """A wait in seconds; raises `ValueError` when it is negative or not a number that can be waited for."""
    seconds = value.total_seconds() if isinstance(value, timedelta) else float(value)
    # Ten years: beyond it somebody has mistaken milliseconds, or a point in time, for a wait in seconds.
    if not 0 <= seconds <= 315_360_000:
        raise ValueError(f"a wait must be between 0 and 315,360,000 seconds, not {seconds:g}")
    return seconds
