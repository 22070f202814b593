"""`.barnabas/stack.json` and the files beside it: what the supervisor tells other programs, and itself tomorrow.

All of them are for their owner's eyes only. Process ids are there exactly while the stack is ready; addresses and keys
stay, because data outlives a run.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace

from barnabas_local.paths import Home, write_private
from barnabas_local.processes import Identity


@dataclass(frozen=True, slots=True)
class Stack:
    """What `stack.json` holds. It has secrets in it: never log it."""

    api_url: str = ""
    ops_urls: Mapping[str, str] = field(default_factory=dict)
    kafka: str = ""
    postgres: str = ""
    """The owner's address."""
    admin_key: str = ""
    tenant: str = ""
    """The demo tenant's id."""
    api_key: str = ""
    """A key of the demo tenant."""
    pids: Mapping[str, int] = field(default_factory=dict)
    process_urls: Mapping[str, str] = field(default_factory=dict)
    """Where each process' health and metrics are, by the names of `pids`; `ops_urls` has the first of each kind."""
    scaling: Mapping[str, int | str] = field(default_factory=dict)
    """Of a stack that scales itself: the range, how many workers run and are desired, and why."""

    @property
    def is_ready(self) -> bool:
        """Whether its supervisor said so and has not taken it back."""
        return bool(self.pids)


def read_stack(home: Home) -> Stack:
    """What the file says; an empty stack if there is none."""
    try:
        held = json.loads(home.stack.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return Stack()
    return Stack(**{name: value for name, value in held.items() if name in Stack.__dataclass_fields__})


def write_stack(home: Home, stack: Stack) -> None:
    """Replace the file."""
    write_private(home.stack, json.dumps(asdict(stack), indent=2) + "\n")


def mark_stopped(home: Home) -> None:
    """Take out what is true of running processes only; everything else is kept for the next run."""
    stack = read_stack(home)
    if stack.is_ready:
        write_stack(home, replace(stack, pids={}, process_urls={}, scaling={}))


def read_processes(home: Home) -> dict[str, Identity]:
    """Every process that the last supervisor started, itself included."""
    try:
        held = json.loads(home.processes.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    return {name: Identity(**identity) for name, identity in held.items()}


def write_processes(home: Home, processes: Mapping[str, Identity]) -> None:
    """Replace the list of processes."""
    write_private(home.processes, json.dumps({name: asdict(i) for name, i in processes.items()}, indent=2) + "\n")


def read_ports(home: Home) -> dict[str, int]:
    """The ports of the last run by name."""
    try:
        return dict(json.loads(home.ports.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return {}


def write_ports(home: Home, chosen: Mapping[str, int]) -> None:
    """Remember the ports for the next run."""
    write_private(home.ports, json.dumps(dict(chosen), indent=2) + "\n")
