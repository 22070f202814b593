"""How many bytes may wait in memory: a bound over all, and one for each tenant, who meets his first.

Held from the moment that a body is announced until its jobs are stored, so neither slow uploads nor a slow database
grow the process.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

from barnabas.errors import OverloadedError

# Objects around a body weigh something too: tiny bodies must not fill the memory uncounted.
_OVERHEAD_BYTES = 2_048


class Budget:
    """Bytes in use, by tenant."""

    __slots__ = ("_by_tenant", "_tenant_max", "_total_max", "used")

    def __init__(self, total_max: int) -> None:
        self._total_max = total_max
        self._tenant_max = total_max // 4
        self._by_tenant: dict[UUID, int] = {}
        self.used = 0

    @contextmanager
    def hold(self, tenant_id: UUID, body_bytes: int) -> Iterator["Share"]:
        """Have room for a body until the block ends; raises `OverloadedError`."""
        share = Share(self, tenant_id)
        share.grow(body_bytes + _OVERHEAD_BYTES)
        try:
            yield share
        finally:
            share.free()

    def add(self, tenant_id: UUID, count: int) -> None:
        """Take or give back; raises `OverloadedError` and takes nothing when there is no room."""
        held = self._by_tenant.get(tenant_id, 0) + count
        # An empty queue takes any body that is small enough to be sent at all.
        if count > 0 and self.used > 0:
            if held > self._tenant_max:
                raise OverloadedError("this tenant has too much waiting")
            if self.used + count > self._total_max:
                raise OverloadedError
        self.used += count
        if held:
            self._by_tenant[tenant_id] = held
        else:
            del self._by_tenant[tenant_id]


class Share:
    """What one body holds; it grows when the body's length was not announced."""

    __slots__ = ("_budget", "_bytes", "_tenant_id")

    def __init__(self, budget: Budget, tenant_id: UUID) -> None:
        self._budget = budget
        self._tenant_id = tenant_id
        self._bytes = 0

    def grow(self, count: int) -> None:
        """Hold more; raises `OverloadedError`."""
        self._budget.add(self._tenant_id, count)
        self._bytes += count

    def free(self) -> None:
        """Hold nothing more."""
        if self._bytes:
            self._budget.add(self._tenant_id, -self._bytes)
            self._bytes = 0
