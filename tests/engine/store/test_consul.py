"""The store on the real Consul of Debian 11 (1.8.7): the contract, and what only a real one can show."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lab import fetch
from myoverlay.errors import Unavailable
from myoverlay.store import Keys, Listing, Lock, Put, Reset, Unchanged
from myoverlay.store.consul import ConsulStore
from tests.pure.store.fake_consul import make_pki
from tests.store_contract import SOON, Call, StoreContract, done, names

MASTER = str(uuid.uuid4())


class Agent:
    """A Consul server on loopback, at ports that were free, with its data in `folder`; ended by its own pid."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.folder = folder
        self.settings = settings
        self.ports = dict(zip(("http", "server", "serf_lan", "serf_wan"), _free_ports(4), strict=True))
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.ports['http']}"

    def start(self) -> Agent:
        settings = {
            "server": True,
            "bootstrap_expect": 1,
            "node_name": "store",
            "data_dir": str(self.folder / "data"),
            "bind_addr": "127.0.0.1",
            "client_addr": "127.0.0.1",
            "ports": {"dns": -1, "grpc": -1, **self.ports},
            "performance": {"raft_multiplier": 1},
            "limits": {"http_max_conns_per_client": 1000},
            "disable_update_check": True,
            "disable_host_node_id": True,
            "rejoin_after_leave": True,
            **self.settings,
        }
        self.folder.mkdir(exist_ok=True)
        (self.folder / "consul.json").write_text(json.dumps(settings))
        binary = fetch.STORE.root / "usr/bin/consul"
        assert binary.exists(), "Consul is not there yet: run `python3 -m lab fetch`"
        with (self.folder / "log").open("ab") as log:
            command = [str(binary), "agent", f"-config-file={self.folder / 'consul.json'}"]
            self.process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        return self

    def wait_ready(self, store: ConsulStore) -> Agent:
        """Until it takes a write: it has elected itself, and knows the token."""
        until(lambda: _succeeds(lambda: done(store, Put(f"ready/{uuid.uuid4().hex}", b""))), self.log)
        return self

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def wipe(self) -> None:
        shutil.rmtree(self.folder / "data")

    def log(self) -> str:
        return (self.folder / "log").read_text()[-3000:]


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports: list[int] = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def _succeeds(call: Callable[[], object]) -> bool:
    try:
        call()
    except Unavailable:
        return False
    return True


def until(condition: Callable[[], bool], tell: Callable[[], str] = str, seconds: float = 30.0) -> None:
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends, f"the condition did not come true in {seconds} s {tell()}"
        threading.Event().wait(0.02)


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agent]:
    agent = Agent(tmp_path_factory.mktemp("consul")).start()
    store = ConsulStore(agent.address)
    try:
        yield agent.wait_ready(store)
    finally:
        store.close()
        agent.kill()


@pytest.fixture
def store(agent: Agent) -> Iterator[ConsulStore]:
    store = ConsulStore(agent.address)
    yield store
    store.close()


class TestContract(StoreContract):
    """The contract on Consul."""


def test_a_session_ends_unrenewed(store: ConsulStore) -> None:
    """With a TTL of 10 s a key goes after 10 to 20 s and some, and who waits for names hears it then."""
    kept = store.open_session("kept", 10)
    lost = store.open_session("lost", 10)
    done(store, Lock("ttl/kept", b"", kept), Lock("ttl/lost", b"", lost))
    began = time.monotonic()
    index = store.keys("ttl/").index
    waiting = Call(lambda: store.wait_keys("ttl/", index, timeout=40))
    while waiting.is_alive() and time.monotonic() < began + 30:
        assert store.renew_session(kept)
        waiting.join(3)
    answer = waiting.result()
    assert isinstance(answer, Keys)
    assert answer.keys == ("ttl/kept",)
    assert 10 <= time.monotonic() - began < 23
    assert not store.renew_session(lost)


def test_restart_and_loss(tmp_path: Path) -> None:
    """Killed: waits and calls are Unavailable at once. Restarted: all goes on. Emptied: a Reset."""
    agent = Agent(tmp_path / "consul").start()
    store = ConsulStore(agent.address)
    try:
        agent.wait_ready(store)
        done(store, *[Put(f"a/{number}", b"") for number in range(50)])
        session = store.open_session("me", 60)
        done(store, Lock("a/alive", b"", session))
        listing = store.list("a/")
        waiting = Call(lambda: store.wait("a/", listing.index, timeout=60))
        agent.kill()
        with pytest.raises(Unavailable):
            waiting.result()
        with pytest.raises(Unavailable):
            store.get("a/1")
        agent.start()
        agent.wait_ready(store)
        assert store.list("a/").entries == listing.entries
        assert store.renew_session(session)
        assert isinstance(store.wait("a/", listing.index, timeout=0.2), Unchanged)
        agent.kill()
        agent.wipe()
        agent.start()
        agent.wait_ready(store)
        answer = store.wait("a/", listing.index + 10**6, timeout=0.2)
        assert isinstance(answer, Reset)
        assert store.list("a/").entries == ()
    finally:
        store.close()
        agent.kill()


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agent]:
    """A Consul with ACLs, https alone, that asks clients for certificates."""
    folder = tmp_path_factory.mktemp("guarded")
    make_pki(folder)
    files = {"ca_file": "ca.pem", "cert_file": "server.pem", "key_file": "server.key"}
    acl = {"enabled": True, "default_policy": "deny", "tokens": {"master": MASTER}}
    secure = {name: str(folder / file) for name, file in files.items()}
    agent = Agent(folder, acl=acl, verify_incoming_https=True, **secure)
    plain = agent.ports.pop("http")
    agent.ports |= {"https": plain, "http": -1}
    agent.start()
    store = _guarded_store(agent, MASTER)
    try:
        yield agent.wait_ready(store)
    finally:
        store.close()
        agent.kill()


