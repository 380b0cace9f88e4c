"""config.json and the lock files against the code they speak for."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from myoverlay.settings import SETTINGS, load

REPOSITORY = Path(__file__).resolve().parents[2]
CONFIG: dict[str, Any] = json.loads((REPOSITORY / "config.json").read_text())
PROJECT: dict[str, Any] = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
VARIABLES: dict[str, dict[str, Any]] = {row["name"]: row for row in CONFIG["env"]}

FIXED = {
    "MYOVERLAY_STATE": "/data",
    "MYOVERLAY_RUN": "/host/plugins/myoverlay",
    "MYOVERLAY_SOCKETS": "/run/docker/plugins/mo.sock,/host/plugins/myoverlay.sock",
}


def locked(name: str) -> dict[str, str]:
    """Packages and versions of a lock file."""
    pairs = re.findall(r"^([a-z0-9.-]+)==([^ ;\\]+)", (REPOSITORY / name).read_text(), re.M)
    return {canonicalize_name(package): version for package, version in pairs}


def test_every_setting_is_there_and_nothing_else() -> None:
    """`docker plugin set` offers exactly the settings of the table, in its order."""
    assert list(VARIABLES) == [row.env for row in SETTINGS]
    assert len(VARIABLES) == len(CONFIG["env"])


@pytest.mark.parametrize("row", SETTINGS, ids=lambda row: row.env)
def test_a_setting_is_settable_or_fixed(row: Any) -> None:
    """A settable one is empty, so that its default stays in the code, and says what the table says."""
    variable = VARIABLES[row.env]
    assert variable["description"] == row.meaning
    if row.env in FIXED:
        assert variable["value"] == FIXED[row.env]
        assert "settable" not in variable
    else:
        assert variable["value"] == ""
        assert variable["settable"] == ["value"]


def test_the_settings_as_shipped_can_be_loaded() -> None:
    """A plugin that is enabled without a word set starts, with its state where it stays over upgrades."""
    settings = load({name: row["value"] for name, row in VARIABLES.items()})
    assert settings.state == CONFIG["propagatedMount"]
    assert settings.consul == ""
    assert settings.log_level == "info"


def test_the_sockets_lie_where_docker_looks() -> None:
    """The first is the one config.json names, the second is found by its short name on the host."""
    own, by_name = FIXED["MYOVERLAY_SOCKETS"].split(",")
    (mount,) = CONFIG["mounts"]
    assert own == f"/run/docker/plugins/{CONFIG['interface']['socket']}"
    assert Path(by_name).parent == Path(mount["destination"])
    assert Path(FIXED["MYOVERLAY_RUN"]).parent == Path(mount["destination"])
    assert Path(by_name).stem == "myoverlay"


def test_the_socket_s_path_fits_into_a_socket_address() -> None:
    """On the host it is below a folder named by 64 digits; the kernel takes 107 characters (unix(7))."""
    path = f"/run/docker/plugins/{64 * 'f'}/{CONFIG['interface']['socket']}"
    assert len(path) <= 107


def test_the_mount_cannot_be_missing_and_reaches_the_host() -> None:
    """A source that is missing at boot brings the whole engine down: this one the engine makes itself."""
    (mount,) = CONFIG["mounts"]
    assert mount["source"] == "/run/docker/plugins"
    assert mount["type"] == "bind"
    assert mount["options"] == ["rbind", "rshared"]
    assert not mount.get("settable")
    assert CONFIG["propagatedMount"], "without it rshared mounts stay inside"


def test_it_is_both_drivers_in_the_host_s_network() -> None:
    """Network and IPAM driver, in the host's network namespace, with a process namespace of its own."""
    assert CONFIG["interface"]["types"] == ["docker.networkdriver/1.0", "docker.ipamdriver/1.0"]
    assert CONFIG["network"] == {"type": "host"}
    assert CONFIG["pidhost"] is False
    assert CONFIG["ipchost"] is False
    assert CONFIG["linux"]["devices"] is None
    assert CONFIG["linux"]["allowAllDevices"] is False


