"""How a try of a webhook ended, and what becomes of its delivery.

The notifier gathers outcomes and `decide_delivery` turns each into a decision. Only a 2xx answer is success: a redirect
is not followed and not a success, since its target was never checked.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import Final, assert_never

from barnabas.domain.backoff import delivery_delay
from barnabas.errors import RejectedError

# "Gone": the receiver asks to be left alone. Source: Standard Webhooks, "Delivery guarantees".
_GONE: Final = 410


class UnknownDeliveryStateError(RejectedError):
    """There is no delivery state of that name."""

    code = "unknown_delivery_state"

    def __init__(self, label: str) -> None:
        super().__init__(f"there is no delivery state {label!r}")
        self.label = label


class DeliveryState(IntEnum):
    """Where a delivery is. The numbers are stored: they never change their meaning."""

    PENDING = 0
    """Ready to be tried."""
    PARKED = 1
    """Waits in Postgres: its endpoint's lane is full, or its endpoint is held back."""
    RUNNING = 2
    """Held by one notifier under a lease and a fence."""
    RETRYING = 3
    """A try failed and the wait before the next one runs."""
    SUCCEEDED = 4
    """The receiver answered 2xx. For ever."""
    FAILED = 5
    """The schedule is used up or the receiver is gone: a dead letter. A redelivery starts it again."""
    CANCELLED = 6
    """Its endpoint was deleted before it was delivered. For ever."""

    @property
    def label(self) -> str:
        """The name that the API and metrics use."""
        return self.name.lower()

    @classmethod
    def from_label(cls, label: str) -> "DeliveryState":
        """The state of that exact lower-case name; raises `UnknownDeliveryStateError`."""
        for state in cls:
            if state.label == label:
                return state
        raise UnknownDeliveryStateError(label)


DELIVERY_TERMINAL: Final = frozenset({DeliveryState.SUCCEEDED, DeliveryState.FAILED, DeliveryState.CANCELLED})
DELIVERY_OPEN: Final = frozenset(DeliveryState) - DELIVERY_TERMINAL


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """The receiver answered. `retry_after` is in seconds from now, `body_excerpt` the body's first part."""

    status: int
    retry_after: float | None = None
    body_excerpt: bytes = field(default=b"", repr=False)

    @property
    def code(self) -> str:
        """What went wrong, for people and metrics."""
        return f"http_{self.status}"


@dataclass(frozen=True, slots=True)
class ConnectFailed:
    """No answer: the name, the connection, TLS or the protocol failed; `code` says which."""

    code: str


@dataclass(frozen=True, slots=True)
class TimedOut:
    """The deadline over the whole try passed."""

    seconds: float

    @property
    def code(self) -> str:
        """What went wrong, for people and metrics."""
        return "timeout"


@dataclass(frozen=True, slots=True)
class Refused:
    """We refused to connect: the target is not a public one. Retried, since a wrong DNS answer gets repaired."""

    code: str


DeliveryOutcome = HttpAnswer | ConnectFailed | TimedOut | Refused


class DeliveryDeadLetterReason(StrEnum):
    """Why a delivery needs a person. Part of the API, the DLQ topic and the metrics."""

    ATTEMPTS_EXHAUSTED = "attempts_exhausted"
    ENDPOINT_GONE = "endpoint_gone"


@dataclass(frozen=True, slots=True)
class Delivered:
    """The receiver has it."""

    @property
    def state(self) -> DeliveryState:
        """The state it leads to."""
        return DeliveryState.SUCCEEDED


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryDelivery:
    """Try again in `delay_seconds`."""

    delay_seconds: float
    error_code: str

    @property
    def state(self) -> DeliveryState:
        """The state it leads to."""
        return DeliveryState.RETRYING


@dataclass(frozen=True, slots=True, kw_only=True)
class GiveUp:
    """No more tries: a dead letter for that reason. `disable_endpoint` when the receiver said that it is gone."""

    reason: DeliveryDeadLetterReason
    error_code: str
    disable_endpoint: bool = False

    @property
    def state(self) -> DeliveryState:
        """The state it leads to."""
        return DeliveryState.FAILED


DeliveryDecision = Delivered | RetryDelivery | GiveUp


def decide_delivery(
    outcome: DeliveryOutcome, *, attempt: int, schedule: Sequence[float], jitter: float
) -> DeliveryDecision:
    """What becomes of a delivery whose try ended so.

    `attempt` counts tries from 1 and includes this one; `schedule` holds the waits between tries, so it allows one try
    more than it has waits; `jitter` is uniform in [0, 1). `Retry-After` counts on any failure.
    """
    retry_after = None
    match outcome:
        case HttpAnswer(status=status) if 200 <= status < 300:
            return Delivered()
        case HttpAnswer(status=status) if status == _GONE:
            return GiveUp(reason=DeliveryDeadLetterReason.ENDPOINT_GONE, error_code=outcome.code, disable_endpoint=True)
        case HttpAnswer():
            retry_after = outcome.retry_after
        case ConnectFailed() | TimedOut() | Refused():
            pass
        case _:
            assert_never(outcome)
    wait = delivery_delay(attempt, schedule, jitter=jitter, retry_after=retry_after)
    if wait is None:
        return GiveUp(reason=DeliveryDeadLetterReason.ATTEMPTS_EXHAUSTED, error_code=outcome.code)
    return RetryDelivery(delay_seconds=wait, error_code=outcome.code)
