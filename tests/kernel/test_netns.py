"""Namespaces: made, adopted, entered, removed; sysctls, also where /proc/sys is read-only."""

from __future__ import annotations

import errno
import os
import socket
import stat
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from myoverlay.errors import KernelRefused, Late, Refused, Unknown
from myoverlay.kernel import netns
from myoverlay.kernel.netns import Namespace

from .conftest import library, open_fds, soon, until


def test_a_created_namespace_is_pinned_and_its_loopback_is_up(tmp_path: Path) -> None:
    """What create makes is another namespace than ours, can be opened by its path, and can talk to itself."""
    path = tmp_path / "a" / "b" / "net"
    with netns.create(path) as ns, netns.current() as ours, netns.open_path(path) as again:
        assert ns.inode == again.inode != ours.inode
        assert netns.is_pinned(path)
        assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == stat.S_IMODE((tmp_path / "a/b").stat().st_mode) == 0o700
        with library(ns) as ipr:
            (lo,) = ipr.link("get", ifname="lo")
            assert lo["state"] == "up"
    netns.delete(path)
    assert not path.exists()


def test_creating_where_one_is_pinned_adopts_it(tmp_path: Path) -> None:
    """A second create at the same path gives the same namespace and mounts nothing over it."""
    path = tmp_path / "net"
    with netns.create(path) as one, netns.create(path) as two:
        assert one.inode == two.inode
    assert Path("/proc/self/mounts").read_text().count(str(path)) == 1
    netns.delete(path)


def test_an_empty_leftover_file_is_reused(tmp_path: Path) -> None:
    """A reboot leaves an empty file where a pin was, and that does not stand in the way."""
    path = tmp_path / "net"
    path.touch()
    assert not netns.is_pinned(path)
    with pytest.raises(Unknown):
        netns.open_path(path)
    netns.create(path).close()
    assert netns.is_pinned(path)
    netns.delete(path)


@pytest.mark.parametrize("obstacle", ["file", "directory", "symlink"])
def test_what_is_not_ours_is_neither_covered_nor_removed(tmp_path: Path, obstacle: str) -> None:
    """A file with content, a directory or a symbolic link is refused by create and left alone by delete."""
    path, aim = tmp_path / "net", tmp_path / "aim"
    aim.write_text("precious")
    if obstacle == "file":
        path.write_text("precious")
    elif obstacle == "directory":
        path.mkdir()
    else:
        path.symlink_to(aim)
    with pytest.raises(Refused):
        netns.create(path)
    with pytest.raises(Refused):
        netns.delete(path)
    assert path.exists()
    assert aim.read_text() == "precious"


def test_a_failed_create_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the pin fails, the file made for it goes and the failure names attempt, object and cause."""
    path = tmp_path / "net"

    def fail() -> None:
        raise OSError(errno.EPERM, "no")

    monkeypatch.setattr(netns, "_lo_up", fail)
    with pytest.raises(KernelRefused, match=r"creating a network namespace at .*net: Operation not permitted") as told:
        netns.create(path)
    assert told.value.code == errno.EPERM
    assert not path.exists()


def test_deleting_what_is_absent_succeeds(tmp_path: Path) -> None:
    """Delete is idempotent, also after pins that were mounted twice."""
    netns.delete(tmp_path / "never")
    path = tmp_path / "net"
    with netns.create(path) as ns:
        assert netns._libc.mount(f"/proc/self/fd/{ns.fd}".encode(), os.fsencode(path), None, netns.MS_BIND, None) == 0
    netns.delete(path)
    netns.delete(path)
    assert not path.exists()


@pytest.mark.parametrize("path", ["/proc/self/ns/mnt", "/proc/self/status", "/", "/nowhere/at/all"])
def test_what_is_no_network_namespace_is_unknown(path: str) -> None:
    """Other namespaces, files, directories and missing paths are refused by name."""
    with pytest.raises(Unknown, match=path):
        netns.open_path(Path(path))


def test_call_runs_inside_and_the_caller_stays_outside(host: Namespace) -> None:
    """The function sees the other namespace, its result and its exception come back, and we never left ours."""
    before = os.stat("/proc/thread-self/ns/net").st_ino
    assert host.call(lambda: os.stat("/proc/thread-self/ns/net").st_ino) == host.inode
    with pytest.raises(ZeroDivisionError):
        host.call(lambda: 1 // 0)
    assert os.stat("/proc/thread-self/ns/net").st_ino == before


def test_call_ends_at_its_time_limit(host: Namespace) -> None:
    """Work that hangs gives Late, not a hanging caller."""
    let_go = threading.Event()
    began = time.monotonic()
    with pytest.raises(Late):
        host.call(lambda: let_go.wait(30), timeout=0.05)
    assert time.monotonic() - began < 5
    let_go.set()


def test_a_socket_belongs_to_its_namespace_for_good(spaces: Callable[[str], Namespace]) -> None:
    """The same port is free in two namespaces, and neither socket hears the other's datagrams."""
    one, two = spaces("one"), spaces("two")
    with one.socket(socket.AF_INET, socket.SOCK_DGRAM) as a, two.socket(socket.AF_INET, socket.SOCK_DGRAM) as b:
        a.bind(("127.0.0.1", 4790))
        b.bind(("127.0.0.1", 4790))
        b.setblocking(False)
        a.sendto(b"to myself", ("127.0.0.1", 4790))
        assert a.recv(100) == b"to myself"
        with pytest.raises(BlockingIOError):
            b.recv(100)


