"""Containers, hosts and VMs brought into an overlay by hand."""

from __future__ import annotations

import os
import select
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from myoverlay.errors import KernelRefused, Late
from myoverlay.kernel import netns, tap
from myoverlay.kernel.links import Links
from myoverlay.kernel.netns import Namespace
from tests.kernel.cli.conftest import Hand, answers, engine, link_names, links_of
from tests.kernel.conftest import library, open_fds, until


@pytest.fixture
def made(hand: Hand) -> Hand:
    hand("overlay", "create")
    return hand


@contextmanager
def entered(path: str) -> Iterator[Namespace]:
    with netns.open_path(Path(path)) as ns:
        yield ns


def test_two_containers_talk_at_once(made: Hand, containers: Callable[[str], str]) -> None:
    """The first ping after the command is answered: between two, to the bridge, and with the host's own end."""
    first, second = containers("c1"), containers("c2")
    made("attach", first, "192.168.0.10")
    made("attach", second, "192.168.0.11/24")
    made("attach", "host", "192.168.0.2")
    with entered(first) as ns, library(ns) as ipr:
        assert [answers(ns, address) for address in ("192.168.0.11", "192.168.0.1", "192.168.0.2")] == [3, 3, 3]
        (link,) = ipr.link("get", ifname="eth0")
        assert (link.get_attr("IFLA_ADDRESS"), link.get_attr("IFLA_MTU")) == ("02:42:c0:a8:00:0a", 1450)
    assert answers(made.home, "192.168.0.10") == 3
    assert link_names(made.home) == {"overlay0"}


def test_again_changes_nothing(made: Hand, containers: Callable[[str], str]) -> None:
    """The same words a second time keep the very interface; what was spoilt meanwhile is put right."""
    path = containers("c")
    made("attach", path, "192.168.0.10")
    with entered(path) as ns, library(ns) as ipr:
        (index,) = ipr.link_lookup(ifname="eth0")
        ipr.link("set", index=index, state="down")
        assert "attached already" in made("attach", path, "192.168.0.10")
        assert ipr.link_lookup(ifname="eth0") == [index]
        assert answers(ns, "192.168.0.1") == 3
    assert "is detached" in made("detach", path)
    assert links_of(Path(path)) == set()
    assert "was not attached" in made("detach", path)


def test_mac_and_name(made: Hand, containers: Callable[[str], str]) -> None:
    """`--mac` and `--name` are what the container gets, and one of two interfaces can go alone."""
    path = containers("c")
    made("attach", path, "192.168.0.10", "--mac", "02:00:00:00:00:01", "--name", "net1")
    made("attach", path, "192.168.0.11")
    with entered(path) as ns, library(ns) as ipr:
        assert ipr.link("get", ifname="net1")[0].get_attr("IFLA_ADDRESS") == "02:00:00:00:00:01"
        made("detach", path, "--name", "eth0")
        assert link_names(ns) == {"net1"}


def test_what_is_taken_is_named(made: Hand, containers: Callable[[str], str]) -> None:
    """Address, MAC, interface and bridge address: each refusal says who has it, and changes nothing."""
    first, second = containers("c1"), containers("c2")
    made("attach", first, "192.168.0.10")
    made("attach", "tap:vm1", "192.168.0.30")
    made("arp", "add", "192.168.0.50", "02:42:00:00:00:99")
    mac = "02:42:c0:a8:00:0a"
    for words, said in (
        ((second, "192.168.0.10"), "192.168.0.10 is taken in overlay overlay-ns by eth0"),
        ((second, "192.168.0.10", "--mac", "02:42:00:00:00:01"), "192.168.0.10 is taken"),
        ((second, "192.168.0.30"), "by tap vm1"),
        (("tap:vm2", "192.168.0.10"), "192.168.0.10 is taken"),
        (("tap:vm1", "192.168.0.31"), "detach it first"),
        (("tap:vxlan1", "192.168.0.31"), "another name"),
        ((second, "192.168.0.12", "--mac", mac), f"{mac} is taken"),
        ((second, "192.168.0.1"), "by br0 itself"),
        ((second, "192.168.0.50"), "knows it at 02:42:00:00:00:99 elsewhere"),
        ((first, "192.168.0.12"), "detach it first"),
        ((first, "192.168.0.12", "--name", "lo"), "has an interface lo already"),
    ):
        assert said in made("attach", *words, code=1)
    assert links_of(Path(second)) == set()
    assert len(made.json("overlay", "show")["cables"]) == 2


