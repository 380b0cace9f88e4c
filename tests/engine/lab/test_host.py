"""A host of the laboratory ends whole, with all that was started on it."""

from __future__ import annotations

import shutil
from pathlib import Path

from lab import places
from lab.host import Host


def test_all_that_ran_is_buried() -> None:
    """Power off while many commands run: each is waited for, and the first process too, which outlives them all."""
    host = Host("graves", "h1")
    try:
        for _ in range(12):
            host.start()
            first = host.pid
            running = [host.popen(["sleep", "60"]) for _ in range(25)]
            host.power_off()
            assert [child.pid for child in running if child.returncode is None] == []
            assert not Path(f"/proc/{first}").exists(), "not even as a zombie"
    finally:
        host.power_off()
        shutil.rmtree(places.HOSTS / "graves")
