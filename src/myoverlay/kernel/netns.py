"""Network namespaces: made, pinned, entered, removed.

Python 3.11 has no `os.setns`, and a thread that cannot find back would do everybody's work in the wrong namespace. So
whoever needs another namespace gets a thread of its own that ends there. Nothing here forks.

Sources: setns(2), unshare(2), mount_namespaces(7), ioctl_nsfs(2), linux/net/sysctl_net.c.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import socket
import struct
import threading
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from myoverlay.errors import KernelRefused, Late, Refused, Unknown

T = TypeVar("T")

CLONE_NEWNS, CLONE_NEWNET = 0x00020000, 0x40000000
MS_BIND, MS_REC, MS_PRIVATE, MS_SHARED = 1 << 12, 1 << 14, 1 << 18, 1 << 20
MNT_DETACH, UMOUNT_NOFOLLOW = 2, 8
NS_GET_NSTYPE = 0xB703
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 1
#: Seconds that work in another namespace may take. Sockets and sysctls need microseconds: this only ends a hang.
PATIENCE = 10.0

#: The calling thread's own namespace; `/proc/self` would be the process's first thread's.
_OWN = "/proc/thread-self/ns/net"
_libc = ctypes.CDLL(None, use_errno=True)


def refusal(attempt: str, error: OSError) -> KernelRefused:
    """What the kernel said to an attempt, as ours."""
    code = error.errno or 0
    return KernelRefused(attempt, code, os.strerror(code) if code else str(error))


def _check(result: int) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def apart(fn: Callable[[], T], timeout: float = PATIENCE) -> T:
    """Run `fn` in a thread that ends afterwards, and carry its result or exception over.

    Whatever the thread does to its own namespaces dies with it. Raises Late after `timeout` seconds.
    """
    results: list[T] = []
    failures: list[BaseException] = []

    def run() -> None:
        try:
            results.append(fn())
        except BaseException as error:  # noqa: BLE001 - it belongs to the caller, who gets it below
            failures.append(error)

    thread = threading.Thread(target=run, name="netns", daemon=True)
    thread.start()
    thread.join(timeout)
    if failures:
        raise failures[0]
    if not results:
        raise Late(f"work in another namespace was not done after {timeout:g} s")
    return results[0]


class Namespace:
    """An open network namespace. It lives as long as this is open, whatever happens to its path."""

    def __init__(self, fd: int, path: Path | None = None) -> None:
        self._fd = fd
        self.path = path
        self.inode = os.fstat(fd).st_ino

    def __repr__(self) -> str:
        return f"<Namespace {self.path or self.inode}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    @property
    def fd(self) -> int:
        if self._fd < 0:
            raise ValueError(f"{self!r} is closed")
        return self._fd

    def dup(self) -> Namespace:
        """The same namespace under an fd of its own, for work that may outlive this object."""
        return Namespace(os.dup(self.fd), self.path)

    def close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def call(self, fn: Callable[[], T], timeout: float = PATIENCE) -> T:
        """Run `fn` inside the namespace and return what it returns, or raise what it raises.

        Raises KernelRefused where the namespace cannot be entered, Late after `timeout` seconds.
        """

        def inside() -> T:
            self._enter()
            return fn()

        return apart(inside, timeout)

    def socket(self, family: int, kind: int, proto: int = 0) -> socket.socket:
        """A socket that belongs to the namespace for good, to be used from anywhere.

        Raises KernelRefused where it takes CAP_NET_RAW and this process has none, OSError for all else.
        """
        try:
            return self.call(lambda: socket.socket(family, kind | socket.SOCK_CLOEXEC, proto))
        except PermissionError as error:
            if kind != socket.SOCK_RAW or family == socket.AF_NETLINK:
                raise
            reason = f"{error.strerror}: it takes CAP_NET_RAW"
            raise KernelRefused("opening a socket for whole packets", errno.EPERM, reason) from error

    def sysctl(self, name: str, value: str) -> bool:
        """Set e.g. `net/ipv6/conf/br0/disable_ipv6`. False where the key is absent or cannot be written."""
        return not self.sysctls({name: value})

    def sysctls(self, settings: Mapping[str, str]) -> dict[str, int]:
        """Set several in order; the answer holds those that are *not* as wanted, with the errno that says why.

        Inside a managed Docker plugin /proc/sys is a read-only mount. Then the thread mounts a procfs over /proc in a
        mount namespace of its own, where nobody else sees it and where it ends with the thread.
        """

        def inside() -> dict[str, int]:
            self._enter()
            failed = _write_all(settings)
            blocked = {name: settings[name] for name, code in failed.items() if code != errno.ENOENT}
            if blocked and _own_procfs():
                failed = {n: c for n, c in failed.items() if n not in blocked} | _write_all(blocked)
            return failed

        return apart(inside)

    def read_sysctls(self, names: Iterable[str], unless: str) -> dict[str, str]:
        """Those that are there and have another value than `unless`."""

        def inside() -> dict[str, str]:
            self._enter()
            found = {}
            for name in names:
                with contextlib.suppress(FileNotFoundError):
                    found[name] = Path(f"/proc/sys/{name}").read_text().strip()
            return {name: value for name, value in found.items() if value != unless}

        return apart(inside)

    def _enter(self) -> None:
        become(self)


def _write_all(settings: Mapping[str, str]) -> dict[str, int]:
    """Write what differs; sysctl paths below `net` show the *thread's* namespace (net/sysctl_net.c)."""
    failed: dict[str, int] = {}
    for name, value in settings.items():
        try:
            with open(f"/proc/sys/{name}", "rb") as key:
                if key.read().strip() == value.encode():
                    continue
            with open(f"/proc/sys/{name}", "wb", buffering=0) as key:
                key.write(value.encode())
        except OSError as error:
            failed[name] = error.errno or errno.EIO
    return failed


