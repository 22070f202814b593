"""The `barnabas` command: puts the groups of commands together.

Each module named here has a function `register(app)` that adds its commands. Modules import what is heavy inside their
functions, so that `barnabas --help` stays quick.
"""

import sys
from importlib import import_module
from typing import NoReturn

import typer

from barnabas.cli.printing import as_text
from barnabas.errors import BarnabasError

_MODULES = (
    "stack",
    "demo",
    "submit",
    "jobs",
    "dlq",
    "endpoints",
    "tenants",
    "keys",
    "limits",
    "queues",
    "services",
    "servers",
    "verify",
    "doctor",
)

app = typer.Typer(
    name="barnabas",
    help="Background jobs for many customers, with a signed webhook for how each one ended.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

for _module in _MODULES:
    import_module(f"barnabas.cli.{_module}").register(app)


@app.callback()
def _barnabas() -> None:
    """Keep sub-commands sub-commands, even while there is one only."""


def main() -> NoReturn:
    """Run the command line; an error of ours is a line with its code and exit code 1, never a traceback."""
    try:
        app()
    except BarnabasError as failure:
        typer.secho(f"barnabas: {_told(failure)} [{failure.code}]", err=True, fg=typer.colors.RED)
        sys.exit(1)
    sys.exit(0)


def _told(failure: BarnabasError) -> str:
    """The message; where the API named wrong values, each with its place."""
    problem = getattr(failure, "problem", None)
    places = "; ".join(f"{each.pointer}: {each.detail}" for each in problem.errors) if problem is not None else ""
    # A log's tail in a message keeps its lines; other control characters are for nobody's terminal.
    return "\n".join(as_text(line) for line in (places or str(failure)).splitlines())


if __name__ == "__main__":
    main()
