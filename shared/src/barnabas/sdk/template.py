"""The template of children: has the handlers loaded, and forks a child whenever it is sent a wire.

To load an app takes most of a second of CPU, to fork what has loaded it some milliseconds: after the death of a worker
each of the jobs that it ran gets a process of its own, all at once. A template runs no handler and starts no thread.
"""

import gc
import os
import select
import signal
import socket
import threading
from pathlib import Path

from barnabas.sdk.wire import Exited, Forked, Ready, Unforkable, frame

_ONE_BYTE = 1


def fork_on_demand(line: socket.socket) -> socket.socket | None:
    """Serve the worker on `line`: a byte that comes with a wire asks for a child.

    Returns in each child, with its wire; in the template itself only when the worker is gone, or when it can't fork.
    """
    if _threads() > 1:
        line.sendall(frame(Unforkable()))
        return None
    # What is loaded is never freed: the collector of a child would copy all of it by looking.
    gc.collect()
    gc.freeze()
    woken, wakes = socket.socketpair()
    for end in (woken, wakes):
        end.setblocking(False)
    # Without a handler no signal would be written there.
    signal.signal(signal.SIGCHLD, lambda _signal, _frame: None)
    signal.set_wakeup_fd(wakes.fileno(), warn_on_full_buffer=False)
    children: set[int] = set()
    try:
        line.sendall(frame(Ready()))
        wire = _serve(line, woken, wakes, children)
    except ConnectionError:
        wire = None  # the worker has gone, and nobody asks any more
    if wire is None:
        _end(children)
    return wire


def _serve(line: socket.socket, woken: socket.socket, wakes: socket.socket, children: set[int]) -> socket.socket | None:
    while True:
        readable, _, _ = select.select([line, woken], [], [])
        if woken in readable:
            woken.recv(4096)
            _reap(line, children)
        if line not in readable:
            continue
        asked, fds, _, _ = socket.recv_fds(line, _ONE_BYTE, 1)
        if not asked:
            return None
        pid = os.fork()
        if pid == 0:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for mine in (line, woken, wakes):
                mine.close()
            os.setpgid(0, 0)
            wire = socket.socket(fileno=fds[0])
            # What a handler starts must not hold the wire open.
            wire.set_inheritable(False)
            return wire
        children.add(pid)
        _lead_group(pid)
        os.close(fds[0])
        line.sendall(frame(Forked(pid)))


def _end(children: set[int]) -> None:
    """A child sees by itself that its worker is gone, but not while its handler holds the interpreter."""
    for pid in children:
        try:
            os.killpg(pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass  # it was quicker


def _reap(line: socket.socket, children: set[int]) -> None:
    while True:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        children.discard(pid)
        line.sendall(frame(Exited(pid)))


def _lead_group(pid: int) -> None:
    """Both sides say it: whoever hears of the child may signal its group at once."""
    try:
        os.setpgid(pid, pid)
    except (ProcessLookupError, PermissionError):
        pass  # it has ended already


def _threads() -> int:
    """Those of libraries too, where the system tells."""
    try:
        return sum(1 for _ in Path("/proc/self/task").iterdir())
    except OSError:
        return threading.active_count()
