"""Starts a module of this package on a host, or in an end's namespace."""

from __future__ import annotations

import sys
from typing import Any

from lab import places
from lab.engine import EngineHost

ENVIRONMENT = {"PYTHONPATH": f"{places.REPOSITORY}:{places.REPOSITORY / 'src'}", "PYTHONDONTWRITEBYTECODE": "1"}


def argv(module: str, *words: object) -> list[str]:
    """The command."""
    return [sys.executable, "-m", f"bench.inside.{module}", *map(str, words)]


def run(host: EngineHost, module: str, *words: object, netns: str = "", timeout: float = 120) -> str:
    """Run it to its end; what it printed. Raises LabError."""
    inside = ["nsenter", f"--net={netns}"] if netns else []
    return host.run([*inside, *argv(module, *words)], env=ENVIRONMENT, timeout=timeout)


def popen(host: EngineHost, module: str, *words: object, **options: Any) -> Any:
    """Start it."""
    return host.popen(argv(module, *words), env=ENVIRONMENT, **options)
