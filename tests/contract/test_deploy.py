"""The compose stack and the image, as far as one can tell without a container engine.

What a service is told exists, what it needs is there, nothing is open that needn't be, and no secret is written down.
"""

import importlib
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from barnabas.runtime.service import _CLOSE_LIMIT_SECONDS, Service
from barnabas.runtime.settings import keys_of, known_keys, load
from barnabas_local.kafka import _SETTINGS as LOCAL_KAFKA

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
COMPOSE: dict[str, Any] = yaml.safe_load(TEXT)
CONTAINERS: dict[str, dict[str, Any]] = COMPOSE["services"]
SERVICES = ("ingest", "worker", "notifier", "retry-scheduler")
IMAGE = "barnabas:0.1.0"
VARIABLE = re.compile(r"\$\{(\w+)(?::([?-])([^}]*))?\}")

each_container = pytest.mark.parametrize("name", CONTAINERS)
each_service = pytest.mark.parametrize("name", SERVICES)


def _environment(name: str) -> dict[str, str]:
    """As compose would hand it over, each variable with its default or, where one is required, with some value."""
    given = CONTAINERS[name].get("environment", {})
    return {
        key: VARIABLE.sub(lambda match: "s" * 24 if match[2] == "?" else match[3], value)
        for key, value in given.items()
    }


def _service(name: str) -> Service[Any, Any]:
    command = CONTAINERS[name]["command"]
    assert command[:2] == ["python", "-m"]
    service = importlib.import_module(command[2]).SERVICE
    assert isinstance(service, Service)
    return service


def _seconds(text: str) -> float:
    assert text.endswith("s")
    return float(text[:-1])


def test_the_whole_system_is_there() -> None:
    assert set(CONTAINERS) == {"kafka", "postgres", "setup", *SERVICES, "prometheus", "grafana"}


@each_container
def test_a_container_restarts_has_limits_and_says_how_it_is(name: str) -> None:
    container = CONTAINERS[name]
    limits = container["deploy"]["resources"]["limits"]

    assert limits["memory"]
    assert limits["cpus"]
    assert container["logging"]["options"]["max-size"]
    if name == "setup":
        assert container["restart"] == "no"
    else:
        assert container["restart"] == "unless-stopped"
        assert container["healthcheck"]["test"][0] == "CMD"


@each_container
def test_an_image_is_named_with_its_version(name: str) -> None:
    image, _, tag = CONTAINERS[name]["image"].partition(":")

    assert image
    assert re.fullmatch(r"v?\d[\w.-]*", tag), f"{image}:{tag} may be another image tomorrow"


@each_container
def test_no_container_has_more_rights_than_it_needs(name: str) -> None:
    container = CONTAINERS[name]

    assert not {"privileged", "cap_add", "devices", "network_mode", "pid", "ipc", "userns_mode"} & container.keys()
    assert not any("docker.sock" in volume for volume in container.get("volumes", ()))
    # The images of the two servers change their user themselves, which takes capabilities.
    if name not in {"kafka", "postgres"}:
        assert container["cap_drop"] == ["ALL"]
        assert container["security_opt"] == ["no-new-privileges:true"]
    if name in {*SERVICES, "setup", "prometheus"}:
        assert container["read_only"] is True


def test_three_ports_are_published_on_loopback_and_none_of_them_is_an_ops_port() -> None:
    published = {name: container["ports"] for name, container in CONTAINERS.items() if "ports" in container}

    assert published == {
        "ingest": ["127.0.0.1:8080:8080"],
        "prometheus": ["127.0.0.1:9090:9090"],
        "grafana": ["127.0.0.1:3000:3000"],
    }
    assert _environment("ingest")["BARNABAS_HTTP_PORT"] == "8080"


def test_the_servers_are_on_a_network_without_a_way_out() -> None:
    assert COMPOSE["networks"]["servers"] == {"internal": True}
    for name in ("kafka", "postgres", "setup", "retry-scheduler"):
        assert CONTAINERS[name]["networks"] == ["servers"]


def test_a_container_that_publishes_a_port_is_on_a_network_from_which_it_can() -> None:
    for container in CONTAINERS.values():
        assert "ports" not in container or "outside" in container["networks"]


def test_a_service_that_is_scaled_has_nothing_of_which_there_is_one_only() -> None:
    for name in ("worker", "notifier", "retry-scheduler"):
        assert not {"container_name", "ports", "hostname"} & CONTAINERS[name].keys()


@each_container
def test_volumes_and_networks_are_declared_and_files_exist(name: str) -> None:
    for network in CONTAINERS[name]["networks"]:
        assert network in COMPOSE["networks"]
    for volume in CONTAINERS[name].get("volumes", ()):
        source = volume.split(":")[0]
        assert (ROOT / source).is_dir() if source.startswith(".") else source in COMPOSE["volumes"]


@each_container
def test_what_a_container_waits_for_can_come_true(name: str) -> None:
    for other, how in CONTAINERS[name].get("depends_on", {}).items():
        match how["condition"]:
            case "service_healthy":
                assert "test" in CONTAINERS[other]["healthcheck"]
            case "service_completed_successfully":
                assert CONTAINERS[other]["restart"] == "no"
            case condition:
                pytest.fail(f"{name} waits for {condition}")


@each_container
def test_every_barnabas_key_is_a_setting(name: str) -> None:
    given = {key for key in CONTAINERS[name].get("environment", {}) if key.startswith("BARNABAS_")}
    read = keys_of(_service(name).settings).keys() if name in SERVICES else set()

    assert given <= known_keys() | read


