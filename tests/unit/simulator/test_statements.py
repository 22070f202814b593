"""The model database has the statements that the services use, and each takes what its query takes."""

import inspect
import re
from pathlib import Path

import pytest

import barnabas.postgres
from tests.simulator.statements_deliveries import ModelStatements

_SQL = Path(barnabas.postgres.__path__[0]) / "sql"
_QUERIES = {path.stem: path for path in _SQL.glob("*.sql")}


def modelled() -> list[str]:
    return sorted(name for name, _ in inspect.getmembers(ModelStatements, inspect.isfunction) if name in _QUERIES)


def test_the_model_has_the_statements_that_move_jobs_and_deliveries() -> None:
    assert {
        "turn_jobs", "accept_jobs", "accept_keyed_jobs", "cancel_job", "redrive_job", "take_due_timers", "renew_lease",
        "open_deliveries", "claim_deliveries", "finish_deliveries", "release_deliveries", "inspect_open_jobs",
    } <= set(modelled())  # fmt: skip


@pytest.mark.parametrize("name", modelled())
def test_a_statement_of_the_model_takes_what_its_query_takes(name: str) -> None:
    # The header names them as well: what counts is the query.
    lines = [line for line in _QUERIES[name].read_text().splitlines() if not line.startswith("--")]
    wanted = {int(number) for number in re.findall(r"\$(\d+)", "\n".join(lines))}
    parameters = list(inspect.signature(getattr(ModelStatements, name)).parameters.values())[1:]
    named = [one for one in parameters if one.kind is not inspect.Parameter.VAR_POSITIONAL]

    assert wanted == set(range(1, len(wanted) + 1))
    if len(named) == len(parameters):
        assert len(named) == len(wanted)
    else:
        assert len(named) <= len(wanted)
