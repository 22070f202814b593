"""A store's disk is full, and then has space again: nothing is accepted that isn't kept, and it heals by itself.

Each store has a small file system of its own (a tmpfs, which takes the right to mount) that a ballast file fills to the
last byte, so what the server meets is the kernel's own ENOSPC. Whether a server survives that is its own business:
Postgres does until its WAL can't grow, Kafka gives up its log directory. The supervisor starts them anew.
"""

import asyncio
import os
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.bench.figures import Figure, once
from tests.chaos.scenarios.books import settled
from tests.chaos.scenarios.door import make_tenants, open_door
from tests.chaos.scenarios.instruments import APP, until_well
from tests.support.stack import Stack, open_stack

STORES = ("postgres", "kafka")
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Plan:
    """How long a disk is full, under how many posts a second, of how many bytes each."""

    full_seconds: float
    pace: float = 40.0
    payload_bytes: int = 32_768
    megabytes: int = 600


QUICK = Plan(full_seconds=5.0)
FULL = Plan(full_seconds=90.0, megabytes=1_500)


async def measure(plan: Plan) -> list[Figure]:
    """Fill one store, then the other."""
    figures: list[Figure] = []
    async with _small_disks(plan.megabytes) as disks, open_stack(app=APP, places=disks) as stack:
        await until_well(stack, workers=1)
        for store in STORES:
            figures += await _fill(stack, disks[store], store, plan)
    return figures


async def _fill(stack: Stack, disk: Path, store: str, plan: Plan) -> list[Figure]:
    name = f"disk_full.{store}"
    pad = "x" * plan.payload_bytes
    tenants = await make_tenants(stack, 4, "disk-full")

    def job(number: int) -> dict[str, object]:
        # A payload that is kept, and a result that isn't: the disk is to be filled by the ballast.
        return {"type": "add", "payload": {"a": number, "b": 1, "pad": pad}}

    async with open_door(stack, tenants, pace=plan.pace, job=job) as door:
        await door.until_accepting()
        ballast = await asyncio.to_thread(_fill_up, disk)
        full_at = time.monotonic()
        try:
            while time.monotonic() < full_at + plan.full_seconds:
                await asyncio.sleep(0.5)
                # What the server gave back (an old segment, a temporary file) is gone as well.
                await asyncio.to_thread(_top_up, ballast)
        finally:
            await asyncio.to_thread(ballast.unlink)
        space_at = time.monotonic()
        first = await door.until_accepting(timeout=180)
        async with stack.client(tenants[0].key) as client:
            new = await client.submit("echo", 1, idempotency_key=f"after-{store}")
            await client.wait(new.id, timeout=180)
        run_at = time.monotonic()
    await until_well(stack, workers=1)
    async with stack.database() as database:
        books = await settled(database, tenants)
    meanwhile = [answer for answer in door.answers if full_at <= answer.sent_at < space_at]
    of = f"{store.capitalize()}'s disk full"
    return [
        once(f"{name}.accepted", f"{of}: jobs accepted meanwhile", "jobs", sum(a.job is not None for a in meanwhile)),
        once(f"{name}.refused", f"{of}: posts refused meanwhile", "posts", sum(a.status == 503 for a in meanwhile)),
        once(f"{name}.other", f"{of}: answers that were neither 202 nor 503", "answers", door.other_than(202, 503)),
        once(f"{name}.writes", f"{of}: from space again until a job was accepted", "s", first.at - space_at),
        once(f"{name}.healed", f"{of}: from space again until a new job had run", "s", run_at - space_at),
        *books.figures(name, door.accepted),
    ]


def _fill_up(disk: Path) -> Path:
    """A file that takes all that is left."""
    ballast = disk / "ballast"
    _top_up(ballast)
    return ballast


def _top_up(ballast: Path) -> None:
    with ballast.open("ab", buffering=0) as file:
        size = _CHUNK_BYTES
        while size >= 1:
            try:
                # Less than asked for is no failure: the next write is.
                file.write(b"\0" * size)
            except OSError:
                size //= 16


@asynccontextmanager
async def _small_disks(megabytes: int) -> AsyncIterator[dict[str, Path]]:
    """A file system for each store; unmounted at the end, whoever may still hold it."""
    root = Path(tempfile.mkdtemp(prefix="barnabas-disks-"))
    os.chmod(root, 0o755)  # noqa: PTH101 - a moment's system call
    disks = {store: root / store for store in STORES}
    mounted = []
    try:
        for disk in disks.values():
            os.mkdir(disk)  # noqa: PTH102 - as above
            options = f"size={megabytes}m,mode=0755"
            await asyncio.to_thread(_run, "mount", "-t", "tmpfs", "-o", options, "tmpfs", str(disk))
            mounted.append(disk)
        yield disks
    finally:
        for disk in mounted:
            await asyncio.to_thread(_run, "umount", "--lazy", str(disk))
        for disk in disks.values():
            with suppress(OSError):
                os.rmdir(disk)  # noqa: PTH106 - as above
        os.rmdir(root)  # noqa: PTH106 - as above


def _run(*command: str) -> None:
    subprocess.run(command, check=True)


def may_mount() -> bool:
    """Whether this process can make small file systems."""
    where = Path(tempfile.mkdtemp(prefix="barnabas-probe-"))
    try:
        done = subprocess.run(["mount", "-t", "tmpfs", "tmpfs", where], capture_output=True, check=False)
        if done.returncode == 0:
            subprocess.run(["umount", where], check=True)
        return done.returncode == 0
    except FileNotFoundError:
        return False
    finally:
        where.rmdir()
