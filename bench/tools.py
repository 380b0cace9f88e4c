"""The programs that make and measure traffic, run on the machine from where the laboratory has unpacked them."""

from __future__ import annotations

from functools import cache

from lab import fetch
from lab.fetch import Recipe

RECIPE = Recipe(
    "bookworm",
    ("base-files", "base-passwd", "dash", "coreutils", "busybox-static", "iperf3", "qperf"),
    ("iperf3", "qperf"),
    "bench",
)


@cache
def program(name: str) -> tuple[str, ...]:
    """The words that start a program of RECIPE, with its own loader and libraries; fetched if it is not there yet."""
    root = fetch.unpacked(RECIPE)
    loader = next(file for folder in ("lib64", "lib") for file in (root / folder).glob("ld-linux*"))
    folders = sorted({str(file.parent) for file in (root / "usr/lib").rglob("*.so.*")})
    return str(loader), "--library-path", ":".join(folders), str(root / "usr/bin" / name)


@cache
def busybox() -> str:
    """Debian's static busybox: its `ping` tells microseconds and is the same everywhere."""
    return str(fetch.unpacked(RECIPE) / "usr/bin/busybox")
