"""How an attempt ended, and what becomes of its job.

The worker and the reaper gather outcomes, `decide` turns each into one decision, and one statement applies them all.
An ending is a value here: nothing raises, nothing reads a clock.
"""

from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import Final, assert_never

from barnabas.domain.backoff import RetryPolicy, bounded_seconds, capped_retry_after, delay
from barnabas.domain.jobs import Command, JobState

# A poison job runs alone after its first loss, so the second convicts it; the third allows for one machine that died.
LOSSES_MAX: Final = 3


@dataclass(frozen=True, slots=True)
class Succeeded:
    """The handler returned; `result` is its JSON, None when it returned nothing."""

    result: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Raised:
    """The handler raised, or its payload did not fit its model. `retry_after` is a wish in seconds."""

    code: str
    message: str
    retryable: bool
    retry_after: float | None = None


@dataclass(frozen=True, slots=True)
class TimedOut:
    """The attempt ran into its deadline of so many seconds."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Snoozed:
    """The handler asked to be called again in so many seconds; that is no attempt."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Lost:
    """The process that ran it died, or could not renew its lease."""


@dataclass(frozen=True, slots=True)
class HandedBack:
    """The worker gave the job back unfinished: it drains, or never started it."""


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The handler stopped because it was asked to."""


Outcome = Succeeded | Raised | TimedOut | Snoozed | Lost | HandedBack | Cancelled


class AttemptKind(IntEnum):
    """What one line of a job's timeline was. Stored: the numbers never change their meaning."""

    ATTEMPT = 1
    """A charged run: it ended by success, error, time-out or cancel."""
    LOSS = 2
    """Its process died; not charged."""
    HAND_BACK = 3
    """Given back by a worker that stopped; not charged."""
    SNOOZE = 4
    """Put off by its own handler; not charged."""

    @property
    def label(self) -> str:
        """The name that the API uses."""
        return self.name.lower()


class DeadLetterReason(StrEnum):
    """Why a job needs a person. Part of the API, the DLQ topic and the metrics."""

    PERMANENT_ERROR = "permanent_error"
    ATTEMPTS_EXHAUSTED = "attempts_exhausted"
    WORKER_LOST = "worker_lost"


@dataclass(frozen=True, slots=True)
class JobError:
    """What went wrong, as the API tells it. `retryable` is the error's nature, not a promise of another attempt."""

    code: str
    message: str
    retryable: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Finish:
    """The job ends in `state`, for ever. A reason makes it a dead letter: exactly the failed ones have one."""

    state: JobState
    error: JobError | None = None
    dead_letter_reason: DeadLetterReason | None = None

    @property
    def command(self) -> Command:
        """The move in the transition table."""
        return _FINISHING[self.state]


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """The attempt was charged and the next one is due in `delay_seconds`."""

    delay_seconds: float
    error: JobError

    @property
    def command(self) -> Command:
        """The move in the transition table."""
        return Command.RETRY


@dataclass(frozen=True, slots=True, kw_only=True)
class Postpone:
    """Not charged: the same attempt again in `delay_seconds`."""

    delay_seconds: float

    @property
    def command(self) -> Command:
        """The move in the transition table."""
        return Command.SNOOZE


@dataclass(frozen=True, slots=True, kw_only=True)
class Requeue:
    """Not charged: the same attempt again at once, after a loss alone in a process of its own (`isolate`)."""

    kind: AttemptKind
    isolate: bool = False
    charged: bool = field(default=False, init=False)

    @property
    def command(self) -> Command:
        """The move in the transition table."""
        return Command.LOSE if self.kind is AttemptKind.LOSS else Command.HAND_BACK


Decision = Finish | Retry | Postpone | Requeue

_FINISHING: Final = {
    JobState.SUCCEEDED: Command.SUCCEED,
    JobState.FAILED: Command.FAIL,
    JobState.CANCELLED: Command.CANCEL,
}


def decide(
    outcome: Outcome,
    *,
    attempt: int,
    max_attempts: int,
    losses: int,
    policy: RetryPolicy,
    jitter: float,
    cancel_requested: bool,
) -> Decision:
    """What becomes of a job whose run ended so.

    `attempt` counts charged runs from 1 and includes this one; `losses` counts those before this outcome; `jitter` is
    uniform in [0, 1). A success that arrives after a cancel request stays a success, any other end is cancelled then
    and is never retried. A wish for a later retry is a floor under the backoff, capped at a day.
    """
    if isinstance(outcome, Succeeded):
        return Finish(state=JobState.SUCCEEDED)
    if cancel_requested or isinstance(outcome, Cancelled):
        return Finish(state=JobState.CANCELLED, error=_error_of(outcome))
    match outcome:
        case Raised(retryable=False):
            return _dead(outcome, DeadLetterReason.PERMANENT_ERROR)
        case Raised() | TimedOut() if attempt >= max_attempts:
            return _dead(outcome, DeadLetterReason.ATTEMPTS_EXHAUSTED)
        case Raised(retry_after=retry_after):
            backoff = delay(attempt, policy, jitter=jitter)
            return Retry(delay_seconds=max(backoff, capped_retry_after(retry_after)), error=_charged_error(outcome))
        case TimedOut():
            return Retry(delay_seconds=delay(attempt, policy, jitter=jitter), error=_charged_error(outcome))
        case Snoozed(seconds=seconds):
            return Postpone(delay_seconds=bounded_seconds(seconds))
        case Lost() if losses + 1 >= LOSSES_MAX:
            return _dead(outcome, DeadLetterReason.WORKER_LOST)
        case Lost():
            return Requeue(kind=AttemptKind.LOSS, isolate=True)
        case HandedBack():
            return Requeue(kind=AttemptKind.HAND_BACK)
        case _:
            assert_never(outcome)


def kind_of(outcome: Outcome) -> AttemptKind:
    """How the timeline shows this outcome."""
    match outcome:
        case Succeeded() | Raised() | TimedOut() | Cancelled():
            return AttemptKind.ATTEMPT
        case Lost():
            return AttemptKind.LOSS
        case HandedBack():
            return AttemptKind.HAND_BACK
        case Snoozed():
            return AttemptKind.SNOOZE
        case _:
            assert_never(outcome)


def _dead(outcome: Raised | TimedOut | Lost, reason: DeadLetterReason) -> Finish:
    return Finish(state=JobState.FAILED, error=_charged_error(outcome), dead_letter_reason=reason)


def _error_of(outcome: Outcome) -> JobError | None:
    # What the handler raised on its way out explains a cancelled job; the other endings have nothing to tell.
    return _charged_error(outcome) if isinstance(outcome, Raised | TimedOut) else None


def _charged_error(outcome: Raised | TimedOut | Lost) -> JobError:
    match outcome:
        case Raised(code=code, message=message, retryable=retryable):
            return JobError(code, message, retryable)
        case TimedOut(seconds=seconds):
            return JobError("timeout", f"did not end within {seconds:g} s", retryable=True)
        case Lost():
            return JobError("worker_lost", "the process that ran it died", retryable=True)
        case _:
            assert_never(outcome)
