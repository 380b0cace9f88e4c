"""The test's side of daemons that are killed: who bears them, the store they share, and hosts that live with them."""

from __future__ import annotations

import itertools
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path
from typing import Any, Self

from myoverlay.errors import Unknown
from myoverlay.kernel import netns
from myoverlay.kernel.neigh import RTM_DELNEIGH, RTM_NEWNEIGH, Tables, decode_row
from myoverlay.kernel.netns import Namespace
from myoverlay.kernel.rtnetlink import replies
from myoverlay.values import Endpoint, Fdb, LocalLease, Neigh, Network, PoolUse, decoder
from tests.kernel.host.hosts import Container, Host, Hosts, Refusal
from tests.kernel.host.mortal import HASTY, USUAL, Birth
from tests.kernel.host.tools import link_names
from tests.kernel.host.view import StoreView

#: Seconds that a daemon may take for anything it is asked.
PATIENCE = 20.0
RTM_DELLINK = 17
_ROOT = Path(__file__).parents[3]


class Died(Exception):
    """The daemon was killed while it did this."""


class StoreServer:
    """Hands one store to daemons in other processes; what one of them waited for ends with it."""

    def __init__(self, hosts: Hosts) -> None:
        self.address = str(hosts.folder / "store.sock")
        self._store = hosts.store
        self._listener = Listener(self.address, "AF_UNIX", backlog=32)
        self._lock = threading.Lock()  # guards what follows
        self._lines: dict[str, list[tuple[Connection[Any, Any], StoreView]]] = {}
        self._threads: list[threading.Thread] = []
        self._begin(self._accept)

    def _begin(self, act: Any, *args: Any) -> None:
        thread = threading.Thread(target=act, args=args, name="store", daemon=True)
        with self._lock:
            self._threads = [one for one in self._threads if one.is_alive() or one.ident is None] + [thread]
        thread.start()

    def _accept(self) -> None:
        while True:
            line = self._listener.accept()
            try:
                name = line.recv()
            except (EOFError, OSError):
                line.close()
                continue
            if name is None:
                line.close()
                return
            view = StoreView(self._store)
            with self._lock:
                self._lines.setdefault(name, []).append((line, view))
            self._begin(self._serve, line, view)

    def _serve(self, line: Connection[Any, Any], view: StoreView) -> None:
        with suppress(EOFError, OSError), line:
            while True:
                method, args, kwargs = line.recv()
                try:
                    answer: tuple[bool, Any] = True, getattr(view, method)(*args, **kwargs)
                except Exception as error:  # noqa: BLE001 - it belongs to who asked
                    answer = False, error
                line.send(answer)

    def forget(self, name: str) -> None:
        """The daemon of this name is dead."""
        with self._lock:
            lines = self._lines.pop(name, [])
        for _, view in lines:
            view.close()

    def close(self) -> None:
        with self._lock:
            names = list(self._lines)
        for name in names:
            self.forget(name)
        with Client(self.address, "AF_UNIX") as last:
            last.send(None)
        for thread in self._threads:
            thread.join(5)
        self._listener.close()


class Nursery:
    """A process without threads that has imported everything, and forks daemons."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers = itertools.count(1)
        address = str(folder / "nursery.sock")
        environ = os.environ | {"PYTHONPATH": f"{_ROOT / 'src'}:{_ROOT}"}
        with Listener(address, "AF_UNIX") as listener:
            self._process = subprocess.Popen([sys.executable, "-m", "tests.kernel.host.mortal", address], env=environ)
            self._line = listener.accept()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._line.close()
        self._process.wait(10)

    def bear(self, host: MortalHost, server: StoreServer, fatal: int) -> Life:
        """A daemon for this host; raises Died where it did not survive its own start."""
        name = f"{host.name}-{next(self._numbers)}"
        control = str(self._folder / "control.sock")
        with Listener(control, "AF_UNIX") as listener:
            log = str(host.hosts.folder / f"{host.name}.log")
            birth = Birth(name, host.environ, str(host.ns.path), control, server.address, log, fatal)
            self._line.send(birth)
            pid = self._line.recv()
            line = listener.accept()
        life = Life(self, server, name, pid, line)
        life.hear()
        return life

    def bury(self, pid: int) -> int:
        """Wait for a daemon's end; its status."""
        self._line.send(pid)
        return int(self._line.recv())


