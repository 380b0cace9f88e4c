"""Readings that any process of the machine can take, whether the plugin runs or not."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import stat
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from myoverlay.engine.about import About
from myoverlay.errors import MyoverlayError, Unavailable
from myoverlay.kernel import machine, netns, ruleset
from myoverlay.kernel.neightable import neighbour_table
from myoverlay.kernel.netns import Namespace
from myoverlay.kernel.pins import Pins
from myoverlay.operate.doctor import Readings
from myoverlay.plan import check_kernel, check_plugin, check_underlay
from myoverlay.values import HostId

#: Where Docker's socket is, unless the setting says otherwise.
DOCKER = ("/run/docker.sock", "/var/run/docker.sock")
#: Seconds that a socket of ours may take to say whose it is.
_KNOCK = 2.0
_RESOLV, _ENGINE = Path("/etc/resolv.conf"), Path("/etc/docker/daemon.json")


class Place(NamedTuple):
    """The settings that readings need."""

    sockets: tuple[Path, ...]
    state: Path
    pins: Pins
    docker: str
    token_file: str
    port: int
    environment: check_plugin.Environment


class Inside(NamedTuple):
    """What only the daemon knows, and nobody where it does not run."""

    me: HostId | None = None
    #: Docker's ids of this host's networks.
    networks: Callable[[], Iterable[str]] = tuple
    #: MACs elsewhere, by overlay; and how many neighbours containers here may come to have.
    macs: Callable[[], Mapping[str, int]] = dict
    expected: Callable[[], int] = int
    #: Neighbour rows that this host wrote into its overlays.
    rows: Callable[[], int] = int
    #: UDP ports that overlays have beside the setting's.
    ports: Callable[[], Iterable[int]] = tuple


class MachineReadings:
    """`home` opens the host's network namespace."""

    def __init__(self, place: Place, home: Callable[[], Namespace], inside: Inside = Inside()) -> None:  # noqa: B008 - it is frozen
        self._place = place
        self._home = home
        self._inside = inside

    def readings(self) -> Readings:
        return {
            "sockets": self.sockets,
            "settings": self.settings,
            "token-file": self.token_file,
            "journal": self.journal,
            "pins": self.pins,
            "engine": self.engine,
            "kernel": self.kernel,
            "neighbours": self.neighbours,
            "firewall": self.firewall,
        }

    def sockets(self, deadline: float) -> check_plugin.Sockets:
        """Who answers on each, and under which names Docker has this host's networks, where it can be asked."""
        me = self._inside.me
        seen = [check_plugin.SocketSeen(str(path), _is_socket(path), _holder(path)) for path in self._place.sockets]
        if me is None:  # nothing of ours is known to compare with: whoever answers first counts as this one
            me = next((HostId(one.holder) for one in seen if len(one.holder) == 32), None)
        return check_plugin.Sockets(me or "", tuple(seen), self._drivers())

    def _drivers(self) -> dict[str, tuple[str, ...]] | None:
        ours = set(self._inside.networks())
        try:
            listed = self.docker_networks() if ours else ()
        except Unavailable:
            return None  # the check of the engine says so
        drivers: dict[str, tuple[str, ...]] = {}
        for _id, name, driver, _subnets in listed or ():
            if _id in ours:
                drivers[driver] = (*drivers.get(driver, ()), name)
        return drivers

    def docker_networks(self) -> tuple[Any, ...] | None:
        """Docker's networks; None where its socket is not there. Raises Unavailable."""
        path = self._docker()
        return About(path).networks() if path else None

    def _docker(self) -> str:
        return self._place.docker or next((path for path in DOCKER if _is_socket(Path(path))), "")

    def settings(self, deadline: float) -> check_plugin.Environment:
        return self._place.environment

    def token_file(self, deadline: float) -> check_plugin.TokenFile:
        path = self._place.token_file
        if not path:
            return check_plugin.TokenFile()
        try:
            mode = machine.owner_only(Path(path))
            empty = not Path(path).read_bytes().strip()
        except OSError as error:
            return check_plugin.TokenFile(path, error=error.strerror or str(error))
        return check_plugin.TokenFile(path, mode, "it is empty" if empty else "")

    def journal(self, deadline: float) -> check_plugin.Disk:
        free, total, inodes, read_only = machine.room(self._place.state)
        return check_plugin.Disk(str(self._place.state), free, total, inodes, read_only)

    def pins(self, deadline: float) -> check_plugin.Mount:
        folder = self._place.pins.folder.parent
        return check_plugin.Mount(str(folder), managed=folder.is_relative_to("/host"), shared=machine.is_shared(folder))

    def engine(self, deadline: float) -> check_plugin.EngineSeen:
        path = self._docker()
        if not path:
            return check_plugin.EngineSeen(why="Docker's socket is not at hand")
        return check_plugin.EngineSeen(About(path).version())

    def kernel(self, deadline: float) -> check_kernel.KernelSeen:
        return check_kernel.KernelSeen(machine.release(), self._inside.macs())

    def neighbours(self, deadline: float) -> check_kernel.Neighbours:
        with self._home() as home:
            thresholds, entries, fulls = neighbour_table(home)
        exempt = (check_kernel.release_of(machine.release()) or (0, 0)) >= check_kernel.EXEMPT
        own = self._inside.rows() if exempt else 0
        return check_kernel.Neighbours(thresholds, entries, fulls, self._inside.expected(), own)

    def firewall(self, deadline: float) -> check_underlay.Firewall:
        """The host's rules, and those in overlays' namespaces."""
        with self._home() as home:
            here = ruleset.read(home, {self._place.port, *self._inside.ports()})
            legacy = ruleset.legacy(home)
        rules = [
            check_underlay.Blocking(one.family, one.table, one.chain, one.handle, one.port) for one in here.dropping
        ]
        closed = [
            (one.family, one.table, one.name)
            for one in here.chains
            if one.hook == "forward" and one.drops and not one.rules
        ]
        return check_underlay.Firewall(tuple(rules), tuple(closed), tuple(self._inside_overlays()), "", legacy)

    def _inside_overlays(self) -> Iterable[tuple[str, str]]:
        """Chains in overlays' namespaces that drop what no rule accepts. A namespace that goes meanwhile has none."""
        pins = self._place.pins
        for name in sorted(pins.names()):
            if not pins.is_there(name):
                continue
            try:
                with netns.open_path(pins.path(name)) as ns:
                    chains = ruleset.read(ns, ()).chains
            except MyoverlayError:
                continue
            for one in chains:
                if one.drops:
                    yield str(pins.path(name)), f"{one.family} {one.table} {one.name}"


