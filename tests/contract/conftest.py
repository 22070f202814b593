"""Properties are tried on the same examples each time, and few: what they find is for ever, not for one run."""

from hypothesis import settings

settings.register_profile("contract", max_examples=60, deadline=None, derandomize=True, database=None)
settings.load_profile("contract")
