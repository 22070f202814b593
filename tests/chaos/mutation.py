"""What a mutation of a good run is: one thing changed that the checker must notice.

A checker that finds nothing proves something only if it is known to find what is wrong.
"""

import random
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass
from typing import TypeVar

import msgspec

from tests.chaos.evidence import Case, Evidence, Wish, gather
from tests.chaos.final import Final
from tests.chaos.ledger import Event
from tests.chaos.violation import Rules

T = TypeVar("T")


@dataclass(slots=True)
class Run:
    """A run that is being broken: lists of its own, and the evidence as it was before."""

    random: random.Random
    events: list[Event]
    final: Final
    before: Evidence

    def pick(self, rows: Sequence[T] | None, wanted: Callable[[T], object] = lambda _: True) -> T:
        """One of those that are wanted, by chance; a run without any can't be broken this way."""
        fitting = [row for row in rows or () if wanted(row)]
        if not fitting:
            raise LookupError("the run has nothing that this mutation could change")
        return self.random.choice(fitting)

    def case(self, wanted: Callable[[Case], object]) -> Case:
        """A job with a row, and such."""
        return self.pick([case for case in self.before.cases.values() if case.exists], wanted)

    def wish(self, wanted: Callable[[Wish], object]) -> Wish:
        """A submission with an answer, and such."""
        return self.pick([wish for wish in self.before.wishes.values() if wish.sent], wanted)

    def calm(self, at: float) -> bool:
        """Whether no fault was near."""
        return not self.before.faults.near(at)

    def change(self, rows: "list[T] | None", old: T, **fields: object) -> None:
        """Put a changed copy in the place of `old`."""
        assert rows is not None, "good runs have all their topics read"
        at = next(index for index, row in enumerate(rows) if row is old)
        rows[at] = msgspec.structs.replace(old, **fields)  # type: ignore[type-var]  # all of them are structs

    def drop(self, rows: "list[T] | None", unwanted: Callable[[T], object]) -> None:
        """Take away all such rows; there must be some."""
        assert rows is not None, "good runs have all their topics read"
        kept = [row for row in rows if not unwanted(row)]
        assert len(kept) < len(rows), "a mutation changes something"
        rows[:] = kept

    def tell(self, *events: Event) -> None:
        """Add events at their time."""
        self.events.extend(events)
        self.events.sort(key=lambda event: event.at)


Breaking = Callable[[Run], None]


@dataclass(frozen=True, slots=True)
class Mutation:
    """One way to break a run, and the invariant that must notice it, whichever others do too."""

    name: str
    invariant: int
    breaking: Breaking

    def apply(self, events: Sequence[Event], final: Final, seed: int) -> tuple[list[Event], Final]:
        """A broken copy."""
        lists = {name: copy(getattr(final, name)) for name in Final.__struct_fields__}
        broken = msgspec.structs.replace(final, **lists)
        run = Run(random.Random(seed), list(events), broken, gather(events, final, Rules()))
        self.breaking(run)
        return sorted(run.events, key=lambda event: event.at), run.final


class Mutations(list[Mutation]):
    """A list that functions put themselves on."""

    def breaks(self, invariant: int) -> Callable[[Breaking], Breaking]:
        """Register the decorated function as a mutation that this invariant must notice."""

        def register(breaking: Breaking) -> Breaking:
            self.append(Mutation(breaking.__name__, invariant, breaking))
            return breaking

        return register
