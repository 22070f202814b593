"""Where the parts of this peer find each other: files in the folder that the harness makes for each phase."""

import json
import os
from pathlib import Path
from typing import Any

OUT = Path(os.environ["BENCH_OUT"])
"""This phase's folder; the harness deletes it, with those of the other phases, when the peer is done."""
KEEPER = OUT.parent / "barnabas-keeper.pid"
"""Which process keeps the services of this phase, or of the one before."""
_TOLD = OUT / "barnabas.json"


def tell(**facts: Any) -> None:
    """Write down where everything is; readable by this user only, for there are passwords in it."""
    draft = _TOLD.with_suffix(".draft")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        json.dump(facts, file)
    draft.rename(_TOLD)


def told() -> dict[str, Any] | None:
    """What was written down, if it was."""
    try:
        facts: dict[str, Any] = json.loads(_TOLD.read_text())
    except FileNotFoundError:
        return None
    return facts
