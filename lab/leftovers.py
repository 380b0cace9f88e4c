"""Proof that nothing was left: a picture of the machine before and after, and what is new, gone or different.

A line of a picture is one fact in words. What other laboratories of the same machine do at the same time can be told
apart: their lines begin with `laboratory NAME`.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from lab import cgroups, places
from lab.processes import holds_nothing

_SYSCTLS = (
    "net/ipv4/ip_forward", "net/ipv4/conf/all", "net/ipv4/conf/default", "net/ipv4/neigh/default", "net/ipv6/conf/all",
    "net/ipv6/conf/default", "net/bridge", "net/core", "net/netfilter", "net/ipv4/tcp_rmem", "net/ipv4/tcp_wmem",
    "kernel/hostname", "kernel/domainname", "vm/overcommit_memory", "fs/inotify", "user",
)  # fmt: skip
_CHANGES_BY_ITSELF = re.compile(r"net/netfilter/nf_conntrack_count$")
_FOLDERS = (
    "/var/lib/docker", "/var/lib/containerd", "/var/lib/consul", "/var/lib/myoverlay", "/var/lib/docker-registry",
    "/var/lib/docker-engine", "/opt/containerd", "/etc/docker", "/usr/sbin/dockerd", "/usr/bin/dockerd",
    "/usr/bin/containerd", "/usr/bin/consul", "/usr/sbin/policy-rc.d",
)  # fmt: skip
_LAB = re.compile(rf"/{places.PREFIX}-([a-z0-9-]+)(/|$)")


@dataclass(frozen=True)
class Snapshot:
    """What the machine looked like."""

    facts: frozenset[str]


def snapshot() -> Snapshot:
    """Take a picture; well below a second, changes nothing."""
    sources = (
        _processes(), _links(), _routes(), _namespaces(), _mounts(), _rules(), _sysctls(), _files(), _groups(), _own(),
    )  # fmt: skip
    return Snapshot(frozenset(fact for source in sources for fact in source))


def compare(before: Snapshot, after: Snapshot, labs: Iterable[str] | None = None) -> list[str]:
    """Every difference as a sentence; with `labs`, what belongs to other laboratories does not count.

    Nor do processes then that only live in namespaces of their own: anybody's service may have started meanwhile.
    Nor what an earlier laboratory of one of these names left when it was killed: the next one clears it.
    """
    differences = [f"left behind: {fact}" for fact in sorted(after.facts - before.facts)]
    differences += [f"gone: {fact}" for fact in sorted(before.facts - after.facts)]
    if labs is None:
        return differences
    mine = tuple(f"left behind: laboratory {name}:" for name in labs)
    foreign = ("left behind: process", "gone: process")
    return [
        line for line in differences if line.startswith(mine) or not ("laboratory " in line or line.startswith(foreign))
    ]


def _processes() -> Iterator[str]:
    """Processes in another network, mount or PID namespace than ours, in a group of a laboratory, or run from .lab."""
    ours = {kind: _link(f"/proc/self/ns/{kind}") for kind in ("net", "mnt", "pid")}
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or holds_nothing(int(entry)):
            continue
        with contextlib.suppress(OSError):
            groups = Path(f"/proc/{entry}/cgroup").read_text()
            program = _link(f"/proc/{entry}/exe")
            foreign = [kind for kind, own in ours.items() if _link(f"/proc/{entry}/ns/{kind}") not in (own, "")]
            lab = _LAB.search(groups)
            if foreign or lab or program.startswith(str(places.HOME)):
                name = Path(f"/proc/{entry}/comm").read_text().strip()
                owner = f"laboratory {lab[1]}: " if lab else ""
                owner = owner or ("by its file: " if program.startswith(str(places.HOME)) else "")
                yield f"{owner}process {entry} ({name})"


def _link(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""


def _links() -> Iterator[str]:
    for _, name in socket.if_nameindex():
        yield f"interface {name}"
    for line in _lines("/proc/net/if_inet6"):
        fields = line.split()
        yield f"address {fields[0]}/{int(fields[2], 16)} on {fields[5]}"


def _routes() -> Iterator[str]:
    for line in _lines("/proc/net/route")[1:]:
        fields = line.split()
        yield f"route {fields[1]}/{fields[7]} via {fields[2]} on {fields[0]}"


def _namespaces() -> Iterator[str]:
    for folder in ("/run/netns", "/var/run/netns"):
        with contextlib.suppress(OSError):
            yield f"folder {folder}"
            for name in os.listdir(folder):
                yield f"named namespace {folder}/{name}"


def _mounts() -> Iterator[str]:
    for line in _lines("/proc/self/mountinfo"):
        left, _, right = line.partition(" - ")
        fields = left.split()
        yield f"mount of {right.split()[0]} on {fields[4]} ({' '.join(fields[5:7]) or 'private'})"


def _rules() -> Iterator[str]:
    nft = shutil.which("nft", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if nft:
        listed = subprocess.run([nft, "-s", "list", "ruleset"], capture_output=True, text=True, check=False).stdout
        for number, line in enumerate(listed.splitlines()):
            yield f"nft line {number}: {line.strip()}"
    for file in ("/proc/net/ip_tables_names", "/proc/net/ip6_tables_names"):
        for table in _lines(file):
            yield f"legacy iptables table {table} ({file})"


def _sysctls() -> Iterator[str]:
    for name in _SYSCTLS:
        top = Path("/proc/sys", name)
        for file in [top] if top.is_file() else top.glob("*"):
            setting = str(file.relative_to("/proc/sys"))
            if not _CHANGES_BY_ITSELF.search(setting):
                with contextlib.suppress(OSError):
                    yield f"sysctl {setting} = {file.read_text().strip()}"


def _files() -> Iterator[str]:
    for folder, _, names in os.walk("/etc"):
        for name in names:
            with contextlib.suppress(OSError):
                status = os.lstat(os.path.join(folder, name))
                yield f"file {folder}/{name}, {status.st_size} bytes, written {status.st_mtime_ns}"
    for path in _FOLDERS:
        if os.path.lexists(path):
            yield f"path {path}"
    for name in os.listdir("/run"):
        yield f"path /run/{name}"


def _groups() -> Iterator[str]:
    for hierarchy in cgroups.hierarchies():
        with contextlib.suppress(OSError):
            for entry in os.scandir(hierarchy.mounted_at):
                found = _LAB.search(f"/{entry.name}")
                if entry.is_dir() and (found or entry.name in ("docker", "system.slice:docker")):
                    owner = f"laboratory {found[1]}: " if found else ""
                    yield f"{owner}group {entry.path}"


def _own() -> Iterator[str]:
    for top, word in ((places.HOSTS, "disk"), (places.RUN, "note")):
        if top.is_dir():
            for entry in top.iterdir():
                if entry.is_dir():
                    yield f"laboratory {entry.name}: {word} below .lab"


def _lines(file: str) -> list[str]:
    try:
        return Path(file).read_text().splitlines()
    except OSError:
        return []
