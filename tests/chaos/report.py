"""What a run tells: one page for people and the same as JSON."""

import json
from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

from tests.chaos.history import history
from tests.chaos.ledger import Accepted, Effect, Event, FaultBegan, FaultEnded
from tests.chaos.run import Outcome

_SHOWN_MAX = 20


def write_report(outcome: Outcome, directory: Path) -> str:
    """Write `report.json` and `report.txt` there; returns the text."""
    facts = as_document(outcome)
    text = as_text(outcome, facts)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "report.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    (directory / "report.txt").write_text(text, encoding="utf-8")
    return text


def as_document(outcome: Outcome) -> dict[str, Any]:
    """The run as plain values."""
    options = outcome.options
    counted = asdict(outcome.tally) | {"extra_runs_share": outcome.tally.extra_runs_share} if outcome.tally else {}
    return {
        "seed": options.seed,
        "seconds": options.seconds,
        "jobs": options.jobs,
        "lease_seconds": options.lease_seconds,
        "good": outcome.is_good,
        "violations": [str(violation) for violation in outcome.violations],
        "wrong_answers": outcome.wrong,
        "survivors": outcome.survivors,
        "faults": dict(sorted(Counter(f"{fault.kind} {fault.target}" for fault in outcome.done).items())),
        "faults_planned": len(outcome.planned),
        "faults_done": len(outcome.done),
        "answers": {str(status): count for status, count in outcome.statuses.items()},
        "cancels_answered": outcome.cancelled,
        "redrives_answered": outcome.redriven,
        "load_seconds": round(outcome.load_seconds, 1),
        "settle_seconds": round(outcome.settle_seconds, 1),
        "check_seconds": round(outcome.check_seconds, 1),
        "ledger_events": len(outcome.events),
        "tally": {name: round(value, 4) for name, value in counted.items()},
        "recovery_seconds": recoveries(outcome.events),
    }


def as_text(outcome: Outcome, facts: dict[str, Any]) -> str:
    """The run on a page."""
    counted = facts["tally"]
    verdict = "every promise held" if outcome.is_good else "PROMISES WERE BROKEN"
    lines = [
        f"seed {facts['seed']}: {verdict}",
        f"{facts['jobs']} jobs, {facts['load_seconds']} s; {facts['faults_done']} of {facts['faults_planned']} faults",
        f"quiet {facts['settle_seconds']} s after the last fault; judged in {facts['check_seconds']} s",
        "",
        *(f"  {name:<40} {value}" for name, value in counted.items()),
        f"  {'cancels, redrives answered':<40} {facts['cancels_answered']}, {facts['redrives_answered']}",
        f"  {'answers by status (0 is none)':<40} {facts['answers']}",
        "",
        "fault                          times   s to the next acceptance      s to the next effect (median, longest)",
    ]
    recovered = facts["recovery_seconds"]
    for name, count in facts["faults"].items():
        found = recovered.get(name, {})
        accept, effect = (_span(found.get(kind, [])) for kind in ("accepted", "effect"))
        lines.append(f"  {name:<30} {count:>4}   {accept:<28}  {effect}")
    for title, entries in (
        ("violations", facts["violations"]),
        ("answers that may never be given", facts["wrong_answers"]),
        ("still open", facts["survivors"]),
    ):
        if entries:
            lines += ["", f"{title}: {len(entries)}", *(f"  {entry}" for entry in entries[:_SHOWN_MAX])]
    broken = next((violation.job for violation in outcome.violations if violation.job), None)
    if broken is not None and outcome.final is not None:
        lines += ["", history(broken, outcome.events, outcome.final)]
    lines += ["", f"again: python -m tests.chaos --seed {facts['seed']} --seconds {facts['seconds']:g}"]
    lines[-1] += f" --jobs {facts['jobs']} --lease {facts['lease_seconds']:g}"
    return "\n".join(lines) + "\n"


def recoveries(events: Sequence[Event]) -> dict[str, dict[str, list[float]]]:
    """By fault and target: how long after each one's end the next acceptance and the next effect came, in seconds.

    Where nothing came any more, there was no load left.
    """
    accepted = [event.at for event in events if isinstance(event, Accepted) and event.job]
    effects = [event.at for event in events if isinstance(event, Effect)]
    began = {event.number: event for event in events if isinstance(event, FaultBegan)}
    found: dict[str, dict[str, list[float]]] = {}
    for event in events:
        if isinstance(event, FaultEnded) and event.number in began:
            fault = began[event.number]
            kinds = found.setdefault(f"{fault.name} {fault.target}", {"accepted": [], "effect": []})
            for kind, times in (("accepted", accepted), ("effect", effects)):
                at = bisect_right(times, event.at)
                if at < len(times):
                    kinds[kind].append(round(times[at] - event.at, 2))
    return found


def _span(seconds: Sequence[float]) -> str:
    return f"{median(seconds):.2f}, {max(seconds):.2f}" if seconds else "no load left"
