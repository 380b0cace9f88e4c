"""The client of Consul: the contract against the fake, and Consul, or what is in between, misbehaving."""

from __future__ import annotations

import itertools
import json
import re
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lab import faults
from lab.fault_proxy import FaultProxy, listen
from myoverlay.errors import MyoverlayError, Refused, Unavailable
from myoverlay.store import Committed, Conflict, Delete, Keys, Listing, Lock, Put, Reset, Store, Unchanged
from myoverlay.store import waits as module
from myoverlay.store.consul import ConsulStore
from myoverlay.store.wire import Place, parse_place
from tests.pure.kit import until
from tests.pure.store.fake_consul import FakeConsul, Reply, Seen, make_pki
from tests.store_contract import SHORT, SOON, Call, StoreContract, done, names, refused

TOKEN = "6e1c9cd8-secret-of-this-host"


@pytest.fixture
def store(fake: FakeConsul) -> Iterator[ConsulStore]:
    store = ConsulStore(fake.address)
    yield store
    store.close()


def every_call(store: Store, timeout: float = 3.0) -> dict[str, Callable[[], object]]:
    """One call of every kind; waits as long as the others."""
    return {
        "get": lambda: store.get("a/key", timeout=timeout),
        "get_many": lambda: store.get_many(["a/key", "a/other"], timeout=timeout),
        "list": lambda: store.list("a/", timeout=timeout),
        "keys": lambda: store.keys("a/", timeout=timeout),
        "wait": lambda: store.wait("a/", 5, timeout=timeout),
        "wait_keys": lambda: store.wait_keys("a/", 5, timeout=timeout),
        "commit": lambda: store.commit([Put("a/key", b"1")], timeout=timeout),
        "open_session": lambda: store.open_session("me", 10, timeout=timeout),
        "renew_session": lambda: store.renew_session("8f1f0d4e-0000-0000-0000-000000000000", timeout=timeout),
        "close_session": lambda: store.close_session("8f1f0d4e-0000-0000-0000-000000000000", timeout=timeout),
    }


CALLS = sorted(every_call(None))  # type: ignore[arg-type]


class TestContract(StoreContract):
    """The contract on the fake, over HTTP."""


# The address


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("consul.example.com:8500", Place("http", "consul.example.com", 8500)),
        ("10.0.0.1:80", Place("http", "10.0.0.1", 80)),
        ("http://h:1", Place("http", "h", 1)),
        ("HTTPS://h:8443/", Place("https", "h", 8443)),
        ("[fd00::1]:8500", Place("http", "fd00::1", 8500)),
        ("https://[::1]:8501", Place("https", "::1", 8501)),
        ("consul", Place("http", "consul", 8500)),
        ("https://consul", Place("https", "consul", 8501)),
        (" h:1\n", Place("http", "h", 1)),
    ],
)
def test_addresses(text: str, place: Place) -> None:
    """Every form people write an address in, and how it is shown."""
    assert parse_place(text) == place
    assert parse_place(str(place)) == place


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":8500",
        "h:0",
        "h:65536",
        "h:port",
        "fd00::1",
        "fd00::1:8500",
        "[fd00::1",
        "[10.0.0.1]:80",
        "[::g]:1",
        "unix:///run/consul.sock",
        "ftp://h:1",
        "http://u:p@h:1",
        "http://h:1/v1",
        "http://h:1?token=x",
        "h h:1",
        "http://",
    ],
)
def test_addresses_that_are_refused(text: str) -> None:
    """What is no address is refused in one sentence that says what one is, before anything is sent."""
    with pytest.raises(Refused, match="no address of Consul: host:port is"):
        ConsulStore(text)


def test_ipv6(fake: FakeConsul) -> None:
    """An address of IPv6 is connected to as one, and shown in brackets."""
    store = ConsulStore(f"[::1]:{fake.port}")
    with pytest.raises(Unavailable, match=rf"http://\[::1\]:{fake.port} cannot be asked: reading a: .*refused"):
        store.get("a")


# The token


