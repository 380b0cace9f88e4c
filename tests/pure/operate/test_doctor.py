"""The examination: readings side by side, each with its end; what is asked of the host; readings of the store."""

from __future__ import annotations

import http.server
import socketserver
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from myoverlay.errors import KernelRefused, Refused, Unavailable
from myoverlay.operate.control import Nothing
from myoverlay.operate.doctor import Doctor, Fix, examine, shown
from myoverlay.operate.readings_machine import Inside, MachineReadings, Place, engine_servers, nameservers
from myoverlay.operate.readings_store import Known, StoreReadings, ahead
from myoverlay.plan.brake import Held
from myoverlay.plan.check_plugin import Environment, Running, judge_sockets
from myoverlay.plan.check_store import Gone, judge_estates
from myoverlay.plan.checkup import CHECKS
from myoverlay.plan.findings import Level
from myoverlay.store import Put
from myoverlay.store.allowed import asked
from myoverlay.store.consul import ConsulStore
from myoverlay.store.presence import Presence
from myoverlay.store.records import Member, Records
from myoverlay.store.sqlite import SqliteStore
from myoverlay.values import Address, Alive, Definition, HostId, HostList, Lease, OverlayName, Pool, Subnet, encode
from tests.pure.kit import ANN, BOB
from tests.pure.store.fake_consul import FakeConsul, Reply, Seen

ONE = tuple(check for check in CHECKS if check.name in ("plugin", "host-id", "store"))
NET, WEB = Subnet("10.5.0.0/24"), OverlayName("web")


def levels(found: list[Any]) -> dict[str, Level]:
    return {check.name: finding.level for check, finding in found}


def test_readings_are_taken_side_by_side_and_given_up() -> None:
    """One that hangs costs its limit, not the sum, and is unknown; others are judged; one that is missing says why."""
    release = threading.Event()
    taken = {"plugin": lambda _: Running(True), "host-id": lambda _: release.wait(30)}
    began = time.monotonic()
    found = examine(taken, ONE, limit=0.2, why="the plugin does not run")
    assert time.monotonic() - began < 5
    assert levels(found) == {"plugin": Level.OK, "host-id": Level.UNKNOWN, "store": Level.UNKNOWN}
    said = {row["check"]: row["saw"] for row in shown(found)}
    assert said["store"] == "not looked at: the plugin does not run"
    assert said["host-id"] == "it could not be read within 0.2 s"
    release.set()


def test_a_failure_is_its_own_checks_alone(caplog: pytest.LogCaptureFixture) -> None:
    """What a reading is refused is its sentence; a bug of ours is named, logged with its place, and hides nothing."""

    def refused(_: float) -> None:
        raise Unavailable("Consul is away")

    found = {check.name: finding for check, finding in examine(
        {"plugin": lambda _: Running(True), "host-id": refused, "store": lambda _: "no reading"}, ONE
    )}  # fmt: skip
    assert found["plugin"].level is Level.OK
    assert (found["host-id"].level, found["host-id"].saw) == (Level.UNKNOWN, "Consul is away")
    assert found["store"].level is Level.UNKNOWN
    assert "AttributeError" in found["store"].saw
    assert "check store: a bug in myoverlay" in caplog.text


def test_a_reading_that_serves_two_checks_is_taken_once() -> None:
    """Packets are sent once for the port and for the size."""
    times: list[float] = []

    def peers(deadline: float) -> Any:
        times.append(deadline)
        raise Unavailable("no heartbeat")

    both = [check for check in CHECKS if check.reading == "peers"]
    assert len(both) == 2
    assert len(examine({"peers": peers}, both)) == 2
    assert len(times) == 1


