"""Where things lie."""

from __future__ import annotations

from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
SOURCE = REPOSITORY / "src" / "myoverlay"
CONFIG = REPOSITORY / "config.json"
LOCK = REPOSITORY / "requirements.lock"
DEV_LOCK = REPOSITORY / "requirements-dev.lock"
BENCH_LOCK = REPOSITORY / "requirements-bench.lock"
WEB_LOCK = REPOSITORY / "requirements-web.lock"
SUPPLY_LOCK = REPOSITORY / "requirements-supply.lock"
TARGET = REPOSITORY / "build" / "plugin"
PIP_PYTHON = REPOSITORY / ".venv" / "bin" / "python"

CACHE = REPOSITORY / ".lab" / "plugin-cache"
"""Downloaded packages and wheels, and the base all builds start from; only this makes a build need the network."""