def _own_procfs() -> bool:
    """Give this thread a private, writable /proc. False where that is not allowed."""
    try:
        _check(_libc.unshare(CLONE_NEWNS))
        # Without this the new mount would spread to everybody who shares the old one.
        _check(_libc.mount(None, b"/", None, MS_REC | MS_PRIVATE, None))
        _check(_libc.mount(b"proc", b"/proc", b"proc", 0, None))
    except OSError:
        return False
    return True


def current() -> Namespace:
    """The namespace of the calling thread: the host's, where nobody left it."""
    return Namespace(os.open(_OWN, os.O_RDONLY | os.O_CLOEXEC))


def become(ns: Namespace) -> None:
    """The calling thread goes into the namespace for good: for a process that is about to be another program.

    Raises KernelRefused.
    """
    try:
        _check(_libc.setns(ns.fd, CLONE_NEWNET))
    except OSError as error:
        raise refusal(f"entering {ns!r}", error) from error


def nameless() -> Namespace:
    """A new namespace that is pinned nowhere: it ends with its last user, also where this process is killed."""

    def born() -> int:
        _check(_libc.unshare(CLONE_NEWNET))
        return os.open(_OWN, os.O_RDONLY | os.O_CLOEXEC)

    try:
        return Namespace(apart(born))
    except OSError as error:
        raise refusal("creating a network namespace", error) from error


