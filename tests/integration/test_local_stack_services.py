"""How the services of a local stack are planned and kept, and what the command says when it can't start."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from barnabas_local import ports
from barnabas_local.database import Logins
from barnabas_local.kafka import Kafka
from barnabas_local.keeping import DELAY_SECONDS_MAX, how_it_ended, restart_delay
from barnabas_local.log_reader import read_logs
from barnabas_local.paths import Home
from barnabas_local.processes import rotate
from barnabas_local.services import ServiceProcess, plan_services, service_names

_LOGINS = Logins(owner_dsn="postgresql://owner", engine_dsn="postgresql://engine", api_dsn="postgresql://api")


def test_each_service_gets_what_it_needs_and_no_secret_of_another(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("BARNABAS_POSTGRES", "postgresql://superuser")
    monkeypatch.setenv("BARNABAS_LEASE_SECONDS", "7")

    planned = {service.name: service.env for service in _planned(tmp_path, workers=2, app="mine:app")}

    assert list(planned) == ["ingest", "worker", "worker-2", "notifier", "retry-scheduler"]
    assert all(env["BARNABAS_POSTGRES"] == "postgresql://engine" for env in planned.values())
    assert all(env["BARNABAS_LEASE_SECONDS"] == "7" for env in planned.values())
    assert [name for name, env in planned.items() if "BARNABAS_ADMIN_KEY" in env] == ["ingest"]
    assert [name for name, env in planned.items() if "BARNABAS_POSTGRES_API" in env] == ["ingest"]
    assert [name for name, env in planned.items() if env.get("BARNABAS_APP") == "mine:app"] == ["worker", "worker-2"]
    assert len({env["BARNABAS_OPS_PORT"] for env in planned.values()}) == len(planned)


def test_several_ingests_share_one_port_and_have_an_ops_port_each(tmp_path: Path) -> None:
    planned = {service.name: service for service in _planned(tmp_path, ingest=3)}
    ingests = [planned[name] for name in ("ingest", "ingest-2", "ingest-3")]

    assert list(planned)[:3] == ["ingest", "ingest-2", "ingest-3"]
    assert {service.kind for service in ingests} == {"ingest"}
    assert {service.env["BARNABAS_HTTP_PORT"] for service in ingests} == {"8080"}
    assert {service.env["BARNABAS_HTTP_SHARED"] for service in ingests} == {"true"}
    assert len({service.ops_url for service in ingests}) == 3
    assert {tuple(service.argv[1:]) for service in ingests} == {("-m", "barnabas_ingest.main")}


def test_one_ingest_has_its_port_to_itself(tmp_path: Path) -> None:
    assert all("BARNABAS_HTTP_SHARED" not in service.env for service in _planned(tmp_path))


def test_only_a_stack_that_scales_itself_tells_its_scheduler_the_range(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("BARNABAS_WORKERS_MAX", "99")
    monkeypatch.setenv("BARNABAS_WORKERS", "1..5")
    scaled = {service.name: service.env for service in _planned(tmp_path, workers_range=(1, 5))}
    fixed = {service.name: service.env for service in _planned(tmp_path)}

    assert scaled["retry-scheduler"]["BARNABAS_WORKERS_MIN"] == "1"
    assert scaled["retry-scheduler"]["BARNABAS_WORKERS_MAX"] == "5"
    assert "BARNABAS_WORKERS_MAX" not in {*scaled["worker"], *fixed["retry-scheduler"]}


@pytest.mark.parametrize(("given", "expected"), [(None, "true"), ("false", "false")])
def test_private_endpoints_are_allowed_unless_somebody_has_decided(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, given: str | None, expected: str
) -> None:
    monkeypatch.delenv("BARNABAS_ALLOW_PRIVATE_ENDPOINTS", raising=False)
    if given:
        monkeypatch.setenv("BARNABAS_ALLOW_PRIVATE_ENDPOINTS", given)

    planned = _planned(tmp_path)

    assert {service.env["BARNABAS_ALLOW_PRIVATE_ENDPOINTS"] for service in planned} == {expected}


def test_the_wait_before_a_restart_doubles_up_to_its_cap() -> None:
    delays = [restart_delay(deaths) for deaths in range(1, 9)]

    assert delays == [0.5, 1.0, 2.0, 4.0, 8.0, DELAY_SECONDS_MAX, DELAY_SECONDS_MAX, DELAY_SECONDS_MAX]


@pytest.mark.parametrize(
    ("code", "words"),
    [(0, "ended with exit code 0"), (-9, "was ended by signal 9"), (None, "could not be started")],
)
def test_an_end_is_told_in_words(code: int | None, words: str) -> None:
    assert how_it_ended(code) == words


def test_ports_lie_outside_the_range_of_outgoing_connections_and_are_kept() -> None:
    first = ports.free_port()

    assert 20_000 <= first < 32_000
    assert ports.free_port(keep=first) == first
    assert ports.free_port(keep=first, avoid=frozenset({first})) != first


def test_the_controller_of_kafka_takes_no_port_that_somebody_else_was_given(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    own = ports.free_port()
    others = ports.free_port(avoid=frozenset({own}))
    left = ports.free_port(avoid=frozenset({own, others}))
    monkeypatch.setattr(ports, "_RANGE", [own, others, left])
    kafka = Kafka(tmp_path, tmp_path / "log", port=own, avoid_ports=frozenset({others}))

    written = {kafka._write_config(tmp_path / "data").read_text(encoding="utf-8") for _ in range(20)}

    assert [f"CONTROLLER://127.0.0.1:{left}\n" in text for text in written] == [True]


def test_logs_of_former_runs_are_kept_and_the_oldest_goes(tmp_path: Path) -> None:
    log = tmp_path / "worker.log"
    for run in range(6):
        rotate(log)
        log.write_text(f"run {run}\n", encoding="utf-8")

    held = {path.name: path.read_text(encoding="utf-8").strip() for path in tmp_path.iterdir()}

    assert held == {
        "worker.log": "run 5",
        "worker.log.1": "run 4",
        "worker.log.2": "run 3",
        "worker.log.3": "run 2",
    }


def test_following_shows_what_is_added_and_goes_on_in_the_file_of_the_next_run(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.make()
    log = home.log("worker")
    log.write_text("before\n", encoding="utf-8")
    lines = read_logs(home, "worker", follow=True)
    seen = [next(lines)]

    with log.open("a", encoding="utf-8") as file:
        file.write("added\n")
    seen.append(next(lines))
    rotate(log)
    log.write_text("new\n", encoding="utf-8")
    seen.append(next(lines))

    assert seen == [("worker", "before"), ("worker", "added"), ("worker", "new")]


@pytest.mark.parametrize("detach", [False, True])
def test_a_taken_port_ends_the_start_with_one_clear_line(tmp_path: Path, *, detach: bool) -> None:
    with socket.socket() as stranger:
        stranger.bind(("127.0.0.1", 0))
        stranger.listen()
        taken = stranger.getsockname()[1]

        done = _barnabas(*("up", "--data-dir", str(tmp_path), "--port", str(taken)), *(["--detach"] if detach else []))

    assert done.returncode == 1
    assert f"port {taken}" in done.stderr
    assert "--port 0" in done.stderr
    assert "Traceback" not in done.stderr
    assert _barnabas("status", "--data-dir", str(tmp_path)).returncode == 1


def test_a_directory_without_a_stack_is_told_so(tmp_path: Path) -> None:
    status = _barnabas("status", "--data-dir", str(tmp_path / "nothing"))
    down = _barnabas("down", "--data-dir", str(tmp_path / "nothing"))

    assert (status.returncode, down.returncode) == (1, 0)
    assert "not running" in status.stdout
    assert "Nothing was running" in down.stdout
    assert not (tmp_path / "nothing").exists()


def test_a_reset_asks_before_it_deletes(tmp_path: Path) -> None:
    home = Home(tmp_path / ".barnabas")
    home.make()

    unasked = _barnabas("reset", "--data-dir", str(home.root))
    assert unasked.returncode != 0
    assert home.root.exists()

    told = _barnabas("reset", "--yes", "--data-dir", str(home.root))
    assert told.returncode == 0
    assert not home.root.exists()


def _planned(
    logs: Path,
    *,
    workers: int = 1,
    ingest: int = 1,
    app: str | None = None,
    workers_range: tuple[int, int] | None = None,
) -> list[ServiceProcess]:
    ops_ports = {name: 20_000 + at for at, name in enumerate(service_names(workers=workers, ingest=ingest))}
    return plan_services(
        kafka="127.0.0.1:1",
        logins=_LOGINS,
        http_host="127.0.0.1",
        http_port=8080,
        ops_ports=ops_ports,
        admin_key="admin",
        app=app,
        logs=logs,
        workers_range=workers_range,
    )


def _barnabas(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "barnabas.cli.main", *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={name: value for name, value in os.environ.items() if not name.startswith("BARNABAS_")},
    )
