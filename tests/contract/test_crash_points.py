"""Crash points are where their table says: every declared name is reached, and none by another way than its name."""

import ast
from collections import Counter

from barnabas.runtime.crash_points import CrashPoint
from tests.contract.sources import Module, modules

_HOME = "barnabas.runtime.crash_points"


def reached(module: Module) -> list[str]:
    """The members that this module's calls of `reach` name; anything else than a member is shown as its source."""
    return [
        ast.unparse(node.args[0])
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "reach"
    ]


def test_every_declared_point_is_reached_in_one_place() -> None:
    found = Counter(name for module in modules() for name in reached(module))

    assert found == Counter({f"CrashPoint.{point.name}": 1 for point in CrashPoint})


def test_points_are_reached_under_the_name_of_the_part_that_reaches_them() -> None:
    wrong = []
    for module in modules():
        for text in reached(module):
            point = CrashPoint[text.removeprefix("CrashPoint.")]
            if not any(word in module.name for word in _PARTS.get(point.partition(".")[0], ("nowhere",))):
                wrong.append(f"{module.shown}: {point}")

    assert wrong == []


def test_the_product_only_reaches_points_and_never_arms_them() -> None:
    users = {
        found.name for module in modules() for found in module.imports if found.name.startswith(_HOME) and module.name
    }

    assert users == {f"{_HOME}.CrashPoint", f"{_HOME}.reach"}


def test_no_point_is_reached_in_a_loop_over_jobs() -> None:
    # A loop that waits is a process' life; one that doesn't goes through a batch, and a point is for a batch.
    inside = [
        f"{module.shown}:{node.lineno}"
        for module in modules()
        for loop in ast.walk(module.tree)
        if isinstance(loop, ast.For) and not any(isinstance(inner, ast.Await) for inner in ast.walk(loop))
        for node in ast.walk(loop)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "reach"
    ]

    assert inside == []


def test_names_read_as_part_and_moment_and_each_says_what_is_true_there() -> None:
    assert len(CrashPoint) >= 20
    assert all(point.count(".") == 1 and point == point.lower() for point in CrashPoint)
    assert all(point.name == point.value.replace(".", "_").upper() for point in CrashPoint)
    assert all(point.meaning for point in CrashPoint)
    assert len({point.meaning for point in CrashPoint}) >= len(CrashPoint) - len(_SAME_EVERYWHERE)


_PARTS = {
    "ingest": ("barnabas_ingest",),
    "intake": ("barnabas_ingest.intake",),
    "worker": ("barnabas_worker",),
    "notifier": ("barnabas_notifier",),
    "lease": ("barnabas.postgres.heartbeat",),
    "database": ("barnabas.postgres.database",),
    "kafka": ("barnabas.kafka",),
    "lead": ("barnabas_retry_scheduler.leadership",),
    "relay": ("barnabas_retry_scheduler.relay_outbox",),
    "tell": ("barnabas_retry_scheduler.tell",),
    "timers": ("barnabas_retry_scheduler.poll_timers",),
    "reaper": ("barnabas_retry_scheduler.reap_leases",),
    "delays": ("barnabas_retry_scheduler.carry_delays",),
    "reconciler": ("barnabas_retry_scheduler.reconcile",),
    "replay": ("barnabas_retry_scheduler.replay_events",),
    "partitions": ("barnabas_retry_scheduler.keep_partitions",),
}
# The three services that write an outbox forget its rows in the same way.
_SAME_EVERYWHERE = (CrashPoint.WORKER_BEFORE_FORGET, CrashPoint.NOTIFIER_BEFORE_FORGET)
