"""The workers of a stack that scales itself: as many as the retry-scheduler says, within the range that was asked for.

Going up starts processes; going down is SIGTERM to the newest, which finishes what it holds and hands back the rest, so
no job is lost or charged an attempt. Without an answer everything stays as it is.
"""

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass, field

import httpx

from barnabas_local import ports
from barnabas_local.errors import LocalStackError
from barnabas_local.keeping import keep
from barnabas_local.processes import rotate
from barnabas_local.services import KIND_OF_WORKERS, ServiceProcess, worker_name

# The answer itself changes every few seconds at the most.
_LOOK_SECONDS = 2.0
_ANSWER_SECONDS = 2.0

_DESIRED = re.compile(r"^barnabas_workers_desired (\S+)$", re.MULTILINE)
_REASON = re.compile(r'^barnabas_workers_reason\{reason="(\w+)"\} 1(?:\.0)?$', re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Advice:
    """What the retry-scheduler says."""

    desired: int
    reason: str


@dataclass(slots=True)
class Fleet:
    """The services of one stack, of which the workers come and go.

    `make` plans a worker of a name on a port; `changed` is called whenever a process came or went, or the reason is
    another one.
    """

    services: list[ServiceProcess]
    least: int
    most: int
    make: Callable[[str, int], ServiceProcess]
    say: Callable[[str], None]
    changed: Callable[[], None]
    advice: Advice | None = None
    _keeping: dict[str, asyncio.Task[None]] = field(default_factory=dict, init=False)
    _leaving: set[str] = field(default_factory=set, init=False)

    @property
    def workers(self) -> list[ServiceProcess]:
        """Those that are to stay, oldest first."""
        return [each for each in self.services if each.kind == KIND_OF_WORKERS and each.name not in self._leaving]

    def keep(self, group: asyncio.TaskGroup, service: ServiceProcess) -> None:
        """Start it again whenever it ends, until it is told to leave."""
        task = group.create_task(keep(service, say=self.say, restarted=self.changed), name=f"keep_{service.name}")
        self._keeping[service.name] = task

    async def run(self, group: asyncio.TaskGroup, ops_url: str) -> None:
        """Follow what the retry-scheduler at `ops_url` says, until cancelled."""
        async with httpx.AsyncClient(timeout=_ANSWER_SECONDS, trust_env=False) as client:
            while True:
                advice = await read_advice(client, ops_url)
                if advice is not None:
                    await self.follow(group, advice)
                await asyncio.sleep(_LOOK_SECONDS)

    async def follow(self, group: asyncio.TaskGroup, advice: Advice) -> None:
        """Start or stop as many as it takes."""
        wanted = min(self.most, max(self.least, advice.desired))
        told, self.advice = self.advice, advice
        workers = self.workers
        if len(workers) != wanted:
            self.say(f"{wanted} workers instead of {len(workers)}: {advice.reason}")
        for _ in range(wanted - len(workers)):
            await self._start(group)
        for service in workers[wanted:]:
            self._let_go(group, service)
        if advice != told or len(workers) != wanted:
            self.changed()

    async def _start(self, group: asyncio.TaskGroup) -> None:
        taken = {service.name for service in self.services}
        number = 1
        while (name := worker_name(number)) in taken:
            number += 1
        avoid = frozenset(service.ops_port for service in self.services)
        service = self.make(name, ports.free_port(avoid=avoid))
        rotate(service.log)
        try:
            await service.start()
        except LocalStackError as failure:
            # The next look tries again.
            self.say(str(failure))
            return
        self.services.append(service)
        self.keep(group, service)

    def _let_go(self, group: asyncio.TaskGroup, service: ServiceProcess) -> None:
        self._leaving.add(service.name)
        self._keeping.pop(service.name).cancel()
        group.create_task(self._drain(service), name=f"drain_{service.name}")

    async def _drain(self, service: ServiceProcess) -> None:
        await service.stop()
        self.services.remove(service)
        self._leaving.discard(service.name)
        self.say(f"{service.name} has drained")
        self.changed()


async def read_advice(client: httpx.AsyncClient, ops_url: str) -> Advice | None:
    """How many workers there should be; None while nobody says so."""
    try:
        answer = await client.get(f"{ops_url}/metrics")
    except httpx.HTTPError:
        return None
    desired, reason = _DESIRED.search(answer.text), _REASON.search(answer.text)
    # 0 is what one shows that doesn't lead.
    if answer.status_code != httpx.codes.OK or desired is None or reason is None or float(desired[1]) < 1:
        return None
    return Advice(int(float(desired[1])), reason[1])
