"""`python3 -m lab fetch`: everything the laboratory needs, unpacked below `.lab/`, once.

Each step leaves a stamp with its recipe and the versions it brought; where the stamp fits, nothing is looked up and no
network is needed. A step builds beside its target and renames, so that a half-made root is never used.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lab import apt, images, places
from lab.errors import LabError

MACHINE_TOOLS = {"nft": "nftables", "ip": "iproute2", "tcpdump": "tcpdump"}
"""Commands the laboratory uses on the machine, with the package of its own suite; none of them starts a service."""

_COMMON = (
    "base-files",
    "base-passwd",
    "dash",
    "coreutils",
    "busybox-static",
    "docker.io",
    "iptables",
    "nftables",
    "iproute2",
    "procps",
    "xz-utils",
    "pigz",
    "ca-certificates",
)


@dataclass(frozen=True)
class Recipe:
    """A root file system: its suite, what it is asked to hold, and the package whose version is shown for it."""

    suite: str
    packages: tuple[str, ...]
    shown: tuple[str, ...]
    name: str = ""
    """What tells it from another one of the same suite."""

    @property
    def place(self) -> str:
        """The name of its folder and of its stamp."""
        return self.name or self.suite

    @property
    def root(self) -> Path:
        """The folder it is unpacked in."""
        return places.ROOTS / self.place

    def digest(self) -> str:
        """Changes with everything that makes the result another one."""
        return hashlib.sha256(json.dumps([self.suite, self.packages, _FORM]).encode()).hexdigest()[:16]


_FORM = 3
"""Counted up when `_furnish` changes, so that older roots are made anew."""

OLD = Recipe("bookworm", (*_COMMON, "docker-registry", "iperf3"), ("docker.io", "docker-registry"))
NEW = Recipe(
    "sid", (*_COMMON, "docker-cli", "docker-compose", "systemd-standalone-sysusers"), ("docker.io", "docker-compose")
)
STORE = Recipe("bullseye", ("base-files", "base-passwd", "dash", "coreutils", "consul"), ("consul",))
TOOLS = Recipe("bookworm", ("base-files", "base-passwd", "dash", "coreutils", "prometheus"), ("prometheus",), "tools")
"""Programs that are run as they lie there, on the machine's own libc: it is of the same suite, or a newer one."""
RECIPES = (OLD, NEW, STORE, TOOLS)
BROWSER = Recipe(
    "bookworm",
    ("base-files", "base-passwd", "dash", "coreutils", "chromium", "fonts-dejavu-core"),
    ("chromium",),
    "browser",
)
"""Only `make test-web` wants it: 700 MB, which nobody else has to wait for."""
BROWSER_ROOM = 2 * 1024**3
ENGINES = {"old": OLD, "new": NEW}


def fetch(report: bool = True, recipes: tuple[Recipe, ...] = RECIPES) -> dict[str, str]:
    """Bring what is missing; says the versions of the engines, the store and the registry."""
    began = time.monotonic()
    with _one_at_a_time():
        _machine_tools()
        missing = [recipe for recipe in recipes if not _fits(recipe)]
        downloads: dict[str, float] = {}
        if missing:
            suites = {recipe.suite: threading.Lock() for recipe in missing}
            with ThreadPoolExecutor(len(missing)) as pool:
                got = {one: pool.submit(_download, one, suites[one.suite], downloads) for one in missing}
                built = [pool.submit(_build, recipe, got[recipe].result()) for recipe in missing]
            for step in built:
                step.result()
        images.build_base(OLD.root)
    if report:
        spent = max(downloads.values(), default=0.0)
        print(f"fetch: {spent:.1f} s downloading, {time.monotonic() - began - spent:.1f} s else", flush=True)
    return versions()


def versions() -> dict[str, str]:
    """Package versions by package name, from the stamps."""
    found: dict[str, str] = {}
    for recipe in RECIPES:
        stamp = _read_stamp(recipe)
        found |= {f"{name} ({recipe.suite})": stamp["versions"].get(name, "?") for name in recipe.shown if stamp}
    return found


def engine_root(age: str) -> Path:
    """The unpacked root of the engine `old` or `new`."""
    recipe = ENGINES.get(age)
    if recipe is None:
        raise LabError(f"no engine {age!r}: there is {' and '.join(ENGINES)}")
    if not _fits(recipe):
        raise LabError(f"the {age} engine is not there yet: run `python3 -m lab fetch`")
    return recipe.root


