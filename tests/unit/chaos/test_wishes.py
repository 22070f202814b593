"""What a run asks for, and how its report counts the way back from a fault."""

from collections import Counter

from tests.chaos.ledger import Accepted, Effect, FaultBegan, FaultEnded
from tests.chaos.report import recoveries
from tests.chaos.wishes import ChaosTenant, Via, wishes

TENANTS = [ChaosTenant("a", "1", "key-a"), ChaosTenant("b", "2", "key-b", is_ordered=True)]


def test_the_same_seed_asks_for_the_same_jobs() -> None:
    assert wishes(TENANTS, 2_000, 5) == wishes(TENANTS, 2_000, 5)
    assert wishes(TENANTS, 2_000, 5) != wishes(TENANTS, 2_000, 6)


def test_every_way_in_every_end_and_every_tenant_has_its_jobs() -> None:
    wanted = wishes(TENANTS, 5_000, 1)

    assert len({wish.key for wish in wanted}) == 5_000
    assert {wish.via for wish in wanted} == set(Via)
    assert {wish.expected for wish in wanted} == {"succeeded", "failed", ""}
    assert Counter(wish.tenant.name for wish in wanted) == {"a": 2_500, "b": 2_500}
    assert {wish.tenant.name for wish in wanted if "ordering_key" in wish.options} == {"b"}
    assert any(wish.delay_seconds for wish in wanted)


def test_two_jobs_of_a_run_take_their_worker_with_them() -> None:
    assert sum(wish.type == "effect.crash" for wish in wishes(TENANTS, 5_000, 1)) == 2


def test_a_job_asked_again_has_the_same_body() -> None:
    for wish in wishes(TENANTS, 100, 1):
        assert wish.body_hash == wish.body_hash
        assert wish.document(with_key=True) == wish.document(with_key=False) | {"idempotency_key": wish.key}


def test_the_way_back_from_a_fault_is_counted_to_the_next_acceptance_and_effect() -> None:
    found = recoveries(
        [
            FaultBegan(1.0, "kill", "worker", 1),
            Accepted(1.5, "k", "t", "j"),
            FaultEnded(2.0, 1),
            Accepted(2.25, "l", "t", ""),
            Accepted(2.5, "m", "t", "j2"),
            Effect(3.0, "t", "j", 1),
            FaultBegan(4.0, "kill", "worker", 2),
            FaultEnded(5.0, 2),
        ]
    )

    assert found == {"kill worker": {"accepted": [0.5], "effect": [1.0]}}
