"""The states of a job and every way from one to another.

The table here is the only list of legal moves: SQL, the API and the drawing in the manual follow it. A job ends in
exactly one of three terminal states, and nothing leads out of them.
"""

from collections.abc import Mapping
from enum import IntEnum, IntFlag, StrEnum
from types import MappingProxyType
from typing import Final, Self

from barnabas.errors import RejectedError


class UnknownStateError(RejectedError):
    """There is no job state of that name."""

    code = "unknown_state"

    def __init__(self, label: str) -> None:
        super().__init__(f"there is no job state {label!r}")
        self.label = label


class UnknownPriorityError(RejectedError):
    """There is no priority of that name."""

    code = "unknown_priority"

    def __init__(self, label: str) -> None:
        super().__init__(f"there is no priority {label!r}: use low, medium, high or critical")
        self.label = label


class IllegalTransitionError(RejectedError):
    """A job in this state can't do that."""

    code = "illegal_transition"

    def __init__(self, state: "JobState", command: "Command") -> None:
        super().__init__(f"a {state.label} job can't {command.value}")
        self.state = state
        self.command = command


class JobState(IntEnum):
    """Where a job is. The numbers are stored: they never change their meaning."""

    SCHEDULED = 0
    """Due later: submitted with a time or a delay, or snoozed by its handler. It leaves when it is due, by the timers'
    poller or by the claim of a record that waited in a delay topic; a cancel ends it."""
    BLOCKED = 1
    """Waits for its turn: jobs with its ordering key are before it. The end of the last of them queues it, or lets it
    wait for its time; a cancel ends it."""
    QUEUED = 2
    """Ready to run, in a jobs topic or in `waiting`. It leaves by a worker's claim; a cancel ends it."""
    RUNNING = 3
    """Held by one worker under a lease and a fence. The worker's finish moves it out, or the reaper when the lease ran
    out; a cancel only asks, and the attempt's end answers."""
    RETRYING = 4
    """An attempt failed and the backoff runs. It leaves when it is due, as a scheduled job does; a cancel ends it."""
    SUCCEEDED = 5
    """A handler returned. For ever."""
    FAILED = 6
    """A permanent error, the attempts used up, or lost with its worker too often: a dead letter. For ever; a redrive is
    a new job."""
    CANCELLED = 7
    """Cancelled before it ran, or asked to stop and did not succeed. For ever."""

    @property
    def label(self) -> str:
        """The name that the API, topics and metrics use."""
        return _STATE_LABELS[self]


_STATE_LABELS: Final = {state: state.name.lower() for state in JobState}
_STATES_BY_LABEL: Final = {label: state for state, label in _STATE_LABELS.items()}

TERMINAL: Final = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED})
OPEN: Final = frozenset(JobState) - TERMINAL


def state_from_label(label: str) -> JobState:
    """The state of that exact lower-case name; raises `UnknownStateError`."""
    try:
        return _STATES_BY_LABEL[label]
    except KeyError:
        raise UnknownStateError(label) from None


class Priority(IntEnum):
    """How urgent a job is; also the order of the shares that workers give. Stored as numbers."""

    LOW = 0
    MEDIUM = 1
    HIGH = 2
    CRITICAL = 3

    @property
    def label(self) -> str:
        """The name that the API and the topics use."""
        return self.name.lower()

    @classmethod
    def from_label(cls, label: str) -> Self:
        """The priority of that exact lower-case name; raises `UnknownPriorityError`."""
        priority = _PRIORITIES_BY_LABEL.get(label)
        if priority is None:
            raise UnknownPriorityError(label)
        return cls(priority)


_PRIORITIES_BY_LABEL: Final = {priority.label: priority for priority in Priority}


