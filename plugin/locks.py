"""`python3 -m plugin lock`: the versions and hashes of what runs, what tests it, what tests the page, what measures,
what lists and audits the plugin's parts."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from plugin import places
from plugin.errors import BuildError

_FLAGS = (
    "--quiet", "--no-config", "--generate-hashes", "--python-version", "3.11", "--python-platform", "linux",
    "--no-annotate", "--custom-compile-command", "python3 -m plugin lock",
)  # fmt: skip


def write_locks(upgrade: bool) -> None:
    """Resolve pyproject.toml anew. Pins that still fit stay as they are unless `upgrade` is asked for."""
    more = ["--upgrade"] if upgrade else []
    _compile(places.LOCK, more)
    _compile(places.DEV_LOCK, ["--group", "dev", "--constraint", places.LOCK.name, *more])
    for group, lock in (("web", places.WEB_LOCK), ("bench", places.BENCH_LOCK)):
        _compile(lock, ["--group", "dev", "--group", group, "--constraint", places.DEV_LOCK.name, *more])
    # In an environment of its own: what looks at the plugin from outside has nothing of it.
    _compile(places.SUPPLY_LOCK, ["--group", "supply", *more], of=[])


def _compile(lock: Path, arguments: list[str], of: Sequence[str] = ("pyproject.toml",)) -> None:
    command = [_uv(), "pip", "compile", *_FLAGS, *of, "--output-file", lock.name, *arguments]
    if subprocess.run(command, cwd=places.REPOSITORY, stdout=subprocess.DEVNULL, check=False).returncode:
        raise BuildError(f"{lock.name} could not be resolved (uv's words are above)")


def _uv() -> str:
    beside = places.PIP_PYTHON.with_name("uv")
    found = str(beside) if beside.exists() else shutil.which("uv")
    if found is None:
        raise BuildError(f"`uv` is not here: `{places.PIP_PYTHON} -m pip install uv`")
    return found
