"""Running one attempt: how each ending of a handler becomes an outcome, and what interrupts it."""

import asyncio
import random
import sys
import threading
import time
from collections.abc import Iterator
from contextvars import ContextVar
from datetime import timedelta
from typing import Any, Literal
from uuid import UUID

import pytest
from pydantic import BaseModel, ConfigDict, field_validator

from barnabas.domain.attempts import Cancelled, HandedBack, Outcome, Raised, Snoozed, Succeeded, TimedOut
from barnabas.sdk import CancelledByRequest, Context, PermanentError, RetryableError, Snooze
from barnabas.sdk.outcomes import MESSAGE_BYTES_MAX, RESULT_BYTES_MAX
from barnabas.sdk.running import Attempt, Interruption, Run, run_attempt
from barnabas.sdk.threads import HandlerThreads
from tests.unit.sdk.builders import context, handler, raised

# Only a failure takes that long: a starved machine may be late.
_PATIENCE_SECONDS = 100.0


class Card(BaseModel):
    model_config = ConfigDict(extra="forbid")

    number: str
    limit: int = 0
    kind: Literal["debit", "credit"] = "debit"

    @field_validator("number")
    @classmethod
    def _checked(cls, number: str) -> str:
        if not number.isdigit():
            raise ValueError(f"{number} is not a card number")
        return number


@pytest.fixture
def threads() -> Iterator[HandlerThreads]:
    pool = HandlerThreads(4)
    yield pool
    pool.shutdown()


async def outcome_of(function: Any, raw: bytes = b"null", *, ctx: Context | None = None) -> Outcome:
    threads = HandlerThreads(1)
    try:
        return (await run_attempt(handler(function), raw, ctx or context(), threads=threads)).outcome
    finally:
        threads.shutdown()


async def test_async_and_sync_handlers_get_the_payload_and_their_result_is_json() -> None:
    async def asynchronous(card: Card, ctx: Context) -> Card:
        return Card(number=card.number, limit=ctx.attempt)

    def synchronous(card: Card) -> dict[str, Any]:
        return {"card": card, "ids": {UUID(int=0)}}

    assert await outcome_of(asynchronous, b'{"number": "42"}', ctx=context(attempt=2)) == Succeeded(
        b'{"number":"42","limit":2,"kind":"debit"}'
    )
    assert await outcome_of(synchronous, b'{"number": "42"}') == Succeeded(
        b'{"card":{"number":"42","limit":0,"kind":"debit"},"ids":["00000000-0000-0000-0000-000000000000"]}'
    )


async def test_a_handler_that_returns_nothing_has_no_result() -> None:
    assert await outcome_of(lambda payload: None) == Succeeded(None)


async def test_a_payload_that_fails_its_model_is_permanent_and_its_values_are_not_repeated() -> None:
    def score(card: Card) -> None: ...

    secret = b'{"number": "hunter2", "limit": "hunter2", "kind": "hunter2", "~/x": "hunter2"}'
    outcome = raised(await outcome_of(score, secret))

    assert (outcome.code, outcome.retryable) == ("payload_invalid", False)
    assert "hunter2" not in outcome.message
    assert outcome.message.splitlines() == [
        "/number: value_error",
        "/limit: Input should be a valid integer, unable to parse string as an integer",
        "/kind: Input should be 'debit' or 'credit'",
        "/~0~1x: Extra inputs are not permitted",
    ]


@pytest.mark.parametrize("raw", [b"", b"{", b"\xff", b'{"number": "1"} x'])
async def test_a_payload_that_is_not_json_is_permanent(raw: bytes) -> None:
    def modelled(card: Card) -> None: ...

    for function in (modelled, lambda payload: payload):
        outcome = raised(await outcome_of(function, raw))

        assert (outcome.code, outcome.retryable) == ("payload_invalid", False)


class HTTPStatusError(Exception):
    pass


