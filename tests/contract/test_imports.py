"""Imports go one way: domain <- contract <- {postgres, kafka} <- services, and what stands beside that line."""

import sys
from pathlib import Path

import pytest

from tests.contract.sources import Import, Module, modules

# What each part may import of the product, besides itself and `barnabas.errors`.
_ALLOWED: dict[str, frozenset[str]] = {
    "barnabas.errors": frozenset(),
    "barnabas.domain": frozenset(),
    "barnabas.contract": frozenset({"barnabas.domain"}),
    "barnabas.runtime": frozenset(),
    "barnabas.postgres": frozenset({"barnabas.domain", "barnabas.contract", "barnabas.runtime"}),
    "barnabas.kafka": frozenset({"barnabas.domain", "barnabas.contract", "barnabas.runtime"}),
    "barnabas.client": frozenset({"barnabas.domain", "barnabas.contract", "barnabas.runtime"}),
    "barnabas.sdk": frozenset({"barnabas.domain", "barnabas.contract", "barnabas.runtime"}),
}
_SHARED = frozenset(_ALLOWED)
_SERVICES = frozenset({"barnabas_ingest", "barnabas_worker", "barnabas_notifier", "barnabas_retry_scheduler"})
_ALLOWED |= {
    **dict.fromkeys(_SERVICES, _SHARED),
    # It starts the services as processes and never imports them.
    "barnabas_local": _SHARED,
    # The two that stand above everything. Services, and what speaks SQL or Kafka, they import inside functions only:
    # `barnabas --help` must not need them.
    "barnabas.cli": _SHARED | {"barnabas_local", "barnabas.generate"} | _SERVICES,
    "barnabas.generate": _SHARED | {"barnabas_local", "barnabas.cli"} | _SERVICES,
}
# Importing these must not cost, or need, a client for Postgres or Kafka.
_LIGHT = ("barnabas.client", "barnabas.sdk", "barnabas.cli")
_HEAVY = ("barnabas.postgres", "barnabas.kafka", "barnabas_local", "asyncpg", "confluent_kafka", *_SERVICES)

# Each library that speaks to a server has one home.
_HOMES = {"asyncpg": "barnabas.postgres", "confluent_kafka": "barnabas.kafka"}
_AWAY_FROM_HOME = {
    ("barnabas_local.database", "asyncpg"): "makes the roles and the database, before any login of ours exists",
    ("barnabas_local.postgres", "asyncpg"): "asks the superuser's port whether the server is up",
    ("barnabas_local.kafka", "confluent_kafka"): "asks the broker whether it is up",
    (
        "barnabas_retry_scheduler.lost_records",
        "confluent_kafka",
    ): "murmur2 only: the partition of a key, without a client",
}


def part_of(name: str) -> str | None:
    """The part of the product that a module belongs to; None for a library."""
    return next((part for part in _ALLOWED if name == part or name.startswith(f"{part}.")), None)


def complaint(module: Module, found: Import, reason: str) -> str:
    return f"{module.shown}:{found.line} imports {found.name}: {reason}"


def test_every_module_belongs_to_a_part() -> None:
    strays = [module.shown for module in modules() if part_of(module.name) is None and module.name != "barnabas"]

    assert strays == []


def test_imports_go_one_way() -> None:
    complaints = []
    for module in modules():
        own = part_of(module.name)
        if own is None:
            continue
        for found in module.imports:
            part = part_of(found.name)
            if part is None or part in {own, "barnabas.errors"} or part in _ALLOWED[own]:
                continue
            complaints.append(complaint(module, found, f"{own} may not import {part}"))

    assert complaints == []


def test_no_service_imports_another() -> None:
    # Said by the table above as well: this is the sentence of the design, whatever the table comes to say.
    complaints = [
        complaint(module, found, "a service stands alone")
        for module in modules()
        if module.name.split(".")[0] in _SERVICES
        for found in module.imports
        if found.name.split(".")[0] in _SERVICES - {module.name.split(".")[0]}
    ]

    assert complaints == []


def test_the_domain_needs_the_standard_library_only() -> None:
    complaints = [
        complaint(module, found, "not in the standard library")
        for module in modules()
        if part_of(module.name) == "barnabas.domain"
        for found in module.imports
        if found.name.split(".")[0] not in {*sys.stdlib_module_names, "barnabas"}
    ]

    assert complaints == []


def test_client_sdk_and_command_start_without_postgres_and_kafka() -> None:
    complaints = [
        complaint(module, found, "only inside a function")
        for module in modules()
        if part_of(module.name) in _LIGHT
        for found in module.imports
        if found.at_start and found.name.startswith(_HEAVY)
    ]

    assert complaints == []


@pytest.mark.parametrize("library", _HOMES)
def test_a_library_for_a_server_is_used_in_its_home_only(library: str) -> None:
    users = {
        module.name
        for module in modules()
        if part_of(module.name) != _HOMES[library]
        for found in module.imports
        if found.name.split(".")[0] == library
    }

    assert users == {module for module, name in _AWAY_FROM_HOME if name == library}


def test_nothing_imports_what_is_private_to_another_module() -> None:
    complaints = [
        complaint(module, found, "its name begins with an underscore")
        for module in modules()
        for found in module.imports
        if part_of(found.name) is not None and found.name.rsplit(".", 1)[-1].startswith("_")
    ]

    assert complaints == []


def test_this_test_sees_where_an_import_stands() -> None:
    text = """
import a
from b import c
try:
    import d
except ImportError:
    import e
if TYPE_CHECKING:
    import f
else:
    import g
with x:
    import h
match x:
    case 1:
        import i
class J:
    import j
def k():
    if x:
        import k
async def l():
    for x in y:
        import l
"""
    seen = {each.name: each.at_start for each in Module("m", Path("m.py"), text).imports}

    assert seen == {
        "a": True, "b.c": True, "d": True, "e": True, "f": False, "g": True, "h": True, "i": True, "j": True,
        "k": False, "l": False,
    }  # fmt: skip
