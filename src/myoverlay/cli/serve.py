"""`myoverlay serve`: sockets first, everything else after.

dockerd dials a managed plugin 0.5 s after it started it and then only at 3.5 s, so the sockets are bound before
anything heavy is imported; calls wait in their backlog until the worker accepts.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import socket
import stat
import sys
from collections.abc import Callable, MutableMapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from myoverlay.errors import Clash, MyoverlayError

if TYPE_CHECKING:
    from myoverlay.settings import Settings

log = logging.getLogger(__name__)

_BACKLOG = 64
#: Docker's calls at once: at boot all containers of a host start together.
_THREADS = 16
#: Connections at once; those beyond wait in the backlog.
_CONNECTIONS = 256
#: After so many seconds a thread gives way to another: a call of Docker's takes a few ms, and waits behind each other.
TURN = 0.0005
_STOP = 20
_AUTOGROUP = Path("/proc/self/autogroup")


class Door(NamedTuple):
    """A socket that is listened on, and the file by which it is found."""

    listener: socket.socket
    path: Path
    made: tuple[int, int]

    def remove(self) -> None:
        """Take the file away: a dead one would stay after `docker plugin rm`. What another run bound since is its."""
        with contextlib.suppress(OSError):
            if _made(self.path) == self.made:
                self.path.unlink()


def bind(path: Path) -> Door:
    """A listening socket, for root alone. A dead one in its place goes. Raises Clash where a live one is there."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if path.exists() and stat.S_ISSOCK(path.stat().st_mode):
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(1.0)
            if probe.connect_ex(str(path)) == 0:
                raise Clash(f"another plugin answers on {path}: stop it, or set MYOVERLAY_SOCKETS")
        path.unlink()
    listener = socket.socket(socket.AF_UNIX)
    before = os.umask(0o177)
    try:
        listener.bind(str(path))
    finally:
        os.umask(before)
    listener.listen(_BACKLOG)
    return Door(listener, path, _made(path))


def _made(path: Path) -> tuple[int, int]:
    """Which file it is: a disk gives a number again at once, so it takes the time too."""
    found = path.stat()
    return found.st_ino, found.st_mtime_ns


def run(environ: MutableMapping[str, str]) -> None:
    """Serve until told to stop (SIGTERM). Raises Refused or Clash where it cannot begin.

    Secrets are taken out of the environment, so that no process that is started from here has them in its own, and out
    of what `ps e` shows of this one.
    """
    from myoverlay.settings import SECRET, SETTINGS, load

    settings = load(environ)
    for row in SETTINGS:
        if row.field in SECRET and environ.pop(row.env, ""):
            _blot_out(row.env)
    doors = [bind(Path(path.strip())) for path in settings.sockets.split(",")]
    _serve(settings, doors)


def begin(environ: MutableMapping[str, str]) -> None:
    """The same for a program of its own: exit code 1 where it cannot begin, in one sentence, as of every command."""
    try:
        run(environ)
    except MyoverlayError as error:
        sys.exit(f"myoverlay: {error}")


def _blot_out(name: str) -> None:
    """Write over a variable in the memory that this process was started with: /proc/PID/environ shows that for ever.

    Where it lies, the kernel tells by fields 50 and 51 of /proc/PID/stat (proc_pid_stat(5)).
    """
    import ctypes

    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    start, end = int(fields[47]), int(fields[48])
    begins, at = f"{name}=".encode(), start
    for entry in Path("/proc/self/environ").read_bytes().split(b"\0"):
        if entry.startswith(begins) and at + len(entry) <= end:
            ctypes.memset(at + len(begins), ord("x"), len(entry) - len(begins))
        at += len(entry) + 1


def _serve(settings: Settings, doors: list[Door]) -> None:
    from myoverlay.cli.heap import in_one_arena
    from myoverlay.cli.logs import begin_log

    in_one_arena()
    kept = begin_log(settings)
    go_ahead(settings.nice)

    def load() -> Any:
        from myoverlay.daemon import begin

        daemon = begin(settings, kept.kept)
        _running.append(daemon)
        daemon.start()
        gc.freeze()  # all of it stays for as long as we run: no collection, 30 ms of every thread, looks at it again
        sys.setswitchinterval(TURN)
        return daemon.app

    listen(doors, load)


def go_ahead(nice: int) -> None:
    """Take precedence over containers that start at the same time, and over their engine, which waits for our answers.

    For this thread and those that it begins. Where the scheduler groups processes by their sessions (sched(7),
    autogroup) it is the group's number that counts; a shell's group is left alone. A managed plugin may do neither, and
    has a control group of its own.
    """
    if not nice:
        return
    try:
        os.setpriority(os.PRIO_PROCESS, 0, nice)
        if os.getsid(0) == os.getpid() and _AUTOGROUP.exists():
            _AUTOGROUP.write_text(str(nice))
    except OSError as error:
        log.info("MYOVERLAY_NICE=%d has no effect here: %s", nice, error)


def listen(doors: list[Door], make: Callable[[], Any]) -> None:
    """Serve an application on these sockets until told to stop; it is made in the one worker, after the fork."""
    from gunicorn.app.base import BaseApplication

    from myoverlay.cli.patience import Worker

    class Server(BaseApplication):  # type: ignore[misc]
        """One worker, many threads; the daemon lives in the worker, after the fork."""

        def load_config(self) -> None:
            options: dict[str, Any] = {
                "bind": [f"fd://{door.listener.fileno()}" for door in doors],
                "workers": 1,
                "worker_class": Worker,
                "worker_connections": _CONNECTIONS,
                "threads": _THREADS,
                "timeout": 120,
                "graceful_timeout": _STOP,
                "keepalive": 0,
                "control_socket_disable": True,
                "worker_tmp_dir": "/dev/shm" if os.path.isdir("/dev/shm") else None,  # touched each second: no disk
                "loglevel": "warning",
                "proc_name": "myoverlay",
                "pre_fork": lambda _arbiter, _worker: gc.freeze(),  # a collection would write to all that is shared
                "worker_exit": _stop,
                "on_exit": lambda _arbiter: [door.remove() for door in doors],
            }
            for name, value in options.items():
                self.cfg.set(name, value)

        def load(self) -> Any:
            return make()

    Server().run()


#: The worker's daemon, for gunicorn's hook, which is told no more than the worker.
_running: list[Any] = []


def _stop(_arbiter: object, _worker: object) -> None:
    while _running:
        _running.pop().stop()