class BrokenError(Exception):
    def __str__(self) -> str:
        raise RuntimeError


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (RetryableError("busy"), Raised("retryable_error", "busy", retryable=True)),
        (
            RetryableError("busy", retry_after=timedelta(minutes=1), code="rate_limited"),
            Raised("rate_limited", "busy", retryable=True, retry_after=60.0),
        ),
        (PermanentError("gone", code="no_such_card"), Raised("no_such_card", "gone", retryable=False)),
        (PermanentError("gone", code="No Such Card"), Raised("permanent_error", "gone", retryable=False)),
        (Snooze(2.5), Snoozed(2.5)),
        (CancelledByRequest(), Cancelled()),
        (HTTPStatusError("502"), Raised("http_status_error", "502", retryable=True)),
        (KeyError("x"), Raised("key_error", "'x'", retryable=True)),
        (BrokenError(), Raised("broken_error", "BrokenError", retryable=True)),
        (SystemExit(3), Raised("system_exit", "3", retryable=True)),
        (asyncio.CancelledError(), Raised("cancelled_error", "CancelledError", retryable=True)),
        (ValueError("nul \x00 and \ud800"), Raised("value_error", "nul \ufffd and ?", retryable=True)),
    ],
)
async def test_what_a_handler_raises_decides_the_outcome(error: BaseException, outcome: Outcome) -> None:
    def synchronous(payload: Any) -> None:
        raise error

    async def asynchronous(payload: Any) -> None:
        raise error

    assert await outcome_of(synchronous) == outcome
    assert await outcome_of(asynchronous) == outcome


async def test_a_snooze_may_be_returned() -> None:
    assert await outcome_of(lambda payload: Snooze(timedelta(minutes=10))) == Snoozed(600.0)


def test_a_wait_that_can_only_be_a_mistake_is_refused() -> None:
    for seconds in (-1.0, float("nan"), 1e12):
        with pytest.raises(ValueError, match="seconds"):
            Snooze(seconds)


async def test_a_message_is_cut_at_two_kilobytes_between_characters() -> None:
    def fails(payload: Any) -> None:
        raise ValueError("ü" * 5000)

    message = raised(await outcome_of(fails)).message

    assert len(message.encode()) <= MESSAGE_BYTES_MAX
    assert set(message) == {"ü", "…"}


def deep() -> list[Any]:
    value: list[Any] = []
    for _ in range(sys.getrecursionlimit() * 2):
        value = [value]
    return value


@pytest.mark.parametrize("value", [object(), "\ud800", deep(), {(1, 2): 3}, lambda: None])
async def test_a_result_without_a_form_in_json_is_permanent(value: Any) -> None:
    outcome = raised(await outcome_of(lambda payload: value))

    assert (outcome.code, outcome.retryable) == ("result_unserializable", False)


async def test_a_result_over_a_mebibyte_is_permanent() -> None:
    outcome = raised(await outcome_of(lambda payload: "x" * RESULT_BYTES_MAX))

    assert (outcome.code, outcome.retryable) == ("result_too_large", False)
    assert isinstance(await outcome_of(lambda payload: "x" * (RESULT_BYTES_MAX - 2)), Succeeded)


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


_trace: ContextVar[str] = ContextVar("_trace", default="none")


async def test_a_sync_handler_sees_the_context_variables_of_its_slot() -> None:
    _trace.set("slot-7")

    assert await outcome_of(lambda payload: _trace.get()) == Succeeded(b'"slot-7"')


async def test_what_a_handler_leaves_in_context_variables_does_not_reach_the_next_attempt(
    threads: HandlerThreads,
) -> None:
    async def leaves(payload: Any) -> str:
        seen = _trace.get()
        _trace.set(f"tenant {payload}")
        await asyncio.sleep(0)
        assert _trace.get() == f"tenant {payload}"
        return seen

    def leaves_in_thread(payload: Any) -> str:
        seen = _trace.get()
        _trace.set(f"tenant {payload}")
        return seen

    _trace.set("slot")
    for function in (leaves, leaves_in_thread):
        for payload in (b"1", b"2"):
            run = await run_attempt(handler(function), payload, context(), threads=threads)

            assert run.outcome == Succeeded(b'"slot"')


def test_threads_are_reused_bounded_and_daemons(threads: HandlerThreads) -> None:
    many = HandlerThreads(50)
    names = [many.submit(lambda: threading.current_thread().name).result(timeout=_PATIENCE_SECONDS) for _ in range(50)]
    many.shutdown()
    release = threading.Event()
    ready = threading.Barrier(5)

    def block() -> bool:
        ready.wait(_PATIENCE_SECONDS)
        release.wait(_PATIENCE_SECONDS)
        return threading.current_thread().daemon

    futures = [threads.submit(block) for _ in range(4)]
    ready.wait(_PATIENCE_SECONDS)
    late = threads.submit(lambda: None)

    # Thread switches may start a few more than one, never one for each call.
    assert len(set(names)) < 25
    assert not late.done()
    release.set()
    assert all(future.result(timeout=_PATIENCE_SECONDS) for future in futures)
