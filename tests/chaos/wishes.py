"""What a chaos run asks for: jobs of several tenants, each with the end it must come to. A function of the seed."""

import hashlib
import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

# Short, so that a run is over soon; jittered, as everywhere.
_RETRY = {"base_seconds": 0.5, "factor": 2, "cap_seconds": 5, "jitter": "full"}
_MAX_ATTEMPTS = 8
_ORDERING_KEYS = 40


class Via(StrEnum):
    """The ways in."""

    SINGLE = "http"
    BATCH = "batch"
    NDJSON = "ndjson"
    KAFKA = "kafka"


# A post carries one job, so these are the dear ones for whoever asks.
_WAYS = {Via.SINGLE: 12, Via.BATCH: 30, Via.NDJSON: 18, Via.KAFKA: 40}


@dataclass(frozen=True, slots=True)
class ChaosTenant:
    """A tenant of the run."""

    name: str
    id: str
    key: str
    is_ordered: bool = False
    """Whether some of its jobs have ordering keys."""


@dataclass(frozen=True, slots=True)
class Wish:
    """One job to be submitted: `key` is its idempotency key, and names it in every later check."""

    tenant: ChaosTenant
    key: str
    via: Via
    type: str
    payload: dict[str, Any]
    expected: str
    """The state that it must end in; empty when any end is right."""
    options: dict[str, Any] = field(default_factory=dict)
    """Further fields of the submission."""
    is_cancelled: bool = False
    """Whether somebody will ask for its cancel."""

    def document(self, *, with_key: bool) -> dict[str, Any]:
        """As the API takes it."""
        fields = {"type": self.type, "payload": self.payload, "retry": _RETRY, **self.options}
        return fields | ({"idempotency_key": self.key} if with_key else {})

    @property
    def body_hash(self) -> str:
        """What tells its body from another one."""
        return hashlib.sha256(json.dumps(self.document(with_key=False)).encode()).hexdigest()[:16]

    @property
    def delay_seconds(self) -> float:
        """Not to be run before so long after its acceptance."""
        return float(self.options.get("delay_seconds", 0.0))


def wishes(tenants: Sequence[ChaosTenant], count: int, seed: int) -> list[Wish]:
    """The jobs of a run, in the order in which they are asked for."""
    choice = random.Random(f"wishes {seed}")
    ways, weights = list(_WAYS), list(_WAYS.values())
    made = []
    for number in range(count):
        tenant = tenants[number % len(tenants)]
        via = choice.choices(ways, weights)[0]
        key = f"k{number}"
        kind, payload, expected = _kind(choice, key)
        options = dict(_options(tenant, choice))
        is_cancelled = via is Via.SINGLE and choice.random() < 0.04
        made.append(Wish(tenant, key, via, kind, payload, "" if is_cancelled else expected, options, is_cancelled))
    # The worst ones come once each, in the first half: they take a worker with them, and everything that runs there.
    if count > 1_000:
        for at in choice.sample(range(count // 10, count // 2), 2):
            wish = made[at]
            made[at] = Wish(
                wish.tenant, wish.key, wish.via, "effect.crash", {"key": wish.key}, "succeeded", {"max_attempts": 8}
            )
    return made


def _kind(choice: random.Random, key: str) -> tuple[str, dict[str, Any], str]:
    """Type, payload and end of a job; nearly all are quick and work at once."""
    drawn = choice.random()
    if drawn < 0.80:
        return "effect", {"key": key, "pad": "x" * choice.randrange(400)}, "succeeded"
    if drawn < 0.86:
        return "effect", {"key": key, "seconds": round(choice.uniform(0.05, 1.0), 2)}, "succeeded"
    if drawn < 0.865:
        # Long enough to have a fault come over it.
        return "effect", {"key": key, "seconds": round(choice.uniform(3.0, 12.0), 1)}, "succeeded"
    if drawn < 0.91:
        return "effect.sync", {"key": key, "seconds": round(choice.uniform(0.0, 0.2), 2)}, "succeeded"
    if drawn < 0.95:
        return "effect", {"key": key, "fails": choice.randint(1, 2)}, "succeeded"
    if drawn < 0.97:
        return "effect", {"key": key, "fails": _MAX_ATTEMPTS, "error": "permanent"}, "failed"
    if drawn < 0.98:
        return "effect.snooze", {"key": key, "times": choice.randint(1, 2)}, "succeeded"
    if drawn < 0.992:
        return "effect.process", {"key": key}, "succeeded"
    if drawn < 0.996:
        return "effect.unserializable", {"key": key}, "failed"
    if drawn < 0.998:
        return "effect.hang_alone", {"key": key}, "succeeded"
    return "effect.crash_alone", {"key": key}, "succeeded"


def _options(tenant: ChaosTenant, choice: random.Random) -> Iterator[tuple[str, Any]]:
    yield "max_attempts", _MAX_ATTEMPTS
    if choice.random() < 0.2:
        yield "priority", choice.choice(["low", "high", "critical"])
    if tenant.is_ordered and choice.random() < 0.3:
        yield "ordering_key", f"o{choice.randrange(_ORDERING_KEYS)}"
    elif choice.random() < 0.03:
        yield "delay_seconds", round(choice.uniform(1.0, 15.0), 1)
