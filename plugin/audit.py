"""Known vulnerabilities of what the lock files pin: pip-audit asks PyPI's database about each pin.

Status 0: none that is not in `IGNORED`; 1: some; 2: it could not be asked, and nothing is known.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from plugin import places

#: By the database's id: why it does not concern us. A row goes when the pin moves beyond it.
IGNORED: dict[str, str] = {}
LOCKS = (places.LOCK, places.DEV_LOCK, places.WEB_LOCK, places.BENCH_LOCK, places.SUPPLY_LOCK)


class Known(NamedTuple):
    """A vulnerability of a pin, and the versions that mend it."""

    lock: str
    package: str
    version: str
    id: str
    mended: str

    def __str__(self) -> str:
        return f"{self.lock}: {self.package} {self.version} has {self.id}, mended in {self.mended or 'no version yet'}"


class NotAsked(Exception):
    """The database did not answer. The text says of which lock file, and why."""


def audit(locks: Sequence[Path] = LOCKS) -> int:
    """Ask about each lock, and print what is known."""
    found: list[Known] = []
    for lock in locks:
        try:
            found += read(lock.name, *_asked(lock))
        except NotAsked as error:
            print(f"audit: the database could not be asked, so nothing is known: {error}", file=sys.stderr)
            return 2
    for known in found:
        print(f"{known}; ignored: {IGNORED[known.id]}" if known.id in IGNORED else str(known))
    open_ = [known for known in found if known.id not in IGNORED]
    print(f"{len(locks)} lock files, {len(open_)} known vulnerabilities, {len(found) - len(open_)} ignored")
    return int(bool(open_))


def _asked(lock: Path) -> tuple[str, str]:
    """What pip-audit prints. Every pin has hashes, so it needs no pip to find out what would be installed."""
    command = [sys.executable, "-m", "pip_audit", "--requirement", str(lock), "--require-hashes", "--disable-pip"]
    command += ["--no-deps", "--format", "json", "--progress-spinner", "off", "--timeout", "15"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    except subprocess.TimeoutExpired:
        raise NotAsked(f"{lock.name}: no answer within 300 s") from None
    return done.stdout, done.stderr


def read(lock: str, printed: str, complaint: str) -> list[Known]:
    """The vulnerabilities in pip-audit's JSON. Raises NotAsked where it has none, or could not look at a pin."""
    try:
        dependencies = json.loads(printed)["dependencies"]
        skipped = [f"{one['name']} ({one['skip_reason']})" for one in dependencies if "skip_reason" in one]
        found = [
            Known(lock, one["name"], one["version"], bad["id"], ", ".join(bad["fix_versions"]))
            for one in dependencies
            for bad in one.get("vulns", ())
        ]
    except (ValueError, KeyError, TypeError):
        reason = (complaint.strip().splitlines() or ["it said nothing"])[-1]
        raise NotAsked(f"{lock}: {reason[:300]}") from None
    if skipped:
        raise NotAsked(
            f"{lock}: {len(skipped)} of {len(dependencies)} pins were not looked up, {skipped[0][:200]} first"
        )
    return found