class Life:
    """A running daemon, from outside."""

    def __init__(self, nursery: Nursery, server: StoreServer, name: str, pid: int, line: Connection[Any, Any]) -> None:
        self._nursery, self._server, self._name = nursery, server, name
        self._pid, self._line = pid, line

    def ask(self, method: str, *args: Any) -> Any:
        """Have the daemon do something. Raises Died where that killed it."""
        with suppress(BrokenPipeError, ConnectionResetError):
            self._line.send((method, *args))
        return self.hear()

    def hear(self) -> Any:
        try:
            assert self._line.poll(PATIENCE), f"{self._name} says nothing"
            return self._line.recv()
        except (EOFError, ConnectionResetError):
            self._end()
            raise Died from None

    def kill(self) -> None:
        os.kill(self._pid, signal.SIGKILL)
        self._end()

    def _end(self) -> None:
        self._line.close()
        status = self._nursery.bury(self._pid)
        self._server.forget(self._name)
        assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL, f"{self._name} ended by itself: see its log"


class MortalHost(Host):
    """A host whose daemon is a process that gets killed."""

    def __init__(self, hosts: Hosts, nursery: Nursery, server: StoreServer) -> None:
        self._nursery, self._server = nursery, server
        self.life: Life | None = None
        hosts.admit(lambda number: self._settle(hosts, number))

    def _settle(self, hosts: Hosts, number: int) -> Self:
        super().__init__(hosts, number, 1500, {})
        return self

    @property
    def environ(self) -> dict[str, str]:
        return self._environ

    def _daemon(self) -> Any:
        """Nothing of the daemon is in this process."""
        self.begin()

    def begin(self, fatal: int = 0) -> bool:
        """Start a daemon, which is killed before its effect of this number; False where it did not live to serve."""
        try:
            self.life = self._nursery.bear(self, self._server, fatal)
        except Died:
            return False
        return True

    def ask(self, method: str, *args: Any) -> Any:
        assert self.life is not None, "no daemon runs"
        try:
            return self.life.ask(method, *args)
        except Died:
            self.life = None
            raise

    def call(self, method: str, **body: Any) -> dict[str, Any]:
        return self.call_raw(method, json.dumps(body))

    def call_raw(self, method: str, body: str) -> dict[str, Any]:
        """One call of Docker's as it stands. Raises Refusal, or Died where it killed the daemon."""
        status, said = self.ask("call", method, body)
        if status != 200:
            raise Refusal(method, status, said["Err"])
        return dict(said)

    def stop(self) -> None:
        """The end by force: there is no other here."""
        if self.life is not None:
            self.life.kill()
            self.life = None

    def start(self) -> None:
        self.begin()

    def hurry(self, yes: bool = True) -> None:
        """Let the daemon collect at once what nobody asks for, or as usual."""
        self.ask("haste", HASTY if yes else USUAL)

    @contextmanager
    def overlay_named(self, overlay: str) -> Iterator[Namespace]:
        with netns.open_path(self.run_folder / "netns" / overlay) as ns:
            yield ns

    # -- what there is, seen without the daemon --------------------------------------------------------------------

    def journal(self) -> dict[str, Any]:
        """What the journal holds on disk, whoever has it open."""
        path = self.hosts.folder / f"state{self.number}" / "journal.db"
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:

            def shelf(name: str, kind: Any) -> list[Any]:
                read = decoder(kind)
                return [read(value) for (value,) in db.execute(f"SELECT value FROM {name}").fetchall()]

            leases = shelf("leases", LocalLease)
            return {
                "networks": {one.network for one in shelf("networks", Network)},
                "endpoints": {(one.endpoint, one.address, one.joined) for one in shelf("endpoints", Endpoint)},
                "pools": {(one.pool, bool(one.at)) for one in shelf("uses", PoolUse)},
                "leases": {(one.address, one.use) for one in leases if one.use != "reserve"},
                "reserve": Counter(one.subnet for one in leases if one.use == "reserve"),
                "leaving": {name for (name,) in db.execute("SELECT key FROM leaving").fetchall()},
            }

    def picture(self) -> dict[str, Any]:
        """All that this host has anywhere: on disk, in the kernel and in the store."""
        pins = [pin for pin in self.pins() if not pin.name.startswith("_")]  # the heartbeat's stays
        ports, rows = {}, {}
        for pin in pins:
            # The daemon may take it away between any two of these.
            with suppress(Unknown, OSError):
                if not netns.is_pinned(pin):
                    continue
                with netns.open_path(pin) as ns:
                    ports[pin.name] = link_names(ns)
                    rows[pin.name] = _rows(ns) if "vxlan1" in ports[pin.name] else set()
        return {
            "links": {name for name in link_names(self.ns) if name != "eth0" and name != "lo"},
            "pins": {pin.name for pin in pins},
            "ports": ports,
            "rows": rows,
            **{f"journal {name}": what for name, what in self.journal().items()},
            **in_store(self.hosts),
        }