@each_service
def test_a_service_starts_with_the_settings_it_gets(name: str) -> None:
    # What the entrypoint adds from the volumes that are mounted.
    logins = {
        "engine-login": ("BARNABAS_POSTGRES", "postgresql://barnabas_engine:x@postgres/barnabas"),
        "api-login": ("BARNABAS_POSTGRES_API", "postgresql://barnabas_api:x@postgres/barnabas"),
    }
    mounted = [logins[volume.split(":")[0]] for volume in CONTAINERS[name]["volumes"]]

    settings = load(_service(name).settings, _environment(name) | dict(mounted))

    assert settings.ops_port == 9600
    assert settings.kafka == "kafka:9092"


@each_service
def test_a_service_may_finish_its_drain_before_it_is_killed(name: str) -> None:
    drain = float(_environment(name)["BARNABAS_DRAIN_SECONDS"])

    assert _seconds(CONTAINERS[name]["stop_grace_period"]) > drain + _CLOSE_LIMIT_SECONDS


@each_service
def test_a_service_is_asked_for_its_health_on_its_ops_port(name: str) -> None:
    port = _environment(name)["BARNABAS_OPS_PORT"]

    assert f"http://127.0.0.1:{port}/readyz" in CONTAINERS[name]["healthcheck"]["test"][-1]


def test_all_services_agree_on_the_lease() -> None:
    assert len({_environment(name)["BARNABAS_LEASE_SECONDS"] for name in SERVICES}) == 1


def test_a_login_reaches_those_who_may_use_it_and_only_setup_writes_it() -> None:
    mounts = {name: container.get("volumes", []) for name, container in CONTAINERS.items()}
    holders = {name for name, volumes in mounts.items() if any(volume.startswith("api-login:") for volume in volumes)}

    assert holders == {"setup", "ingest"}
    for name in SERVICES:
        assert all(volume.endswith(":ro") for volume in mounts[name])
    assert "POSTGRES_PASSWORD" in CONTAINERS["setup"]["environment"]
    assert not any("POSTGRES_PASSWORD" in CONTAINERS[name]["environment"] for name in SERVICES)


def test_secrets_are_required_and_never_written_down() -> None:
    required = {match[1] for match in VARIABLE.finditer(TEXT) if match[2] == "?"}
    secrets = {
        (name, key): value
        for name, container in CONTAINERS.items()
        for key, value in container.get("environment", {}).items()
        if re.search(r"PASSWORD|SECRET|_KEY$|TOKEN", key)
    }

    assert required == {"POSTGRES_PASSWORD", "BARNABAS_ADMIN_KEY", "GRAFANA_PASSWORD"}
    assert len(secrets) == 4
    assert all(value.startswith("${") and ":?" in value for value in secrets.values())


def test_the_example_of_the_environment_names_every_variable_and_gives_no_secret() -> None:
    example = (ROOT / "deploy/compose/env.example").read_text(encoding="utf-8")
    named = dict(re.findall(r"^#?([A-Z_]+)=(.*)$", example, re.MULTILINE))
    variables = {match[1]: match[2] for match in VARIABLE.finditer(TEXT)}

    assert {name for name, how in variables.items() if how == "?"} <= named.keys() <= variables.keys()
    assert all(named[name] == "" for name, how in variables.items() if how == "?")


def test_prometheus_scrapes_every_service_under_its_name_and_nothing_else() -> None:
    config = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text(encoding="utf-8"))
    scraped = {each["job_name"]: each["dns_sd_configs"][0] for each in config["scrape_configs"]}

    assert set(scraped) == set(SERVICES)
    for name, found_by in scraped.items():
        assert found_by["names"] == [name]
        assert str(found_by["port"]) == _environment(name)["BARNABAS_OPS_PORT"]
        assert set(CONTAINERS[name]["networks"]) & set(CONTAINERS["prometheus"]["networks"])
    assert all((ROOT / "deploy/prometheus" / file).is_file() for file in config["rule_files"])


def test_kafka_has_the_settings_of_the_local_stack() -> None:
    told = {key.removeprefix("KAFKA_").lower().replace("_", "."): value for key, value in _environment("kafka").items()}
    same = (
        "auto.create.topics.enable",
        "group.consumer.heartbeat.interval.ms",
        "group.consumer.min.heartbeat.interval.ms",
        "group.consumer.session.timeout.ms",
        "group.consumer.min.session.timeout.ms",
        "group.initial.rebalance.delay.ms",
        "offsets.topic.replication.factor",
        "min.insync.replicas",
    )

    assert {name: told[name] for name in same} == {name: LOCAL_KAFKA[name] for name in same}
    assert CONTAINERS["kafka"]["volumes"] == [f"kafka-data:{told['log.dirs']}"]


def test_postgres_keeps_what_it_has_promised() -> None:
    told = [each.removeprefix("-c") for each in CONTAINERS["postgres"]["command"][1:]]

    assert {"shared_buffers=512MB", "max_wal_size=8GB", "checkpoint_timeout=15min", "wal_compression=lz4"} <= set(told)
    assert not any(each.startswith(("fsync=", "synchronous_commit=", "full_page_writes=")) for each in told)


def test_no_image_of_our_own_is_pulled() -> None:
    for name in (*SERVICES, "setup"):
        assert CONTAINERS[name]["image"] == IMAGE
        assert CONTAINERS[name]["build"] == {"context": ".", "dockerfile": "deploy/Dockerfile"}
