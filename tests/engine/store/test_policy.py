"""The policy that ships, on a real Consul with ACLs (default deny): enough for all that a host does, and no more."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from myoverlay.errors import Denied, Unavailable
from myoverlay.store import Committed, Put
from myoverlay.store.allowed import asked
from myoverlay.store.consul import ConsulStore
from myoverlay.values import HostId
from tests.attack.board import Board, board
from tests.engine.store.policed import OVERLAY, PREFIX, PolicedHosts, begin
from tests.engine.store.trouble import Guarded, bugs, failures, wait_settled
from tests.kernel.host.hosts import Refusal
from tests.kernel.host.tools import in_parallel, ip, until

__all__ = ["board"]

ME, OTHER = HostId("a" * 32), HostId("b" * 32)


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    agent = begin(tmp_path_factory.mktemp("consul"))
    yield agent
    agent.kill()


@pytest.fixture
def hosts(agent: Guarded, tmp_path: Path) -> Iterator[PolicedHosts]:
    agent.clear()
    with PolicedHosts(tmp_path, agent) as laboratory:
        yield laboratory


@pytest.mark.parametrize("catalogue", [False, True], ids=["", "catalogue"])
def test_it_gives_every_right_that_is_asked_for(hosts: PolicedHosts, agent: Guarded, catalogue: bool) -> None:
    """What `doctor` asks is all granted; and one rule less is one right less, which is named."""
    token = hosts.new_policy_token(ME, records=("demo-1",), catalogue=catalogue)
    store = ConsulStore(agent.address, token=token)
    found = asked(store, PREFIX, ME, ["demo-1"], catalogue, timeout=3)
    assert [right for right in found if right.denied] == []
    assert len(found) == (17 if not catalogue else 19)
    store.close()
    store = ConsulStore(agent.address, token=hosts.new_policy_token(ME))
    lacking = {right.denied for right in asked(store, PREFIX, ME, ["demo-1"], True, timeout=3)} - {""}
    assert lacking == {"write demo-1/", "register its node", "register services"}
    store.close()


def test_what_is_another_hosts_is_refused(hosts: PolicedHosts, agent: Guarded) -> None:
    """Another host's keys, everybody else's, and keys that only begin like one's own; nothing of it is changed."""
    store = ConsulStore(agent.address, token=hosts.new_policy_token(ME))
    for key in (
        f"{PREFIX}/hosts/{OTHER}/overlays/demo", f"{PREFIX}/hosts/{OTHER}/networks/demo", f"{PREFIX}/alive/{OTHER}",
        f"{PREFIX}/alive/{ME}x", f"{PREFIX}/hosts/{ME}x/overlays/demo", f"{PREFIX}/else", "elsewhere/x", PREFIX,
    ):  # fmt: skip
        with pytest.raises(Denied, match="permission denied"):
            store.commit([Put(key, b"x")])
    for key in (f"{PREFIX}/alive/{ME}", f"{PREFIX}/hosts/{ME}/overlays/demo", f"{PREFIX}/pools/10.5.0.0-24/10.5.0.2"):
        assert isinstance(store.commit([Put(key, b"x")]), Committed)
    with pytest.raises(Denied):
        store.list("elsewhere/")
    # One key that may not be written is enough for all of a transaction: each carries the token.
    with pytest.raises(Denied):
        store.commit([Put(f"{PREFIX}/vni/7", b"x"), Put(f"{PREFIX}/alive/{OTHER}", b"x")])
    assert store.get(f"{PREFIX}/vni/7") is None
    store.close()


def test_a_session_of_another_agent_is_left_alone(hosts: PolicedHosts, agent: Guarded) -> None:
    """With `--agent` a token opens and ends sessions at its own agent only: that of this Consul is called `store`."""
    mine = ConsulStore(agent.address, token=hosts.new_policy_token(ME, agent="store"))
    session = mine.open_session("mine", 10)
    theirs = ConsulStore(agent.address, token=hosts.new_policy_token(OTHER, agent="elsewhere"))
    with pytest.raises(Denied):
        theirs.open_session("theirs", 10)
    with pytest.raises(Unavailable):
        theirs.close_session(session)
    assert mine.renew_session(session)
    mine.close()
    theirs.close()


def test_hosts_do_all_they_do_under_it(hosts: PolicedHosts) -> None:
    """They begin without a token; networks, containers, leases, a restart, a host that dies: no call is refused.

    The dead host's own keys stay, because nobody else may delete them; its addresses become free all the same.
    """
    one, two = hosts.host(grace=2, lease_grace=4), hosts.host(grace=2, lease_grace=4)
    in_parallel(*[lambda host=host: host.create_network() for host in (one, two)])
    a, b = one.run(), two.run()
    assert a.ping(b.address) != [None]
    wait_settled(one, two)
    failed = failures(one)
    two.restart()
    c = two.run("10.5.0.99")
    assert a.ping(c.address, timeout=3) != [None]
    two.remove(c)
    until(lambda: hosts.leases()["10.5.0.99"] == 0)
    wait_settled(one, two)
    assert failures(one) == failed
    # The other dies with its machine: nothing answers the heartbeat, and its session ends.
    gone = two.daemon.records.me
    two.stop()
    ip(two.ns, "link set eth0 down")
    until(lambda: hosts.leases()[str(b.address)] == 0, 90, "the dead host's address to be free")
    assert hosts.keys(f"hosts/{gone}/overlays"), "only its own token may delete that"
    assert not hosts.keys(f"{OVERLAY}/members/{gone}")
    d = one.run(str(b.address))
    assert d.address == b.address
    assert bugs(one) == {}


