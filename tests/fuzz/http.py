"""Every method of the plugin's sockets, Docker's and our own, through the application of a whole daemon.

The daemon is the model's: the real one, on a kernel, a store and a clock on paper. What these cannot do is not asked
for: `UNDONE` are read and refused as ever, and where they would be answered nothing is done. The calls change what is
there for those after them, as Docker's do; now and then all is taken away by Docker's own calls, and must be gone.
"""

from __future__ import annotations

import io
import json
import logging
import sys
from contextlib import ExitStack
from typing import Any, NamedTuple
from unittest import mock

from myoverlay import daemon as daemon_module
from myoverlay.docker import app as app_module
from myoverlay.docker import wire
from myoverlay.host.pools import RELEASED
from myoverlay.operate import recorder as recorder_module
from myoverlay.values import Address, Mac, Subnet
from tests.fuzz.tape import Tape, bent, bent_json, lines
from tests.fuzz.target import right
from tests.pure.model.engine import FAR
from tests.pure.model.scheduler import BUDGET
from tests.pure.model.world import World

#: They read this machine, or ask other hosts and wait for them.
UNDONE = frozenset({"Control.Doctor", "Control.DoctorFix", "Control.Report", "Control.Leave", "Control.NetworkCreate"})
#: Docker's ids have 64 digits.
_IDS = {f'"{name}"'.encode(): f'"{name.lower() * 32}"'.encode() for name in ("N1", "N2", "E1", "E2")}
_CORPUS = [line.partition(b" ")[::2] for line in lines("http")]
_METHODS = [method.decode() for method, _ in _CORPUS]
_BODIES = [body for _, body in _CORPUS]
_PATHS = (
    "",
    "/",
    "NetworkDriver",
    "NetworkDriver.",
    "networkdriver.join",
    "Control.Nothing",
    "a/b",
    "..",
    "é",
    "\r\n",
    "%00",
)
_VERBS = ("POST", "GET", "PUT", "HEAD", "DELETE", "OPTIONS", "get", "")
#: So many calls, then all is taken away.
_SWEEP = 256
#: Statuses that say whose fault it was: the caller's. 200 is no fault.
_CALLERS = frozenset({400, 404, 405, 409, 413})


class Call(NamedTuple):
    """One request. `length`: what it says of its body's."""

    verb: str
    path: str
    body: bytes
    length: str


