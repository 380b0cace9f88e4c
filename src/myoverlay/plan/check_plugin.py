"""Checks of the plugin itself: does it run, under both names, with settings that mean something, on a disk with room;
and of the engine that uses it. Readings in, findings out.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping

import msgspec

from myoverlay.plan.findings import Finding, bad, count, few, ok, unknown, warn

#: Bytes: below the first the journal's next write may fail; below the second somebody should look.
FULL, TIGHT = 8 << 20, 64 << 20
_PREFIX = "MYOVERLAY_"
_AGAIN = (
    "start the plugin again: `docker plugin disable -f NAME` and `docker plugin enable NAME`, or `myoverlay serve`"
    " where it is a process of the host"
)


class Running(msgspec.Struct, frozen=True):
    """`answers`: the plugin answered; else `why` not. `refuses`: it answers, and says why it does nothing."""

    answers: bool
    why: str = ""
    refuses: str = ""


def judge_running(seen: Running) -> Finding:
    if seen.refuses:
        return bad(
            f"the plugin answers, and does nothing: {seen.refuses}",
            "it cannot begin on this host's state or settings; traffic is left as it is, nothing new can start",
            f"do what the sentence says, then {_AGAIN}",
        )
    if not seen.answers:
        return bad(
            seen.why,
            "containers that run keep their traffic; none can start or stop, and nothing is repaired",
            _AGAIN,
        )
    return ok("the plugin answers")


class SocketSeen(msgspec.Struct, frozen=True):
    """A socket of MYOVERLAY_SOCKETS. `holder`: the id of the host that answers there; empty: nobody does."""

    path: str
    there: bool
    holder: str = ""


class Sockets(msgspec.Struct, frozen=True):
    """`me`: this host's id. `drivers`: under which driver names Docker has networks of this host; None: not known."""

    me: str
    seen: tuple[SocketSeen, ...]
    drivers: Mapping[str, tuple[str, ...]] | None = None


def judge_sockets(read: Sockets) -> Finding:
    for one in read.seen:
        if not one.there:
            return bad(
                f"{one.path} is not there",
                "Docker finds the plugin by the socket's name: `docker run` and `network create` under that name fail",
                _AGAIN,
            )
        if not one.holder:
            return bad(
                f"nobody answers on {one.path}",
                "Docker tries for 15 s and then fails, at each `docker run` and `docker network` under that name",
                f"remove the dead socket: `rm {one.path}`, then {_AGAIN}",
            )
        if one.holder != read.me:
            return bad(
                f"{one.path} is answered by another plugin",
                "networks made under that name are not this plugin's",
                "stop the other one, or give each its own MYOVERLAY_SOCKETS",
            )
    if read.drivers is not None and len(read.drivers) > 1:
        names = "; ".join(f"{driver}: {few(sorted(which))}" for driver, which in sorted(read.drivers.items()))
        drivers = read.drivers
        keep = max(sorted(drivers), key=lambda driver: len(drivers[driver]))
        others = sorted(name for driver, which in drivers.items() if driver != keep for name in which)
        return warn(
            f"networks of this host were made under {len(read.drivers)} names ({names})",
            "the managed name and the second one are one plugin and two drivers to Docker, which cleans up after them"
            " in different ways",
            f"use one name for all networks of a host, as {keep}: `docker network rm {' '.join(others)}`, and create"
            f" {'it' if len(others) == 1 else 'them'} anew with `-d {keep} --ipam-driver {keep}`",
        )
    return ok(f"{count(len(read.seen), 'socket')} answer" + ("s" if len(read.seen) == 1 else ""))


class Environment(msgspec.Struct, frozen=True):
    """The MYOVERLAY_* words of the environment, and those that are settings."""

    given: tuple[str, ...]
    known: tuple[str, ...]
    refused: str = ""


def judge_settings(read: Environment) -> Finding:
    if read.refused:
        return bad(read.refused, "the plugin does not begin with it", f"put it right, then {_AGAIN}")
    strange = sorted(set(read.given) - set(read.known))
    if not strange:
        return ok(f"{count(len(read.given), 'setting')}, all known")
    # By what comes after the prefix, which they all have: with it each would be like some other.
    known = {name.removeprefix(_PREFIX): name for name in read.known}
    likely = [known[word] for word in difflib.get_close_matches(strange[0].removeprefix(_PREFIX), known, 1)]
    return bad(
        f"no setting is called {few(strange)}",
        "it has no effect: what was meant by it keeps its default",
        (f"say {likely[0]} in place of {strange[0]}" if likely else f"take {strange[0]} out")
        + f": `unset {strange[0]}` where the plugin is started, then {_AGAIN}",
    )


class TokenFile(msgspec.Struct, frozen=True):
    """CONSUL_HTTP_TOKEN_FILE. `mode`: its permissions; `error`: why it cannot be read."""

    path: str = ""
    mode: int = 0
    error: str = ""


def judge_token_file(read: TokenFile) -> Finding:
    if not read.path:
        return ok("no token file is set")
    if read.error:
        return bad(
            f"{read.path}: {read.error}",
            "Consul is asked for nothing until it can be read",
            "write the token there, or set CONSUL_HTTP_TOKEN_FILE to where it is",
        )
    if read.mode & 0o077:
        return bad(
            f"{read.path} has mode {read.mode:04o}",
            "others than root may read it, and with it do in Consul whatever this host may",
            f"`chmod 600 {read.path}`",
        )
    return ok(f"{read.path} is its owner's alone")


