"""The peers' figures on the page: `python -m tests.bench.peers_page RESULTS` with the harness's results.json.

One row a configuration, the fastest under a steady load first; what failed is named, not left out.
"""

import sys
from pathlib import Path
from typing import Any

import msgspec

from tests.bench.document import replace_part

SUITE = "peers"
_COLUMNS = (
    "engine",
    "live, jobs/s",
    "drain, jobs/s",
    "idle p50 / p99, ms",
    "single, 1/s",
    "bulk, 1/s",
    "worker CPU, µs/job",
    "2 s × 5, jobs/min",
    "what is kept",
)
_PAGE = Path(__file__).parent.parent.parent / "docs" / "benchmarks.md"


def peers_block(results: dict[str, Any]) -> str:
    """What the page says of one run of the harness."""
    servers = "; ".join(f"{name} {version}" for name, version in results["servers"].items())
    peers: dict[str, dict[str, Any]] = results["peers"]
    ranked = sorted(peers.items(), key=lambda peer: -((peer[1].get("live") or {}).get("rate") or 0))
    return "\n".join(
        [
            f"Measured {results['date']} by the peers' harness on one machine: {results['machine']}; {servers}.",
            "",
            f"| {' | '.join(_COLUMNS)} |",
            f"|---|{'---:|' * (len(_COLUMNS) - 2)}---|",
            *[_row(name, found) for name, found in ranked],
        ]
    )


def _row(name: str, found: dict[str, Any]) -> str:
    if "error" in found and not found.get("live") and not found.get("drain"):
        return f"| {name} | failed: {found['error'][:120].replace('|', '/')!r} | | | | | | | {found['durability']} |"
    idle, drain, live = found.get("idle_ms"), found.get("drain") or {}, found.get("live") or {}
    cells = [
        _number(live.get("rate")),
        _number(drain.get("median")),
        f"{idle['p50']:.1f} / {idle['p99']:.1f}" if idle else "",
        _number(found.get("single")),
        _number(found.get("bulk")),
        _number(drain.get("cpu_us_per_job")),
        _number(found.get("sleep2s_conc5_per_min")),
        found["durability"],
    ]
    return f"| {name} | {' | '.join(cells)} |"


def _number(value: object) -> str:
    return f"{value:,.0f}" if isinstance(value, int | float) else ""


if __name__ == "__main__":
    replace_part(_PAGE, SUITE, peers_block(msgspec.json.decode(Path(sys.argv[1]).read_bytes())))
    print(f"written: {_PAGE}")