class Target:
    """One daemon."""

    LIMITS = {"networks": 12, "endpoints": 64, "counters": 400, "notes": 1 << 21, "unreadable keys": 1000}

    def __init__(self) -> None:
        self._done = 0
        with ExitStack() as undo:
            undo.enter_context(mock.patch.object(daemon_module, "create_app", self._create))
            self._world = World(1)
            self._machine = self._world.machines[0]
            self._machine.start()
        self._undo = ExitStack()
        # Deadlines are moments of the real clock, and the model's is elsewhere.
        self._undo.enter_context(mock.patch.object(app_module, "DEADLINE", FAR))
        self._undo.enter_context(mock.patch.object(recorder_module, "PATIENCE", 0.0))
        self._machine.daemon.control._collect = lambda _deadline: ((), ())  # it would wait for rounds of real loops
        self._undo.callback(logging.disable, logging.root.manager.disable)
        logging.disable(logging.CRITICAL)
        self._world.scheduler.run_until(self._world.scheduler.now + 5)

    @staticmethod
    def _create(network: Any, ipam: Any, tally: Any, more: Any, *others: Any) -> Any:
        given = {name: (kind, (lambda *_: {}) if name in UNDONE else act) for name, (kind, act) in more.items()}
        return app_module.create_app(network, ipam, tally, given, *others)

    def make(self, tape: Tape) -> Call:
        method, body = tape.pick(_CORPUS)
        text = bent_json(tape, body, _BODIES)
        for name, known in _IDS.items():
            text = text.replace(name, known)
        path, verb, length = method.decode(), "POST", str(len(text))
        odd = tape.below(256)
        if odd >= 250:
            path = tape.pick(_PATHS) if odd < 253 else bent(tape, method, _BODIES).decode("latin-1")
        elif odd >= 246:
            verb = tape.pick(_VERBS)
        elif odd >= 242:
            length = tape.pick(("", "0", "-1", "1", str(len(text) + 1), "9" * 30, "x", "1048577"))
        elif odd >= 240:
            path = tape.pick(_METHODS)
        elif odd == 239 and not tape.below(8):
            text = text.ljust((1 << 20) + tape.below(2))
            length = str(len(text))
        return Call(verb, path, text, length)

    def check(self, given: Call) -> None:
        status, headers, raw = self._ask(given)
        right(status < 500, f"{status}: {raw[:300]!r}")
        right(status == 200 or status in _CALLERS, f"status {status}")
        right(headers.get("Connection") == "close", f"Connection: {headers.get('Connection')}")
        if given.verb == "POST":
            answer = json.loads(raw)
            right(isinstance(answer, dict), "the answer is no object")
            if status != 200:
                right(answer["Err"] and answer["Err"] == answer["Error"], "the two subsystems are told two things")
                right(answer["Err"].isprintable(), f"a line of the log is forged: {answer['Err']!r}")
            else:
                self._judge(given, answer)
        self._done += 1
        if self._done % _SWEEP == 0:
            self._sweep()

    def _judge(self, given: Call, answer: dict[str, Any]) -> None:
        """What Docker would do with the answer must be possible."""
        if given.path == "IpamDriver.RequestPool":
            right(Subnet(answer["Pool"]).version == 4 and answer["PoolID"], "no pool of IPv4")
        elif given.path == "IpamDriver.RequestAddress":
            address, _, length = answer["Address"].partition("/")
            pool = wire.read(wire.RequestAddress, given.body).pool
            subnet = Subnet.from_key(pool.partition("+")[0])
            right(Address(address) in subnet, f"{address} is not in pool {pool}")
            right(int(length) == subnet.prefixlen, f"{address} has length {length}")
        elif given.path == "NetworkDriver.CreateEndpoint" and answer:
            Mac(answer["Interface"]["MacAddress"])
        elif given.path == "NetworkDriver.Join":
            name = answer["InterfaceName"]["SrcName"]
            right(0 < len(name.encode()) < 16 and name.isascii() and "/" not in name, f"{name!r} is no link's name")
            right("Gateway" not in answer or Address(answer["Gateway"]).version == 4, "no gateway of IPv4")

    def _ask(self, given: Call) -> tuple[int, dict[str, str], bytes]:
        """By WSGI, as the server does it: what stands in the path is bytes in Latin-1."""
        environ = {
            "REQUEST_METHOD": given.verb, "SCRIPT_NAME": "", "PATH_INFO": f"/{given.path}", "QUERY_STRING": "",
            "SERVER_NAME": "plugin", "SERVER_PORT": "80", "SERVER_PROTOCOL": "HTTP/1.1", "CONTENT_LENGTH": given.length,
            "wsgi.version": (1, 0), "wsgi.url_scheme": "http", "wsgi.input": io.BytesIO(given.body),
            "wsgi.errors": sys.stderr, "wsgi.multithread": True, "wsgi.multiprocess": False, "wsgi.run_once": False,
        }  # fmt: skip
        told: list[Any] = []

        def start(status: str, headers: list[tuple[str, str]], _error: Any = None) -> None:
            told[:] = [int(status.split()[0]), dict(headers)]

        self._world.scheduler.budget = BUDGET
        raw = b"".join(self._machine.call(lambda: self._machine.daemon.app(environ, start)))
        return told[0], told[1], raw

    def _sweep(self) -> None:
        """Docker removes all there is: nothing of it stays, in the journal or in the kernel."""
        journal = self._machine.daemon.journal
        for one in journal.endpoints.all():
            self._must("NetworkDriver.Leave", NetworkID=one.network, EndpointID=one.endpoint)
            self._must("NetworkDriver.DeleteEndpoint", NetworkID=one.network, EndpointID=one.endpoint)
        # Before their networks go, which take along what is left of them.
        right(not journal.endpoints.all(), "endpoints that nobody has stay in the journal")
        for one in journal.networks.all():
            self._must("NetworkDriver.DeleteNetwork", NetworkID=one.network)
        for use in journal.uses.all():
            for lease in journal.leases.all():
                if lease.subnet == use.subnet and lease.use == "endpoint":
                    self._must("IpamDriver.ReleaseAddress", PoolID=use.pool, Address=lease.address)
            for _ in range(_SWEEP):  # as often as it was asked for
                held = journal.uses.get(use.pool)
                if held is not None and held.at != RELEASED:
                    self._must("IpamDriver.ReleasePool", PoolID=use.pool)
        self._world.scheduler.run_until(self._world.scheduler.now + 10)
        for kind, shelf in (("networks", journal.networks), ("pools", journal.uses)):
            right(not shelf.all(), f"{kind} that nobody has stay in the journal")
        cables = [name for space in self._machine.kernel.pins.values() for name in space.links if name[0] == "p"]
        cables += self._machine.ways.cables
        right(not cables, f"cables that nobody has stay in the kernel: {cables}")

    def _must(self, method: str, **body: str) -> None:
        raw = json.dumps(body).encode()
        status, _, said = self._ask(Call("POST", method, raw, str(len(raw))))
        right(status == 200, f"{method} while all is taken away: {status} {said[:300]!r}")

    def show(self, given: Call) -> str:
        return f"{given.verb} /{given.path} (length {given.length}) {given.body[:400]!r}"

    def left(self) -> dict[str, int]:
        daemon = self._machine.daemon
        return {
            "networks": len(daemon.journal.networks.all()),
            "endpoints": len(daemon.journal.endpoints.all()),
            "counters": len(daemon.tally.all()),
            "notes": sum(map(len, daemon.overview.notes())),
            "unreadable keys": len(daemon.records.quarantine),
        }

    def close(self) -> None:
        self._machine.close()
        self._undo.close()
