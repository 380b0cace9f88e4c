"""The plugin's folder is the same bytes whoever builds it, where, and when."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lab import places as lab_places
from plugin import archive, places

#: What two builders may have otherwise: language, time zone, order of sets, home, and a umask.
OTHER = {"TZ": "Pacific/Auckland", "LC_ALL": "C", "PYTHONHASHSEED": "7", "HOME": "/nonexistent", "COLUMNS": "40"}


def built(folder: Path, downloads: Path, environment: dict[str, str], umask: int) -> tuple[str, str]:
    """A build from nothing but downloads that were made before; the digest it told, and that of what is there."""
    cache = folder / "cache"
    cache.mkdir(parents=True)
    for name in ("apt", "wheels"):
        subprocess.run(["cp", "-a", "--reflink=auto", str(downloads / name), str(cache / name)], check=True)
    command = [sys.executable, "-m", "plugin", "build", "--target", str(folder / "out"), "--cache", str(cache)]
    command += ["--pip-python", sys.executable]
    done = subprocess.run(
        command, cwd=places.REPOSITORY, env={**os.environ, **environment}, umask=umask, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.rpartition("sha256:")[2].strip(), archive.digest(folder / "out")


@pytest.mark.timeout(400)
def test_two_builds_are_the_same_bytes(tmp_path: Path) -> None:
    """Two directories, two times, two users' habits, the same downloads: one digest of the whole tar, which is told."""
    downloads = lab_places.HOME / "plugin-cache"
    if not (downloads / "apt").is_dir():  # the first build on this machine brings them
        subprocess.run([sys.executable, "-m", "plugin", "build", "--target", str(tmp_path / "first")], check=True)
    told, one = built(tmp_path / "a", downloads, {}, 0o022)
    _, two = built(tmp_path / "somewhere" / "else" / "b", downloads, OTHER, 0o077)
    if one != two:
        pytest.fail(f"they differ: {differences(tmp_path / 'a/out', tmp_path / 'somewhere/else/b/out')}")
    assert told == one


def differences(one: Path, two: Path) -> list[str]:
    """The names of what is not alike, at most twenty."""
    found = []
    names = {str(path.relative_to(root)) for root in (one, two) for path in root.rglob("*")}
    for name in sorted(names):
        a, b = one / name, two / name
        if not (os.path.lexists(a) and os.path.lexists(b)):
            found.append(f"{name} is in one alone")
            continue
        left, right = a.lstat(), b.lstat()
        if (left.st_mode, int(left.st_mtime)) != (right.st_mode, int(right.st_mtime)):
            found.append(f"{name}: mode {left.st_mode:o} {right.st_mode:o}, time {left.st_mtime} {right.st_mtime}")
        elif a.is_symlink() and a.readlink() != b.readlink():
            found.append(f"{name}: link")
        elif a.is_file() and not a.is_symlink() and a.read_bytes() != b.read_bytes():
            found.append(f"{name}: content")
    return found[:20]