def test_addresses_that_do_not_fit(made: Hand, containers: Callable[[str], str]) -> None:
    """A wrong prefix length, a foreign subnet, the network's and the broadcast address are refused in one sentence."""
    path = containers("c")
    for address, said in (
        ("192.168.0.9/16", "wrong prefix length"),
        ("10.0.0.1", "no host's address in 192.168.0.0/24"),
        ("192.168.0.0", "no host's address"),
        ("192.168.0.255", "no host's address"),
    ):
        assert said in made("attach", path, address, code=1)


def test_targets(made: Hand, containers: Callable[[str], str]) -> None:
    """A name, a pid and a path mean what they say; what is not there, or is the host, is told."""
    with netns.create(made.places.named / "vm") as vm:
        assert "namespace vm" in made("attach", "vm", "192.168.0.10")
        assert link_names(vm) == {"eth0"}
        inside = vm.call(lambda: subprocess.Popen(["sleep", "60"]))
        try:
            assert "pid" in made("attach", str(inside.pid), "192.168.0.11", "--name", "eth1")
            assert "192.168.0.11" in made("attach", f"pid:{inside.pid}", "192.168.0.11", "--name", "eth1")
            assert link_names(vm) == {"eth0", "eth1"}
        finally:
            inside.kill()
            inside.wait()
        assert "does not run" in made("attach", str(inside.pid), "192.168.0.12", code=1)
    assert "cannot be opened" in made("attach", "/nowhere/x", "192.168.0.12", code=1)
    assert "cannot be opened" in made("attach", "netns:nobody", "192.168.0.12", code=1)
    own = made.home.path
    assert "attach `host`" in made("attach", str(own), "192.168.0.12", code=1)
    assert "itself" in made("attach", "overlay-ns", "192.168.0.12", code=1)


@pytest.mark.parametrize("step", ["ensure", "equip", "forwards"])
@pytest.mark.parametrize("target", ["c", "tap:vm1"])
def test_a_step_that_fails_leaves_nothing(
    made: Hand, containers: Callable[[str], str], monkeypatch: pytest.MonkeyPatch, step: str, target: str
) -> None:
    """Whichever step of an attach fails, before or after it was done: no interface and no port is left."""
    if target.startswith("tap") and step != "ensure":
        return
    path = target if target.startswith("tap") else containers(target)
    act = getattr(Links, step)
    for error in (KernelRefused("trying", 1, "Operation not permitted"), Late("not done in time"), KeyboardInterrupt()):

        def failing(self: Links, *words: object, error: BaseException = error, **more: object) -> None:
            act(self, *words, **more)
            raise error

        with monkeypatch.context() as patch, made.namespace() as ns:
            patch.setattr(Links, step, failing)
            made("attach", path, "192.168.0.10", code=1)
            assert link_names(ns) == {"br0", "vxlan1"}
    made("attach", path, "192.168.0.10")


class Vm:
    """A VM's monitor in small: frames between a tap in the overlay's namespace and the VM's own network card."""

    def __init__(self, outside: Namespace, inside: Namespace, mac: str, address: str) -> None:
        # The overlay's tap is opened where it lives, as `ip netns exec overlay-ns qemu …` would.
        self._ends = [outside.call(lambda: tap.hold("vm1")), inside.call(lambda: tap.hold("ens3"))]
        with library(inside) as ipr:
            (index,) = ipr.link_lookup(ifname="ens3")
            ipr.link("set", index=index, address=mac, mtu=1450, state="up")
            ipr.addr("add", index=index, address=address, prefixlen=24)
        self._stop = os.eventfd(0)
        self._thread = threading.Thread(target=self._carry, name="vm", daemon=True)
        self._thread.start()

    def _carry(self) -> None:
        while True:
            ready, _, _ = select.select([*self._ends, self._stop], [], [])
            if self._stop in ready:
                return
            for end in ready:
                os.write(self._ends[1 - self._ends.index(end)], os.read(end, 65536))

    def close(self) -> None:
        os.eventfd_write(self._stop, 1)
        self._thread.join(5)
        for fd in (*self._ends, self._stop):
            os.close(fd)


