"""Running one attempt: how each ending of a handler becomes an outcome."""

import asyncio
import sys
import threading
from contextvars import ContextVar
from datetime import timedelta
from typing import Any, Literal
from uuid import UUID

import pytest
from pydantic import BaseModel, ConfigDict, field_validator

from barnabas.domain.attempts import Cancelled, Outcome, Raised, Snoozed, Succeeded
from barnabas.sdk import CancelledByRequest, Context, PermanentError, RetryableError, Snooze
from barnabas.sdk.outcomes import MESSAGE_BYTES_MAX, RESULT_BYTES_MAX
from barnabas.sdk.running import run_attempt
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