class Disk(msgspec.Struct, frozen=True):
    """The file system of the journal. Bytes, and free inodes (None: it has no fixed number of them)."""

    path: str
    free: int
    total: int
    inodes: int | None = None
    read_only: bool = False


def judge_disk(read: Disk) -> Finding:
    room = f"{read.free >> 20} of {read.total >> 20} MiB free at {read.path}"
    means = "what Docker asks for is written there before it is answered: containers can neither start nor stop"
    if read.read_only:
        return bad(f"{read.path} is mounted read-only", means, f"`mount -o remount,rw $(stat -c %m {read.path})`")
    if read.free < FULL or read.inodes == 0:
        free = room if read.free < FULL else f"no inode free at {read.path}"
        return bad(free, means, f"make room on that file system: `df -h {read.path}` shows it")
    if read.free < TIGHT and read.free * 10 < read.total:
        return warn(room, f"below {FULL >> 20} MiB {means}", f"make room: `df -h {read.path}` shows the file system")
    return ok(room)


class Mount(msgspec.Struct, frozen=True):
    """Where namespaces are pinned. `managed`: the plugin has a mount namespace of its own, which must pass pins on."""

    path: str
    managed: bool
    shared: bool


def judge_mount(read: Mount) -> Finding:
    if read.managed and not read.shared:
        return bad(
            f"{read.path} is not on a shared mount",
            "namespaces of overlays exist for the plugin alone: they end, with all traffic, when it is disabled",
            "on the host `mount --make-rshared /run`, then restart Docker and the plugin",
        )
    return ok(f"{read.path} is " + ("shared with the host" if read.managed else "on the host itself"))


class EngineSeen(msgspec.Struct, frozen=True):
    """`version`: what Docker says; `why`: why it was not asked, or did not say."""

    version: str = ""
    why: str = ""


class Fault(msgspec.Struct, frozen=True):
    """Versions from `first` to before `fixed`."""

    first: tuple[int, int, int]
    fixed: tuple[int, int, int]
    means: str
    severe: bool = False


#: Known faults of engines that a network driver's users meet; the newest that was looked through is 29.
ENGINE_FAULTS = (
    Fault((0, 0, 0), (20, 10, 0), "engines before 20.10 were never tried with this plugin", severe=True),
    Fault(
        (25, 0, 0), (26, 1, 3), "containers that are on --internal networks alone are answered no name but their own"
    ),
    Fault((26, 0, 0), (26, 0, 1), "the sandbox is made in another order, which no driver was told"),
    Fault((29, 0, 0), (29, 0, 3), "dockerd panics when a container goes whose gateway is a remote driver's, as ours is"
          " with `egress=own`", severe=True),
    Fault((29, 6, 0), (29, 7, 0), "after a restart with live-restore, `network connect` fails for containers with"
          " `host-gateway`"),
)  # fmt: skip


def engine_version(text: str) -> tuple[int, int, int] | None:
    """`28.5.2+dfsg4` as numbers; None for what is none."""
    found = re.match(r"(\d{1,4})\.(\d{1,4})(?:\.(\d{1,4}))?(?!\d)", text)
    return (int(found[1]), int(found[2]), int(found[3] or 0)) if found else None


def judge_engine(read: EngineSeen) -> Finding:
    if not read.version:
        return unknown(read.why, "set MYOVERLAY_DOCKER_SOCKET, or look: `docker version`")
    version = engine_version(read.version)
    if version is None:
        return unknown(f"Docker says that its version is {read.version!r:.60}", "look: `docker version`")
    faults = [fault for fault in ENGINE_FAULTS if fault.first <= version < fault.fixed]
    if not faults:
        return ok(f"Engine {read.version} has no fault that is known here")
    fixed = ".".join(map(str, max(fault.fixed for fault in faults)))
    found = bad if any(fault.severe for fault in faults) else warn
    return found(
        f"Engine {read.version}",
        "; ".join(fault.means for fault in faults),
        f"upgrade Docker to {fixed} or later",
    )


class Resolving(msgspec.Struct, frozen=True):
    """`address`: where names are asked, empty where they are not answered. `host`: the servers that the host itself
    uses. `engine`: those of Docker's daemon.json, None where it was not read. `state`: the resolver's process.
    """

    address: str = ""
    host: tuple[str, ...] = ()
    engine: tuple[str, ...] | None = None
    trouble: str = ""


def judge_names(read: Resolving) -> Finding:
    if not read.address:
        return ok("names are not answered (MYOVERLAY_NAMES=off)")
    if read.trouble:
        return bad(
            read.trouble,
            "containers are not told each other's names",
            "do what the sentence says; `myoverlay names` shows more",
        )
    if read.address in read.host:
        return bad(
            f"the host's own /etc/resolv.conf names {read.address}",
            "the resolver would ask itself for everything that it does not know",
            f"take the line `nameserver {read.address}` out of it, and name another server there",
        )
    if read.engine is not None and read.engine == (read.address,):
        return warn(
            f'"dns" in /etc/docker/daemon.json names {read.address} alone',
            "while the plugin is away, each question of a container takes 4 s and is not answered",
            f'name a second server that the host uses: {{ "dns": ["{read.address}", "192.0.2.53"] }}',
        )
    return ok(f"names are answered at {read.address}")