class Collecting:
    """A collector that does what it is told to have done."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def collect(self, deadline: float) -> Any:
        self.asked.append("collect")
        return (Held(kind="link", overlay="web", names=("a", "b"), of=9),), ("the store is away",)

    def mend_kernel(self, deadline: float) -> None:
        self.asked.append("mend")
        raise KernelRefused("making vxlan1", 17, "File exists")

    def filters_off(self, deadline: float) -> tuple[str, ...]:
        self.asked.append("filters")
        return ("web",)


def test_fix_asks_the_host_once_for_each_thing() -> None:
    """Two checks with one remedy are one act; what failed is said as well as what was done."""
    collector: Any = Collecting()
    doctor = Doctor({}, collector)
    did = doctor.fix(Fix(checks=("vni", "leftovers", "stale-keys", "bridge-netfilter")), time.monotonic() + 1)["did"]
    assert collector.asked == ["mend", "collect", "filters"]
    assert did == [
        "it failed: making vxlan1: File exists",
        "2 links of overlay web collected: a, b",
        "the store is away",
        "bridge-nf-call-* was put off for web",
    ]
    with pytest.raises(Refused, match="nothing is done by itself about firewall"):
        doctor.fix(Fix(checks=("firewall", "vni")), time.monotonic() + 1)
    assert len(collector.asked) == 3


def test_one_examination_at_a_time() -> None:
    """A second one is refused in a sentence while the first goes on, and let in afterwards."""
    begun, release = threading.Event(), threading.Event()

    def slow(_: float) -> Running:
        begun.set()
        release.wait(10)
        return Running(True)

    doctor = Doctor({"plugin": slow}, Collecting())  # type: ignore[arg-type]
    first = threading.Thread(target=lambda: doctor.look(Nothing(), time.monotonic() + 8))
    first.start()
    assert begun.wait(5)
    with pytest.raises(Refused, match="another `myoverlay doctor` is under way"):
        doctor.look(Nothing(), time.monotonic() + 8)
    release.set()
    first.join(10)
    assert doctor.look(Nothing(), time.monotonic() + 8)["findings"][0]["level"] == "ok"


@pytest.mark.parametrize(
    ("told", "before", "after", "seconds"),
    [(10.0, 9.0, 11.0, 0.0), (9.0, 9.0, 9.0, 0.0), (14.0, 9.0, 11.0, 3.0), (5.0, 9.0, 11.0, -4.0)],
)
def test_a_clock_is_ahead_at_least(told: float, before: float, after: float, seconds: float) -> None:
    """Only what cannot be the time between question and answer is a difference."""
    assert ahead(told, before, after) == seconds


def test_resolv_conf_is_read() -> None:
    """Servers in their order; comments and other words are none. A machine without Docker's file has None."""
    text = "# nameserver 1.1.1.1\nnameserver 192.0.2.1 # x\nsearch a\nnameserver\n nameserver fe80::1%eth0\n"
    assert nameservers(text) == ("192.0.2.1", "fe80::1%eth0")
    assert engine_servers() is None or isinstance(engine_servers(), tuple)


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """HTTP on a unix socket that always answers the same."""

    daemon_threads = True


def serve(path: Path, body: bytes) -> Server:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def address_string(self) -> str:
            return "unix"

        def log_message(self, *_: object) -> None:
            pass

    server = Server(str(path), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    return server


def place(folder: Path, *names: str) -> Place:
    sockets = tuple(folder / name for name in names)
    pins: Any = SimpleNamespace(folder=folder / "run" / "netns", names=set)
    return Place(sockets, folder, pins, str(folder / "no.docker"), "", 4789, Environment((), ()))


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("mine", "1 socket answers"),
        ("other", "another plugin"),
        ("strange", "another plugin"),
        ("dead", "nobody answers"),
    ],
)
def test_each_socket_is_asked_whose_it_is(tmp_path: Path, file: str, words: str) -> None:
    """By the host id that answers there; a file that nobody listens on is dead, what is no plugin of ours strange."""
    servers = [
        serve(tmp_path / "mine", b'{"id": "%s"}' % ANN.encode()),
        serve(tmp_path / "other", b'{"id": "%s"}' % BOB.encode()),
        serve(tmp_path / "strange", b"hello"),
        serve(tmp_path / "dead", b""),
    ]
    for server in servers[3:]:
        server.shutdown()
        server.server_close()
    reading = MachineReadings(place(tmp_path, file), lambda: None, Inside(ANN))  # type: ignore[arg-type,return-value]
    assert words in judge_sockets(reading.sockets(0.0)).saw
    for server in servers[:3]:
        server.shutdown()
        server.server_close()


