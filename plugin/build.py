"""The steps of a build, and what is said about its result."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import platform
import shutil
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from plugin import archive, debian, elf, interpreter, places, wheels

EPOCH = 1_577_836_800
"""The time every file is given (2020-01-01) unless SOURCE_DATE_EPOCH says another."""


@dataclass(frozen=True)
class Order:
    """What to build, from what."""

    target: Path
    cache: Path
    pip_python: Path
    stamp: str = ""
    refresh: bool = False


@dataclass(frozen=True)
class Built:
    """A finished plugin folder: what it weighs, and the digest of it as a tar (`archive.digest`)."""

    target: Path
    digest: str
    files: int
    apparent: int
    on_disk: int
    seconds: float

    def __str__(self) -> str:
        return (
            f"{self.target}: root file system {self.apparent / 1e6:.1f} MB in {self.files} files"
            f" ({self.on_disk / 1e6:.1f} MB on disk), {self.seconds:.1f} s\nsha256:{self.digest}"
        )


def build(order: Order) -> Built:
    """Make `order.target` anew: config.json and rootfs. It is swapped in when finished, never half there."""
    began = time.monotonic()
    order.cache.mkdir(parents=True, exist_ok=True)
    with _one_at_a_time(order.cache):
        base = _base(order)
        unfinished = order.target.with_name(f".{order.target.name}.unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        root = unfinished / "rootfs"
        shutil.copytree(base, root, symlinks=True)
        wheels.add_own(root)
        interpreter.compile_ahead(root, f"{wheels.PACKAGES}/{places.SOURCE.name}")
        interpreter.check(root)
        if order.stamp:
            (root / "usr/share/myoverlay/stamp").write_text(order.stamp + "\n")
        shutil.copyfile(places.CONFIG, unfinished / "config.json")
        _settle(unfinished)
        shutil.rmtree(order.target, ignore_errors=True)
        unfinished.rename(order.target)
    return _measure(order.target, time.monotonic() - began)


def _base(order: Order) -> Path:
    """The root without our package: it changes with the lock, the recipe, and `--refresh`, else it is kept."""
    recipe = hashlib.sha256(platform.machine().encode() + places.LOCK.read_bytes())
    for module in (debian, elf, interpreter, wheels):
        recipe.update(Path(str(module.__file__)).read_bytes())
    base = order.cache / f"base-{recipe.hexdigest()[:16]}"
    if order.refresh or not base.is_dir():
        unfinished = order.cache / ".base.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        _build_base(order, unfinished)
        for old in order.cache.glob("base-*"):
            shutil.rmtree(old)
        unfinished.rename(base)
    return base


def _build_base(order: Order, root: Path) -> None:
    whole, packages = debian.download(order.cache, order.refresh)
    picker = debian.Picker(whole, root)
    picker.folders()
    picker.programs()
    picker.stdlib()
    picker.certificates()
    picker.settings()
    wheels.install(order.pip_python, wheels.download(order.pip_python, order.cache), root)
    picker.libraries()
    picker.origins(packages)
    interpreter.compile_only(root, debian.STDLIB)
    interpreter.compile_only(root, wheels.PACKAGES)
    shutil.rmtree(whole)


@contextlib.contextmanager
def _one_at_a_time(cache: Path) -> Iterator[None]:
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def moment() -> int:
    """The time of all that is built, in Unix seconds."""
    return int(os.environ.get("SOURCE_DATE_EPOCH", EPOCH))


def _settle(folder: Path) -> None:
    """Give everything root as owner (where we may), plain modes and one time, whoever built it under whatever umask."""
    at = moment()
    for path in [*folder.rglob("*"), folder]:
        if os.geteuid() == 0:
            os.chown(path, 0, 0, follow_symlinks=False)
        if not path.is_symlink():
            executable = path.is_dir() or path.stat().st_mode & 0o100
            path.chmod(0o1777 if path == folder / "rootfs/tmp" else 0o755 if executable else 0o644)
        os.utime(path, (at, at), follow_symlinks=False)


def _measure(target: Path, seconds: float) -> Built:
    files = apparent = on_disk = 0
    for path in (target / "rootfs").rglob("*"):
        entry = path.lstat()
        files += stat.S_ISREG(entry.st_mode)
        apparent += entry.st_size
        on_disk += entry.st_blocks * 512
    return Built(target, archive.digest(target), files, apparent, on_disk, seconds)
