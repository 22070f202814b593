"""All mutations of a good run: the checker must notice each, whatever the seed."""

from tests.chaos.mutation import Mutation
from tests.chaos.mutations_accepts import ACCEPTS
from tests.chaos.mutations_claims import CLAIMS
from tests.chaos.mutations_tellings import TELLINGS

MUTATIONS: tuple[Mutation, ...] = (*ACCEPTS, *CLAIMS, *TELLINGS)
"""Every invariant has some of its own."""