def test_where_no_daemon_says_who_this_is_the_first_that_answers_counts(tmp_path: Path) -> None:
    """From a command's own process: two sockets must be answered by one and the same."""
    first = serve(tmp_path / "a", b'{"id": "%s"}' % ANN.encode())
    second = serve(tmp_path / "b", b'{"id": "%s"}' % BOB.encode())
    for names, words in (
        (("a",), "1 socket answers"),
        (("a", "b"), "b is answered by another plugin"),
        (("c",), "not there"),
    ):
        reading = MachineReadings(place(tmp_path, *names), lambda: None)  # type: ignore[arg-type,return-value]
        assert words in judge_sockets(reading.sockets(0.0)).saw
    for server in (first, second):
        server.shutdown()
        server.server_close()


@pytest.fixture
def consul(fake: FakeConsul) -> Any:
    store = ConsulStore(fake.address)
    yield store
    store.close()


def lacking(store: ConsulStore, catalogue: bool = False) -> list[str]:
    found = asked(store, "mo", ANN, ["demo-1"], catalogue, timeout=3.0)
    return [f"{one.denied} <- {one.rule}" for one in found if one.denied]


def test_rights_are_asked_for_and_nothing_is_written(fake: FakeConsul, consul: ConsulStore) -> None:
    """With all rights none is lacking, no key is there afterwards, and the session is ended."""
    before = fake.snapshot()[0]
    assert lacking(consul) == []
    assert fake.snapshot()[0] == before == {}
    assert fake.sessions == set()


@pytest.mark.parametrize(
    ("prefix", "rule"),
    [
        ("mo/pools/", 'write mo/pools/ <- key_prefix "mo/pools/" { policy = "write" }'),
        ("mo/incarnation", 'write mo/incarnation <- key_prefix "mo/incarnation" { policy = "write" }'),
        (f"mo/alive/{ANN}", f'write mo/alive/{ANN} <- key "mo/alive/{ANN}" {{ policy = "write" }}'),
        ("demo-1/", 'write demo-1/ <- key_prefix "demo-1/" { policy = "write" }'),
    ],
)
def test_a_right_that_is_lacking_is_named_by_its_rule(
    fake: FakeConsul, consul: ConsulStore, prefix: str, rule: str
) -> None:
    """Whatever is denied is told, in the words of a policy; nothing else is."""
    fake.denied = prefix
    assert lacking(consul) == [rule]


def test_reading_and_sessions_are_rights_of_their_own(fake: FakeConsul, consul: ConsulStore) -> None:
    """A token that may list no hosts, and one that may open no session."""
    fake.denied = "mo/hosts/"
    assert [one.partition(" <- ")[0] for one in lacking(consul)] == [f"write mo/hosts/{ANN}/", "read mo/hosts/"]
    fake.denied = None
    fake.fault = lambda seen, _: Reply(403, b"Permission denied") if "session" in seen.target else fake.answer(seen)
    assert lacking(consul) == ['open a session <- session_prefix "" { policy = "write" }']


def test_a_consul_that_is_away_denies_nothing(fake: FakeConsul, consul: ConsulStore) -> None:
    """No answer is not a right that is lacking: it is raised."""
    fake.fault = lambda seen, _: Reply(500, b"No cluster leader")
    with pytest.raises(Unavailable, match="No cluster leader"):
        lacking(consul)


