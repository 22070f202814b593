"""Registering handlers: what is kept, and what is refused with a reason."""

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import BaseModel

from barnabas.domain.backoff import RetryPolicy
from barnabas.sdk import App, Context
from barnabas.sdk.app import RegistrationError

if TYPE_CHECKING:
    from decimal import Decimal


class Order(BaseModel):
    amount: int


def test_a_handler_keeps_its_limits_and_its_function_stays_a_plain_function() -> None:
    app = App("shop")
    policy = RetryPolicy(base_seconds=1)

    @app.handler("scoring", max_attempts=3, timeout=30, retry=policy, isolate="process")
    def score(order: Order, ctx: Context) -> Order:
        return Order(amount=order.amount + ctx.attempt)

    found = app.handlers["scoring"]
    assert found.function is score
    assert (found.type, found.max_attempts, found.timeout, found.retry, found.isolate) == (
        "scoring",
        3,
        30.0,
        policy,
        "process",
    )
    assert found.payload_model is Order
    assert found.takes_context
    assert not found.is_async


def test_the_default_backoff_waits_three_times() -> None:
    app = App()
    app.handler("plain")(lambda payload: payload)

    assert app.handlers["plain"].max_attempts == 4
    assert app.handlers["plain"].retry == RetryPolicy()


def test_async_functions_and_objects_with_an_async_call_are_recognised() -> None:
    class Scorer:
        async def __call__(self, payload: Any) -> Any:
            return payload

    async def score(payload: Any) -> Any:
        return payload

    app = App()
    app.handler("function")(score)
    app.handler("object")(Scorer())
    app.handler("partial")(functools.partial(score))

    assert [app.handlers[name].is_async for name in ("function", "object", "partial")] == [True, True, True]


def test_an_unannotated_payload_is_a_raw_json_value() -> None:
    app = App()
    app.handler("raw")(lambda payload: payload)

    assert app.handlers["raw"].payload_model is None
    assert app.handlers["raw"].decode(b'{"a": [1, null]}') == {"a": [1, None]}


def test_any_annotation_that_pydantic_can_check_is_a_model() -> None:
    app = App()

    @app.handler("sum")
    def total(numbers: list[int]) -> int:
        return sum(numbers)

    assert app.handlers["sum"].decode(b"[1, 2]") == [1, 2]


def test_an_annotation_given_as_text_is_resolved() -> None:
    app = App()

    @app.handler("text")
    def text(order: "Order", ctx: "Context") -> None: ...

    assert app.handlers["text"].payload_model is Order
    assert app.handlers["text"].takes_context


def no_parameter() -> None: ...
def context_first(ctx: Context) -> None: ...
def second_is_not_a_context(payload: Order, other: int) -> None: ...
def a_third(payload: Order, ctx: Context, third: int) -> None: ...
def a_keyword(payload: Order, *, flag: bool) -> None: ...
def stars(*payloads: Order) -> None: ...
def unresolvable(payload: "Decimal") -> None: ...
def unchecked(payload: App) -> None: ...
def yields(payload: Order) -> Any:
    yield payload


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (no_parameter, "has no parameter"),
        (context_first, "the context comes second"),
        (second_is_not_a_context, "'other', is not a Context"),
        (a_third, "needs the parameter 'third'"),
        (a_keyword, "needs the keyword 'flag'"),
        (stars, r"has \*payloads"),
        (unresolvable, "can't be resolved"),
        (unchecked, "pydantic can't check"),
        (yields, "yields"),
        ("text", "is not a function"),
    ],
)
def test_a_bad_handler_is_refused_with_its_type_and_the_reason(function: Any, reason: str) -> None:
    register: Callable[[Any], Any] = App().handler("bad")

    with pytest.raises(RegistrationError, match=f"'bad'.*{reason}"):
        register(function)


def test_a_type_has_one_handler_and_the_error_names_both() -> None:
    app = App()
    app.handler("once")(context_user)

    with pytest.raises(RegistrationError, match=r"'once' already has the handler .*context_user.*default_user"):
        app.handler("once")(default_user)


def context_user(payload: Any, ctx: Context) -> None: ...
def default_user(payload: Any, scale: int = 2) -> None: ...


def test_a_parameter_with_a_default_is_left_alone() -> None:
    app = App()
    app.handler("default")(default_user)

    assert not app.handlers["default"].takes_context


@pytest.mark.parametrize(
    "limits", [{"max_attempts": 0}, {"timeout": 0}, {"timeout": float("nan")}, {"timeout": 1e9}, {"isolate": "thread"}]
)
def test_a_limit_out_of_range_is_refused(limits: dict[str, Any]) -> None:
    with pytest.raises(RegistrationError, match="limited"):
        App().handler("limited", **limits)


@pytest.mark.parametrize("job_type", ["", "with space", "-dash-first", "x" * 129, "zero\x00"])
def test_a_job_type_that_the_api_would_refuse_is_refused_here(job_type: str) -> None:
    with pytest.raises(RegistrationError, match="job type"):
        App().handler(job_type)


def test_the_decorator_without_a_type_says_what_is_missing() -> None:
    with pytest.raises(RegistrationError, match="needs the job type"):
        App().handler(context_user)  # type: ignore[arg-type] # the mistake under test
