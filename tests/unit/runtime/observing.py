"""Reading the product's metrics in tests."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from barnabas.runtime.metrics import REGISTRY


@contextmanager
def counted(name: str, **labels: str) -> Iterator[Callable[[], float]]:
    """A function that tells by how much a sample has grown since the block began."""
    before = REGISTRY.get_sample_value(name, labels) or 0.0
    yield lambda: (REGISTRY.get_sample_value(name, labels) or 0.0) - before
