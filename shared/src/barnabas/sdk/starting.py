"""Starting child processes: forked from a template where that can be done, else each by itself.

The worker itself never forks: it has threads. The template is started when the first child is wanted, and ends when
none has been for a while.
"""

import asyncio
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Awaitable, Callable
from typing import cast

import msgspec
import structlog

from barnabas.sdk.child import Child, ChildNotStartedError, Exit, Wire
from barnabas.sdk.wire import (
    ChildSettings,
    Exited,
    Forked,
    Frames,
    Ready,
    Refused,
    Unforkable,
    from_template_decoder,
)

log = structlog.get_logger(__name__)

# A template holds some 50 MB; after this long without a child it was for a burst.
_IDLE_SECONDS = 120.0
_EXIT_SECONDS = 1.0


class ChildStarter:
    """Starts children that run the handlers of `app` (`module:attribute`; None = the built-in ones only).

    `forks` says whether to try a template; where an app starts threads as it is imported there is none all the same.
    """

    def __init__(
        self,
        *,
        app: str | None,
        forks: bool = sys.platform == "linux",
        allow_private_targets: bool = False,
        log_level: str = "info",
        log_form: str = "auto",
    ) -> None:
        self.forks = forks
        """Whether children are forked, as far as is known."""
        self._app = app
        self._allow_private_targets = allow_private_targets
        self._log_level = log_level
        self._log_form = log_form
        self._template: Template | None = None
        self._starting = asyncio.Lock()

    async def start(self) -> Child:
        """A child whose handlers are loaded, or will be: wait for its `ready`.

        Raises `ChildNotStartedError` or `OSError` when there can't be one.
        """
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        child = Child(loop)
        try:
            ours.setblocking(False)
            await loop.create_unix_connection(lambda: Wire(child), sock=ours)
            template = await self._usable_template()
            if template is None:
                await self._execute(theirs, lambda: Exit(child), forks=False)
            else:
                await template.fork(child, theirs)
        except BaseException:
            child.kill_now()
            raise
        finally:
            theirs.close()
        log.debug("child_started", pid=child.pid, forked=template is not None)
        return child

    async def close(self) -> None:
        """End the template; its children have ended before."""
        if self._template is not None:
            await self._template.end()
            self._template = None

    async def _usable_template(self) -> "Template | None":
        async with self._starting:
            if self.forks and (self._template is None or not self._template.is_usable):
                self._template = await self._start_template()
            return self._template

    async def _start_template(self) -> "Template | None":
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        template = Template(loop, ours)
        try:
            await self._execute(theirs, lambda: TemplateExit(template), forks=True)
            is_forkable = await template.loaded
        except BaseException:
            template.kill()
            raise
        finally:
            theirs.close()
        if is_forkable:
            return template
        log.warning("children_not_forked", app=self._app, reason="the app starts threads when it is imported")
        self.forks = False
        await template.end()
        return None

    def _execute(
        self, fd: socket.socket, protocol: Callable[[], asyncio.SubprocessProtocol], *, forks: bool
    ) -> Awaitable[object]:
        settings = ChildSettings(
            fd=fd.fileno(),
            forks=forks,
            app=self._app,
            allow_private_targets=self._allow_private_targets,
            log_level=self._log_level,
            log_form=self._log_form,
        )
        # A session of its own: signals from a terminal don't reach it, and what it starts is killed with it.
        return asyncio.get_running_loop().subprocess_exec(
            protocol,
            sys.executable,
            "-m",
            "barnabas.sdk.child_main",
            msgspec.json.encode(settings).decode(),
            stdin=subprocess.DEVNULL,
            stdout=None,
            stderr=None,
            pass_fds=(fd.fileno(),),
            start_new_session=True,
        )


class Template:
    """The worker's handle on a template, with the children that it has forked."""

    def __init__(self, loop: asyncio.AbstractEventLoop, line: socket.socket) -> None:
        self._loop = loop
        self._line = line
        self._frames = Frames()
        self._asked: deque[tuple[Child, asyncio.Future[None]]] = deque()
        self._children: dict[int, Child] = {}
        self._process: asyncio.SubprocessTransport | None = None
        self._idle: asyncio.TimerHandle | None = None
        self.loaded: asyncio.Future[bool] = loop.create_future()
        """Whether it can fork, once its handlers are loaded."""
        self._exited: asyncio.Future[None] = loop.create_future()
        self._is_closed = False
        line.setblocking(False)
        loop.add_reader(line, self._read)

    @property
    def is_usable(self) -> bool:
        """Whether it takes wires."""
        return not self._is_closed

    async def fork(self, child: Child, wire: socket.socket) -> None:
        """Have a child forked for this end of its wire."""
        forked: asyncio.Future[None] = self._loop.create_future()
        if self._idle is not None:
            self._idle.cancel()
        socket.send_fds(self._line, [b"f"], [wire.fileno()])
        self._asked.append((child, forked))
        await forked

    async def end(self) -> None:
        """Let it end by itself, and by force a second later."""
        self._close()
        if self._process is not None:
            await asyncio.wait([self._exited], timeout=_EXIT_SECONDS)
        self.kill()

    def kill(self) -> None:
        """End it now."""
        self._close()
        if self._process is not None and not self._exited.done():
            self._process.kill()

    def started(self, process: asyncio.SubprocessTransport) -> None:
        """The process is there."""
        self._process = process

    def has_exited(self) -> None:
        """The process has ended: of its children nobody would hear any more."""
        if self._process is not None:
            self._process.close()
        if not self._exited.done():
            self._exited.set_result(None)
        if not self._is_closed:
            # Its last words may say why.
            self._read()
        self._close()

    def _read(self) -> None:
        try:
            data = self._line.recv(65_536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._close()
        for body in self._frames.feed(data):
            match from_template_decoder.decode(body):
                case Ready():
                    self.loaded.set_result(True)
                case Unforkable():
                    self.loaded.set_result(False)
                case Refused(reason=reason):
                    self.loaded.set_exception(ChildNotStartedError(reason))
                case Forked(pid=pid):
                    self._has_forked(pid)
                case Exited(pid=pid):
                    self._has_lost(pid)

    def _has_forked(self, pid: int) -> None:
        child, forked = self._asked.popleft()
        self._children[pid] = child
        child.forked(pid)
        if forked.done():
            # Whoever asked has given up.
            child.kill_now()
        else:
            forked.set_result(None)

    def _has_lost(self, pid: int) -> None:
        self._children.pop(pid).has_exited()
        if not self._children and not self._asked:
            self._idle = self._loop.call_later(_IDLE_SECONDS, self._close)

    def _close(self) -> None:
        """The line is closed: a template ends by that, and so do its children by the end of their wires."""
        if self._is_closed:
            return
        self._is_closed = True
        if self._idle is not None:
            self._idle.cancel()
        self._loop.remove_reader(self._line)
        self._line.close()
        gone = ChildNotStartedError("the template of child processes ended")
        if not self.loaded.done():
            self.loaded.set_exception(gone)
            # Nobody may be waiting.
            self.loaded.exception()
        for _, forked in self._asked:
            if not forked.done():
                forked.set_exception(gone)
        self._asked.clear()
        for child in list(self._children.values()):
            child.kill_now()
            child.has_exited()
        self._children.clear()


class TemplateExit(asyncio.SubprocessProtocol):
    """Hears of the template's end."""

    def __init__(self, template: Template) -> None:
        self._template = template

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the loop."""
        self._template.started(cast("asyncio.SubprocessTransport", transport))

    def process_exited(self) -> None:
        """Called by the loop."""
        self._template.has_exited()
