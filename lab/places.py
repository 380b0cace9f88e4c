"""Where things lie: every path of the laboratory, all below `.lab/` in the repository."""

from __future__ import annotations

import os
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
HOME = Path(os.environ.get("MYOVERLAY_LAB_HOME") or REPOSITORY / ".lab").resolve()

CACHE = HOME / "cache"
ROOTS = HOME / "roots"
IMAGES = HOME / "images"
RUN = HOME / "run"
HOSTS = HOME / "hosts"
STAMPS = HOME / "stamps"

PREFIX = "myo"
"""First part of every name the laboratory gives to something a machine shows (host names, cgroups)."""


def state_file(lab: str) -> Path:
    """The file that says what a running laboratory consists of, for `down` in another process."""
    return RUN / lab / "state.json"


def host_dir(lab: str, host: str) -> Path:
    """The folder that is a host's disk: the engine's data, logs, and what the host wrote below /etc and /var/lib."""
    return HOSTS / lab / host


def cgroup_name(lab: str) -> str:
    """The control group, directly below each hierarchy's root, that holds every process of a laboratory."""
    return f"{PREFIX}-{lab}"