def nameservers(text: str | None = None) -> tuple[str, ...]:
    """The servers of the host's /etc/resolv.conf, in their order; none where there is no such file."""
    if text is None:
        try:
            text = _RESOLV.read_text(errors="replace")
        except OSError:
            return ()
    lines = (line.split() for line in text.splitlines())
    return tuple(words[1] for words in lines if len(words) > 1 and words[0] == "nameserver")


def engine_servers() -> tuple[str, ...] | None:
    """The servers that Docker's configuration names; None where there is none, or it cannot be read from here."""
    try:
        told = json.loads(_ENGINE.read_text()).get("dns")
    except (OSError, ValueError, AttributeError):
        return None
    return tuple(map(str, told)) if isinstance(told, list) else None


def _is_socket(path: Path) -> bool:
    try:
        return stat.S_ISSOCK(path.stat().st_mode)
    except OSError:
        return False


def _holder(path: Path) -> str:
    """The id of the host whose plugin answers there, or `stranger`; empty where nobody does."""
    connection = http.client.HTTPConnection("localhost", timeout=_KNOCK)
    sock = socket.socket(socket.AF_UNIX)
    answers = False
    try:
        sock.settimeout(_KNOCK)
        sock.connect(str(path))
        connection.sock = sock
        # A stranger may answer and hang up before he has read the question, which breaks what follows his answer.
        with contextlib.suppress(BrokenPipeError):
            connection.request("POST", "/Control.Host", "{}", {"Content-Type": "application/json"})
        with connection.getresponse() as answer:
            answers = True
            told = json.loads(answer.read(1 << 16))
            return str(HostId(told["id"]))
    except OSError:
        return "stranger" if answers else ""
    except (http.client.HTTPException, ValueError, KeyError, TypeError):
        return "stranger"
    finally:
        sock.close()
        connection.close()
