"""Submit one scoring job to the local stack and wait for its result."""
# ruff: noqa: T201 - printing is what this script is for

import json
import sys
from pathlib import Path

from barnabas.client.api import Client


def main(stack_file: str = ".barnabas/stack.json") -> None:
    """Submit, wait, print."""
    stack = json.loads(Path(stack_file).read_text())
    with Client(stack["api_url"], stack["api_key"]) as client:
        # The key makes it safe to run this twice: the same submission is the same job.
        submitted = client.submit("scoring", {"income": 4200, "debts": 900}, idempotency_key="example-1")
        job = client.wait(submitted.id, timeout=30)
        print(f"job {job.id} {job.status} after {job.attempt} attempt(s): {job.result or job.error}")


if __name__ == "__main__":
    main(*sys.argv[1:])