def test_names_are_registered_under_it_and_doctor_is_content(hosts: PolicedHosts, agent: Guarded) -> None:
    """With the catalogue on: a container's name is there and goes with it, `doctor` asks for every right and has it."""
    hosts.wishes, hosts.beside = {"catalogue": True}, {"CONSUL_HTTP_ADDR": agent.address, "MYOVERLAY_CATALOGUE": "on"}
    host = hosts.host()
    host.create_network()
    a = host.run()
    wait_settled(host)
    assert host.local().name(a.endpoint, ("shop-db",))
    host.daemon.publisher.offer(host.local().network.overlay)
    until(lambda: json.loads(agent.ask("GET", "catalog/service/shop-db")), 30, "the name in the catalogue")
    found = {one["check"]: one for one in host.call("Control.Doctor")["findings"]}
    for check in ("store", "store-rights", "store-clock", "stale-keys", "token-file"):
        assert found[check]["level"] == "ok", found[check]
    assert "18 rights" in found["store-rights"]["saw"]
    host.remove(a)
    until(lambda: not json.loads(agent.ask("GET", "catalog/service/shop-db")), 30, "the name to be gone")
    assert host.count("catalogue", "refused") == 0
    assert bugs(host) == {}


def test_a_new_token_is_taken_up_without_a_restart(hosts: PolicedHosts, agent: Guarded) -> None:
    """The old one is deleted in Consul: calls are refused, and work again when the file holds the new one."""
    one, two = hosts.host(), hosts.host()
    in_parallel(*[lambda host=host: host.create_network() for host in (one, two)])
    a, b = one.run(), two.run()
    until(lambda: a.ping(b.address) != [None], 10, "the one host to have heard of the other's container")
    old, me = hosts.token_of(one), one.daemon.records.me
    agent.revoke(old)
    until(lambda: not one.daemon.liveness.has_session, 30, "the token to be refused")
    c = two.run()
    assert a.ping(b.address) != [None], "traffic needs no token"
    hosts.give(one, hosts.new_policy_token(me))
    until(lambda: one.daemon.liveness.has_session, 30, "the new token to be in use")
    until(lambda: one.knows(c), 30, "what changed meanwhile to be learned")
    d = one.run()
    until(lambda: two.knows(d), 30)
    assert bugs(one) == {}


def test_a_token_is_found_nowhere(
    hosts: PolicedHosts, board: Board, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """After a day's work, a refusal among it: not on the disk, in the log, a report, an answer, an argument or a
    thread's name. In the file it was written to, root's alone, it is."""
    caplog.set_level("DEBUG")
    host = hosts.host()
    host.create_network()
    host.run()
    hosts.agent.revoke(hosts.token_of(host))
    until(lambda: not host.daemon.liveness.has_session, 30)
    with pytest.raises(Refusal):
        host.create_network("10.6.0.0/24")
    again = hosts.new_policy_token(host.daemon.records.me)
    tokens = [hosts.token_of(host), again]
    hosts.give(host, again)
    until(lambda: host.daemon.liveness.has_session, 30)
    said = {name: host.call(f"Control.{name}") for name in ("Status", "Report", "Counters", "Hosts", "Names")}
    said["Doctor"] = host.call("Control.Doctor")
    host.restart()
    texts = {name: json.dumps(answer) for name, answer in said.items()}
    texts["log"] = caplog.text + "".join(capfd.readouterr())
    texts["arguments"] = Path("/proc/self/cmdline").read_text() + " ".join(
        thread.name for thread in threading.enumerate()
    )
    disk = hosts.folder.stat().st_dev  # a pinned namespace is no file
    for path in hosts.folder.rglob("*"):
        if path.is_file() and path.suffix != ".token" and path.stat().st_dev == disk:
            texts[str(path)] = path.read_bytes().decode("latin-1")
    assert [name for name, text in texts.items() if any(token in text for token in tokens)] == []
    assert len(texts["log"]) > 1000
    assert any("journal" in name for name in texts)
    assert (hosts.folder / f"{host.name}.token").stat().st_mode & 0o777 == 0o600
    looked = f"in {len(texts)} files, answers and logs"
    board.write("a token, searched for in all that a host writes", f"looked for {looked}", "found nowhere")
