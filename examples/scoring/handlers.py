"""A handler in ten lines: a model in, a model out."""

from pydantic import BaseModel

from barnabas.sdk import App

app = App("scoring")


class Customer(BaseModel):
    """What is known of a customer."""

    income: float
    debts: float = 0.0


class Score(BaseModel):
    """How good they are for their money, 0 to 100."""

    points: int


@app.handler("scoring", max_attempts=3, timeout=30)
def score(customer: Customer) -> Score:
    """Score one customer."""
    return Score(points=round(100 * customer.income / (customer.income + customer.debts + 1)))
