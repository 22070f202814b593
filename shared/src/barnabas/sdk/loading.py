"""Finding an app by name: `package.module:attribute`, as on the command line of a worker.

Used by the worker and by its child processes, so that both run the same handlers: the built-in ones and the app's.
"""

import importlib
import sys
from collections.abc import Mapping
from pathlib import Path

from barnabas.sdk.app import App, Handler, RegistrationError


def load_app(name: str) -> App:
    """The app that `module:attribute` names (`attribute` may be dotted, and is `app` when left out).

    Modules are looked for in the current directory too. Raises `RegistrationError` saying what was not found.
    """
    module_name, _, attribute = name.partition(":")
    attribute = attribute or "app"
    if not module_name:
        raise RegistrationError(f"{name!r} names no module; write it as module:app")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        # A module that exists but imports a missing one is another mistake than a module that doesn't exist.
        if error.name is not None and (module_name == error.name or module_name.startswith(f"{error.name}.")):
            raise RegistrationError(
                f"{name!r}: there is no module {error.name!r} in {here} or among the installed packages"
            ) from error
        raise RegistrationError(
            f"{name!r}: importing {module_name!r} needs {error.name!r}, which is not installed"
        ) from error
    found: object = module
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise RegistrationError(f"{name!r}: module {module_name!r} has no attribute {attribute!r}")
        found = getattr(found, part)
    if not isinstance(found, App):
        raise RegistrationError(f"{name!r} is a {type(found).__name__}, not a barnabas.sdk.App")
    return found


def load_handlers(app: str | None, *, allow_private_targets: bool = False) -> Mapping[str, Handler]:
    """The built-in handlers and, where `app` names one, the app's; a type that both have is the app's.

    `allow_private_targets` lets the built-in `http_request` call addresses that are not public.
    """
    from barnabas.sdk.builtin import builtin_app  # here, because apps of one's own don't need it

    handlers = dict(builtin_app(allow_private_targets=allow_private_targets).handlers)
    if app is not None:
        handlers.update(load_app(app).handlers)
    return handlers