def test_token_is_in_every_request_and_never_in_a_url(fake: FakeConsul) -> None:
    """Each call, transactions too, carries the token as a header, and no URL or body does."""
    fake.token = TOKEN
    store = ConsulStore(fake.address, token=TOKEN)
    for call in every_call(store, timeout=2.0).values():
        call()
    store.close()
    assert {seen.target.split("?")[0].rsplit("/", 1)[0] for seen in fake.seen} >= {"/v1", "/v1/kv/a", "/v1/session"}
    assert all(seen.headers["x-consul-token"] == TOKEN for seen in fake.seen)
    assert all(TOKEN not in seen.target and TOKEN.encode() not in seen.body for seen in fake.seen)


@pytest.mark.parametrize("token", [TOKEN, None])
def test_environment_gives_no_token(fake: FakeConsul, monkeypatch: pytest.MonkeyPatch, token: str | None) -> None:
    """What py-consul takes from the environment, over what it is told, is not taken."""
    monkeypatch.setenv("CONSUL_HTTP_TOKEN", "somebody-elses")
    monkeypatch.setenv("CONSUL_HTTP_ADDR", "127.0.0.1:1")
    monkeypatch.setenv("CONSUL_HTTP_SSL", "true")
    store = ConsulStore(fake.address, token=token)
    for call in every_call(store, timeout=2.0).values():
        call()
    store.close()
    assert {seen.headers.get("x-consul-token") for seen in fake.seen} == {token}


def test_token_file_is_read_again_when_it_changes(fake: FakeConsul, tmp_path: Path) -> None:
    """A token that is exchanged is used from the next call on, without a restart."""
    path = tmp_path / "token"
    path.write_text("first\n")
    store = ConsulStore(fake.address, token_file=path)
    store.get("a")
    path.with_name("new").write_text("second\n")
    path.with_name("new").replace(path)
    store.get("a")
    store.close()
    assert [seen.headers["x-consul-token"] for seen in fake.seen] == ["first", "second"]


@pytest.mark.parametrize("content", [None, b"", b" \n", b"\xff\xfe", b"two\nlines-of-secret", b"nul\0secret"])
def test_token_files_that_do_not_serve(fake: FakeConsul, tmp_path: Path, content: bytes | None) -> None:
    """A token that is missing, half written or malformed ends the call; nothing is asked as anonymous or shown."""
    path = tmp_path / "token"
    if content is not None:
        path.write_bytes(content)
    store = ConsulStore(fake.address, token_file=path)
    with pytest.raises(Unavailable, match="token") as caught:
        store.get("a")
    store.close()
    assert fake.seen == []
    assert "secret" not in "".join(traceback.format_exception(caught.value))


#: Where a code says all, whatever the body.
BARE = {("close_session", 200), ("renew_session", 200), ("renew_session", 404)}
CODES = (200, 301, 400, 403, 404, 409, 429, 500)


@pytest.mark.parametrize(("call", "code"), [pair for pair in itertools.product(CALLS, CODES) if pair not in BARE])
def test_token_is_in_no_exception(fake: FakeConsul, call: str, code: int) -> None:
    """A server that sends back what it got does not bring the token into a text, a cause or a log."""
    index = None if code == 404 else 9
    fake.fault = lambda seen, _: Reply(code, json.dumps(seen.headers).encode(), index)
    store = ConsulStore(fake.address, token=TOKEN)
    with pytest.raises(Unavailable) as caught:
        every_call(store, timeout=0.2)[call]()
    assert TOKEN not in "".join(traceback.format_exception(caught.value))
    assert TOKEN not in repr(store)
    store.close()


