"""What ends an attempt before its handler does: its deadline, a cancellation, a stop; the first reason decides."""

import asyncio
import random
import threading
import time
from typing import Any

import pytest

from barnabas.domain.attempts import Cancelled, HandedBack, Outcome, Succeeded, TimedOut
from barnabas.sdk import Context, PermanentError
from barnabas.sdk.running import Attempt, Interruption, Run, run_attempt
from barnabas.sdk.threads import HandlerThreads
from tests.unit.sdk.builders import context, handler, raised

# Only a failure takes that long: a starved machine may be late.
_PATIENCE_SECONDS = 100.0


async def test_an_async_handler_ends_at_its_deadline_and_cleans_up(threads: HandlerThreads) -> None:
    cleaned_up = asyncio.Event()

    async def slow(payload: Any) -> None:
        try:
            await asyncio.sleep(60)
        finally:
            cleaned_up.set()

    run = await run_attempt(handler(slow), b"null", context(), threads=threads, timeout_seconds=0.02)

    assert run == Run(TimedOut(0.02), None)
    assert cleaned_up.is_set()


async def test_a_sync_handler_past_its_deadline_leaves_its_thread_behind() -> None:
    release = threading.Event()
    seen: list[bool] = []

    def waits(start: Any) -> Any:
        def slow(payload: Any, ctx: Context) -> str:
            start()
            release.wait(_PATIENCE_SECONDS)
            seen.append(ctx.cancelled)
            return "too late"

        return slow

    # Not by a clock: a thread that has not begun by its deadline never does.
    run = await interrupted(waits, Interruption.TIMEOUT)

    assert run.outcome == TimedOut(7)
    assert run.still_running is not None
    assert not run.still_running.done()

    release.set()
    run.still_running.result(timeout=_PATIENCE_SECONDS)

    assert seen == [True]


async def test_a_job_that_waits_for_a_thread_until_its_deadline_never_starts(threads: HandlerThreads) -> None:
    release = threading.Event()
    started: list[str] = []
    busy = [threads.submit(release.wait, _PATIENCE_SECONDS) for _ in range(4)]

    run = await run_attempt(handler(started.append), b'"x"', context(), threads=threads, timeout_seconds=0.02)
    release.set()
    for future in busy:
        future.result(timeout=_PATIENCE_SECONDS)
    threads.submit(lambda: None).result(timeout=_PATIENCE_SECONDS)

    assert run == Run(TimedOut(0.02), None)
    assert started == []


async def interrupted(function: Any, *reasons: Interruption, grace: float = 0.02) -> Run:
    """Run `function` until it has started, then interrupt it with each reason in turn."""
    started = asyncio.Event()
    loop = asyncio.get_running_loop()
    threads = HandlerThreads(1)

    def start() -> None:
        loop.call_soon_threadsafe(started.set)

    attempt = Attempt(
        handler(function(start)), b"null", context(), threads=threads, timeout_seconds=7, cancel_grace_seconds=grace
    )
    async with asyncio.timeout(_PATIENCE_SECONDS), asyncio.TaskGroup() as group:
        running = group.create_task(attempt.run())
        await started.wait()
        for reason in reasons:
            attempt.interrupt(reason)
    threads.shutdown()
    return running.result()


def sleeps(start: Any) -> Any:
    async def sleeping(payload: Any) -> None:
        start()
        await asyncio.sleep(60)

    return sleeping


@pytest.mark.parametrize(
    ("reasons", "outcome"),
    [
        ([Interruption.TIMEOUT], TimedOut(7)),
        ([Interruption.CANCEL], Cancelled()),
        ([Interruption.DRAIN], HandedBack()),
        ([Interruption.CANCEL, Interruption.TIMEOUT], Cancelled()),
        ([Interruption.TIMEOUT, Interruption.DRAIN], TimedOut(7)),
        ([Interruption.DRAIN, Interruption.CANCEL], HandedBack()),
    ],
)
async def test_the_first_reason_decides_how_an_async_attempt_ends(
    reasons: list[Interruption], outcome: Outcome
) -> None:
    assert (await interrupted(sleeps, *reasons)).outcome == outcome


async def test_a_cancelled_async_handler_may_end_in_its_own_way_within_the_grace() -> None:
    def obeys(start: Any) -> Any:
        async def obeying(payload: Any, ctx: Context) -> str:
            start()
            await ctx.wait_cancelled()
            return "half"

        return obeying

    def complains(start: Any) -> Any:
        async def complaining(payload: Any, ctx: Context) -> None:
            start()
            await ctx.wait_cancelled()
            raise ValueError("half")

        return complaining

    assert (await interrupted(obeys, Interruption.CANCEL, grace=30)).outcome == Succeeded(b'"half"')
    assert raised((await interrupted(complains, Interruption.CANCEL, grace=30)).outcome).code == "value_error"


async def test_a_handler_that_swallows_its_time_out_and_fails_has_timed_out() -> None:
    def swallows(start: Any) -> Any:
        async def swallowing(payload: Any) -> None:
            start()
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                raise PermanentError("interrupted") from None

        return swallowing

    assert (await interrupted(swallows, Interruption.TIMEOUT)).outcome == TimedOut(7)
    assert (await interrupted(swallows, Interruption.DRAIN)).outcome == HandedBack()


