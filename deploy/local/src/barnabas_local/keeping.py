"""Keeps a process running: one that died is started again, sooner at first and later if it keeps dying."""

import asyncio
import time
from collections.abc import Callable
from typing import Protocol

from barnabas_local.errors import LocalStackError
from barnabas_local.processes import Child

DELAY_SECONDS_MIN = 0.5
DELAY_SECONDS_MAX = 15.0
STABLE_SECONDS = 30.0
"""A process that ran for so long is taken for a healthy one: its next death counts as the first."""

# A child that died is started again half a second later at the soonest.
_POLL_SECONDS = 0.5


class Kept(Protocol):
    """A server or a service, as far as keeping it goes."""

    child: Child | None

    @property
    def name(self) -> str:
        """What people call it."""
        ...

    async def start(self) -> None:
        """Start it anew where its former self was."""
        ...


def restart_delay(deaths: int) -> float:
    """Seconds before the next start; `deaths` counts from 1 and starts over after a healthy run."""
    return float(min(DELAY_SECONDS_MAX, DELAY_SECONDS_MIN * 2 ** (deaths - 1)))


async def keep(kept: Kept, *, say: Callable[[str], None], restarted: Callable[[], None]) -> None:
    """Start `kept` again whenever it ends, until cancelled. `restarted` is called after each new start."""
    deaths = 0
    while True:
        began = time.monotonic()
        code = await _end_of(kept.child)
        deaths = 1 if time.monotonic() - began >= STABLE_SECONDS else deaths + 1
        delay = restart_delay(deaths)
        say(f"{kept.name} {how_it_ended(code)}; starting it again in {delay:g} s")
        await asyncio.sleep(delay)
        try:
            await kept.start()
        except LocalStackError as failure:
            say(str(failure))
            if kept.child is not None:
                kept.child.kill()
        else:
            say(f"{kept.name} runs again")
            restarted()


def how_it_ended(code: int | None) -> str:
    """An exit code in words."""
    if code is None:
        return "could not be started"
    return f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"


async def _end_of(child: Child | None) -> int | None:
    if child is None:
        return None
    while (code := child.exit_code()) is None:
        await asyncio.sleep(_POLL_SECONDS)
    return code
