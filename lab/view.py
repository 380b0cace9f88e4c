"""A host seen with another root file system: where engines, the store and the registry run."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from lab import places
from lab.host import PATH, Host, python_environment

_START = 'log=$1; shift; "$@" >>"$log" 2>&1 </dev/null & echo $!'
_VIEW = ("pid", "ipc", "uts", "net", "cgroup")
"""In the shell that starts a daemon: it ends at once, the daemon becomes a child of the host's first process."""
_SHARED_WITH_HOST = ("pid", "ipc", "uts", "net", "cgroup")


class RootView:
    """A host seen with another root file system."""

    def __init__(self, host: Host, root: Path) -> None:
        self.host = host
        self.root = root
        self.holder = 0

    def build(self) -> None:
        """Make the view; a process that sleeps on the host holds it."""
        configuration = {
            "root": str(self.root),
            "folder": str(self.host.folder),
            "same": sorted({str(places.REPOSITORY), str(places.HOME)}),
        }
        noted = self.host.folder / "rootview.json"
        noted.write_text(json.dumps(configuration))
        process = self.host.popen(
            [sys.executable, "-S", "-m", "lab.rootview", str(noted)],
            env=python_environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        done = self.host.finish(process, ["lab.rootview"], "", 20, check=True)
        self.holder = int(done.stdout)

    @property
    def namespaces(self) -> dict[str, str]:
        """What to enter to be in this view."""
        return self.host.view(_SHARED_WITH_HOST) | {"mnt": f"{self.host.fs}/proc/{self.holder}/ns/mnt"}

    def run(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        text: str = "",
        timeout: float = 60,
        check: bool = True,
        cwd: str | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command of the other root."""
        process = self.host.spawn(
            self.namespaces,
            argv,
            env={"PATH": PATH, "HOME": "/root", "LC_ALL": "C.UTF-8", **(env or {})},
            cwd=cwd or "/",
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        return self.host.finish(process, argv, text, timeout, check)

    def start_daemon(self, argv: Sequence[str], log: Path) -> int:
        """Start a command of the other root as a child of the host's first process; its pid as the host counts."""
        return int(self.run(["/bin/sh", "-c", _START, "sh", str(log), *argv]).stdout)
