"""The transition table, exhaustively: every state with every command."""

import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from barnabas.domain.jobs import (
    OPEN,
    TERMINAL,
    TRANSITIONS,
    Command,
    Hook,
    IllegalTransitionError,
    JobState,
    Priority,
    UnknownPriorityError,
    UnknownStateError,
    apply,
    mermaid,
    state_from_label,
)
from barnabas.errors import RejectedError

# What the manual promises, written down a second time and in another form than the table.
LEGAL: dict[JobState, dict[str, JobState]] = {
    JobState.SCHEDULED: {
        "become_due": JobState.QUEUED,
        "claim": JobState.RUNNING,
        "park": JobState.SCHEDULED,
        "cancel": JobState.CANCELLED,
    },
    JobState.BLOCKED: {"unblock": JobState.QUEUED, "cancel": JobState.CANCELLED},
    JobState.QUEUED: {"claim": JobState.RUNNING, "park": JobState.QUEUED, "cancel": JobState.CANCELLED},
    JobState.RUNNING: {
        "succeed": JobState.SUCCEEDED,
        "fail": JobState.FAILED,
        "retry": JobState.RETRYING,
        "snooze": JobState.SCHEDULED,
        "hand_back": JobState.QUEUED,
        "lose": JobState.QUEUED,
        "request_cancel": JobState.RUNNING,
        "cancel": JobState.CANCELLED,
    },
    JobState.RETRYING: {
        "become_due": JobState.QUEUED,
        "claim": JobState.RUNNING,
        "park": JobState.RETRYING,
        "cancel": JobState.CANCELLED,
    },
    JobState.SUCCEEDED: {},
    JobState.FAILED: {},
    JobState.CANCELLED: {},
}


@pytest.mark.parametrize(("state", "command"), list(itertools.product(JobState, Command)))
def test_every_command_in_every_state_moves_or_is_refused(state: JobState, command: Command) -> None:
    expected = LEGAL[state].get(command.value)

    if expected is not None:
        assert apply(state, command) is expected
        return
    with pytest.raises(IllegalTransitionError) as refused:
        apply(state, command)
    assert (refused.value.state, refused.value.command) == (state, command)
    assert isinstance(refused.value, RejectedError)
    assert refused.value.code == "illegal_transition"


@given(st.lists(st.sampled_from(Command), max_size=40), st.sampled_from(JobState))
def test_no_sequence_of_commands_leads_out_of_a_terminal_state(commands: list[Command], state: JobState) -> None:
    ended: JobState | None = None
    for command in commands:
        try:
            state = apply(state, command)
        except IllegalTransitionError:
            pass
        if ended is not None:
            assert state is ended
        if state in TERMINAL:
            ended = state


def test_only_a_running_job_can_succeed_or_fail() -> None:
    sources = {source for (source, _), target in TRANSITIONS.items() if target in {JobState.SUCCEEDED, JobState.FAILED}}

    assert sources == {JobState.RUNNING}


def test_every_open_state_can_be_left_and_every_terminal_state_reached() -> None:
    assert {source for (source, _), target in TRANSITIONS.items() if target != source} == OPEN
    assert {target for target in TRANSITIONS.values() if target in TERMINAL} == TERMINAL
    assert frozenset(JobState) == OPEN | TERMINAL
    assert not OPEN & TERMINAL


def test_every_command_is_of_use_somewhere() -> None:
    assert {command for _, command in TRANSITIONS} == set(Command)


def test_stored_numbers_never_change() -> None:
    assert [(state.name, int(state)) for state in JobState] == [
        ("SCHEDULED", 0),
        ("BLOCKED", 1),
        ("QUEUED", 2),
        ("RUNNING", 3),
        ("RETRYING", 4),
        ("SUCCEEDED", 5),
        ("FAILED", 6),
        ("CANCELLED", 7),
    ]
    assert [(priority.name, int(priority)) for priority in Priority] == [
        ("LOW", 0),
        ("MEDIUM", 1),
        ("HIGH", 2),
        ("CRITICAL", 3),
    ]
    assert {hook.name: int(hook) for hook in Hook} == {
        "LIMITED": 1,
        "ORDERED": 2,
        "HAS_DEPENDANTS": 4,
        "KEYED": 8,
        "WORKFLOW": 16,
        "CANCEL_REQUESTED": 32,
        "ISOLATED": 64,
        "PARKED": 128,
        "LIMITED_TYPE": 256,
    }


def test_labels_go_there_and_back() -> None:
    assert [state_from_label(state.label) for state in JobState] == list(JobState)
    assert [Priority.from_label(priority.label) for priority in Priority] == list(Priority)


@given(st.text(max_size=12))
def test_other_labels_are_refused(label: str) -> None:
    if label not in {state.label for state in JobState}:
        with pytest.raises(UnknownStateError):
            state_from_label(label)
    if label not in {priority.label for priority in Priority}:
        with pytest.raises(UnknownPriorityError):
            Priority.from_label(label)


def test_the_drawing_shows_every_move_once() -> None:
    drawn = set()
    for source, target, commands in re.findall(r"^    (\w+) --> (\w+): (.+)$", mermaid(), re.MULTILINE):
        for command in commands.split(", "):
            assert (source, command) not in drawn
            drawn.add((source, command))
            assert TRANSITIONS[state_from_label(source), Command(command)] is state_from_label(target)

    assert len(drawn) == len(TRANSITIONS)
    assert mermaid().startswith("stateDiagram-v2\n")
