"""The look-ahead while weights and shares change under it, records are shed and come back, and tenants come and go."""

from collections import Counter, deque
from itertools import combinations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from barnabas.domain.fairness import DEFAULT_SHARES, LookAhead
from barnabas.domain.jobs import Priority

BYTES_MAX = 600
TENANTS = "abcde"

Entry = tuple[str, Priority, int]
Line = tuple[str, Priority]


class FairOrder(RuleBasedStateMachine):
    """Against plain queues: what is in it, and what each tenant and priority may expect of the next records."""

    def __init__(self) -> None:
        super().__init__()
        self.ahead = LookAhead[Entry](bytes_max=BYTES_MAX)
        self.lines: dict[Line, deque[tuple[Entry, int]]] = {}
        self.made = 0
        self.shares = dict(DEFAULT_SHARES)
        self.heaviest = Counter(dict.fromkeys(TENANTS, 1))
        self.weights: dict[str, int] = {}
        self.shed_before: list[tuple[Entry, int]] = []
        # Of each line, what the other tenants of its priority got since it waits, or since its own last record.
        self.overtaken: dict[Line, Counter[str]] = {}
        # Of each pair of priorities, what both got since both have work and no share was changed.
        self.since: dict[tuple[Priority, Priority], Counter[Priority]] = {}

    @rule(
        tenant=st.sampled_from(TENANTS),
        priority=st.sampled_from(Priority),
        sizes=st.lists(st.integers(1, 30), max_size=12),
    )
    def push(self, tenant: str, priority: Priority, sizes: list[int]) -> None:
        for size in sizes:
            self.made += 1
            self.add((tenant, priority, self.made), size, anyway=False)

    @precondition(lambda self: self.shed_before)
    @rule(anyway=st.booleans())
    def bring_back_what_was_shed(self, anyway: bool) -> None:
        """From Postgres, when there is room; `anyway` for the few that were woken for this process."""
        returning, self.shed_before = self.shed_before, []
        for entry, size in returning:
            if not self.add(entry, size, anyway=anyway):
                self.shed_before.append((entry, size))

    @rule(count=st.integers(0, 12))
    def take(self, count: int) -> None:
        before = len(self.ahead)
        taken = self.ahead.take(count)

        assert len(taken) == min(count, before)
        for entry in taken:
            self.leave(entry)

    @rule(count=st.integers(0, 6), allowed=st.frozensets(st.sampled_from(TENANTS)))
    def take_for_some(self, count: int, allowed: frozenset[str]) -> None:
        """Out of turn: who is ahead of whom stays as it was."""
        there = sum(len(line) for (tenant, _), line in self.lines.items() if tenant in allowed)
        assert self.ahead.has_for(allowed.__contains__) == (there > 0)

        taken = self.ahead.take_for(count, allowed.__contains__)

        assert len(taken) == min(count, there)
        for entry in taken:
            assert entry[0] in allowed
            oldest, _ = self.lines[entry[0], entry[1]].popleft()
            assert oldest == entry
        self.forget_empty_lines()

    @rule(wanted=st.integers(1, BYTES_MAX), newcomers=st.integers(0, 3))
    def shed(self, wanted: int, newcomers: int) -> None:
        held = self.ahead.tenants()
        weight = newcomers + sum(self.weights.get(str(tenant), 1) for tenant in held)
        share = {tenant: BYTES_MAX * self.weights.get(str(tenant), 1) / weight for tenant in held}

        shed = self.ahead.shed(wanted, newcomers=newcomers)

        left = self.ahead.tenants()
        assert BYTES_MAX - self.ahead.bytes >= wanted or all(left[tenant] <= share[tenant] for tenant in left)
        for entry in reversed(shed):
            tenant, priority, _ = entry
            assert held[tenant] > share[tenant]
            # The newest of its line, so that what stays is in order and what comes back goes behind it.
            newest, size = self.lines[tenant, priority].pop()
            assert newest == entry
            self.shed_before.insert(0, (entry, size))
        self.forget_empty_lines()

    @rule(weights=st.dictionaries(st.sampled_from(TENANTS), st.integers(1, 5)))
    def change_weights(self, weights: dict[str, int]) -> None:
        self.ahead.set_weights(weights)
        self.weights = weights
        for tenant, weight in weights.items():
            self.heaviest[tenant] = max(self.heaviest[tenant], weight)

    @rule(shares=st.fixed_dictionaries({priority: st.integers(1, 12) for priority in Priority}))
    def change_shares(self, shares: dict[Priority, int]) -> None:
        self.ahead.set_shares(shares)
        self.shares = shares
        self.since.clear()
        self.note_busy()

    @rule(tenant=st.sampled_from(TENANTS))
    def remove_a_tenant(self, tenant: str) -> None:
        removed = self.ahead.remove_tenant(tenant)

        own = [
            entry for priority in sorted(Priority, reverse=True) for entry, _ in self.lines.get((tenant, priority), ())
        ]
        assert removed == own
        for priority in Priority:
            self.lines.pop((tenant, priority), None)
        self.forget_empty_lines()

    @rule(modulus=st.integers(2, 5))
    def lose_a_partition(self, modulus: int) -> None:
        removed = self.ahead.remove(lambda entry: entry[2] % modulus == 0)

        gone = [entry for line in self.lines.values() for entry, _ in line if entry[2] % modulus == 0]
        assert sorted(removed) == sorted(gone)
        for line in self.lines.values():
            kept = [one for one in line if one[0][2] % modulus]
            line.clear()
            line.extend(kept)
        self.forget_empty_lines()

    @invariant()
    def it_holds_what_the_queues_hold(self) -> None:
        sizes: Counter[str] = Counter()
        for (tenant, _), line in self.lines.items():
            sizes[tenant] += sum(size for _, size in line)
        assert self.ahead.tenants() == dict(sizes)
        assert self.ahead.bytes == sizes.total()
        assert len(self.ahead) == sum(map(len, self.lines.values()))
        for priority in Priority:
            assert self.ahead.waiting(priority) == sum(len(self.lines.get((t, priority), ())) for t in TENANTS)

    def add(self, entry: Entry, size: int, *, anyway: bool) -> bool:
        tenant, priority, _ = entry
        fits = anyway or self.ahead.bytes + size <= BYTES_MAX or not len(self.ahead)
        assert self.ahead.push(entry, tenant=tenant, priority=priority, size=size, anyway=anyway) == fits
        if fits:
            line = self.lines.setdefault((tenant, priority), deque())
            if not line:
                self.overtaken[tenant, priority] = Counter()
            line.append((entry, size))
            self.note_busy()
        return fits

    def leave(self, entry: Entry) -> None:
        tenant, priority, _ = entry
        # The oldest of its line.
        oldest, _ = self.lines[tenant, priority].popleft()
        assert oldest == entry
        for (other, level), counts in self.overtaken.items():
            if level == priority and other != tenant:
                counts[tenant] += 1
                # Between two turns of one tenant every other has one turn at the most, of what it weighed then.
                assert counts[tenant] <= self.heaviest[tenant]
        self.overtaken[tenant, priority] = Counter()
        for (one, another), got in self.since.items():
            got[priority] += 1
            # Start-time fair queueing: neither is ahead by more than one record of each.
            ahead = got[one] / self.shares[one] - got[another] / self.shares[another]
            assert abs(ahead) <= 1 / self.shares[one] + 1 / self.shares[another] + 1e-9
        self.forget_empty_lines()

    def forget_empty_lines(self) -> None:
        for line in [line for line, held in self.lines.items() if not held]:
            del self.lines[line]
        for line in self.overtaken.keys() - self.lines.keys():
            del self.overtaken[line]
        busy = {priority for _, priority in self.lines}
        for pair in [pair for pair in self.since if not busy.issuperset(pair)]:
            del self.since[pair]

    def note_busy(self) -> None:
        for pair in combinations(sorted({priority for _, priority in self.lines}), 2):
            self.since.setdefault(pair, Counter())


TestFairOrder = FairOrder.TestCase
TestFairOrder.settings = settings(max_examples=120, stateful_step_count=50, deadline=None)
