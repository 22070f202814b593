"""What is done to a stack from outside: stop it, look at it, throw its data away."""

import asyncio
import shutil
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import psutil

from barnabas_local.errors import LocalStackError
from barnabas_local.paths import Home
from barnabas_local.services import DRAIN_SECONDS
from barnabas_local.stack_file import read_processes, read_stack
from barnabas_local.supervisor import SUPERVISOR, clean_up, held

# The services' drain and close, then Kafka, then Postgres with its last checkpoint.
_DOWN_SECONDS = DRAIN_SECONDS + 17 + 20 + 40
_KILLED_SECONDS = 10.0
_POLL_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class ProcessState:
    """One process of the stack, as `barnabas status` shows it."""

    name: str
    pid: int
    runs: bool
    memory_bytes: int
    address: str


def stop_stack(home: Home, *, say: Callable[[str], None]) -> bool:
    """Stop everything and return when nothing runs any more; False if nothing did."""
    if not home.root.exists():
        return False
    asked = False
    if not _is_free(home):
        asked = True
        supervisor = _signal_supervisor(home, signal.SIGTERM)
        if not _comes_free(home, _DOWN_SECONDS):
            say(f"the supervisor did not stop within {_DOWN_SECONDS:g} s; it is killed")
            _signal_supervisor(home, signal.SIGKILL)
            if not _comes_free(home, _KILLED_SECONDS):
                raise LocalStackError(f"somebody still holds {home.lock}")
        # It lets go of the lock a moment before it has ended.
        if supervisor is not None:
            psutil.wait_procs([supervisor], timeout=_KILLED_SECONDS)
    with held(home) as ours:
        if not ours:
            raise LocalStackError(f"another `barnabas` has started in {home.root} meanwhile")
        left = any(identity.find() for identity in read_processes(home).values())
        asyncio.run(clean_up(home, say=say))
    return asked or left


def states(home: Home) -> list[ProcessState]:
    """Every process of the stack; empty when it isn't up."""
    stack = read_stack(home)
    addresses = {"kafka": stack.kafka, **{name.replace("_", "-"): url for name, url in stack.process_urls.items()}}
    found = []
    for name, identity in read_processes(home).items():
        process = identity.find()
        memory = 0
        if process is not None:
            with suppress(psutil.Error):
                memory = process.memory_info().rss
        address = addresses.get(name, "")
        found.append(
            ProcessState(name=name, pid=identity.pid, runs=process is not None, memory_bytes=memory, address=address)
        )
    return found


def throw_away(home: Home) -> None:
    """Delete the directory with everything in it; the caller has stopped the stack."""
    if home.root.exists():
        with held(home) as ours:
            if not ours:
                raise LocalStackError(f"a stack runs in {home.root}; stop it first")
            shutil.rmtree(home.root)


def _is_free(home: Home) -> bool:
    with held(home) as free:
        return free


def _comes_free(home: Home, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if _is_free(home):
            return True
        time.sleep(_POLL_SECONDS)
    return False


def _signal_supervisor(home: Home, number: signal.Signals) -> psutil.Process | None:
    """Signal the one that holds the lock and return it; None if nobody does any more.

    While it is starting, its name isn't written down yet, so wait for that.
    """
    deadline = time.monotonic() + _KILLED_SECONDS
    while time.monotonic() < deadline:
        identity = read_processes(home).get(SUPERVISOR)
        process = identity.find() if identity else None
        if process is not None:
            process.send_signal(number)
            return process
        if _is_free(home):
            return None
        time.sleep(_POLL_SECONDS)
    raise LocalStackError(f"somebody holds {home.lock}, but no supervisor is known")
