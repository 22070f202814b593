"""The ledger keeps every line that was written, from all processes, whatever becomes of them."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import msgspec
import pytest

from tests.chaos.ledger import (
    Accepting,
    Began,
    CrashPoint,
    Effect,
    Event,
    FaultBegan,
    FaultEnded,
    Ledger,
    own_ledger,
    read_ledgers,
    write_ledger,
)
from tests.unit.chaos.good_run import good_run


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    events = good_run(1, jobs=60).events
    with Ledger(tmp_path / "load.jsonl") as ledger:
        ledger.write(*events)

    assert read_ledgers(tmp_path) == events


def test_the_files_of_all_processes_are_merged_by_time(tmp_path: Path) -> None:
    with Ledger(tmp_path / "a.jsonl") as one, Ledger(tmp_path / "b.jsonl") as other:
        one.write(FaultBegan(2.0, "kill", "worker", 1))
        other.write(Began(3.0, "t", "j", 1), Accepting(1.0, "k", "t"))
        one.write(FaultEnded(4.0, 1))

    assert [event.at for event in read_ledgers(tmp_path)] == [1.0, 2.0, 3.0, 4.0]


def test_a_line_that_its_process_was_killed_in_is_left_out(tmp_path: Path) -> None:
    whole: list[Event] = [Began(1.0, "t", "j", 1), Effect(2.0, "t", "j", 1)]
    write_ledger(tmp_path / "killed.jsonl", whole)
    with (tmp_path / "killed.jsonl").open("ab") as file:
        file.write(b'{"type":"Effect","at":3.0,"ten')

    assert read_ledgers(tmp_path) == whole


def test_a_broken_line_in_the_middle_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "broken.jsonl").write_bytes(b'{"type":"Eff\n{"type":"CrashPoint","at":1.0,"name":"n","pid":1}\n')

    with pytest.raises(msgspec.DecodeError):
        read_ledgers(tmp_path)


def test_lines_of_many_threads_do_not_mix(tmp_path: Path) -> None:
    each, threads = 500, 8
    with Ledger(tmp_path / "threads.jsonl") as ledger:

        def write(thread: int) -> None:
            for number in range(each):
                ledger.write(CrashPoint(float(number), f"point-{thread}", thread))

        running = [threading.Thread(target=write, args=[thread]) for thread in range(threads)]
        for thread in running:
            thread.start()
        for thread in running:
            thread.join()

    events: list[Event] = read_ledgers(tmp_path)
    assert len(events) == each * threads
    assert len({(event.pid, event.at) for event in events if isinstance(event, CrashPoint)}) == each * threads


def test_a_killed_process_loses_no_line_that_it_had_written(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from tests.chaos.ledger import CrashPoint, own_ledger\n"
        "ledger = own_ledger(Path(sys.argv[1]), 'victim')\n"
        "for number in range(10**9):\n"
        "    ledger.write(CrashPoint(float(number), 'point', 1))\n"
        "    if number == 999: print('written', flush=True)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"written\n"
        process.send_signal(signal.SIGKILL)

    written = read_ledgers(tmp_path)
    assert len(written) >= 1000
    assert [event.at for event in written] == [float(number) for number in range(len(written))]


def test_each_opening_has_a_file_of_its_own(tmp_path: Path) -> None:
    with own_ledger(tmp_path, "handlers") as one, own_ledger(tmp_path, "handlers") as other:
        assert one.path != other.path
        assert one.path.name.startswith(f"handlers-{os.getpid()}-")
