"""What a worker, its child processes and their template say to each other: length-prefixed MessagePack on socket pairs.

Both ends are the same release on the same machine, so there is no version in it. The handler's own output never mixes
with it: standard output and error stay the child's.
"""

from typing import Any
from uuid import UUID

import msgspec

from barnabas.domain.attempts import Cancelled, HandedBack, Lost, Outcome, Raised, Snoozed, Succeeded, TimedOut

_LENGTH_BYTES = 4


class ChildSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What a child, or a template of children, is started with; its only argument, as JSON."""

    fd: int
    """The wire of a child, or the line to a template."""
    forks: bool
    """Whether it is a template: it runs nothing itself and forks a child whenever it is sent a wire."""
    app: str | None
    allow_private_targets: bool
    log_level: str
    log_form: str


class Start(msgspec.Struct, frozen=True, kw_only=True, tag="start"):
    """To the child: run this attempt."""

    job_type: str
    payload: bytes
    job_id: UUID
    tenant_id: UUID
    attempt: int
    max_attempts: int
    losses: int
    metadata: dict[str, Any]
    timeout_seconds: float
    cancel_grace_seconds: float


class Stop(msgspec.Struct, frozen=True, tag="stop"):
    """To the child: the running attempt is cancelled."""


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """From the child, or the template: its handlers are loaded."""


class Refused(msgspec.Struct, frozen=True, tag="refused"):
    """From the child, or the template: its handlers can't be loaded, and it ends."""

    reason: str


class Unforkable(msgspec.Struct, frozen=True, tag="unforkable"):
    """From the template: loading the handlers has started threads, which a fork doesn't take along. It ends."""


class Forked(msgspec.Struct, frozen=True, tag="forked"):
    """From the template: the child for the oldest wire without one. It leads a process group of its own."""

    pid: int


class Exited(msgspec.Struct, frozen=True, tag="exited"):
    """From the template: one of its children has ended."""

    pid: int


class Reported(msgspec.Struct, frozen=True, tag="reported"):
    """From the child: the running attempt's progress."""

    percent: float
    message: str | None


class Ended(msgspec.Struct, frozen=True, kw_only=True, tag="ended"):
    """From the child: how the attempt ended, and how much memory the process has had at its peak."""

    outcome: str
    result: bytes | None = None
    code: str = ""
    message: str = ""
    retryable: bool = False
    retry_after: float | None = None
    seconds: float = 0.0
    peak_bytes: int = 0


ToChild = Start | Stop
FromChild = Ready | Refused | Reported | Ended
FromTemplate = Ready | Refused | Unforkable | Forked | Exited

_encoder = msgspec.msgpack.Encoder()
to_child_decoder = msgspec.msgpack.Decoder(ToChild)
from_child_decoder = msgspec.msgpack.Decoder(FromChild)
from_template_decoder = msgspec.msgpack.Decoder(FromTemplate)


def frame(message: ToChild | FromChild | FromTemplate) -> bytes:
    """A message as it goes over the wire."""
    body = _encoder.encode(message)
    return len(body).to_bytes(_LENGTH_BYTES, "big") + body


class Frames:
    """Cuts a stream of bytes into the bodies of its frames."""

    __slots__ = ("_buffer",)

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """The bodies that are complete now."""
        self._buffer += data
        bodies = []
        while len(self._buffer) >= _LENGTH_BYTES:
            end = _LENGTH_BYTES + int.from_bytes(self._buffer[:_LENGTH_BYTES], "big")
            if len(self._buffer) < end:
                break
            bodies.append(bytes(self._buffer[_LENGTH_BYTES:end]))
            del self._buffer[:end]
        return bodies


def pack_outcome(outcome: Outcome, *, peak_bytes: int) -> Ended:
    """An outcome as the child sends it."""
    match outcome:
        case Succeeded(result=result):
            return Ended(outcome="succeeded", result=result, peak_bytes=peak_bytes)
        case Raised(code=code, message=message, retryable=retryable, retry_after=retry_after):
            return Ended(
                outcome="raised",
                code=code,
                message=message,
                retryable=retryable,
                retry_after=retry_after,
                peak_bytes=peak_bytes,
            )
        case Snoozed(seconds=seconds):
            return Ended(outcome="snoozed", seconds=seconds, peak_bytes=peak_bytes)
        case Cancelled():
            return Ended(outcome="cancelled", peak_bytes=peak_bytes)
        case TimedOut() | Lost() | HandedBack():
            # Only a worker can say these of an attempt. A child meets them when it is told to end, and nobody listens.
            return Ended(outcome="interrupted", peak_bytes=peak_bytes)


def unpack_outcome(ended: Ended) -> Outcome | None:
    """The outcome that the child sent; None when it was interrupted."""
    match ended.outcome:
        case "succeeded":
            return Succeeded(ended.result)
        case "raised":
            return Raised(ended.code, ended.message, retryable=ended.retryable, retry_after=ended.retry_after)
        case "snoozed":
            return Snoozed(ended.seconds)
        case "cancelled":
            return Cancelled()
        case _:
            return None