def _guarded_store(agent: Agent, token: str | None) -> ConsulStore:
    files = {"ca": agent.folder / "ca.pem", "cert": agent.folder / "client.pem", "key": agent.folder / "client.key"}
    return ConsulStore(f"https://127.0.0.1:{agent.ports['https']}", token=token, **files)


def _limited_token(master: ConsulStore) -> str:
    rules = 'key_prefix "own/" { policy = "write" } session_prefix "" { policy = "write" }'
    with master._client("making a token", 3) as client:
        client.put("/v1/acl/policy", json.dumps({"Name": uuid.uuid4().hex[:8], "Rules": rules}).encode())
        policies = json.loads(client.http.get(lambda answer: answer.body, "/v1/acl/policies", None, _headers()))
        name = next(policy["Name"] for policy in policies if policy["Name"] != "global-management")
        answer = client.put("/v1/acl/token", json.dumps({"Policies": [{"Name": name}]}).encode())
        token: str = json.loads(answer.body)["SecretID"]
        return token


def _headers() -> dict[str, str]:
    return {"X-Consul-Token": MASTER}


def test_rights(guarded: Agent) -> None:
    """A token serves for what it may, and is named as the reason for what it may not: nothing looks empty."""
    master = _guarded_store(guarded, MASTER)
    mine = _guarded_store(guarded, _limited_token(master))
    done(master, Put("foreign/a", b""))
    done(mine, Put("own/a", b"", index=0), Lock("own/b", b"", mine.open_session("me", 10)))
    assert names(mine.list("own/")) == ["own/a", "own/b"]
    assert mine.list("own/nothing/").entries == ()
    index = mine.keys("own/").index
    denied: list[Callable[[], object]] = [
        lambda: mine.get("foreign/a"),
        lambda: mine.get_many(["own/a", "foreign/a"]),
        lambda: mine.list("foreign/"),
        lambda: mine.keys("foreign/"),
        lambda: mine.wait("foreign/", index, timeout=0.1),
        lambda: mine.commit([Put("own/a", b""), Put("foreign/b", b"")]),
    ]
    for call in denied:
        with pytest.raises(Unavailable, match=r"permission denied: .*foreign/"):
            call()
    mine.close()
    master.close()


@pytest.mark.parametrize("token", [None, str(uuid.uuid4())], ids=["none", "unknown"])
def test_wrong_tokens(guarded: Agent, token: str | None) -> None:
    """Without a token, or with one that Consul does not know, every call says so."""
    store = _guarded_store(guarded, token)
    calls: list[Callable[[], object]] = [
        lambda: store.get("own/a"),
        lambda: store.list("own/"),
        lambda: store.commit([Put("own/a", b"")]),
        lambda: store.open_session("me", 10),
    ]
    for call in calls:
        with pytest.raises(Unavailable, match="permission denied"):
            call()
    store.close()


def test_wait_over_https(guarded: Agent) -> None:
    """A wait through TLS is woken, and ended by close."""
    store = _guarded_store(guarded, MASTER)
    index = store.list("tls/").index
    waiting = Call(lambda: store.wait("tls/", index, timeout=30))
    done(store, Put("tls/a", b""))
    answer = waiting.result()
    assert isinstance(answer, Listing)
    asleep = Call(lambda: store.wait("tls/", answer.index, timeout=60))
    asleep.join(0.3)
    assert asleep.is_alive()
    store.close()
    with pytest.raises(Unavailable, match="closed"):
        asleep.result()


def test_too_many_connections(tmp_path: Path) -> None:
    """Beyond the connections of one client address a call is Unavailable at once, until there is room."""
    agent = Agent(tmp_path / "consul", limits={"http_max_conns_per_client": 4}).start()
    first, second = ConsulStore(agent.address), ConsulStore(agent.address)
    try:
        agent.wait_ready(first)
        index = first.list("a/").index
        # A prefix each: once a wait has failed, the next one for its prefix does not block.
        waits = [Call(lambda place=place: first.wait(f"a{place}/", index, timeout=3)) for place in range(8)]
        until(lambda: sum(call.is_alive() for call in waits) <= 4)
        began = time.monotonic()
        with pytest.raises(Unavailable):
            second.get("a/x")
        assert time.monotonic() - began < SOON
        first.close()
        # 1.8.7 does not see that a client went while its wait blocks: the connection counts until the wait's own end.
        until(lambda: _succeeds(lambda: second.get("a/x")))
        assert 2 < time.monotonic() - began < SOON
    finally:
        first.close()
        second.close()
        agent.kill()


def test_what_a_thousand_keys_cost(store: ConsulStore) -> None:
    """A listing of 1,000 small keys takes no longer than a tenth of a second, and weighs what is expected."""
    for start in range(0, 1000, 50):
        done(store, *[Put(f"many/{number:04}", bytes(60)) for number in range(start, start + 50)])
    took = []
    for _ in range(3):
        before, began = store.bytes_received, time.monotonic()
        assert len(store.list("many/").entries) == 1000
        took.append(time.monotonic() - began)
        assert 150_000 < store.bytes_received - before < 250_000
    assert min(took) < 0.1
