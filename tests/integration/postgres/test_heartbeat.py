"""The heartbeat: a lease is renewed whatever the main loop does, never revived, and its loss is told in time."""

import asyncio
import subprocess
import sys
import textwrap
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit, urlunsplit
from uuid import UUID

from barnabas.postgres.heartbeat import EXIT_STALLED, Heartbeat
from tests.support.eventually import eventually
from tests.support.turns import claim_jobs
from tests.support.world import World, new_id

# Renewed each second while something is held: no stall of a busy machine is that long.
_LEASE_SECONDS = 30.0


class Told:
    """What a heartbeat said to its process, and how often it looked whether that holds something."""

    def __init__(self, *, holds: bool) -> None:
        self.lost_at: list[float] = []
        self.cancels: list[tuple[UUID, int]] = []
        self.news: list[tuple[int, bool]] = []
        self.looks = 0
        self._holds = holds

    def lose(self) -> None:
        self.lost_at.append(time.monotonic())

    def hold(self, holds: bool) -> int:
        """From now on; returns how many looks may have seen it otherwise."""
        self._holds = holds
        return self.looks

    def look(self) -> bool:
        """Called on the heartbeat's thread. Counted first: a look that is counted later sees what was set before."""
        self.looks += 1
        return self._holds


class AtOnce:
    """Stands in for the main loop: what is told is heard in that very moment, on the heartbeat's own thread."""

    def call_soon_threadsafe(self, function: Callable[..., object], *args: object) -> None:
        function(*args)


@asynccontextmanager
async def beating(
    world: World,
    *,
    dsn: str | None = None,
    lease_seconds: float = _LEASE_SECONDS,
    holds: bool = True,
    main_loop: Any = None,
) -> AsyncIterator[tuple[Heartbeat, Told]]:
    told = Told(holds=holds)
    heartbeat = Heartbeat(
        dsn or world.logins.engine_dsn,
        worker_id=new_id(),
        service="test",
        slots=3,
        type_ids=[1, 2],
        queue_ids=[0],
        lease_seconds=lease_seconds,
        on_lost=told.lose,
        on_cancel=told.cancels.extend,
        on_news=lambda revision, has_backlog: told.news.append((revision, has_backlog)),
        holds=told.look,
        main_loop=main_loop or asyncio.get_running_loop(),
        stall_seconds=lambda: 60.0,
    )
    await heartbeat.start()
    try:
        yield heartbeat, told
    finally:
        await heartbeat.stop(delete_row=True)


async def row_of(world: World, heartbeat: Heartbeat) -> Any:
    return await world.superuser.fetchrow(
        "SELECT *, lease_until > clock_timestamp() AS holds, lease_until - clock_timestamp() AS left FROM workers"
        " WHERE worker_id = $1",
        heartbeat.worker_id,
    )


async def test_a_lease_outlives_a_main_loop_that_is_blocked(world: World) -> None:
    lease_seconds = 8.0
    async with beating(world, lease_seconds=lease_seconds) as (heartbeat, told):
        before = await row_of(world, heartbeat)
        assert (before["service"], before["slots"], before["type_ids"]) == ("test", 3, [1, 2])

        # A handler that never lets go of the loop, for longer than the lease.
        time.sleep(lease_seconds * 1.1)  # noqa: ASYNC251 - blocking the loop is the point

        after = await row_of(world, heartbeat)
        assert after["holds"]
        assert after["lease_until"] > before["lease_until"]
        assert not told.lost_at
    assert await row_of(world, heartbeat) is None


async def test_cancels_are_handed_over_with_a_renewal_and_only_once(world: World) -> None:
    job_id = new_id()
    async with beating(world) as (heartbeat, told):
        await world.superuser.execute(
            "INSERT INTO cancel_requests (worker_id, tenant_id, job_id, fence) VALUES ($1, $2, $3, 7)",
            heartbeat.worker_id,
            new_id(),
            job_id,
        )
        await eventually(lambda: told.cancels)
        await eventually(
            lambda: world.superuser.fetchval("SELECT count(*) FROM cancel_requests"), until=lambda n: not n
        )

    assert told.cancels == [(job_id, 7)]


async def test_who_holds_nothing_renews_three_times_a_lease_and_who_holds_something_each_second(world: World) -> None:
    rest = timedelta(seconds=40)
    async with beating(world, lease_seconds=120.0, holds=False) as (heartbeat, told):
        await eventually(lambda: told.news)
        told.hold(True)
        held = await row_of(world, heartbeat)
        renewed = await eventually(
            lambda: row_of(world, heartbeat), until=lambda row: row["lease_until"] > held["lease_until"]
        )
        looks = told.hold(False)
        # A look after the last that may have seen it otherwise: what that one renewed is renewed by now.
        await eventually(lambda: told.looks > looks)
        resting = await row_of(world, heartbeat)
        await eventually(lambda: told.looks > looks + 3)

        assert renewed["lease_until"] - held["lease_until"] < rest
        assert (await row_of(world, heartbeat))["lease_until"] == resting["lease_until"] >= renewed["lease_until"]


