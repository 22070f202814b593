"""docs/reference/settings.md: every `BARNABAS_*` key, from the settings classes and the command line's options."""

from collections.abc import Iterable
from importlib import import_module
from typing import Any, Literal, get_args, get_origin

import typer.main
from pydantic.fields import FieldInfo
from typer.core import TyperGroup, TyperOption

from barnabas.generate import markdown
from barnabas.generate.markdown import code
from barnabas.runtime.settings import PREFIX, ServiceSettings, keys_of

SERVICES = {
    "ingest": ("barnabas_ingest.settings", "IngestSettings"),
    "worker": ("barnabas_worker.settings", "WorkerSettings"),
    "notifier": ("barnabas_notifier.settings", "NotifierSettings"),
    "retry-scheduler": ("barnabas_retry_scheduler.settings", "RetrySchedulerSettings"),
}

_INTRODUCTION = """
A process reads its settings once, when it starts, from environment variables; an empty one counts as not set. It
refuses to start on a key that begins with `BARNABAS_` and that nothing reads, on a value out of range, and on two that
contradict each other, and says which, why, and a value that would do. Keys without a default have to be set.
"""

_COMMAND = """
## The command line

Options of the `barnabas` command that can be given as variables, too. An option that is typed wins.
"""


def settings_classes() -> dict[str, type[ServiceSettings]]:
    """Each service's class, by the service's name."""
    return {name: getattr(import_module(module), cls) for name, (module, cls) in SERVICES.items()}


def command_options() -> list[tuple[str, str, TyperOption]]:
    """(key, command, option) for every option of the command line that a variable may give."""
    from barnabas.cli.main import app

    return sorted(_options(typer.main.get_command(app), ()), key=lambda found: (found[0], found[1]))


def text() -> str:
    """The page."""
    shared = keys_of(ServiceSettings)
    parts = [_INTRODUCTION, "## Every service", _settings_table(shared)]
    for name, settings_class in settings_classes().items():
        own = {key: field for key, field in keys_of(settings_class).items() if key not in shared}
        parts += [f"## {name}", _settings_table(own)]
    parts += [_COMMAND, _options_table()]
    return markdown.page("Settings", "the settings class of each service and the commands' options", *parts)


def _options_table() -> str:
    commands: dict[tuple[str, ...], list[str]] = {}
    for key, command, option in command_options():
        row = (code(key), code(option.opts[0]), _default(option.default), option.help or "")
        commands.setdefault(row, []).append(code(command))
    # An option that many commands have is one row.
    rows = [(row[0], ", ".join(users), *row[1:]) for row, users in commands.items()]
    return markdown.table(("key", "command", "option", "default", "meaning"), rows)


def _settings_table(fields: dict[str, FieldInfo]) -> str:
    rows = [
        (
            code(key),
            "" if field.is_required() else _default(field.default),
            _allowed(field),
            field.description or "",
        )
        for key, field in fields.items()
    ]
    return markdown.table(("key", "default", "allowed", "meaning"), rows)


def _default(value: Any) -> str:
    if value is None:
        return "not set"
    if isinstance(value, bool):
        return code(str(value).lower())
    return code(f"{value:g}" if isinstance(value, float) else value)


def _allowed(field: FieldInfo) -> str:
    if get_origin(field.annotation) is Literal:
        return ", ".join(code(each) for each in get_args(field.annotation))
    if field.annotation is bool:
        return f"{code('true')}, {code('false')}"
    bounds = {type(each).__name__: each for each in field.metadata}
    low = getattr(bounds.get("Ge"), "ge", None)
    above = getattr(bounds.get("Gt"), "gt", None)
    high = getattr(bounds.get("Le"), "le", None)
    shown = [
        "" if low is None else f"from {low:,}",
        "" if above is None else f"above {above:,}",
        "" if high is None else f"to {high:,}",
    ]
    return " ".join(each for each in shown if each)


def _options(command: Any, path: tuple[str, ...]) -> Iterable[tuple[str, str, TyperOption]]:
    if isinstance(command, TyperGroup):
        for name, inner in command.commands.items():
            yield from _options(inner, (*path, name))
    for parameter in command.params:
        if not isinstance(parameter, TyperOption):
            continue
        variables = [parameter.envvar] if isinstance(parameter.envvar, str) else parameter.envvar or ()
        for key in variables:
            if key.startswith(PREFIX):
                yield key, " ".join(("barnabas", *path)), parameter
