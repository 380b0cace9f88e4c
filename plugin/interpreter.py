"""The root's own interpreter, run on the machine through the root's own loader: no chroot, no privilege."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from plugin import debian, elf, wheels
from plugin.errors import BuildError

_CHECK = """
import importlib, pkgutil, sys
import myoverlay
for module in pkgutil.walk_packages(myoverlay.__path__, "myoverlay."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
import docker, gunicorn.app.base, gunicorn.workers.gthread, sqlite3, ssl
"""


def run(root: Path, *arguments: str) -> str:
    """Run the interpreter with its own standard library and the root's packages; its output."""
    loader = root / "usr" / elf.read(root / debian.PYTHON).interpreter.lstrip("/")
    libraries = next(root.glob("usr/lib/*-linux-gnu*"))
    command = [
        str(libraries / loader.name), "--library-path", str(libraries), str(root / debian.PYTHON), "-s", "-S", "-B",
        *arguments,
    ]  # fmt: skip
    environment = {
        "PATH": os.environ.get("PATH", ""), "PYTHONHOME": str(root / "usr"), "PYTHONHASHSEED": "0", "LC_ALL": "C.UTF-8",
        "PYTHONPATH": f"{root / debian.STDLIB}:{root / debian.STDLIB}/lib-dynload:{root / wheels.PACKAGES}",
    }  # fmt: skip
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BuildError(f"the built python3.11 failed at {arguments[:3]}: {(done.stderr or done.stdout).strip()}")
    return done.stdout


def compile_ahead(root: Path, folder: str) -> None:
    """Byte-compile a folder of the root; nothing compares the result with its source when it is imported."""
    _compile(root, folder)


def compile_only(root: Path, folder: str) -> None:
    """Byte-compile a folder and leave its sources out (14 MB of other people's): tracebacks keep names and lines."""
    _compile(root, folder, "-b")
    for source in (root / folder).rglob("*.py"):
        source.unlink()


def _compile(root: Path, folder: str, *how: str) -> None:
    # The same bytes each time: no times in them, and one process in one order, because what the compiler shares between
    # files depends on the ones before.
    how = ("--invalidation-mode", "unchecked-hash", "-j", "1", *how)
    run(root, "-m", "compileall", "-q", "-f", *how, "-s", str(root), "-p", "/", str(root / folder))


def check(root: Path) -> None:
    """Import all of ours and what it loads late: a library or module that was left out shows here."""
    run(root, "-c", _CHECK)