async def test_a_success_that_still_arrives_stays_a_success() -> None:
    def finishes(start: Any) -> Any:
        async def finishing(payload: Any) -> int:
            start()
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                pass
            return 1

        return finishing

    for reason in Interruption:
        assert (await interrupted(finishes, reason)).outcome == Succeeded(b"1")


async def test_a_cancelled_sync_handler_sees_it_and_obeys() -> None:
    def obeys(start: Any) -> Any:
        def obeying(payload: Any, ctx: Context) -> None:
            start()
            while True:
                ctx.raise_if_cancelled()
                time.sleep(0.001)

        return obeying

    assert await interrupted(obeys, Interruption.CANCEL) == Run(Cancelled(), None)


async def test_a_cancelled_sync_handler_that_does_not_look_ends_at_its_deadline() -> None:
    release = threading.Event()

    def ignores(start: Any) -> Any:
        def ignoring(payload: Any) -> None:
            start()
            release.wait(_PATIENCE_SECONDS)

        return ignoring

    run = await interrupted(ignores, Interruption.CANCEL, Interruption.TIMEOUT)
    release.set()

    assert run.outcome == Cancelled()
    assert run.still_running is not None
    run.still_running.result(timeout=_PATIENCE_SECONDS)


async def test_an_attempt_interrupted_before_it_began_never_calls_its_handler(threads: HandlerThreads) -> None:
    called: list[Any] = []
    attempt = Attempt(handler(called.append), b"1", context(), threads=threads)
    attempt.interrupt(Interruption.DRAIN)

    assert await attempt.run() == Run(HandedBack(), None)
    assert called == []


async def test_the_slot_goes_on_after_interruptions_as_if_nothing_had_been(threads: HandlerThreads) -> None:
    async def slot() -> list[Outcome]:
        outcomes = []
        for _ in range(3):
            run = await run_attempt(
                handler(sleeps(lambda: None)), b"null", context(), threads=threads, timeout_seconds=0.001
            )
            outcomes.append(run.outcome)
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0
        await asyncio.sleep(0)
        return outcomes

    assert await slot() == [TimedOut(0.001)] * 3


async def test_a_cancellation_from_outside_passes_through_an_async_handler(threads: HandlerThreads) -> None:
    def swallows(start: Any) -> Any:
        async def swallowing(payload: Any) -> str:
            start()
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                pass
            return "swallowed"

        return swallowing

    for kind in (sleeps, swallows):
        started = asyncio.Event()
        attempt = Attempt(handler(kind(started.set)), b"null", context(), threads=threads)
        task = asyncio.ensure_future(attempt.run())
        await started.wait()
        attempt.interrupt(Interruption.CANCEL)
        task.cancel()

        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelled()


async def test_a_cancellation_from_outside_passes_while_a_thread_is_busy_and_tells_it(threads: HandlerThreads) -> None:
    started, stopped = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def waits(payload: Any, ctx: Context) -> None:
        loop.call_soon_threadsafe(started.set)
        while not ctx.cancelled:
            time.sleep(0.001)
        stopped.set()

    task = asyncio.ensure_future(Attempt(handler(waits), b"null", context(), threads=threads).run())
    await started.wait()
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task
    assert stopped.wait(_PATIENCE_SECONDS)


async def test_an_interruption_after_the_end_harms_nobody(threads: HandlerThreads) -> None:
    attempt = Attempt(handler(lambda payload: payload), b"1", context(), threads=threads)
    run = await attempt.run()
    attempt.interrupt(Interruption.TIMEOUT)
    await asyncio.sleep(0)

    assert run.outcome == Succeeded(b"1")


@pytest.mark.parametrize("seed", range(5))
async def test_interruptions_at_any_moment_leave_every_slot_sound(seed: int) -> None:
    chance = random.Random(seed)
    threads = HandlerThreads(8)

    async def sleeping(payload: Any) -> str:
        await asyncio.sleep(chance.random() * 0.004)
        return "slept"

    async def stubborn(payload: Any, ctx: Context) -> str:
        try:
            await asyncio.sleep(chance.random() * 0.004)
        except asyncio.CancelledError:
            await asyncio.sleep(0)
            if chance.random() < 0.5:
                raise
        return "stubborn"

    def threaded(payload: Any, ctx: Context) -> str:
        time.sleep(0.001)
        ctx.raise_if_cancelled()
        return "threaded"

    handlers = [handler(function) for function in (sleeping, stubborn, threaded)]
    loop = asyncio.get_running_loop()

    async def slot() -> None:
        task = asyncio.current_task()
        assert task is not None
        for _ in range(60):
            attempt = Attempt(
                chance.choice(handlers),
                b"null",
                context(),
                threads=threads,
                timeout_seconds=7,
                cancel_grace_seconds=0.001,
            )
            reasons = chance.sample(list(Interruption), chance.randrange(3))
            timers = [loop.call_later(chance.random() * 0.005, attempt.interrupt, reason) for reason in reasons]
            run = await attempt.run()
            match run.outcome:
                case Succeeded():
                    pass
                case TimedOut():
                    assert Interruption.TIMEOUT in reasons
                case Cancelled():
                    assert reasons
                case HandedBack():
                    assert Interruption.DRAIN in reasons
                case _:
                    pytest.fail(f"unexpected {run.outcome}")
            assert task.cancelling() == 0
            await asyncio.sleep(0)
            for timer in timers:
                timer.cancel()

    async with asyncio.timeout(_PATIENCE_SECONDS), asyncio.TaskGroup() as group:
        for _ in range(8):
            group.create_task(slot())
    threads.shutdown()
