"""What it costs to read a job: `python -m tests.bench.ingest_decode`.

Bodies that the hot path meets, and the ways that were weighed against each other. pydantic and json make objects of
the payload, which would have to be encoded again, and check neither depth nor NUL nor half pairs. Measured on a busy
machine with 2 cores, in microseconds of CPU for 1 KB of text, of numbers, of escaped Greek: all of read_job 2, 10, 10;
of that the decoding 1, 3, 2 and the checks 1, 7, 7; pydantic 2, 16, 5; json 3, 20, 4.
"""

import json
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

import msgspec
from pydantic import BaseModel, ConfigDict

from barnabas.contract import json_text
from barnabas.contract.intake import JobInput, fingerprint, read_job


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid")

    type: str
    payload: Any
    priority: int | str | None = None
    run_at: datetime | None = None
    delay_seconds: float | None = None
    max_attempts: int | None = None
    timeout_seconds: float | None = None
    metadata: dict[str, Any] | None = None


BODIES = {
    "1 KB of text": json.dumps({"type": "echo", "payload": {"text": "x" * 1_000}}).encode(),
    "1 KB of numbers in lists": json.dumps({"type": "echo", "payload": [[n, n + 1] for n in range(100)]}).encode(),
    "1 KB of escaped Greek": json.dumps({"type": "echo", "payload": "λ" * 170}).encode(),
    "1 KB of UTF-8 Greek": json.dumps({"type": "echo", "payload": "λ" * 500}, ensure_ascii=False).encode(),
    "100 KB of text": json.dumps({"type": "echo", "payload": {"text": "x" * 100_000}}).encode(),
}


def microseconds(call: Callable[[], object], *, rounds: int = 5) -> float:
    """CPU of one call, the best of some rounds of about 50 ms."""
    began = time.process_time()
    call()
    repeats = max(10, int(0.05 / max(1e-7, time.process_time() - began)))
    best = float("inf")
    for _ in range(rounds):
        began = time.process_time()
        for _ in range(repeats):
            call()
        best = min(best, (time.process_time() - began) / repeats)
    return best * 1e6


def main() -> None:
    """Print one line for each body."""
    decoder = msgspec.json.Decoder(JobInput)
    for name, body in BODIES.items():
        ways: dict[str, Callable[[], object]] = {
            "read_job": lambda body=body: read_job(body),  # type: ignore[misc]  # bound now
            "decode only": lambda body=body: decoder.decode(body),  # type: ignore[misc]
            "checks only": lambda body=body: json_text.check(body),  # type: ignore[misc]
            "fingerprint": lambda body=body: fingerprint(body),  # type: ignore[misc]
            "pydantic": lambda body=body: _Model.model_validate_json(body),  # type: ignore[misc]
            "json": lambda body=body: json.loads(body),  # type: ignore[misc]
        }
        figures = ", ".join(f"{way} {microseconds(call):.1f}" for way, call in ways.items())
        print(f"{name} ({len(body)} bytes): {figures} us")


if __name__ == "__main__":
    main()