def test_readme_says_what_each_capability_is_for() -> None:
    """No privilege is asked for without a reason in words."""
    text = (REPOSITORY / "plugin" / "README.md").read_text()
    told = re.findall(r"^\| `(CAP_[A-Z_]+)` \| .{20,}", text, re.M)
    assert told == CONFIG["linux"]["capabilities"], "the page and config.json name others"
    assert len(told) == 4


def test_readme_goes_through_config_json_line_by_line() -> None:
    """Each field that lets the plugin do or see something has a row that names its value as it is."""
    text = (REPOSITORY / "plugin" / "README.md").read_text()
    (mount,) = CONFIG["mounts"]
    options = ",".join(mount["options"])
    words = CONFIG["entrypoint"]
    for said in (
        f"| `network: {CONFIG['network']['type']}` |",
        f"| `pidhost`, `ipchost`: {str(CONFIG['pidhost']).lower()} |",
        f"| mount `{mount['source']}` → `{mount['destination']}`, `{options}`, **not settable** |",
        f"| `propagatedMount: {CONFIG['propagatedMount']}` |",
        f"| socket `{CONFIG['interface']['socket']}` |",
        f"| entrypoint `{' '.join([Path(words[0]).name, *words[1:]])}` |",
        "| `MYOVERLAY_STATE`, `_RUN`, `_SOCKETS` |",
    ):
        assert said in text, said
    told = {"linux", "network", "pidhost", "ipchost", "mounts", "propagatedMount", "interface", "entrypoint", "env"}
    assert CONFIG.keys() - told == {"description", "documentation", "workdir"}, "a field that the page says nothing of"


def test_its_words_are_the_project_s() -> None:
    """`docker plugin ls` shows the description of pyproject.toml."""
    assert CONFIG["description"] == PROJECT["project"]["description"]


@pytest.mark.parametrize(
    ("lock", "wanted"),
    [
        ("requirements.lock", PROJECT["project"]["dependencies"]),
        ("requirements-dev.lock", PROJECT["project"]["dependencies"] + PROJECT["dependency-groups"]["dev"]),
        ("requirements-web.lock", PROJECT["dependency-groups"]["dev"] + PROJECT["dependency-groups"]["web"]),
        ("requirements-bench.lock", PROJECT["dependency-groups"]["dev"] + PROJECT["dependency-groups"]["bench"]),
        ("requirements-supply.lock", PROJECT["dependency-groups"]["supply"]),
    ],
)
def test_locks_hold_what_the_project_asks_for(lock: str, wanted: list[str]) -> None:
    """A dependency added to pyproject.toml without `python3 -m plugin lock` shows here."""
    versions = locked(lock)
    for requirement in map(Requirement, wanted):
        name = canonicalize_name(requirement.name)
        assert name in versions, f"{name} is not in {lock}: python3 -m plugin lock"
        assert requirement.specifier.contains(versions[name]), f"{lock} pins {name} {versions[name]}, not {requirement}"


def test_what_is_tested_is_what_runs() -> None:
    """The development lock has every runtime package in the same version."""
    runtime = locked("requirements.lock")
    dev = locked("requirements-dev.lock").items()
    assert runtime.items() <= dev
    assert dev <= locked("requirements-web.lock").items()
    assert dev <= locked("requirements-bench.lock").items()


LOCKS = sorted(path.name for path in REPOSITORY.glob("requirements*.lock"))


@pytest.mark.parametrize("lock", LOCKS)
def test_every_pin_has_hashes_and_no_place(lock: str) -> None:
    """Packages are known by their content; where they come from is the machine's business."""
    text = (REPOSITORY / lock).read_text()
    pins = re.split(r"^(?=[a-z0-9])", text, flags=re.M)[1:]
    assert len(pins) == len(locked(lock))
    assert all("--hash=sha256:" in pin for pin in pins)
    assert not re.search(r"://|--(extra-)?index-url|--find-links", text)