async def test_news_are_told_at_first_and_whenever_they_change(world: World) -> None:
    async with beating(world) as (_, told):
        await eventually(lambda: told.news)
        (revision, has_backlog), tenant_id = told.news[0], new_id()
        assert not has_backlog

        await world.superuser.execute("UPDATE revisions SET revision = revision + 1 WHERE name = 'sharing'")
        await eventually(lambda: len(told.news) == 2)
        await world.superuser.execute("INSERT INTO backlogs (tenant_id, queue_id) VALUES ($1, 0)", tenant_id)
        await eventually(lambda: len(told.news) == 3)
        await world.superuser.execute("DELETE FROM backlogs WHERE tenant_id = $1", tenant_id)
        await eventually(lambda: len(told.news) == 4)

    assert told.news == [
        (revision, False),
        (revision + 1, False),
        (revision + 1, True),
        (revision + 1, False),
    ]


async def test_an_expired_lease_is_not_revived(world: World) -> None:
    async with beating(world) as (heartbeat, told):
        await world.superuser.execute(
            "UPDATE workers SET lease_until = clock_timestamp() - $2::interval WHERE worker_id = $1",
            heartbeat.worker_id,
            timedelta(milliseconds=1),
        )
        await eventually(lambda: told.lost_at)

        assert not (await row_of(world, heartbeat))["holds"]


async def test_a_connection_that_is_cut_once_costs_no_lease(world: World) -> None:
    async with beating(world) as (heartbeat, told):
        beats = "pg_stat_activity WHERE application_name = 'barnabas-heartbeat' AND datname = current_database()"
        (before,) = await world.superuser.fetch(f"SELECT pid, pg_terminate_backend(pid) FROM {beats}")
        gone = f"SELECT NOT EXISTS (SELECT FROM {beats} AND pid = $1)"
        await eventually(lambda: world.superuser.fetchval(gone, before["pid"]))
        cut = await row_of(world, heartbeat)
        await eventually(
            lambda: row_of(world, heartbeat), until=lambda row: row["lease_until"] > cut["lease_until"] and row["holds"]
        )

        assert not told.lost_at


async def test_a_row_stays_for_the_reaper_while_a_claim_is_on_its_way_whose_answer_nobody_waits_for(
    world: World,
) -> None:
    tenant_id = await world.tenant()
    (job_id,) = await world.submit(tenant_id)
    async with beating(world) as (heartbeat, _), world.engine.session() as session:
        async with session.transaction():
            await claim_jobs(
                session, heartbeat.worker_id, new_id(), [(tenant_id, job_id)], {await world.type_id("echo"): 1}
            )
            ending = asyncio.create_task(heartbeat.stop(delete_row=True))
            # Its deletion waits for the claim's end.
            await eventually(
                lambda: world.superuser.fetchval(
                    "SELECT count(*) FROM pg_locks WHERE NOT granted AND database = (SELECT oid FROM pg_database"
                    " WHERE datname = current_database()) OR NOT granted AND locktype = 'transactionid'"
                )
            )
        await ending

    assert await world.superuser.fetchval("SELECT count(*) FROM workers WHERE worker_id = $1", heartbeat.worker_id) == 1


async def test_when_postgres_is_out_of_reach_the_loss_is_told_before_the_lease_is_over(world: World) -> None:
    parts = urlsplit(world.logins.engine_dsn)
    assert parts.hostname is not None
    async with _proxy(parts.hostname, parts.port or 5432) as proxy:
        through = parts._replace(netloc=parts.netloc.rpartition("@")[0] + f"@127.0.0.1:{proxy.port}")
        # Heard on the heartbeat's thread, so that a main loop that is late isn't taken for a loss that is told late.
        beats = beating(world, dsn=urlunsplit(through), lease_seconds=10.0, main_loop=AtOnce())
        async with beats as (heartbeat, told):
            proxy.silent = True
            left = (await row_of(world, heartbeat))["left"].total_seconds()
            over_at = time.monotonic() + left
            await eventually(lambda: told.lost_at)

            assert told.lost_at[0] < over_at


def test_a_process_whose_main_loop_stands_still_is_ended(module_database: Any) -> None:
    program = textwrap.dedent(
        f"""
        import asyncio, time, uuid
        from barnabas.postgres.heartbeat import Heartbeat

        async def main():
            heartbeat = Heartbeat({module_database.engine_dsn!r}, worker_id=uuid.uuid4(), service="test", slots=1,
                type_ids=[], lease_seconds=60, on_lost=print, on_cancel=print, on_news=print, holds=lambda: True,
                main_loop=asyncio.get_running_loop(), stall_seconds=lambda: 1.0)
            await heartbeat.start()
            time.sleep(600)

        asyncio.run(main())
        """
    )
    ended = subprocess.run([sys.executable, "-c", program], timeout=200, check=False, capture_output=True)

    assert ended.returncode == EXIT_STALLED, ended.stderr


class _Proxy:
    port = 0
    silent = False


@asynccontextmanager
async def _proxy(host: str, port: int) -> AsyncIterator[_Proxy]:
    """A way to Postgres that can be made to swallow everything."""
    proxy = _Proxy()
    tasks: set[asyncio.Task[None]] = set()

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65_536):
                if not proxy.silent:
                    writer.write(data)
        except OSError:
            pass
        finally:
            writer.transport.abort()

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection(host, port)
        for task in (asyncio.create_task(pump(reader, far_writer)), asyncio.create_task(pump(far_reader, writer))):
            tasks.add(task)

    server = await asyncio.start_server(connect, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    async with server:
        yield proxy
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
