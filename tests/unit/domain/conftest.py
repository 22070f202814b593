"""Properties here are tried on few examples, the same ones each time: the suite has to stay quick on two slow cores."""

from hypothesis import settings

settings.register_profile("domain", max_examples=60, deadline=None, derandomize=True, database=None)
settings.load_profile("domain")
