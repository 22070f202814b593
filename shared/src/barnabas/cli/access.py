"""Where the API is and which key opens it: options first, then the environment, then the local stack's `stack.json`.

A key from `stack.json` is sent to the address in the same file and to no other. Keys are never printed or logged.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from barnabas.errors import RejectedError

if TYPE_CHECKING:
    from barnabas.client.api import AsyncClient, Client

HOME = Path(".barnabas")

ApiUrl = Annotated[
    str | None, typer.Option("--api-url", envvar="BARNABAS_API_URL", help="Address of the API, if not the local stack.")
]
ApiKey = Annotated[
    str | None, typer.Option("--api-key", envvar="BARNABAS_API_KEY", help="The tenant's key; safer in the environment.")
]
AdminKey = Annotated[
    str | None, typer.Option("--admin-key", envvar="BARNABAS_ADMIN_KEY", help="The administrator's key.")
]
DataDir = Annotated[
    Path, typer.Option("--data-dir", envvar="BARNABAS_DATA_DIR", help="The local stack's directory, with stack.json.")
]

_OPTION = {"api_key": "--api-key or BARNABAS_API_KEY", "admin_key": "--admin-key or BARNABAS_ADMIN_KEY"}


class NoAccessError(RejectedError):
    """It isn't known where the API is, or with which key."""

    code = "no_access"


@dataclass(frozen=True, slots=True)
class Access:
    """An address and a key. It has a secret in it: never log it."""

    url: str
    key: str


def open_client(url: str | None, key: str | None, data_dir: Path) -> "Client":
    """A client for one tenant; close it."""
    from barnabas.client.api import Client

    access = find_access(url, key, data_dir, kind="api_key")
    return Client(access.url, access.key)


def open_async_client(url: str | None, key: str | None, data_dir: Path) -> "AsyncClient":
    """An async client for one tenant; close it."""
    from barnabas.client.api import AsyncClient

    access = find_access(url, key, data_dir, kind="api_key")
    return AsyncClient(access.url, access.key)


def open_admin(url: str | None, key: str | None, data_dir: Path) -> "Client":
    """A client with the administrator's key; close it."""
    from barnabas.client.api import Client

    access = find_access(url, key, data_dir, kind="admin_key")
    return Client(access.url, access.key)


def find_access(url: str | None, key: str | None, data_dir: Path, *, kind: Literal["api_key", "admin_key"]) -> Access:
    """The address and the key; raises `NoAccessError` saying what is missing and how to give it."""
    if not url or not key:
        told = read_stack(data_dir)
        known = str(told.get("api_url") or "")
        if not url:
            if not known:
                raise NoAccessError(
                    f"no API address: give --api-url or BARNABAS_API_URL, or start one with `barnabas up`"
                    f" (there is no running stack in {data_dir})"
                )
            if not told.get("pids"):
                raise NoAccessError(f"the local stack in {data_dir} is down: start it with `barnabas up`")
            url = known
        if not key and url.rstrip("/") == known.rstrip("/"):
            key = str(told.get(kind) or "")
    if not key:
        raise NoAccessError(f"no key for {url}: give {_OPTION[kind]}")
    return _checked(url, key)


def read_stack(data_dir: Path) -> Mapping[str, Any]:
    """What `stack.json` says; nothing if there is none. Read here, because the client comes without the local stack."""
    path = data_dir / "stack.json"
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as failure:
        # Without its cause's text: that may quote the file, which has secrets.
        raise NoAccessError(f"{path} can't be read ({type(failure).__name__})") from None
    if not isinstance(told, dict):
        raise NoAccessError(f"{path} is not a stack file")
    return told


def _checked(url: str, key: str) -> Access:
    from httpx import URL, InvalidURL

    try:
        is_address = URL(url).scheme in {"http", "https"} and bool(URL(url).host)
    except InvalidURL:
        is_address = False
    if not is_address:
        raise NoAccessError(f"the API's address begins with http:// or https://, not {url!r}")
    if not (key.isascii() and key.isprintable() and key.strip() == key):
        raise NoAccessError("the key has characters that no key of Barnabas has")
    return Access(url, key)
