"""Starting processes in the namespaces of others, and opening sockets there.

Namespaces belong to threads. Whatever must happen inside is done by a short-lived thread that enters, does it, and
ends: a process forked there is an ordinary child of ours (so `Popen` works), a socket opened there stays there.
"""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import IO, Any, TypeVar

from lab import syscalls

T = TypeVar("T")

KINDS = {
    "pid": syscalls.CLONE_NEWPID,
    "ipc": syscalls.CLONE_NEWIPC,
    "uts": syscalls.CLONE_NEWUTS,
    "net": syscalls.CLONE_NEWNET,
    "cgroup": syscalls.CLONE_NEWCGROUP,
    "mnt": syscalls.CLONE_NEWNS,
}
"""In the order they are entered: the mount namespace last, because it takes the paths of the others away."""

_JOIN = """
for file in /sys/fs/cgroup/machine/cgroup.procs /sys/fs/cgroup/*/machine/cgroup.procs; do
    [ -e "$file" ] && echo 0 2>/dev/null >"$file"
done
exec "$@"
"""
"""Moves a process into the host's control groups before it becomes what it shall be."""


def inside(namespaces: Mapping[str, str], work: Callable[[], T]) -> T:
    """Do a piece of work in the given namespaces (kind to path); its exception is raised here."""
    result: list[T] = []
    failure: list[BaseException] = []

    def enter_and_work() -> None:
        try:
            with ExitStack() as opened:
                descriptors = []
                for kind, number in KINDS.items():
                    if kind in namespaces:
                        descriptor = os.open(namespaces[kind], os.O_RDONLY | os.O_CLOEXEC)
                        opened.callback(os.close, descriptor)
                        descriptors.append((descriptor, number))
                if "mnt" in namespaces:
                    syscalls.unshare(syscalls.CLONE_FS)
                for descriptor, number in descriptors:
                    syscalls.setns(descriptor, number)
            result.append(work())
        except BaseException as error:  # noqa: BLE001 - handed to the caller's thread
            failure.append(error)

    thread = threading.Thread(target=enter_and_work, name="inside", daemon=True)
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return result[0]


def spawn(
    namespaces: Mapping[str, str],
    argv: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    cwd: str | None = None,
    stdin: int | IO[Any] | None = subprocess.DEVNULL,
    stdout: int | IO[Any] | None = None,
    stderr: int | IO[Any] | None = None,
    text: bool = True,
) -> subprocess.Popen[Any]:
    """Start a command in the given namespaces, as a child of ours, in a session of its own.

    With a mount namespace it is also moved into the control groups of that host.
    """
    command = ["/bin/sh", "-c", _JOIN, "sh", *argv] if "mnt" in namespaces else list(argv)

    def start() -> subprocess.Popen[Any]:
        return subprocess.Popen(
            command,
            env=dict(env) if env is not None else None,
            cwd=cwd,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            text=text,
            start_new_session=True,
        )

    return inside(namespaces, start)


def spawn_first(argv: Sequence[str], *, env: Mapping[str, str], stderr: IO[Any]) -> subprocess.Popen[bytes]:
    """Start a command as the first process of a new PID namespace, with pipes for input and output."""

    def start() -> subprocess.Popen[bytes]:
        syscalls.unshare(syscalls.CLONE_NEWPID)
        return subprocess.Popen(
            list(argv),
            env=dict(env),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            start_new_session=True,
        )

    return inside({}, start)
