"""The `barnabas` command: puts the groups of commands together.

Each module named here has a function `register(app)` that adds its commands. Modules import what is heavy inside their
functions, so that `barnabas --help` stays quick.
"""

import sys
from importlib import import_module
from typing import NoReturn

import typer

from barnabas.errors import BarnabasError

_MODULES = ("stack",)

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
    """Run the command line; an error of ours is a message and exit code 1, never a traceback."""
    try:
        app()
    except BarnabasError as failure:
        typer.secho(f"barnabas: {failure}", err=True, fg=typer.colors.RED)
        sys.exit(1)
    sys.exit(0)


if __name__ == "__main__":
    main()