def tool(command: str) -> Path:
    """A program of TOOLS, fetched if it is not there yet."""
    return unpacked(TOOLS) / "usr/bin" / command


def unpacked(recipe: Recipe) -> Path:
    """The root of a recipe, which may be another package's own, fetched if it is not there yet."""
    if not _fits(recipe):
        fetch(report=False, recipes=(*RECIPES, *(() if recipe in RECIPES else (recipe,))))
    return recipe.root


def browser() -> Path:
    """The root that Debian's Chromium is unpacked in, fetched if it is not there yet."""
    if not _fits(BROWSER):
        free = shutil.disk_usage(places.HOME.parent).free
        if free < BROWSER_ROOM:
            raise LabError(f"{places.HOME.parent} has {free / 1024**3:.1f} GB free, Chromium needs 2 GB")
        fetch(report=False, recipes=(*RECIPES, BROWSER))
    return BROWSER.root


@contextmanager
def _one_at_a_time() -> Iterator[None]:
    places.HOME.mkdir(parents=True, exist_ok=True)
    with (places.HOME / "fetch.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _machine_tools() -> None:
    missing = sorted({package for command, package in MACHINE_TOOLS.items() if not apt.installed(command)})
    if not missing:
        return
    print(f"installing on the machine, from its own suite: {' '.join(missing)}", flush=True)
    command = ["apt-get", "-q", "-y", "--no-install-recommends", "install", *missing]
    environment = dict(os.environ, DEBIAN_FRONTEND="noninteractive")
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:  # the machine's lists are missing or old
        subprocess.run(["apt-get", "-q", "update"], capture_output=True, check=False)
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise LabError(f"apt-get install {' '.join(missing)}: {done.stderr.strip()}")


def _stamp(recipe: Recipe) -> Path:
    return places.STAMPS / f"root-{recipe.place}.json"


def _read_stamp(recipe: Recipe) -> dict[str, dict[str, str]]:
    try:
        stamp: dict[str, dict[str, str]] = json.loads(_stamp(recipe).read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return stamp


def _fits(recipe: Recipe) -> bool:
    return recipe.root.is_dir() and _read_stamp(recipe).get("recipe", {}).get("digest") == recipe.digest()


def _download(recipe: Recipe, alone: threading.Lock, spent: dict[str, float]) -> list[apt.Package]:
    """`alone`: one apt at a time works on a suite's lists."""
    began = time.monotonic()
    with alone:
        packages = apt.Suite(recipe.suite, places.CACHE).download(recipe.packages)
    spent[recipe.place] = time.monotonic() - began
    return packages


def _build(recipe: Recipe, packages: list[apt.Package]) -> None:
    unfinished = places.ROOTS / f".{recipe.place}.unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    apt.unpack(packages, unfinished)
    _furnish(unfinished)
    _stamp(recipe).unlink(missing_ok=True)
    shutil.rmtree(recipe.root, ignore_errors=True)
    unfinished.rename(recipe.root)
    stamp = {
        "recipe": {"digest": recipe.digest(), "suite": recipe.suite},
        "versions": {package.name: package.version for package in packages},
    }
    places.STAMPS.mkdir(parents=True, exist_ok=True)
    _stamp(recipe).write_text(json.dumps(stamp, indent=1) + "\n")


def _furnish(root: Path) -> None:
    """What maintainer scripts would have done, as far as an engine, a store or a registry needs it."""
    for folder in ("proc", "sys", "dev", "run", "tmp", "root", "var/lib", "var/log", "etc/docker", ".old"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    _link(root / "var/run", "/run")
    for name in ("passwd", "group"):
        master = root / "usr/share/base-passwd" / f"{name}.master"
        (root / "etc" / name).write_text(master.read_text() + ("docker:x:999:\n" if name == "group" else ""))
    (root / "etc/hosts").write_text("127.0.0.1 localhost\n::1 localhost\n")
    (root / "etc/resolv.conf").write_text("")
    for command in ("iptables", "ip6tables"):
        for ending in ("", "-save", "-restore"):
            target = f"{command}-nft{ending}"
            if (root / "usr/sbin" / target).is_symlink():
                _link(root / "usr/sbin" / f"{command}{ending}", target)
    if not (root / "usr/bin/sh").exists():
        _link(root / "usr/bin/sh", "dash")


def _link(link: Path, target: str) -> None:
    if link.is_dir() and not link.is_symlink():
        shutil.rmtree(link)
    link.unlink(missing_ok=True)
    link.symlink_to(target)
