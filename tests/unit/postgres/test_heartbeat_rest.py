"""How long a heartbeat rests between two looks: evenly while all is well, unevenly while its server is away."""

import asyncio
import time
from uuid import UUID

from barnabas.postgres.heartbeat import Heartbeat


def heartbeat() -> Heartbeat:
    """One that is never started."""
    return Heartbeat(
        "postgresql://nowhere/nothing",
        worker_id=UUID(int=1),
        service="test",
        slots=1,
        type_ids=[],
        lease_seconds=10.0,
        on_lost=lambda: None,
        on_cancel=lambda _jobs: None,
        on_news=lambda _revision, _has_backlog: None,
        holds=lambda: True,
        main_loop=asyncio.get_running_loop(),
        stall_seconds=lambda: 60.0,
    )


async def test_renewals_that_succeed_are_evenly_spaced() -> None:
    beat = heartbeat()
    beat._renewed_at = beat._asked_at = 5.0

    assert {beat._rest_seconds() for _ in range(100)} == {1.0}


async def test_tries_after_a_failure_are_spread_between_half_of_it_and_all_of_it() -> None:
    beat = heartbeat()
    now = time.monotonic()
    # Far enough ahead that a machine that stands still for a minute changes nothing.
    beat._renewed_at, beat._asked_at = now + 60.0, now + 61.0
    rests = [beat._rest_seconds() for _ in range(200)]

    assert all(0.5 <= rest <= 1.0 for rest in rests)
    assert max(rests) - min(rests) > 0.25


async def test_the_rest_after_a_failure_ends_when_the_loss_has_to_be_told() -> None:
    beat = heartbeat()
    now = time.monotonic()
    # Of a lease of ten seconds a tenth of one is left before its loss is announced, and then nothing at all.
    beat._renewed_at, beat._asked_at = now - 8.9, now - 1.0
    soon = [beat._rest_seconds() for _ in range(200)]
    beat._renewed_at = now - 20.0

    assert max(soon) < 0.11
    assert beat._rest_seconds() == 0.0