def test_proxies_of_the_environment_are_not_used(fake: FakeConsul, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy that is set for downloads gets no token and no record."""
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    store = ConsulStore(fake.address)
    done(store, Put("a", b""))
    assert store.get("a") is not None
    store.close()


# Faults


def _black_hole(fake: FakeConsul) -> Callable[[Seen, socket.socket], Reply | None]:
    def fault(_: Seen, __: socket.socket) -> None:
        fake.closing.wait(30)

    return fault


def _raw(data: bytes, *, reset: bool = False) -> Callable[[FakeConsul], Callable[[Seen, socket.socket], Reply | None]]:
    def fault(_: Seen, connection: socket.socket) -> None:
        connection.sendall(data)
        if reset:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.close()

    return lambda _: fault


def _drip(data: bytes) -> Callable[[FakeConsul], Callable[[Seen, socket.socket], Reply | None]]:
    def make(fake: FakeConsul) -> Callable[[Seen, socket.socket], Reply | None]:
        def fault(_: Seen, connection: socket.socket) -> None:
            connection.sendall(data)
            while not fake.closing.wait(0.02):
                connection.sendall(b"x")

        return fault

    return make


def _reply(code: int, body: bytes, index: int | None = 9) -> Callable[[FakeConsul], Callable[..., Reply | None]]:
    return lambda _: lambda *_: Reply(code, body, index)


_HEAD = b"HTTP/1.1 200 OK\r\nX-Consul-Index: 9\r\nContent-Length: 1000\r\n\r\n"
FAULTS: dict[str, Callable[[FakeConsul], Callable[[Seen, socket.socket], Reply | None]]] = {
    "500": _reply(500, b"No cluster leader"),
    "503": _reply(503, b""),
    "429": _reply(429, b"Your IP is issuing too many concurrent connections"),
    "301": _reply(301, b""),
    "400": _reply(400, b"Invalid index"),
    "413": _reply(413, b"too large"),
    "black hole": _black_hole,
    "html": _reply(200, b"<html>Welcome to nginx</html>"),
    "wrong json": _reply(200, b'{"a": ["b"]}'),
    "no text": _reply(200, b"\xff\xfe\0"),
    "half": _raw(_HEAD + b"["),
    "half a chunk": _raw(b"HTTP/1.1 200 OK\r\nX-Consul-Index: 9\r\nTransfer-Encoding: chunked\r\n\r\n100\r\n["),
    "no http": _raw(b"SSH-2.0-OpenSSH_9.2\r\n"),
    "nothing": _raw(b""),
    "reset": _raw(b"", reset=True),
    "dripping body": _drip(_HEAD),
    "dripping header": _drip(b"HTTP/1.1 200 OK\r\nX-A: "),
}


#: A code 200 is all that two of the calls are told.
UNREAD = set(itertools.product(("renew_session", "close_session"), ("html", "wrong json", "no text")))


@pytest.mark.parametrize(("call", "fault"), [pair for pair in itertools.product(CALLS, FAULTS) if pair not in UNREAD])
def test_faults(fake: FakeConsul, monkeypatch: pytest.MonkeyPatch, call: str, fault: str) -> None:
    """Whatever comes instead of an answer is Unavailable within the time, in a sentence with address and attempt."""
    monkeypatch.setattr(module, "WAIT_SLACK", 0.02)
    fake.fault = FAULTS[fault](fake)
    store = ConsulStore(fake.address)
    began = time.monotonic()
    with pytest.raises(Unavailable, match=rf"Consul at {fake.address} .*(a/key|a/|me|8f1f0d4e)") as caught:
        every_call(store, timeout=0.05)[call]()
    assert time.monotonic() - began < 0.05 + 0.8
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400
    store.close()


def test_faults_pass(fake: FakeConsul, store: ConsulStore) -> None:
    """After each fault the next call is served, whatever state its connection was left in."""
    done(store, Put("a", b""))
    for fault in FAULTS.values():
        fake.fault = fault(fake)
        with pytest.raises(Unavailable):
            store.list("a", timeout=0.1)
        fake.fault = None
        assert names(store.list("a")) == ["a"]


def test_a_commit_is_sent_once(fake: FakeConsul, store: ConsulStore) -> None:
    """A commit whose answer is lost may have been done: it is never repeated here."""
    fake.fault = FAULTS["nothing"](fake)
    with pytest.raises(Unavailable):
        store.commit([Put("a", b"")])
    assert len(fake.seen) == 1


def test_nobody_listens(fake: FakeConsul) -> None:
    """A closed port is Unavailable at once."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        store = ConsulStore(f"127.0.0.1:{unused.getsockname()[1]}")
        with pytest.raises(Unavailable, match=r"reading a/key: .*refused"):
            store.get("a/key", timeout=30)


def test_a_host_that_takes_no_connection_costs_a_wait_three_seconds_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    """A full backlog, as a host that is gone, ends a wait by the time for connecting and not by its own."""
    monkeypatch.setattr("myoverlay.store.wire.CONNECT_TIMEOUT", 0.2)
    with socket.socket() as deaf, socket.socket() as first, socket.socket() as second:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        for filler in (first, second):
            filler.setblocking(False)
            filler.connect_ex(deaf.getsockname())
        store = ConsulStore(f"127.0.0.1:{deaf.getsockname()[1]}")
        began = time.monotonic()
        with pytest.raises(Unavailable, match="reading below a/"):
            store.wait("a/", 5, timeout=60)
        assert time.monotonic() - began < SOON


def test_restart_of_consul_costs_no_call(fake: FakeConsul, store: ConsulStore) -> None:
    """Kept connections that Consul ended meanwhile are noticed before they are used."""
    for call in [Call(lambda: store.get("a")) for _ in range(8)]:
        call.result()
    fake.close()
    fake.start()
    for _ in range(8):
        assert store.get("a") is None


def test_many_waits_leave_room_for_commits(fake: FakeConsul, store: ConsulStore) -> None:
    """Sixty blocked waits do not make a commit wait for a connection."""
    done(store, Put("w/x", b""))
    index = store.list("w/").index
    waiting = [Call(lambda: store.wait("w/", index, timeout=30)) for _ in range(60)]
    while len([seen for seen in fake.seen if "wait=" in seen.target]) < 60:
        threading.Event().wait(0.01)
    done(store, Put("other", b""))
    assert all(call.is_alive() for call in waiting)
    done(store, Put("w/y", b""))
    assert all(isinstance(call.result(), Listing) for call in waiting)


def test_connections_are_kept(fake: FakeConsul, store: ConsulStore) -> None:
    """One thread's calls share a connection."""
    for _ in range(20):
        store.get("a")
    assert len(fake.connections) == 1


@pytest.mark.parametrize("wait", ["wait", "wait_keys"])
def test_close_interrupts_a_wait_under_way(fake: FakeConsul, wait: str) -> None:
    """A wait that is blocked inside Consul ends when the store is closed, and says why."""
    store = ConsulStore(fake.address)
    waiting = Call(lambda: getattr(store, wait)("a/", 1 << 40, timeout=60))
    while not fake.seen:
        threading.Event().wait(0.01)
    store.close()
    with pytest.raises(Unavailable, match="closed"):
        waiting.result()


# What is no fault but looks like one, and the other way round


@pytest.mark.parametrize("call", CALLS)
def test_403_says_what_was_not_allowed(fake: FakeConsul, call: str) -> None:
    """A token that does not serve is named as the reason, with the key, prefix or session."""
    fake.token = "right"
    store = ConsulStore(fake.address, token="wrong")
    with pytest.raises(Unavailable, match=r"permission denied: .*(a/key|a/|me|8f1f0d4e)"):
        every_call(store)[call]()
    store.close()


@pytest.mark.parametrize("call", ["get", "get_many", "list", "keys", "wait", "wait_keys", "commit"])
def test_rights_that_are_missing_are_never_read_as_nothing(fake: FakeConsul, store: ConsulStore, call: str) -> None:
    """Consul hides what a token may not read: an empty listing, a result that is left out, a conflict. All are told."""
    done(store, Put("a/key", b""), Put("a/other", b""))
    fake.denied = "a/"
    with pytest.raises(Unavailable, match=r"permission denied: .*a/"):
        every_call(store, timeout=0.2)[call]()


@pytest.mark.parametrize("call", ["list", "keys", "wait"])
def test_listings_that_newer_consuls_say_they_filtered(fake: FakeConsul, store: ConsulStore, call: str) -> None:
    """From 1.11 on a header tells of what was left out; such a listing is not complete and so is none."""
    filtered = b"X-Consul-Results-Filtered-By-ACLs: true"
    head = b"HTTP/1.1 200 OK\r\nX-Consul-Index: 9\r\n" + filtered + b"\r\nContent-Length: 2\r\n\r\n[]"
    fake.fault = _raw(head)(fake)
    with pytest.raises(Unavailable, match="permission denied: reading below a/"):
        every_call(store)[call]()


@pytest.mark.parametrize("call", ["get", "list", "keys", "wait", "wait_keys"])
def test_404_of_what_is_no_consul(fake: FakeConsul, store: ConsulStore, call: str) -> None:
    """Only a 404 with an index means that nothing is there."""
    fake.fault = _reply(404, b"<html>Not found</html>", None)(fake)
    with pytest.raises(Unavailable, match="HTTP 404"):
        every_call(store)[call]()


@pytest.mark.parametrize("index", ["", "none", "1.5"])
def test_index_that_is_none(fake: FakeConsul, store: ConsulStore, index: str) -> None:
    """An answer without an index cannot be gone on from."""
    head = f"HTTP/1.1 200 OK\r\nX-Consul-Index: {index}\r\nContent-Length: 2\r\n\r\n[]".encode()
    fake.fault = _raw(head)(fake)
    with pytest.raises(Unavailable, match="cannot be read: reading below a/"):
        store.list("a/")


@pytest.mark.parametrize("index", [0, -3])
def test_index_below_one_makes_no_hot_loop(fake: FakeConsul, store: ConsulStore, index: int) -> None:
    """Index 0 would make the next wait answer at once, for ever: it is 1."""
    fake.fault = lambda *_: Reply(200, [], index)
    assert store.list("a/").index == 1
    assert store.wait("a/", 0, timeout=1) == Listing((), 1)


def test_the_store_went_back(fake: FakeConsul, store: ConsulStore) -> None:
    """A Consul that lost everything and counts anew is a Reset, not a listing without keys."""
    done(store, Put("a/x", b""))
    index = store.list("a/").index
    fake.wipe()
    answer = store.wait("a/", index, timeout=0.1)
    assert isinstance(answer, Reset)
    assert 1 <= answer.index < index


@pytest.mark.parametrize("kept", [True, False])
def test_forgotten_deletions_are_no_reset(fake: FakeConsul, store: ConsulStore, kept: bool) -> None:
    """When Consul forgets a deleted key the prefix's index falls; the store's does not, so nothing was lost."""
    indexes = done(store, Put("a/x", b"")) if kept else {}
    gone = done(store, Put("a/y", b""))["a/y"]
    done(store, Delete("a/y", gone))
    listing = store.list("a/")
    fake.reap()
    answer = store.wait("a/", listing.index, timeout=0.1)
    assert isinstance(answer, Listing | Unchanged)
    if kept:
        assert answer == Listing(listing.entries, indexes["a/x"])


def test_a_prefix_without_keys_is_not_read_for_every_write_elsewhere(
    fake: FakeConsul, store: ConsulStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Consul wakes a wait on nothing for any write; a thousand hosts must not each answer each with a read."""
    monkeypatch.setattr(module, "SPURIOUS_PAUSE", 0.1)
    index = store.list("nothing/").index
    waiting = Call(lambda: store.wait("nothing/", index, timeout=0.4))
    number = 0
    while waiting.is_alive():
        done(store, Put("other", b"%d" % number))
        number += 1
    assert isinstance(waiting.result(), Unchanged)
    waits = [seen for seen in fake.seen if "wait=" in seen.target]
    assert number > 15
    assert 2 <= len(waits) <= 0.4 / 0.1 + 3


def test_what_is_remembered_of_prefixes_is_bounded(store: ConsulStore) -> None:
    """Prefixes that are asked for once leave nothing that grows."""
    for number in range(module._REMEMBERED + 20):
        store.list(f"ask/{number}/")
    assert len(store._waits._told) == module._REMEMBERED


def test_positions_of_a_conflict_without_them(fake: FakeConsul, store: ConsulStore) -> None:
    """A conflict with positions out of range is still a conflict."""
    fake.fault = lambda *_: Reply(409, {"Errors": [{"OpIndex": 99, "What": "odd"}]})
    assert store.commit([Put("a", b"")]) == Conflict((), "odd")
    fake.fault = lambda *_: Reply(409, {"Errors": []})
    with pytest.raises(Unavailable, match="cannot be read"):
        store.commit([Put("a", b"")])
    with pytest.raises(Unavailable, match="cannot be read"):
        store.get_many(["a"])
    fake.fault = lambda *_: Reply(409, {"Errors": [{"OpIndex": 99, "What": "odd"}]})
    with pytest.raises(Unavailable, match="does not say which"):
        store.get_many(["a"])


def test_results_that_lack_a_key(fake: FakeConsul, store: ConsulStore) -> None:
    """An answer that does not tell what was written is none: a wrong index would make the next write a conflict."""
    fake.fault = lambda *_: Reply(200, {"Results": [], "Errors": None})
    with pytest.raises(Unavailable, match="does not say that it wrote a"):
        store.commit([Put("a", b"")])


# What is sent


def test_a_session_hangs_on_nothing_but_its_ttl(fake: FakeConsul, store: ConsulStore) -> None:
    """No health check, no lock-delay, keys deleted at its end."""
    store.open_session("host-1", 10)
    assert json.loads(fake.seen[-1].body) == {
        "Name": "host-1",
        "TTL": "10000ms",
        "Behavior": "delete",
        "LockDelay": "0s",
        "NodeChecks": [],
        "Checks": [],
    }


def test_waits_ask_consul_for_their_time(fake: FakeConsul, store: ConsulStore) -> None:
    """The time goes along, so that Consul ends the wait and not the client."""
    index = store.list("a/").index
    store.wait("a/", index, timeout=SHORT)
    (asked,) = [seen.target for seen in fake.seen if "wait=" in seen.target]
    match = re.search(rf"[?&]index={index}&wait=(\d+)ms", asked)
    assert match is not None
    assert SHORT * 900 <= int(match[1]) <= SHORT * 1000


def test_bytes_received(fake: FakeConsul, store: ConsulStore) -> None:
    """What an answer's body weighs is counted, whatever its kind."""
    done(store, Put("a/x", bytes(3000)))
    before = store.bytes_received
    store.list("a/")
    assert 4000 < store.bytes_received - before < 4300
    before = store.bytes_received
    store.keys("a/")
    assert store.bytes_received - before == len('["a/x"]')


def test_get_many_reads_no_more_than_it_was_asked_for(fake: FakeConsul, store: ConsulStore) -> None:
    """arp/10.0.0.1 does not bring arp/10.0.0.1xx along, and absent keys cost one more round trip."""
    done(store, *[Put(f"arp/10.0.0.{number}", bytes(100)) for number in (1, *range(100, 160))])
    before, asked = store.bytes_received, len(fake.seen)
    found = store.get_many(["arp/10.0.0.1", *[f"arp/10.0.1.{number}" for number in range(60)]])
    assert list(found) == ["arp/10.0.0.1"]
    assert len(fake.seen) - asked == 2
    assert store.bytes_received - before < 6000


def test_a_lost_lock_answers_conflict_and_not_an_error(store: ConsulStore) -> None:
    """A session that another host holds is no failure of the store."""
    mine, other = store.open_session("me", 10), store.open_session("other", 10)
    assert isinstance(store.commit([Lock("a", b"", mine)]), Committed)
    assert refused(store, Lock("a", b"", other)) == (0,)
    assert isinstance(store.wait_keys("a", 0, timeout=1), Keys)


# TLS


@pytest.fixture(scope="session")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture
def secure(pki: Path) -> Iterator[FakeConsul]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pki / "server.pem", pki / "server.key")
    context.load_verify_locations(pki / "ca.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    fake = FakeConsul(tls=context).start()
    yield fake
    fake.close()
    assert fake.crashes == []


def test_tls(secure: FakeConsul, pki: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both sides show certificates; calls, kept connections and an interrupted wait work as without."""
    monkeypatch.setattr(module, "LOOK", 0.05)
    store = ConsulStore(secure.address, ca=pki / "ca.pem", cert=pki / "client.pem", key=pki / "client.key")
    done(store, Put("a/x", bytes(100_000)))
    for _ in range(5):
        assert names(store.list("a/")) == ["a/x"]
    assert len(secure.connections) == 1
    index = store.list("a/").index
    woken = Call(lambda: store.wait("a/", index, timeout=60))
    while not any("keys=1" in seen.target for seen in secure.seen):  # it looked, and goes on reading
        threading.Event().wait(0.01)
    done(store, Put("a/y", b""))
    assert names(woken.result()) == ["a/x", "a/y"]
    asked = len(secure.seen)
    waiting = Call(lambda: store.wait("a/", 1 << 40, timeout=60))
    while len(secure.seen) == asked:
        threading.Event().wait(0.01)
    store.close()
    with pytest.raises(Unavailable, match="closed"):
        waiting.result()


def test_tls_without_trust(secure: FakeConsul, pki: Path) -> None:
    """A server that nobody vouches for is not asked; a client without a certificate is not served."""
    with pytest.raises(Unavailable, match=r"reading a: .*certificate"):
        ConsulStore(secure.address).get("a")
    with pytest.raises(Unavailable, match=r"reading a: .*(certificate|reset|closed|EOF|Broken)"):
        ConsulStore(secure.address, ca=pki / "ca.pem").get("a")
    assert secure.seen == []


def test_tls_with_a_server_that_hangs_up(pki: Path) -> None:
    """It may want a certificate, and its words to that were lost; said alike by every version of Python."""

    def hang_up() -> None:
        client, _ = listener.accept()
        with client:
            client.recv(65536)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = Call(hang_up)
        with pytest.raises(Unavailable, match=r"hung up while TLS came up.*CONSUL_CLIENT_CERT"):
            ConsulStore(f"https://127.0.0.1:{listener.getsockname()[1]}", ca=pki / "ca.pem").get("a", timeout=3)
        server.result()


def test_tls_with_a_server_that_speaks_none(fake: FakeConsul, pki: Path) -> None:
    """https to a plain port is Unavailable and sends no token."""
    store = ConsulStore(f"https://127.0.0.1:{fake.port}", ca=pki / "ca.pem", token=TOKEN)
    with pytest.raises(Unavailable, match="reading a"):
        store.get("a", timeout=1)
    assert fake.seen == []


def test_tls_files_that_do_not_serve(tmp_path: Path) -> None:
    """A file that is missing or no certificate is refused at the start, by its name."""
    with pytest.raises(Refused, match=r"absent\.pem"):
        ConsulStore("https://h:1", ca=tmp_path / "absent.pem")
    (tmp_path / "odd.pem").write_text("odd")
    with pytest.raises(Refused, match=r"odd\.pem"):
        ConsulStore("https://h:1", cert=tmp_path / "odd.pem")
    assert issubclass(Refused, MyoverlayError)


def test_after_an_outage_a_wait_looks_before_it_blocks(fake: FakeConsul, store: ConsulStore) -> None:
    """An emptied Consul would let a wait sleep until its index has caught up; the one after a failure sees at once."""
    done(store, *[Put(f"a/{number}", b"") for number in range(30)])
    index = store.list("a/").index
    waiting = Call(lambda: store.wait("a/", index, timeout=60))
    while not any("wait=" in seen.target for seen in fake.seen):
        threading.Event().wait(0.01)
    fake.close()
    with pytest.raises(Unavailable):
        waiting.result()
    fake.wipe()
    fake.start()
    assert isinstance(Call(lambda: store.wait("a/", index + 100, timeout=60)).result(), Reset)


def test_a_wait_that_ends_early_looks_before_it_blocks_again(fake: FakeConsul, store: ConsulStore) -> None:
    """A restore ends blocking queries with what was told before; only the next look shows what was restored."""
    done(store, *[Put(f"a/{number}", b"") for number in range(30)])
    index = store.list("a/").index

    def restored(seen: Seen, _: socket.socket) -> Reply:
        fake.fault = None
        fake.wipe()
        return Reply(200, [], index)

    fake.fault = restored
    assert isinstance(Call(lambda: store.wait("a/", index, timeout=60)).result(), Reset)


@pytest.mark.parametrize("grown", [0, 40], ids=["quiet", "grown beyond it elsewhere"])
def test_a_wait_that_begins_after_a_restore_looks_once_more(
    fake: FakeConsul, store: ConsulStore, monkeypatch: pytest.MonkeyPatch, grown: int
) -> None:
    """It came too late to be ended by the restore and waits for an index that is far away: it sees so, and soon."""
    monkeypatch.setattr(module, "LOOK", 0.1)
    done(store, *[Put(f"a/{number}", b"") for number in range(5)])
    old = fake.snapshot()
    for number in range(30):
        done(store, Put("a/later", b"%d" % number))
    known = store.list("a/")
    fake.restore(old)
    for number in range(grown):
        done(store, Put("other", b"%d" % number))
    began = time.monotonic()
    answer = Call(lambda: store.wait("a/", known.index, timeout=60)).result()
    assert time.monotonic() - began < SOON
    # With the whole store's index beyond it, what is there is told in place of a loss: whoever reads it sees the rest.
    assert isinstance(answer, Listing if grown else Reset)
    if isinstance(answer, Listing):
        assert names(answer) == [f"a/{number}" for number in range(5)]


def test_a_wait_looks_once(fake: FakeConsul, store: ConsulStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing was lost one read of names is all that it costs, and what comes is heard as soon as ever."""
    monkeypatch.setattr(module, "LOOK", 0.05)
    done(store, Put("a/x", b""))
    index = store.list("a/").index
    before = len(fake.seen)
    waiting = Call(lambda: store.wait("a/", index, timeout=60))
    until(lambda: any("keys=1" in seen.target for seen in fake.seen[before:]))
    waiting.join(0.4)
    assert waiting.is_alive()
    asked = [seen.target for seen in fake.seen[before:]]
    assert len([target for target in asked if "keys=1" in target]) == 1
    assert len(asked) == 2
    done(store, Put("a/y", b""))
    began = time.monotonic()
    assert names(waiting.result()) == ["a/x", "a/y"]
    assert time.monotonic() - began < SHORT


def test_a_look_that_is_not_answered_is_tried_again(
    fake: FakeConsul, store: ConsulStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wait goes on meanwhile: it did not fail, and hears what comes."""
    monkeypatch.setattr(module, "LOOK", 0.05)
    done(store, Put("a/x", b""))
    index = store.list("a/").index
    refused: list[str] = []

    def names_fail(seen: Seen, _: socket.socket) -> Reply:
        if "keys=1" not in seen.target or len(refused) == 3:
            return fake.answer(seen)
        refused.append(seen.target)
        return Reply(500, b"No cluster leader")

    fake.fault = names_fail
    waiting = Call(lambda: store.wait("a/", index, timeout=60))
    until(lambda: len([seen for seen in fake.seen if "keys=1" in seen.target]) == 4)
    waiting.join(0.3)
    assert waiting.is_alive()
    assert len(refused) == 3
    assert len([seen for seen in fake.seen if "keys=1" in seen.target]) == 4
    done(store, Put("a/y", b""))
    assert names(waiting.result()) == ["a/x", "a/y"]


def test_an_index_that_never_moves_does_not_turn_a_wait_on_the_spot(fake: FakeConsul, store: ConsulStore) -> None:
    """What answers every wait at once, with the index asked for, is asked four times a second and not without end."""
    done(store, Put("a/key", b""))
    fake.fault = lambda seen, _: Reply(200, [fake.kv["a/key"].shown("a/key")], 5)
    before = len(fake.seen)
    assert isinstance(store.wait("a/", 5, timeout=1), Unchanged)
    assert 2 <= len(fake.seen) - before <= 6


def test_a_server_that_is_gone_without_a_word_ends_a_wait(fake: FakeConsul, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wait on a server that lost its power hears nothing; the kernel asks, and it ends long before its time."""
    monkeypatch.setattr("myoverlay.store.wire.KEEPALIVE", (1, 1, 1))
    place = ("127.0.0.1", fake.port)
    with FaultProxy(listen("127.0.0.1"), lambda: socket.create_connection(place, 3)) as proxy:
        store = ConsulStore(proxy.address)
        index = store.list("a/").index
        waiting = Call(lambda: store.wait("a/", index, timeout=60))
        while not any("wait=" in asked for asked in proxy.asked):
            threading.Event().wait(0.01)
        proxy.set(faults.BLACK_HOLE)
        with pytest.raises(Unavailable, match=r"timed out|did not answer"):
            waiting.result(10)
        store.close()


def test_the_client_is_loaded_without_what_it_does_not_use() -> None:
    """`requests` is left out, and whoever needs it afterwards has the real one."""
    code = (
        "import sys, myoverlay.store.consul; assert not {'requests', 'urllib3'} & set(sys.modules)\n"
        "import requests; assert requests.Session"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