def _rows(ns: Namespace) -> set[Neigh | Fdb]:
    index = ns.call(lambda: socket.if_nametoindex("vxlan1"))
    with Tables(ns, index) as tables:
        neigh, fdb = tables.dump()
        return {*neigh, *fdb}


def in_store(hosts: Hosts) -> dict[str, Any]:
    """What the store holds, apart from what changes without meaning: sequences, sessions, which address is spare."""
    keys, leases, lists, shared = set(), set(), set(), set()
    reserve: Counter[tuple[str, str]] = Counter()
    for entry in hosts.list("myoverlay/"):
        parts = entry.key.split("/")
        if parts[1] == "pools":
            lease = json.loads(entry.value)
            if lease["use"] == "reserve":
                reserve[parts[2], lease["hosts"][0]] += 1
            else:
                leases.add((parts[2], lease["address"], lease["use"], tuple(lease["hosts"])))
        elif parts[1] == "hosts" and parts[3:4] == ["overlays"]:
            records = json.loads(entry.value).get("records", ())
            lists |= {(parts[2], parts[4], record["address"]) for record in records}
        elif parts[1] in ("overlays", "subnets"):
            if "changes" not in parts:
                keys.add(entry.key)
            if parts[-1] == "definition":
                shared.add((parts[2], tuple(json.loads(entry.value)["holders"])))
            if parts[1] == "subnets":
                shared.add((parts[2], tuple(json.loads(entry.value)["users"])))
        elif parts[1] != "alive":
            keys.add(entry.key)
    named = {"keys": keys, "leases": leases, "lists": lists, "shared": shared, "reserve": reserve}
    return {f"store {name}": what for name, what in named.items()}


def difference(now: dict[str, Any], before: dict[str, Any]) -> dict[str, Any]:
    """What of a picture is not as it was: (now, before), of sets only what is more and what is less."""
    found = {}
    for name, what in now.items():
        was = before[name]
        if what != was:
            found[name] = ({*what} - {*was}, {*was} - {*what}) if isinstance(what, set) else (what, was)
    return found


class Witness:
    """Hears the kernel in an overlay's namespace: does anybody's row or port go, if only for a moment?"""

    def __init__(self, host: Host, overlay: str, *others: Container, ports: tuple[Container, ...] = ()) -> None:
        with netns.open_path(host.run_folder / "netns" / overlay) as ns:
            self._vxlan = ns.call(lambda: socket.if_nametoindex("vxlan1"))
            self._ports = {ns.call(lambda p=p: socket.if_nametoindex(f"p{p.endpoint[:12]}")): p.address for p in ports}
            self._socket = ns.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        self._socket.setsockopt(socket.SOL_SOCKET, 33, 1 << 23)  # SO_RCVBUFFORCE
        self._socket.bind((0, 1 | 4))  # links, neighbours
        self._socket.setblocking(False)
        self._rows = {row for other in others for row in other.rows}
        self._name = host.name

    def losses(self) -> list[str]:
        """What went since the last time."""
        lost = []
        while True:
            try:
                raw = self._socket.recv(1 << 16)
            except BlockingIOError:
                return lost
            for reply in replies(raw):
                if reply.kind in (RTM_NEWNEIGH, RTM_DELNEIGH):
                    row = decode_row(reply.body, self._vxlan)
                    if row in self._rows and reply.kind == RTM_DELNEIGH:
                        lost.append(f"{self._name} lost {row}")
                elif reply.kind == RTM_DELLINK:
                    index = int.from_bytes(reply.body[4:8], sys.byteorder)
                    if index in self._ports or index == self._vxlan:
                        lost.append(f"{self._name} lost the port of {self._ports.get(index, 'vxlan1')}")

    def close(self) -> None:
        self._socket.close()
