"""The faults themselves, on real processes and real connections; each is written to the ledger when it begins and ends.

A fault has ended when what it had broken works again as far as one can see from outside. Whatever happens meanwhile,
it is taken off: no process stays stopped, no connection cut.
"""

import asyncio
import os
import random
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import asyncpg
import psutil

from barnabas_local import ports
from barnabas_local.processes import spawn
from tests.chaos.ledger import FaultBegan, FaultEnded, Ledger, now
from tests.chaos.proxy import Cut, Delay, HalfOpen, Mode, Pass, Proxy, Reset, Silence, Throttle
from tests.chaos.schedule import SERVERS, Kind, Planned, rounds
from tests.chaos.servers import ChaosServers
from tests.support.eventually import eventually
from tests.support.stack import Stack

_BACK_SECONDS = 400.0
# After each round, also where it took longer than planned.
_HEAL_SECONDS = 2.0
_MEMBER_STAYS_SECONDS = (2.5, 4.0)
_MEMBER_DRAIN_SECONDS = 40.0


@dataclass(slots=True)
class Faults:
    """What puts faults on one running system."""

    stack: Stack
    servers: ChaosServers
    proxies: dict[str, Proxy]
    """By line."""
    ledger: Ledger
    choice: random.Random
    wiped: Callable[[], Awaitable[None]]
    """Called when Kafka has lost everything and is back: whoever had sent it something must send it again."""
    done: list[Planned] = field(default_factory=list)

    async def put_on(self, planned: Sequence[Planned], *, seconds: float) -> None:
        """Round after round, each at its time or, where the one before took longer, after a pause; none begins after
        `seconds`."""
        begin = now()
        for group in rounds(planned):
            first = group[0].at
            await asyncio.sleep(max(0.0, begin + first - now()))
            if now() - begin > seconds:
                return
            async with asyncio.TaskGroup() as together:
                for fault in group:
                    together.create_task(self._put_on(fault, after=fault.at - first))
            await asyncio.sleep(_HEAL_SECONDS)

    async def _put_on(self, fault: Planned, *, after: float) -> None:
        await asyncio.sleep(after)
        self.ledger.write(FaultBegan(now(), fault.kind, fault.target, fault.number))
        await self._carry_out(fault)
        self.ledger.write(FaultEnded(now(), fault.number))
        self.done.append(fault)

    async def _carry_out(self, fault: Planned) -> None:
        match fault.kind:
            case Kind.KILL if fault.target in SERVERS:
                await self.servers.kill(fault.target)
            case Kind.KILL:
                await self._replace(fault.target, signal.SIGKILL)
            case Kind.TERM:
                await self._replace(fault.target, signal.SIGTERM)
            case Kind.PAUSE | Kind.FREEZE:
                await self._stop_for(fault.target, fault.seconds)
            case Kind.BACKENDS:
                await self._end_backends(fault.seconds)
            case Kind.BACKEND_CRASH:
                await self._crash_backend()
            case Kind.WIPE:
                await self.servers.wipe_kafka()
                await self.wiped()
            case Kind.MEMBERS:
                await self._members(fault.seconds)
            case _:
                proxy = self.proxies[fault.target]
                try:
                    await proxy.set(self._mode(fault.kind))
                    await asyncio.sleep(fault.seconds)
                finally:
                    await proxy.set(Pass())

    def _mode(self, kind: Kind) -> Mode:
        match kind:
            case Kind.CUT:
                return Cut()
            case Kind.RESET:
                return Reset()
            case Kind.DELAY:
                return Delay(self.choice.uniform(0.02, 0.2), jitter_seconds=self.choice.uniform(0.0, 0.2))
            case Kind.THROTTLE:
                return Throttle(self.choice.randrange(30_000, 200_000))
            case Kind.HALF_OPEN:
                # Lost answers are the worse ones: what was asked for has happened.
                return HalfOpen("answers" if self.choice.random() < 0.75 else "requests")
            case Kind.SILENCE:
                return Silence()
            case _:
                raise AssertionError(f"{kind} is nothing that a proxy does")

    async def _replace(self, name: str, number: signal.Signals) -> None:
        """End a service; its supervisor starts it anew."""
        before = await self._lives(name)
        with suppress(ProcessLookupError):
            os.kill(before, number)
        await eventually(lambda: self._pid(name), until=lambda pid: pid not in (None, before), timeout=_BACK_SECONDS)
        await self.stack.until_ready(name, timeout=_BACK_SECONDS)

    async def _lives(self, name: str) -> int:
        """Its process id, once it has one: it may be on its way up from an earlier death."""
        pid = await eventually(lambda: self._pid(name), timeout=_BACK_SECONDS)
        assert pid is not None
        return pid

    async def _command(self, name: str) -> tuple[list[str], dict[str, str]]:
        """How a service is started, as its process tells, which may die of a job in that very moment."""
        while True:
            with suppress(psutil.NoSuchProcess):
                like = psutil.Process(await self._lives(name))
                if argv := like.cmdline():
                    return argv, like.environ()

    def _pid(self, name: str) -> int | None:
        with suppress(OSError, KeyError, ValueError, psutil.NoSuchProcess):
            pid = self.stack.pid(name)
            if psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                return pid
        return None

    async def _stop_for(self, name: str, seconds: float) -> None:
        """SIGSTOP to a process and all its children, as if the machine had stood still."""
        if name in SERVERS:
            child = (self.servers.kafka if name == "kafka" else self.servers.postgres).child
            assert child is not None
            pid = child.pid
        else:
            pid = await self._lives(name)
        stopped: list[psutil.Process] = []
        try:
            with suppress(psutil.NoSuchProcess):
                process = psutil.Process(pid)
                # The parent first: it must make no more children.
                process.suspend()
                stopped.append(process)
                for each in process.children(recursive=True):
                    with suppress(psutil.NoSuchProcess):
                        each.suspend()
                        stopped.append(each)
            await asyncio.sleep(seconds)
        finally:
            for each in stopped:
                with suppress(psutil.NoSuchProcess):
                    each.resume()

    async def _end_backends(self, seconds: float) -> None:
        """Tell a third of the sessions to end, over and over."""
        end = now() + seconds
        async with self._superuser() as connection:
            while now() < end:
                for pid in await _backends(connection):
                    if self.choice.random() < 1 / 3:
                        await connection.execute("SELECT pg_terminate_backend($1)", pid)
                await asyncio.sleep(0.3)

    async def _crash_backend(self) -> None:
        async with self._superuser() as connection:
            pids = await _backends(connection)
        if pids:
            with suppress(ProcessLookupError):
                os.kill(self.choice.choice(pids), signal.SIGKILL)
        async with self._superuser():
            pass  # it takes connections again

    async def _members(self, seconds: float) -> None:
        """Workers beyond those of the stack come and go, in good order or not."""
        end = now() + seconds
        argv, env = await self._command("worker")
        while now() < end:
            env["BARNABAS_OPS_PORT"] = str(ports.free_port())
            child = spawn("worker-extra", argv, env=env, log=self.stack.directory / "logs" / "worker-extra.log")
            try:
                await asyncio.sleep(self.choice.uniform(*_MEMBER_STAYS_SECONDS))
                if self.choice.random() < 0.5:
                    await child.stop(((signal.SIGTERM, _MEMBER_DRAIN_SECONDS),))
            finally:
                child.kill()

    @asynccontextmanager
    async def _superuser(self) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
        """A connection past the proxy, as soon as Postgres takes one."""

        async def connected() -> "asyncpg.Connection[asyncpg.Record] | None":
            with suppress(OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
                return await asyncpg.connect(self.servers.postgres.superuser_dsn, timeout=10)
            return None

        connection = await eventually(connected, until=lambda found: found is not None, timeout=_BACK_SECONDS)
        assert connection is not None
        try:
            yield connection
        finally:
            connection.terminate()


async def _backends(connection: "asyncpg.Connection[asyncpg.Record]") -> list[int]:
    rows = await connection.fetch(
        "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
    )
    return [row["pid"] for row in rows]
