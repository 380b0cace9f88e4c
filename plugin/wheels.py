"""The Python part: locked dependencies, as wheels for CPython 3.11 on this architecture, and our own package."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
from pathlib import Path

from plugin import places
from plugin.errors import BuildError

PACKAGES = "usr/lib/python3/dist-packages"
"""Where Debian's interpreter looks for what does not belong to it."""

GLIBC = 36
"""Minor version of the C library of the root file system (2.36): wheels may ask for this one or an older."""

_LEFT_OUT = ("RECORD", "INSTALLER", "REQUESTED", "direct_url.json")


def platforms(machine: str = "") -> list[str]:
    """What a wheel may be built for, newest first; pip takes each name literally but for the old short ones."""
    machine = machine or platform.machine()
    return [f"manylinux_2_{minor}_{machine}" for minor in range(GLIBC, 16, -1)] + [f"manylinux2014_{machine}"]


def download(pip_python: Path, cache: Path) -> Path:
    """Every wheel of the lock, hashes checked, below the cache; nothing is looked up when they are there already."""
    digest = hashlib.sha256(places.LOCK.read_bytes()).hexdigest()[:16]
    folder = cache / "wheels" / f"{digest}-{platform.machine()}"
    if not folder.is_dir():
        unfinished = folder.with_name(f".{folder.name}.unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        _pip(pip_python, "download", "--dest", str(unfinished))
        unfinished.rename(folder)
    return folder


def install(pip_python: Path, wheels: Path, root: Path) -> None:
    """Lay the wheels out in the root, from files alone, hashes checked once more."""
    target = root / PACKAGES
    place = ["--no-index", "--find-links", str(wheels), "--target", str(target)]
    _pip(pip_python, "install", "--isolated", "--no-compile", *place)
    _tidy(target)
    _share_certificates(target)


def _pip(python: Path, verb: str, *arguments: str) -> None:
    if not python.exists():
        raise BuildError(f"{python} is not there: make .venv first, or name a Python that has pip")
    command = [str(python), "-m", "pip", verb, "-qq", "--disable-pip-version-check", "--require-hashes", "--no-deps"]
    command += ["--only-binary=:all:", "--implementation=cp", "--python-version=3.11"]
    command += [word for abi in ("cp311", "abi3", "none") for word in ("--abi", abi)]
    command += [word for name in platforms() for word in ("--platform", name)]
    command += [*arguments, "-r", str(places.LOCK)]
    environment = dict(os.environ, PIP_ROOT_USER_ACTION="ignore")
    if subprocess.run(command, env=environment, check=False).returncode:
        raise BuildError(f"pip {verb} of {places.LOCK.name} failed (its words are above)")


def _tidy(target: Path) -> None:
    """Remove command scripts, the packages' own tests, and what pip writes about this very installation."""
    shutil.rmtree(target / "bin", ignore_errors=True)
    for folder in target.iterdir():
        shutil.rmtree(folder / "tests", ignore_errors=True)
        if folder.suffix == ".dist-info":
            for name in _LEFT_OUT:
                (folder / name).unlink(missing_ok=True)


def _share_certificates(target: Path) -> None:
    """As Debian's own certifi does: one list of authorities in the system, not two of different age."""
    bundle = target / "certifi" / "cacert.pem"
    if bundle.exists():
        bundle.unlink()
        bundle.symlink_to("/etc/ssl/certs/ca-certificates.crt")


def add_own(root: Path) -> None:
    """Our package, from the working tree, and the command `myoverlay`."""
    target = root / PACKAGES / places.SOURCE.name
    shutil.copytree(places.SOURCE, target, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
    command = root / "usr/bin/myoverlay"
    command.write_text("#!/usr/bin/python3.11 -IB\nfrom myoverlay.__main__ import main\n\nmain()\n")
    command.chmod(0o755)
