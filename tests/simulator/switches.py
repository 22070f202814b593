"""What can be switched off in the model, to show that the simulation would notice: each is a promise of the design."""

from dataclasses import dataclass, fields


@dataclass(frozen=True, slots=True, kw_only=True)
class Switches:
    """All off is the product as it is."""

    fence_unchecked: bool = False
    """Endings and releases move whatever runs, whoever holds it."""
    outbox_dropped: bool = False
    """The row that tells Kafka is never stored."""
    events_repeated: bool = False
    """A second event opens its delivery again."""
    keys_forgotten: bool = False
    """An idempotency key that is known makes another job."""
    offset_first: bool = False
    """Offsets are committed when records are read, not when they have their verdict."""
    lease_revived: bool = False
    """A renewal gives an expired lease back to its worker, who doesn't notice, and a claim asks for no lease."""
    gates_open: bool = False
    """A claim doesn't ask the gates."""
    order_unheld: bool = False
    """A job with an ordering key is ready whatever is before it."""
    early_claims: bool = False
    """A claim takes jobs before they are due."""


NAMES = tuple(one.name for one in fields(Switches))


def switched(*names: str) -> Switches:
    """With these on."""
    return Switches(**dict.fromkeys(names, True))
