"""What an administrator reads and the client has no methods for: tenants, their keys, their limits.

Requests as values, to be carried out by `barnabas.client`.
"""

from collections.abc import Callable
from typing import TypeVar
from urllib.parse import quote

import msgspec

from barnabas.client.calls import Answer, Call
from barnabas.client.models import ApiKey, Limits, Page, Tenant

T = TypeVar("T")

_TENANTS = "/v1/admin/tenants"
_PAGE = {"limit": "100"}


def list_tenants() -> Call[Page[Tenant]]:
    """All tenants, newest first."""
    return Call(method="GET", path=_TENANTS, params=_PAGE, is_repeatable=True, read=_reader(Page[Tenant]))


def list_keys(tenant_id: str) -> Call[Page[ApiKey]]:
    """All keys of a tenant, newest first, revoked ones too."""
    path = f"{_TENANTS}/{quote(tenant_id, safe='')}/keys"
    return Call(method="GET", path=path, params=_PAGE, is_repeatable=True, read=_reader(Page[ApiKey]))


def read_limits(tenant_id: str) -> Call[Limits]:
    """A tenant's limits."""
    path = f"{_TENANTS}/{quote(tenant_id, safe='')}/limits"
    return Call(method="GET", path=path, is_repeatable=True, read=_reader(Limits))


def _reader(model: type[T]) -> Callable[[Answer], T]:
    return lambda answer: msgspec.json.decode(answer.body, type=model)