def test_a_vm_joins_by_tap_and_by_veth(made: Hand, containers: Callable[[str], str]) -> None:
    """A namespace that plays a VM pings a container, over a tap it holds and over a cable; the tap outlives it."""
    container, guest, wired = containers("c"), containers("vm"), containers("vm-by-veth")
    made("attach", container, "192.168.0.10")
    said = made("attach", "tap:vm1", "192.168.0.30")
    assert "192.168.0.30/24, MAC 02:42:c0:a8:00:1e, MTU 1450" in said
    made("attach", wired, "192.168.0.31")
    with entered(guest) as vm, made.namespace() as ns, entered(wired) as other:
        machine = Vm(ns, vm, "02:42:c0:a8:00:1e", "192.168.0.30")
        try:
            until(lambda: answers(vm, "192.168.0.10", 1))
            assert answers(vm, "192.168.0.10") == 3
            assert answers(vm, "192.168.0.31") == 3
            assert answers(other, "192.168.0.30") == 3
        finally:
            machine.close()
        assert "vm1" in link_names(ns)
        assert "was already" in made("attach", "tap:vm1", "192.168.0.30")
        made("detach", "tap:vm1")
        assert "vm1" not in link_names(ns)
        assert "was not attached" in made("detach", "tap:vm1")


def test_a_name_or_id_is_a_containers(made: Hand, containers: Callable[[str], str], tmp_path: Path) -> None:
    """What is no namespace is asked of Docker: running, it is attached by its pid; else a sentence says what it is."""
    path = containers("c")
    with entered(path) as ns, engine(tmp_path / "docker.sock") as docker:
        inside = ns.call(lambda: subprocess.Popen(["sleep", "60"]))
        docker.pids = {"web": inside.pid, "stopped": 0}
        try:
            assert "container web is attached" in made("attach", "web", "192.168.0.10")
            assert link_names(ns) == {"eth0"}
            assert "container web is detached" in made("detach", "container:web")
        finally:
            inside.kill()
            inside.wait()
        assert "container stopped does not run (exited)" in made("attach", "stopped", "192.168.0.10", code=1)
        assert "was not attached" in made("detach", "stopped")
        assert "there is no container nobody" in made("attach", "nobody", "192.168.0.10", code=1)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # the SDK leaves its socket to the gc
def test_docker_that_does_not_answer_is_told(made: Hand, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a Docker to ask, what is no namespace stays unknown, and the sentence says whom we asked."""
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/nobody.sock")
    said = made("attach", "web", "192.168.0.10", code=1)
    assert f"Docker at unix://{tmp_path}/nobody.sock does not answer (No such file or directory)" in said


def test_rows_come_and_go(made: Hand) -> None:
    """`arp` and `fdb` write, list and remove one row each; also a row that is not permanent, as the tutorial's are."""
    made("arp", "add", "192.168.0.3")
    made("fdb", "add", "02:42:c0:a8:00:03", "192.0.2.2")
    made("fdb", "add", "02:42:c0:a8:00:03", "192.0.2.3")
    assert made.json("arp", "ls") == [{"address": "192.168.0.3", "mac": "02:42:c0:a8:00:03", "state": "permanent"}]
    assert made.json("fdb", "ls") == [{"mac": "02:42:c0:a8:00:03", "vtep": "192.0.2.3", "state": "permanent"}]
    with made.namespace() as ns:
        row = "192.168.0.4 lladdr 02:42:c0:a8:00:04 dev vxlan1 nud reachable"
        command = ["ip", "neigh", "replace", *row.split()]
        ns.call(lambda: subprocess.run(command, check=True))
    assert [row["state"] for row in made.json("arp", "ls")] == ["permanent", "reachable"]
    for words in (("arp", "del", "192.168.0.3"), ("arp", "del", "192.168.0.4"), ("fdb", "del", "02:42:c0:a8:00:03")):
        assert "is removed" in made(*words)
        assert "was not there" in made(*words)
    assert made.json("arp", "ls") + made.json("fdb", "ls") == []


def test_two_hundred_lives_leave_nothing(hand: Hand, containers: Callable[[str], str], tmp_path: Path) -> None:
    """200 times create, attach, detach, delete in one process: no namespace, link, mount, file or fd is left."""
    path = containers("c")
    hand("overlay", "create")
    hand("overlay", "delete")

    def left() -> tuple[int, int, list[Path], set[str], set[str]]:
        mounts = Path("/proc/self/mountinfo").read_text().count(str(tmp_path))
        return open_fds(), mounts, list(hand.places.named.iterdir()), link_names(hand.home), links_of(Path(path))

    before = left()
    for _ in range(200):
        hand("overlay", "create")
        hand("attach", path, "192.168.0.10")
        hand("detach", path)
        hand("overlay", "delete")
    assert left() == before