class Hook(IntFlag):
    """What the end of a job must look after besides its own row.

    A plain job has none, and its finish reads no other table.
    """

    LIMITED = 1
    """Holds a place in its tenant's gate while it runs."""
    ORDERED = 2
    """Has a row in `ordering`: its end lets the next of its key pass."""
    HAS_DEPENDANTS = 4
    """Other jobs wait for its end."""
    KEYED = 8
    """Holds a unique key until it ends."""
    WORKFLOW = 16
    """Is part of a workflow, which counts its end."""
    CANCEL_REQUESTED = 32
    """Asked to stop while it ran: unless it succeeds, it ends cancelled."""
    ISOLATED = 64
    """Was lost with its process once: runs alone in a process of its own from then on."""
    PARKED = 128
    """Has a row in `waiting`, whose gate must hear of its end."""
    LIMITED_TYPE = 256
    """Holds a place in the gate of its type while it runs."""


class Command(StrEnum):
    """What can be done to a job."""

    BECOME_DUE = "become_due"
    UNBLOCK = "unblock"
    CLAIM = "claim"
    PARK = "park"
    SUCCEED = "succeed"
    FAIL = "fail"
    RETRY = "retry"
    SNOOZE = "snooze"
    HAND_BACK = "hand_back"
    LOSE = "lose"
    REQUEST_CANCEL = "request_cancel"
    CANCEL = "cancel"


TRANSITIONS: Final[Mapping[tuple[JobState, Command], JobState]] = MappingProxyType(
    {
        (JobState.SCHEDULED, Command.BECOME_DUE): JobState.QUEUED,
        (JobState.SCHEDULED, Command.CLAIM): JobState.RUNNING,
        (JobState.SCHEDULED, Command.PARK): JobState.SCHEDULED,
        (JobState.SCHEDULED, Command.CANCEL): JobState.CANCELLED,
        (JobState.BLOCKED, Command.UNBLOCK): JobState.QUEUED,
        (JobState.BLOCKED, Command.CANCEL): JobState.CANCELLED,
        (JobState.QUEUED, Command.CLAIM): JobState.RUNNING,
        (JobState.QUEUED, Command.PARK): JobState.QUEUED,
        (JobState.QUEUED, Command.CANCEL): JobState.CANCELLED,
        (JobState.RUNNING, Command.SUCCEED): JobState.SUCCEEDED,
        (JobState.RUNNING, Command.FAIL): JobState.FAILED,
        (JobState.RUNNING, Command.RETRY): JobState.RETRYING,
        (JobState.RUNNING, Command.SNOOZE): JobState.SCHEDULED,
        (JobState.RUNNING, Command.HAND_BACK): JobState.QUEUED,
        (JobState.RUNNING, Command.LOSE): JobState.QUEUED,
        (JobState.RUNNING, Command.REQUEST_CANCEL): JobState.RUNNING,
        (JobState.RUNNING, Command.CANCEL): JobState.CANCELLED,
        (JobState.RETRYING, Command.BECOME_DUE): JobState.QUEUED,
        (JobState.RETRYING, Command.CLAIM): JobState.RUNNING,
        (JobState.RETRYING, Command.PARK): JobState.RETRYING,
        (JobState.RETRYING, Command.CANCEL): JobState.CANCELLED,
    }
)
"""Every legal move. Scheduled and retrying jobs are claimed directly once they are due: that they are due is the
claim's condition, judged by the database's clock. Parking a job gives it a row in `waiting` and leaves its state."""


def apply(state: JobState, command: Command) -> JobState:
    """The state after `command`; raises `IllegalTransitionError` for a move that the table doesn't have."""
    try:
        return TRANSITIONS[state, command]
    except KeyError:
        raise IllegalTransitionError(state, command) from None


def mermaid() -> str:
    """The state drawing for the manual, in Mermaid, one arrow per pair of states with its commands in table order."""
    arrows: dict[tuple[JobState, JobState], list[str]] = {}
    for (source, command), target in TRANSITIONS.items():
        arrows.setdefault((source, target), []).append(command.value)
    # A job is born due later, blocked or ready; the submission decides which.
    lines = ["stateDiagram-v2"]
    lines += [f"    [*] --> {state.label}" for state in (JobState.SCHEDULED, JobState.BLOCKED, JobState.QUEUED)]
    lines += [
        f"    {source.label} --> {target.label}: {', '.join(commands)}" for (source, target), commands in arrows.items()
    ]
    lines += [f"    {state.label} --> [*]" for state in sorted(TERMINAL)]
    return "\n".join(lines) + "\n"
