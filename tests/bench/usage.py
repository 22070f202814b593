"""What the system uses: CPU and memory by process, WAL and commits of its database."""

import re
from pathlib import Path
from typing import Any

import msgspec
import psutil

from tests.support.stack import Stack

OURS = ("ingest", "worker", "notifier", "retry_scheduler", "supervisor")
_PSS = re.compile(r"^Pss:\s+(\d+) kB", re.MULTILINE)


class Usage(msgspec.Struct, kw_only=True):
    """Counters at one moment; two of them make a difference."""

    cpu_seconds: dict[str, float]
    wal_bytes: int
    commits: int
    updates: int
    hot_updates: int


def group(name: str) -> str:
    """The kind of a process: worker-2 is a worker."""
    return "worker" if name.startswith("worker") else name


async def read_usage(stack: Stack, database: Any) -> Usage:
    """The counters now. Those of statements lag by up to a second under load, as Postgres reports them."""
    cpu: dict[str, float] = {}
    for name, pid in stack.told["pids"].items():
        cpu[group(name)] = cpu.get(group(name), 0.0) + _cpu_seconds(pid)
    row = await database.fetchrow(
        "SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn AS wal, base.xact_commit AS commits,"
        " jobs.n_tup_upd AS updates, jobs.n_tup_hot_upd AS hot"
        " FROM pg_stat_database AS base, pg_stat_user_tables AS jobs"
        " WHERE base.datname = current_database() AND jobs.relname = 'jobs'"
    )
    return Usage(
        cpu_seconds=cpu,
        wal_bytes=int(row["wal"]),
        commits=row["commits"],
        updates=row["updates"],
        hot_updates=row["hot"],
    )


def memory_mb(stack: Stack) -> dict[str, float]:
    """Proportional set size of each process with its children: pages that several share are counted once."""
    memory: dict[str, float] = {}
    for name, pid in stack.told["pids"].items():
        memory[name] = sum(_pss_kb(process.pid) for process in _tree(pid, name)) / 1024
    return memory


def rss_mb(stack: Stack, name: str) -> float:
    """Resident set of one service's process with its children, in MiB: pages that several share count for each."""
    total = 0
    for process in _tree(stack.pid(name), name):
        try:
            total += process.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total / 2**20


def _tree(pid: int, name: str) -> list[psutil.Process]:
    root = psutil.Process(pid)
    # The supervisor is everyone's parent.
    return [root] if name == "supervisor" else [root, *root.children(recursive=True)]


def _cpu_seconds(pid: int) -> float:
    """Of the process, its live children and those that it has waited for."""
    root = psutil.Process(pid)
    own = root.cpu_times()
    total = own.user + own.system
    if root.name().startswith("python") and "barnabas_local.launch" in root.cmdline():
        return total
    total += own.children_user + own.children_system
    for child in root.children(recursive=True):
        try:
            spent = child.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += spent.user + spent.system
    return total


def _pss_kb(pid: int) -> int:
    try:
        found = _PSS.search(Path(f"/proc/{pid}/smaps_rollup").read_text())
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return int(found[1]) if found else 0
