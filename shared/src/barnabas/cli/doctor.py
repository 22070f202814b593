"""`barnabas doctor`: what is stuck, what will happen by itself and when, and what to do.

Asks every process, Postgres and Kafka, each within seconds, and changes nothing. Who can't be reached is a line too.
Exit code 0 unless a line asks somebody to act.
"""

import asyncio
import json
import shutil
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from barnabas.cli.access import HOME, DataDir, read_stack
from barnabas.cli.printing import AsJson, print_json, print_table
from barnabas.cli.servers import Postgres
from barnabas.domain import doctor as judging
from barnabas.domain.doctor import Level, Line
from barnabas.errors import BarnabasError

if TYPE_CHECKING:
    import httpx

    from barnabas.postgres.diagnosing import Facts

_OPS_SECONDS = 5.0
# Kafka's client goes on trying for as long as it may; a line that says so is worth more.
_KAFKA_SECONDS = 30.0

_RECONCILER = {
    "untaken": "barnabas_reconciler_untaken_records",
    "oldest_seconds": "barnabas_reconciler_oldest_seconds",
    "next_seconds": "barnabas_reconciler_next_seconds",
    "walk_seconds": "barnabas_reconciler_walk_seconds",
}


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(doctor)


def doctor(
    postgres: Postgres = None,
    kafka: Annotated[
        str | None, typer.Option(envvar="BARNABAS_KAFKA", help="Bootstrap servers, if not the local stack's.")
    ] = None,
    ops: Annotated[
        list[str] | None, typer.Option("--ops", help="Address of a process' ops port; may be given again.")
    ] = None,
    lease: Annotated[
        float, typer.Option(envvar="BARNABAS_LEASE_SECONDS", min=1, help="The services' lease, in seconds.")
    ] = 10.0,
    as_json: AsJson = False,
    data_dir: DataDir = HOME,
) -> None:
    """Explain what is stuck and what will happen."""
    told = read_stack(data_dir)
    # Only while it runs: what a stack that is down says of its processes is history.
    running = {name.replace("_", "-"): url for name, url in dict(told.get("process_urls") or {}).items()}
    urls = {url: url for url in ops or ()} or running
    addresses = (postgres or str(told.get("postgres") or ""), kafka or str(told.get("kafka") or ""))
    lines = asyncio.run(_examine(urls, *addresses, lease_seconds=lease))
    if told:
        disk = shutil.disk_usage(data_dir)
        lines.append(judging.judge_disk(str(data_dir), free_bytes=disk.free, total_bytes=disk.total))
    if as_json:
        fine = all(line.level is not Level.ACT for line in lines)
        print_json({"fine": fine, "lines": [_as_json(line) for line in lines]})
    else:
        _show(lines)
    if any(line.level is Level.ACT for line in lines):
        raise typer.Exit(1)


async def _examine(urls: Mapping[str, str], dsn: str, bootstrap: str, *, lease_seconds: float) -> list[Line]:
    processes, scraped = await _ask_processes(urls)
    lines = judging.judge_processes(processes)
    if not urls:
        told = "no process' ops port is known"
        lines.append(Line("processes", Level.FINE, told, "run this where `barnabas up` runs, or give --ops"))
    facts: Facts | None = None
    if not dsn:
        lines.append(Line("postgres", Level.ACT, "no address", "give --postgres or BARNABAS_POSTGRES"))
    else:
        facts, more = await _ask_postgres(dsn, lease_seconds=lease_seconds)
        lines += more
    leads = facts is not None and facts.waiting.lead_until is not None and facts.waiting.lead_until > facts.server.now
    lines += await _ask_kafka(bootstrap, facts, leads=leads)
    if facts is not None:
        open_jobs = facts.waiting.open_jobs
        lines.append(judging.judge_lost(_lost(scraped), open_jobs=open_jobs, leads=leads))
    return lines


async def _ask_postgres(dsn: str, *, lease_seconds: float) -> "tuple[Facts | None, list[Line]]":
    from barnabas.postgres.diagnosing import read_facts

    try:
        facts = await read_facts(dsn)
    except BarnabasError as error:
        then = (
            "until it answers nothing is accepted (503) and no lease is renewed or taken back; all go on by themselves"
        )
        return None, [Line("postgres", Level.ACT, str(error), then)]
    now = facts.server.now
    leads = facts.waiting.lead_until is not None and facts.waiting.lead_until > now
    return facts, [
        *judging.judge_server(facts.server),
        *judging.judge_waiting(facts.waiting, now=now, lease_seconds=lease_seconds),
        *judging.judge_gates(facts.gates, now=now, leads=leads),
    ]


async def _ask_kafka(bootstrap: str, facts: "Facts | None", *, leads: bool) -> list[Line]:
    if not bootstrap:
        return [Line("kafka", Level.ACT, "no address", "give --kafka or BARNABAS_KAFKA")]
    from barnabas.contract.topics import DEFAULT_QUEUE
    from barnabas.kafka.diagnosing import read_topics

    queues, known = ([DEFAULT_QUEUE], {}) if facts is None else (facts.queues, facts.topics)
    try:
        async with asyncio.timeout(_KAFKA_SECONDS):
            topics = await read_topics(bootstrap, queues=queues, known=known)
    except (BarnabasError, TimeoutError) as error:
        then = "jobs are accepted all the while; their records leave the outbox by themselves when it is back"
        return [Line("kafka", Level.ACT, f"can't be reached: {str(error) or 'no answer in time'}", then)]
    return judging.judge_topics(topics, leads=leads)


async def _ask_processes(urls: Mapping[str, str]) -> tuple[list[judging.Process], list[str]]:
    """What each ops port says, and the metrics of those that answered."""
    import httpx

    async with httpx.AsyncClient(timeout=_OPS_SECONDS, trust_env=False) as http:
        asked = [_ask_process(http, name, url.rstrip("/")) for name, url in urls.items()]
        answers = await asyncio.gather(*asked)
    return [process for process, _ in answers], [metrics for _, metrics in answers]


async def _ask_process(http: "httpx.AsyncClient", name: str, url: str) -> tuple[judging.Process, str]:
    import httpx

    try:
        ready = await http.get(url + "/readyz")
        reasons = tuple(str(reason) for reason in json.loads(ready.content)["reasons"])
        return judging.Process(name, url, reasons), (await http.get(url + "/metrics")).text
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError, TypeError):
        return judging.Process(name, url, None), ""


def _lost(scraped: list[str]) -> judging.Lost | None:
    """The leader's figures: only who leads has walked."""
    found = [values for text in scraped if (values := _values(text)) and values["walk_seconds"] > 0]
    if not found:
        return None
    values = found[0]
    return judging.Lost(
        untaken=int(values["untaken"]),
        oldest_seconds=values["oldest_seconds"],
        next_seconds=values["next_seconds"],
        walk_seconds=values["walk_seconds"],
    )


def _values(text: str) -> dict[str, float]:
    samples = dict(line.rsplit(" ", 1) for line in text.splitlines() if " " in line and not line.startswith("#"))
    if not all(metric in samples for metric in _RECONCILER.values()):
        return {}
    return {name: float(samples[metric]) for name, metric in _RECONCILER.items()}


_MARKS = {Level.FINE: "ok", Level.HEALING: "heals", Level.ACT: "ACT"}


def _show(lines: list[Line]) -> None:
    print_table(
        ("", "part", "now", "then"),
        [(_MARKS[line.level], line.part, line.now, line.then) for line in lines],
        empty="Nothing was asked.",
    )


def _as_json(line: Line) -> dict[str, Any]:
    return {"part": line.part, "level": line.level.value, "now": line.now, "then": line.then}
