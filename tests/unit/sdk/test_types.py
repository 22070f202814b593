"""What a type checker sees of a handler: the function it was. mypy judges this file."""

from typing import assert_type

from pydantic import BaseModel

from barnabas.sdk import App, Context

app = App("typed")


class Order(BaseModel):
    amount: int


@app.handler("sync")
def price(order: Order) -> int:
    return order.amount * 2


@app.handler("async")
async def ship(order: Order, ctx: Context) -> Order:
    return Order(amount=order.amount + ctx.attempt)


def _refused() -> None:
    @app.handler("none")  # type: ignore[type-var] # a handler takes a payload
    def none() -> None: ...

    @app.handler("number")  # type: ignore[type-var] # the second parameter is the context
    def number(order: Order, other: int) -> None: ...

    price("text")  # type: ignore[arg-type] # it still knows its payload


async def _typed(ctx: Context) -> None:
    assert_type(price(Order(amount=1)), int)
    assert_type(await ship(Order(amount=1), ctx), Order)


def test_a_registered_function_can_still_be_called() -> None:
    assert price(Order(amount=21)) == 42