def test_a_closed_namespace_is_not_entered(tmp_path: Path) -> None:
    """After close the fd's number may be anybody's, so using it is an error of the program."""
    ns = netns.create(tmp_path / "net")
    ns.close()
    ns.close()
    with pytest.raises(ValueError, match="closed"):
        ns.call(lambda: None)
    netns.delete(tmp_path / "net")


def test_sysctl_sets_inside_only(host: Namespace) -> None:
    """A sysctl is set in the namespace and not in ours; a missing key is told by False."""
    key = "net/ipv4/ip_default_ttl"
    ours = Path(f"/proc/sys/{key}").read_text()
    assert host.sysctl(key, "99")
    assert host.sysctl(key, "99")
    assert host.call(Path(f"/proc/sys/{key}").read_text).strip() == "99"
    assert Path(f"/proc/sys/{key}").read_text() == ours
    assert not host.sysctl("net/ipv4/no_such_key", "1")
    assert host.sysctls({"net/ipv4/no_such_key": "1", key: "98"}) == {"net/ipv4/no_such_key": errno.ENOENT}


def test_sysctl_works_where_proc_sys_is_read_only(host: Namespace) -> None:
    """As in a managed plugin: a private procfs of the thread serves, and nobody's mounts change."""
    key = "net/ipv4/ip_default_ttl"
    mounts = Path("/proc/self/mounts").read_text()

    def as_in_a_plugin() -> tuple[bool, int]:
        netns._check(netns._libc.unshare(netns.CLONE_NEWNS))
        netns._check(netns._libc.mount(None, b"/", None, netns.MS_REC | netns.MS_PRIVATE, None))
        netns._check(netns._libc.mount(b"/proc/sys", b"/proc/sys", None, netns.MS_BIND, None))
        netns._check(netns._libc.mount(None, b"/proc/sys", None, netns.MS_BIND | 32 | 1, None))
        with pytest.raises(OSError, match="Read-only"):
            Path(f"/proc/sys/{key}").write_text("90")
        began = time.perf_counter()
        done = host.sysctl(key, "77")
        return done, int((time.perf_counter() - began) * 1e6)

    done, micros = netns.apart(as_in_a_plugin)
    print(f"\nsysctl by a private procfs: {micros} µs")
    assert done
    assert host.call(Path(f"/proc/sys/{key}").read_text).strip() == "77"
    assert Path("/proc/self/mounts").read_text() == mounts


def test_two_hundred_lives_leave_nothing(tmp_path: Path) -> None:
    """200 namespaces, each with a socket and a sysctl, leave no fd, thread or mount (the fixture counts again)."""
    fds = open_fds()
    for _ in range(200):
        with netns.create(tmp_path / "net") as ns:
            ns.socket(socket.AF_INET, socket.SOCK_DGRAM).close()
            assert ns.sysctl("net/ipv4/ip_default_ttl", "70")
        netns.delete(tmp_path / "net")
    assert open_fds() <= fds
    assert str(tmp_path) not in Path("/proc/self/mounts").read_text()


def test_many_threads_may_use_one_namespace(host: Namespace) -> None:
    """Calls from several threads at once all run inside and none disturbs another."""
    seen: list[int] = []

    def work() -> None:
        for _ in range(20):
            seen.append(host.call(lambda: os.stat("/proc/thread-self/ns/net").st_ino))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    until(lambda: len(seen) == 160)
    for thread in threads:
        thread.join(soon() - time.monotonic())
    assert set(seen) == {host.inode}
