"""The ledger: what was asked for, what was run, what was received and what was broken, written beside the product.

Append-only lines of JSON, one file for each process, never through the product's own database. Load, handlers,
receiver and faults write; `checker` reads. A process that is killed loses at most the line it was writing.
"""

import errno
import os
import time
from collections.abc import Iterable, Iterator
from heapq import merge
from operator import attrgetter
from pathlib import Path
from types import TracebackType

import msgspec

LEDGER_VARIABLE = "CHAOS_LEDGER"
"""The environment variable that tells a process of the run the directory of the ledger."""


class _Event(msgspec.Struct, frozen=True, gc=False, omit_defaults=True, tag=True):
    """`at` is in seconds of `time.monotonic()`, which all processes of a machine share."""

    at: float


class Accepting(_Event, frozen=True, gc=False, omit_defaults=True, tag=True):
    """A submission was sent. The same key again is the same wish asked again, unless its body differs.

    Without an outcome it may or may not have happened.
    """

    key: str
    """The idempotency key; it names the wish in every later check."""
    tenant: str
    via: str = "http"
    """The way in: `http`, `batch`, `kafka`."""
    body_hash: str = ""
    jobs_type: str = ""
    expected: str = ""
    """The state that the job must end in; empty when any end is right."""
    due_at: float | None = None
    """No handler may begin before, in seconds of the same clock."""
    max_attempts: int | None = None
    ordering_key: str | None = None


class Accepted(_Event, frozen=True, gc=False, omit_defaults=True, tag=True):
    """The answer named a job."""

    key: str
    tenant: str
    job: str
    """Empty where the promise names no job yet, as an acknowledged record of the intake topic."""
    body_hash: str = ""


class Refused(_Event, frozen=True, gc=False, omit_defaults=True, tag=True):
    """The answer was a no. One of 500 and above promises nothing, and is judged like an unknown answer."""

    key: str
    tenant: str
    status: int
    body_hash: str = ""


class Unknown(_Event, frozen=True, gc=False, omit_defaults=True, tag=True):
    """A time-out or a lost connection: the submission may or may not have happened."""

    key: str
    tenant: str


class Redriven(_Event, frozen=True, gc=False, omit_defaults=True, tag=True):
    """A redrive of a dead letter was answered with its new job."""

    tenant: str
    dead: str
    job: str


class Cancelled(_Event, frozen=True, gc=False, omit_defaults=True, tag=True):
    """A cancel was answered: the job has ended, or, if it ran, was asked to stop."""

    tenant: str
    job: str


class Began(_Event, frozen=True, gc=False, omit_defaults=True, tag=True):
    """A handler started. Handlers don't know their fence: 0 there, and `losses` tells the runs of an attempt apart."""

    tenant: str
    job: str
    attempt: int
    fence: int = 0
    pid: int = 0
    losses: int = 0


class Effect(_Event, frozen=True, gc=False, omit_defaults=True, tag=True):
    """A handler's effect, written just before it returned its success."""

    tenant: str
    job: str
    attempt: int
    fence: int = 0
    pid: int = 0
    losses: int = 0
    result_hash: str = ""


class Received(_Event, frozen=True, gc=False, omit_defaults=True, tag=True):
    """A webhook call, with what it was answered; `answered` is 0 when it got no answer."""

    tenant: str
    endpoint: str
    webhook_id: str
    job: str
    event_type: str
    signed: bool
    answered: int


class FaultBegan(_Event, frozen=True, gc=False, omit_defaults=True, tag=True):
    """A fault was put on. Its number is unique in a run."""

    name: str
    target: str
    number: int


class FaultEnded(_Event, frozen=True, gc=False, omit_defaults=True, tag=True):
    """A fault was taken off. One that never ended lasts for the rest of the run."""

    number: int


class CrashPoint(_Event, frozen=True, gc=False, omit_defaults=True, tag=True):
    """A process ended itself at a named point."""

    name: str
    pid: int


Event = (
    Accepting
    | Accepted
    | Refused
    | Unknown
    | Redriven
    | Cancelled
    | Began
    | Effect
    | Received
    | FaultBegan
    | FaultEnded
    | CrashPoint
)


class Ledger:
    """One process's file. Safe from several threads: each line is one write at the end of the file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        # Anybody may append: processes of one run can belong to different users.
        self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
        self._encoder = msgspec.json.Encoder()

    def __enter__(self) -> "Ledger":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def write(self, *events: Event) -> None:
        """Append the events, in this order; they are in the file when this returns."""
        lines = b"".join(self._encoder.encode(event) + b"\n" for event in events)
        # Once the kernel has the bytes, a kill of the process loses none of them.
        if os.write(self._descriptor, lines) != len(lines):
            raise OSError(errno.ENOSPC, "the ledger took a part of a line only", str(self.path))

    def close(self) -> None:
        """Give the file back; harmless when repeated."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


def own_ledger(directory: Path, role: str) -> Ledger:
    """The file of this process in the ledger's directory; `role` says in its name what the process is."""
    # The time too: a pid may come again in a long run, and must not go on behind a torn line.
    return Ledger(directory / f"{role}-{os.getpid()}-{time.monotonic_ns()}.jsonl")


def now() -> float:
    """The clock of all events."""
    return time.monotonic()


def read_ledgers(directory: Path) -> list[Event]:
    """Every event of every `*.jsonl` file there, in the order of time."""
    decoder: msgspec.json.Decoder[Event] = msgspec.json.Decoder(Event)
    by_time = attrgetter("at")
    # A process's threads may write a little out of order, so each file is sorted before all are merged.
    files = [sorted(_read(path, decoder), key=by_time) for path in sorted(directory.glob("*.jsonl"))]
    return list(merge(*files, key=by_time))


def write_ledger(path: Path, events: Iterable[Event]) -> None:
    """All events as one file, for a run that is kept."""
    encoder = msgspec.json.Encoder()
    path.write_bytes(b"".join(encoder.encode(event) + b"\n" for event in events))


def _read(path: Path, decoder: "msgspec.json.Decoder[Event]") -> Iterator[Event]:
    lines = path.read_bytes().split(b"\n")
    for line in lines[:-1]:
        yield decoder.decode(line)
    # What follows the last line end is a line that its process was killed in; a whole one is there by chance only.
    if lines[-1]:
        try:
            yield decoder.decode(lines[-1])
        except msgspec.DecodeError:
            return