def open_path(path: Path) -> Namespace:
    """The namespace that is pinned at `path`. Raises Unknown where it is missing or something else."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise Unknown(f"the namespace {path} cannot be opened: {os.strerror(error.errno or 0)}") from error
    if not _is_netns(fd):
        os.close(fd)
        raise Unknown(f"{path} is no network namespace")
    return Namespace(fd, path)


def is_pinned(path: Path) -> bool:
    """Is some namespace mounted there? (An empty file is what a reboot leaves of a pin.)"""
    try:
        return os.stat(path).st_dev == _nsfs_device()
    except OSError:
        return False


def create(path: Path) -> Namespace:
    """A new namespace with `lo` up, pinned at `path`; missing parents are made with mode 0700.

    What is pinned there already is opened instead (adopted), an empty file reused. Raises Refused where something else
    is in the way and KernelRefused where the kernel says no; then nothing is left behind. One creator per path.
    """
    if is_pinned(path):
        return open_path(path)
    try:
        _make_parents(path.parent)
        ours = _reserve(path)
    except OSError as error:
        raise refusal(f"making {path}", error) from error
    try:
        return Namespace(apart(lambda: _give_birth(path)), path)
    except OSError as error:
        _unpin(path, unlink=ours)
        raise refusal(f"creating a network namespace at {path}", error) from error
    except BaseException:
        _unpin(path, unlink=ours)
        raise


def holds(path: Path, ns: Namespace) -> bool:
    """Is it this namespace that is pinned there, and no other and nothing else?"""
    try:
        found = os.stat(path)
    except OSError:
        return False
    return found.st_dev == _nsfs_device() and found.st_ino == ns.inode


def pin(path: Path, ns: Namespace) -> None:
    """Pin an open namespace at `path`, in place of whatever namespace is pinned there.

    Raises Refused where something else is in the way and KernelRefused where the kernel says no.
    """
    if holds(path, ns):
        return
    try:
        while is_pinned(path):
            _check(_libc.umount2(os.fsencode(path), MNT_DETACH | UMOUNT_NOFOLLOW))
        _make_parents(path.parent)
        ours = _reserve(path)
        try:
            _check(_libc.mount(f"/proc/self/fd/{ns.fd}".encode(), os.fsencode(path), None, MS_BIND, None))
        except BaseException:
            _unpin(path, unlink=ours)
            raise
    except OSError as error:
        raise refusal(f"pinning {ns!r} at {path}", error) from error


def share(folder: Path) -> None:
    """Make a directory of pins a shared mount of its own, as the first `ip netns add` does; repeating is free.

    Without it a later `ip netns add` would lay a copy of all pins over ours, and ours could not be removed any more.
    """
    raw = os.fsencode(folder)
    try:
        _make_parents(folder.parent)
        folder.mkdir(mode=0o755, exist_ok=True)
        if _libc.mount(None, raw, None, MS_SHARED | MS_REC, None) != 0:  # no mount yet
            _check(_libc.mount(raw, raw, None, MS_BIND | MS_REC, None))
            _check(_libc.mount(None, raw, None, MS_SHARED | MS_REC, None))
    except OSError as error:
        raise refusal(f"preparing {folder}", error) from error


def delete(path: Path) -> None:
    """Unpin a namespace and remove its file. Absent is success. Its devices go when its last user has gone.

    Raises Refused where the path is neither a pin nor an empty file: only what `create` made is removed.
    """
    try:
        while is_pinned(path):
            _check(_libc.umount2(os.fsencode(path), MNT_DETACH | UMOUNT_NOFOLLOW))
        if not path.is_file() and not path.exists():
            return
        if not path.is_file() or path.stat().st_size:
            raise Refused(f"{path} is no pinned namespace: it is left alone")
        path.unlink(missing_ok=True)
    except OSError as error:
        raise refusal(f"removing the namespace {path}", error) from error


def _give_birth(path: Path) -> int:
    _check(_libc.unshare(CLONE_NEWNET))
    _lo_up()
    fd = os.open(_OWN, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _check(_libc.mount(_OWN.encode(), os.fsencode(path), None, MS_BIND, None))
    except BaseException:
        os.close(fd)
        raise
    return fd


def _lo_up() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        request = bytearray(struct.pack("16sh22x", b"lo", 0))
        fcntl.ioctl(probe, SIOCGIFFLAGS, request)
        (flags,) = struct.unpack_from("h", request, 16)
        struct.pack_into("h", request, 16, flags | IFF_UP)
        fcntl.ioctl(probe, SIOCSIFFLAGS, request)


def _make_parents(folder: Path) -> None:
    """`Path.mkdir(parents=True)` gives its mode to the last one only."""
    for parent in [*reversed(folder.parents), folder]:
        if not parent.exists():
            with contextlib.suppress(FileExistsError):
                parent.mkdir(mode=0o700)


def _reserve(path: Path) -> bool:
    """Put an empty file there to mount on. False where a leftover one serves; Refused for anything else."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDONLY | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        if path.is_symlink() or not path.is_file() or path.stat().st_size:
            raise Refused(f"{path} is in the way: no namespace can be pinned there") from None
        return False
    return True


def _unpin(path: Path, *, unlink: bool) -> None:
    """Roll back as far as possible; the caller's own failure is the one to tell."""
    with contextlib.suppress(OSError):
        if is_pinned(path):
            _libc.umount2(os.fsencode(path), MNT_DETACH | UMOUNT_NOFOLLOW)
        if unlink:
            path.unlink(missing_ok=True)


def _nsfs_device() -> int:
    """All namespaces lie on the kernel's one nsfs (fs/nsfs.c), so its device number tells them from files."""
    return os.stat(_OWN).st_dev


def _is_netns(fd: int) -> bool:
    try:
        return os.fstat(fd).st_dev == _nsfs_device() and fcntl.ioctl(fd, NS_GET_NSTYPE) == CLONE_NEWNET
    except OSError:
        return False
