"""Becomes a worker of the product, with the harness's handler."""

import os
import sys

from tests.bench.peers.barnabas.peer_state import told


def main() -> None:
    """Never returns."""
    facts = told()
    assert facts is not None, "set_up.py has not been run"
    os.environ |= {
        "BARNABAS_KAFKA": facts["kafka"],
        "BARNABAS_POSTGRES": facts["postgres"],
        "BARNABAS_APP": "tests.bench.peers.barnabas.counting:app",
        "BARNABAS_LOG_FORMAT": "json",
        # The harness waits eight seconds for a worker's end.
        "BARNABAS_DRAIN_SECONDS": "4",
    }
    if places := os.environ.get("BENCH_CONC"):
        os.environ["BARNABAS_SLOTS"] = places
    os.execv(sys.executable, [sys.executable, "-m", "barnabas_worker.main"])


if __name__ == "__main__":
    main()