def test_consuls_clock_is_its_date(fake: FakeConsul, consul: ConsulStore) -> None:
    """The fake's server tells the machine's time; one that tells none cannot be read."""

    def leader(seen: Seen, _: Any) -> Reply:
        return Reply(200, "10.0.0.1:8300") if seen.target.startswith("/v1/status") else fake.answer(seen)

    fake.fault = leader
    assert abs(consul.clock(timeout=3.0) - time.time()) < 3


def reading(folder: Path, fates: dict[HostId, str], held: list[Address]) -> tuple[SqliteStore, StoreReadings]:
    store = SqliteStore(folder / "s.db")
    records, presence = Records(store, "mo", ANN), Presence(store, "mo", ANN)
    return store, StoreReadings(records, presence, tuple, False, Known(lambda: fates, lambda _: held))


def put(store: SqliteStore, key: str, value: Any) -> None:
    store.commit([Put(f"mo/{key}", encode(value))])


def inhabit(store: SqliteStore) -> None:
    """Ann and Bob are alive, Cyd is not; each holds an address of the pool, and lists none."""
    definition = Definition(overlay=WEB, subnet=NET, vni=7, mtu=1450, holders=(ANN, BOB))
    put(store, "overlays/web/definition", definition)
    put(store, "vni/7", {"overlay": "web", "subnet": NET})
    put(store, "subnets/10.5.0.0-24", Pool(subnet=NET, overlay=WEB, users=(ANN, BOB)))
    for host, name in ((ANN, "ann"), (BOB, "bob")):
        put(store, f"alive/{host}", Alive(host=host, name=name, vteps=(Address("192.0.2.1"),), version="1"))
    for host, last in ((ANN, 2), (BOB, 3)):
        put(
            store,
            f"pools/10.5.0.0-24/10.5.0.{last}",
            Lease(address=Address(f"10.5.0.{last}"), use="endpoint", hosts=(host,)),
        )


def test_keys_without_an_owner_are_found(tmp_path: Path) -> None:
    """A lease of ours that we do not know, one of Bob's that he does not list, a member who is not there."""
    store, readings = reading(tmp_path, {}, [])
    inhabit(store)
    seen = readings.estates(time.monotonic() + 3)
    assert (seen.gone, seen.strays, seen.loose) == ((), ("10.5.0.2",), ("10.5.0.3 (bob)",))
    store.close()
    store, readings = reading(tmp_path, {}, [Address("10.5.0.2")])
    record: Any = [{"address": "10.5.0.3", "mac": "02:42:0a:05:00:03"}]
    store.commit(
        [
            Put(
                f"mo/hosts/{BOB}/overlays/web",
                encode({"host": BOB, "overlay": "web", "vtep": "192.0.2.2", "records": record}),
            )
        ]
    )
    assert readings.estates(time.monotonic() + 3).strays == readings.estates(time.monotonic() + 3).loose == ()
    put(store, f"overlays/web/members/{HostId('c' * 32)}", Member(name="cyd", vtep=Address("192.0.2.3")))
    assert readings.estates(time.monotonic() + 3).gone == (Gone("cyd"),)
    store.close()


def test_a_host_that_is_cut_off_is_not_gone(tmp_path: Path) -> None:
    """The heartbeat's word stands beside it: cut off is ok, dead is not."""
    cyd = HostId("c" * 32)
    for fate, level in (("cut off", Level.OK), ("dead", Level.BAD)):
        store, readings = reading(tmp_path, {cyd: fate}, [Address("10.5.0.2")])
        store.commit(
            [Put(f"mo/hosts/{cyd}/overlays/web", encode(HostList(host=cyd, overlay=WEB, vtep=Address("192.0.2.3"))))]
        )
        seen = readings.estates(time.monotonic() + 3)
        assert [one.fate for one in seen.gone] == [fate]
        assert judge_estates(seen).level is level
        store.close()
