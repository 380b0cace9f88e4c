"""Names across three real engines of two ages: `make names` prints what was measured."""

from __future__ import annotations

import json
import re
import signal
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from lab import HostSpec, Lab, leftovers, places
from lab.engine import EngineHost
from lab.errors import CommandFailed
from lab.plugin_process import PluginProcess
from lab.processes import Known
from tests.engine.asking import KNOWN
from tests.engine.conftest import BOTH, IMAGE, eventually

OURS, EMBEDDED = "169.254.77.53", "127.0.0.11"
ASKING = str(Path(__file__).with_name("asking.py"))
NAME = "names"
#: Seconds that an answer may be kept.
TTL = 2.0
#: One on each host; Docker takes none of a single letter.
NAMES = ("ann", "bob", "cid")

pytestmark = pytest.mark.timeout(600)


class Town:
    """Hosts h1 (oldest engine), h2 and h3 (newest) with their plugins, and h4 with two DNS servers on it."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.h1, self.h2, self.h3, self.h4 = (lab.hosts[name] for name in ("h1", "h2", "h3", "h4"))
        self.first = self.h4.address
        self.second = ".".join([*self.first.split(".")[:3], "200"])
        self.log = self.h4.folder / "asked"
        settings = {"CONSUL_HTTP_ADDR": lab.consul.url, "MYOVERLAY_DOCKER_SOCKET": "/run/docker.sock"}
        settings |= {"MYOVERLAY_LOG_LEVEL": "info", "MYOVERLAY_FOLLOW": "on"}
        self.plugins = {host.name: PluginProcess(host, settings) for host in self.engines}
        self.measured: list[tuple[str, str, str]] = []

    @property
    def engines(self) -> tuple[EngineHost, EngineHost, EngineHost]:
        return self.h1, self.h2, self.h3

    def prepare(self) -> None:
        self.h4.run(["ip", "addr", "add", f"{self.second}/24", "dev", "eth0"])
        self.h4.popen([sys.executable, ASKING, "serve", str(self.log), self.first, self.second])
        for host in self.engines:
            host.run(["sh", "-c", f"rm -f /etc/resolv.conf; echo nameserver {self.first} > /etc/resolv.conf"])
            self.plugins[host.name].start()
            eventually("the resolver", lambda host=host: self.state(host)["resolver"]["process"], 30)
        eventually("all are there", lambda: len(self.lab.consul.keys("myoverlay/alive/")) == len(self.engines), 20)
        said = self.say(self.h1, "network", "create", "web", "--subnet", "10.5.0.0/24")
        assert said == "network web (10.5.0.0/24) is defined; h1, h2, h3 have it"

    def say(self, host: EngineHost, *words: str) -> str:
        """What `myoverlay …` says there."""
        environment = {"PYTHONPATH": str(places.REPOSITORY / "src")}
        return host.run([sys.executable, "-m", "myoverlay", *words], env=environment)

    def state(self, host: EngineHost) -> Any:
        """What `myoverlay names --json` says there."""
        return json.loads(self.say(host, "names", "--json"))

    def run(self, host: EngineHost, name: str, *arguments: str) -> float:
        """Start a container that asks us first; when it was there, on this process's clock."""
        dns = ("--dns", OURS, "--dns", self.second)
        host.docker("run", "-d", "--name", name, *dns, *(arguments or ("--network", "web")), IMAGE)
        return time.monotonic()

    def clear(self) -> None:
        for host in self.engines:
            ids = host.docker("ps", "-aq").split()
            if ids:
                host.docker("rm", "-f", *ids)

    def ask(self, host: EngineHost, container: str, name: str, count: int = 1, server: str = EMBEDDED, kind: str = "A") -> Any:  # fmt: skip # noqa: E501
        """Questions from inside a container's network namespace."""
        argv = [sys.executable, ASKING, "ask", server, name, str(count), kind]
        return json.loads(host.in_container(container, argv, timeout=120))

    def finds(self, host: EngineHost, container: str, name: str) -> bool:
        """Does a ping by name arrive?"""
        try:
            host.docker("exec", container, "ping", "-c", "1", "-W", "1", name, timeout=15)
        except CommandFailed:
            return False
        return True

    def asked(self) -> list[str]:
        """What the two servers were asked, as `server name`."""
        return self.log.read_text().splitlines()

    def note(self, what: str, measured: str, bound: str = "") -> None:
        self.measured.append((what, measured, bound))

    def table(self) -> str:
        lines = [("what", "measured", "bound"), ("---", "---", "---"), *self.measured]
        return "".join("| " + " | ".join(line) + " |\n" for line in lines)

    def resolver(self, host: EngineHost) -> Known:
        """The resolver's process."""
        pid = eventually("the resolver", lambda: self.state(host)["resolver"]["process"])
        return Known.now(host.machine_pid(pid))

    def dump(self) -> str:
        words = [f"=== {name} plugin\n{plugin.words()[-6000:]}" for name, plugin in self.plugins.items()]
        return "\n".join([*(host.dump() for host in self.engines), *words])


@pytest.fixture(scope="module")
def town() -> Iterator[Town]:
    before = leftovers.snapshot()
    specs = [HostSpec("h1", "old"), HostSpec("h2", "new"), HostSpec("h3", "new"), HostSpec("h4", None)]
    with Lab(NAME, hosts=specs, consul=True) as lab:
        town = Town(lab)
        try:
            town.prepare()
            yield town
            town.clear()
            assert town.say(town.h1, "network", "rm", "web", "--force") == "network web is removed"
            for host in town.engines:
                assert "web" not in host.docker("network", "ls", "--format", "{{.Name}}").split()
                town.plugins[host.name].stop()
                assert "myoverlay0" not in host.run(["ip", "-br", "link"])
                assert "Traceback" not in town.plugins[host.name].words()
        except BaseException:
            (Path("/tmp") / f"{NAME}-dump").write_text(town.dump())
            raise
        print(f"\n{town.table()}")
    assert leftovers.compare(before, leftovers.snapshot(), [NAME]) == []


@pytest.fixture
def trio(town: Town) -> Iterator[Town]:
    """Containers ann, bob and cid, one on each host."""
    for host, name in zip(town.engines, NAMES, strict=True):
        town.run(host, name)
    yield town
    town.clear()


def ms(found: Any) -> str:
    values = sorted(found["ms"])
    return f"p50 {statistics.median(values):.2f} ms, p99 {values[int(len(values) * 0.99) - 1]:.2f} ms"


def p50(found: Any) -> float:
    return float(statistics.median(found["ms"]))


def p99(found: Any) -> float:
    return float(sorted(found["ms"])[int(len(found["ms"]) * 0.99) - 1])


def quickest(ask: Callable[[], Any], bound: float = 1.0, batches: int = 30) -> tuple[Any, int]:
    """What else the machine does is not ours: the batch with the least tail, and of how many it is the best."""
    found = [ask()]
    while len(found) < batches and p99(found[-1]) > bound:
        found.append(ask())
    return min(found, key=p99), len(found)


#: Ping each name until it answers, then note when, by the clock that all processes of the machine have.
GREET = "for n in {}; do until ping -c 1 -W 1 $n; do sleep 0.05; done; done; cat /proc/uptime >/done; sleep 2147483647"


def uptime(text: str) -> float:
    return float(text.split()[0])


def test_all_pairs_reach_each_other_by_name_within_a_second(town: Town) -> None:
    """Each container pings the others by name as soon as it can; 1 s after the last `docker run` all have arrived.

    The network is that of one `myoverlay network create`.
    """
    late: list[float] = []
    for number in range(3):
        names = [f"{name}{number}" for name in NAMES]
        for host, name in zip(town.engines, names, strict=True):
            greet = GREET.format(" ".join(other for other in names if other != name))
            dns = ("--dns", OURS, "--dns", town.second)
            host.docker("run", "-d", "--name", name, *dns, "--network", "web", IMAGE, "sh", "-c", greet)
        since = uptime(Path("/proc/uptime").read_text())
        done = [
            eventually(name, lambda host=host, name=name: host.docker("exec", name, "cat", "/done", check=False), 20)
            for host, name in zip(town.engines, names, strict=True)
        ]
        late.append(max(map(uptime, done)) - since)
    measured = ", ".join(f"{seconds:.2f} s" for seconds in late)
    town.note("last `docker run` returned to all pairs having pinged by name", measured, "1 s")
    assert max(late) < 1.0
    town.clear()


def test_aliases_service_names_and_the_way_back(trio: Town) -> None:
    """A network alias and a Compose service name give all their containers, rotated; an address gives its name."""
    town = trio
    labels = ("--label", "com.docker.compose.service=shop")
    town.run(town.h1, "shop-1", "--network", "web", "--network-alias", "cart", *labels)
    town.run(town.h3, "shop-2", "--network", "web", "--network-alias", "cart", *labels)
    for name in ("cart", "shop"):
        found = eventually(name, lambda name=name: (f := town.ask(town.h2, "bob", name, 12)) and len(f["addresses"]) == 2 and f)  # fmt: skip # noqa: E501
        assert found["said"] == {"NOERROR": 12}
    address = town.ask(town.h2, "bob", "shop-2")["addresses"][0]
    back = town.ask(town.h2, "bob", ".".join(reversed(address.split("."))) + ".in-addr.arpa", kind="PTR")
    assert back["addresses"] == ["shop-2."]
    town.h3.docker("rename", "shop-2", "stall")
    eventually("the new name", lambda: town.ask(town.h2, "bob", "stall")["addresses"] == [address])
    town.h3.docker("rm", "-f", "stall")
    eventually("its end", lambda: town.ask(town.h2, "bob", "stall")["said"] == {"NXDOMAIN": 1})
    assert "stall" not in " ".join(town.asked())


def test_other_overlays_internal_networks_and_containers_on_none(trio: Town) -> None:
    """Another overlay: NXDOMAIN, nobody else asked; internal: names of ours, REFUSED for others; on none: forwarded."""
    town = trio
    for host in town.engines[:2]:
        host.docker("network", "create", *BOTH, "--subnet", "10.6.0.0/24", "-o", "overlay=else", "else")
        host.docker("network", "create", "--internal", *BOTH, "--subnet", "10.7.0.0/24", "-o", "overlay=in", "in")
        host.docker("network", "create", "plain")
        town.run(host, f"else-{host.name}", "--network", "else")
        town.run(host, f"in-{host.name}", "--network", "in")
        town.run(host, f"plain-{host.name}", "--network", "plain")
        town.run(host, f"bridge-{host.name}", "--network", "bridge")
        town.run(host, f"two-{host.name}", "--network", "web")
        host.docker("network", "connect", "else", f"two-{host.name}")
    for host, other in ((town.h1, town.h2), (town.h2, town.h1)):
        me, you = host.name, other.name
        stranger = town.ask(host, f"else-{me}", "cid", server=OURS)
        assert (stranger["said"], stranger["authoritative"]) == ({"NXDOMAIN": 1}, True)
        assert town.ask(host, f"else-{me}", "cid")["said"] == {"NXDOMAIN": 1}
        for name in ("cid", f"else-{you}", f"two-{you}"):
            eventually(name, lambda host=host, me=me, name=name: town.ask(host, f"two-{me}", name)["addresses"])
        eventually("in", lambda host=host, me=me, you=you: town.ask(host, f"in-{me}", f"in-{you}")["addresses"])
        assert town.ask(host, f"in-{me}", "www.example.com", server=OURS)["said"] == {"REFUSED": 1}
        assert town.ask(host, f"in-{me}", f"kept-{me}.example.com")["addresses"] == []
        assert town.ask(host, f"two-{me}", f"told-{me}.example.com")["addresses"] == [KNOWN]
        for place in (f"plain-{me}", f"two-{me}", f"else-{me}"):
            assert town.ask(host, place, "www.example.com")["addresses"] == [KNOWN], place
        assert town.ask(host, f"bridge-{me}", "www.example.com", server=OURS)["addresses"] == [KNOWN]
        host.docker("network", "disconnect", "web", f"two-{me}")
        gone = town.ask(host, f"two-{me}", "cid")
        assert gone["said"] == {"NXDOMAIN": 1}
        assert town.ask(host, f"two-{me}", f"else-{you}")["addresses"]
    asked = town.asked()
    assert not [line for line in asked if not line.endswith(".example.com")], "a name of ours was asked elsewhere"
    for me in ("h1", "h2"):
        assert any(f"told-{me}" in line for line in asked)
        assert not any(f"kept-{me}" in line for line in asked), "it leaked from the internal network"
    _on_none_finds_nothing(town)
    town.clear()
    for host in town.engines[:2]:
        host.docker("network", "rm", "else", "in", "plain")


def _on_none_finds_nothing(town: Town) -> None:
    """Containers on no overlay are not told where one on an overlay is; the host's resolver knows no such name."""
    for host in town.engines[:2]:
        for place, server in ((f"plain-{host.name}", EMBEDDED), (f"plain-{host.name}", OURS), (f"bridge-{host.name}", OURS)):  # fmt: skip # noqa: E501
            for name in ("ann", "bob", "cid"):
                found = town.ask(host, place, name, server=server)
                assert (found["said"], found["addresses"]) == ({"NXDOMAIN": 1}, []), (place, server, name)


def _never_again(town: Town, name: str, old: str, new: str, since: float) -> None:
    """From 1 s and a TTL after Docker answered on, no host answers with the old address: each answer counts."""
    time.sleep(max(0.0, since + 1.0 + TTL - time.monotonic()))
    until = time.monotonic() + 3.0
    while time.monotonic() < until:
        for host, me in zip(town.engines, NAMES, strict=True):
            for server in (OURS, EMBEDDED):
                found = town.ask(host, me, name, server=server)["addresses"]
                assert found == [new], f"{name} asked on {host.name} at {server}: {found}, was {old}, is {new}"


def test_a_restarted_or_moved_container_is_never_answered_with_its_old_address(trio: Town) -> None:
    """It comes back at a new address as its old one is taken meanwhile, then on another host; also a dead one."""
    town = trio
    form = "{{.NetworkSettings.Networks.web.IPAddress}}"
    town.run(town.h1, "rover")
    first = town.h1.docker("inspect", "-f", form, "rover")
    for host, me in zip(town.engines, NAMES, strict=True):
        eventually("its name", lambda host=host, me=me: town.ask(host, me, "rover")["addresses"] == [first])
    town.h1.docker("stop", "-t", "0", "rover")
    town.run(town.h2, "squatter", "--network", "web", "--ip", first)
    town.h1.docker("start", "rover")
    since = time.monotonic()
    second = town.h1.docker("inspect", "-f", form, "rover")
    assert second != first
    _never_again(town, "rover", first, second, since)
    town.h1.docker("rm", "-f", "rover")
    town.run(town.h1, "second", "--network", "web", "--ip", second)
    since = town.run(town.h3, "rover")
    third = town.h3.docker("inspect", "-f", form, "rover")
    assert third not in (first, second)
    _never_again(town, "rover", second, third, since)
    town.h3.docker("rm", "-f", "rover")
    time.sleep(1.0 + TTL)
    for host, me in zip(town.engines, NAMES, strict=True):
        assert town.ask(host, me, "rover", 20)["said"] == {"NXDOMAIN": 20}


def test_how_long_answers_take(trio: Town) -> None:
    """At our socket, through Docker's own DNS, beside a name it knows itself; forwarded, beside the host's resolver."""
    town = trio
    for host, me, other in ((town.h1, "ann", "cid"), (town.h2, "bob", "ann")):
        eventually(other, lambda host=host, me=me, other=other: town.ask(host, me, other)["addresses"])
        age = host.engine_version
        ours, batches = quickest(lambda host=host, me=me, other=other: town.ask(host, me, other, 500, OURS))
        through = town.ask(host, me, other, 1000)
        known = town.ask(host, me, me, 1000)
        town.note(f"{age}: a name of another host at our socket", f"{ms(ours)} (best of {batches})", "p99 1 ms")
        town.note(f"{age}: the same through {EMBEDDED}", ms(through), "p50 1 ms")
        town.note(f"{age}: a name that Docker knows itself, through {EMBEDDED}", ms(known))
        forwarded = town.ask(host, me, "www.example.com", 500, OURS)
        direct = town.ask(host, me, "www.example.com", 500, town.first)
        town.note(f"{age}: a forwarded name at our socket", ms(forwarded))
        town.note(f"{age}: the same asked of the host's resolver", ms(direct), "forwarded p50 at most 1 ms more")
        assert set(forwarded["said"]) == {"NOERROR"}
        assert p99(ours) <= 1.0
        assert p50(through) <= 1.0
        assert p50(forwarded) - p50(direct) <= 1.0


def test_with_consul_down_names_go_on(trio: Town) -> None:
    """What was known is answered, and what starts on the same host is found, while the store is away."""
    town = trio
    eventually("cid", lambda: town.ask(town.h1, "ann", "cid")["addresses"])
    town.lab.consul.stop()
    try:
        assert town.finds(town.h1, "ann", "cid")
        town.run(town.h1, "local")
        eventually("local", lambda: town.finds(town.h1, "ann", "local"))
    finally:
        town.lab.consul.start()
    eventually("local from afar", lambda: town.ask(town.h2, "bob", "local")["addresses"], 30)


def test_a_resolver_that_is_gone_costs_little(trio: Town) -> None:
    """The plugin killed: other names come from the second server, for a median of at most 5 ms more."""
    town = trio
    for host, me in ((town.h1, "ann"), (town.h2, "bob")):
        before = town.ask(host, me, "www.example.com", 100)
        town.plugins[host.name].stop(signal.SIGKILL)
        eventually("refused", lambda host=host, me=me: town.ask(host, me, "ann", 1, OURS)["said"] == {"ConnectionRefusedError": 1})  # fmt: skip # noqa: E501
        after = town.ask(host, me, "www.example.com", 30)
        town.plugins[host.name].start()
        town.note(f"{host.engine_version}: other names with the plugin killed", f"p50 {p50(after):.2f} ms, {p50(before):.2f} ms before", "5 ms more")  # fmt: skip # noqa: E501
        assert after["said"] == {"NOERROR": 30}
        assert p50(after) - p50(before) <= 5.0
        eventually("answered again", lambda host=host, me=me: town.ask(host, me, "cid", 1, OURS)["addresses"], 30)


def test_a_frozen_resolver_is_gone_within_five_seconds(trio: Town) -> None:
    """Stopped by a signal it is killed, its sockets with it; another one answers."""
    town = trio
    took = []
    for host, me in ((town.h1, "ann"), (town.h2, "bob")):
        process = town.resolver(host)
        process.signal(signal.SIGSTOP)
        began = time.monotonic()
        eventually("its end", lambda process=process: not process.alive(), 10)
        took.append(time.monotonic() - began)
        eventually("another", lambda host=host, me=me: town.ask(host, me, "cid", 1, OURS)["addresses"], 20)
    town.note("frozen resolver: until its sockets are closed", f"{max(took):.1f} s", "5 s")
    assert max(took) < 5.0


@contextmanager
def flooded(town: Town, host: EngineHost, container: str, name: str, seconds: float) -> Iterator[list[Any]]:
    """A thousand questions a second from one container, meanwhile."""
    argv = [sys.executable, ASKING, "flood", OURS, name, str(seconds), "1000"]
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(json.loads(host.in_container(container, argv, timeout=120))))
    thread.start()
    try:
        yield found
    finally:
        thread.join()


def _calls(town: Town, host: EngineHost, count: int) -> list[float]:
    """Milliseconds that the plugin took for all calls of one `docker run`, by its own log."""
    log, found = town.plugins[host.name].log, []
    for number in range(count):
        start = log.stat().st_size
        town.run(host, f"call{number}")
        with log.open("rb") as file:
            file.seek(start)
            words = file.read().decode()
        took = re.findall(r"(?:RequestAddress|CreateEndpoint|\.Join)\b.*? ([0-9.]+) ms", words)
        assert len(took) == 3, words
        found.append(sum(map(float, took)))
    for number in range(count):
        host.docker("rm", "-f", f"call{number}")
    return found


def test_a_thousand_questions_a_second_disturb_no_call(trio: Town) -> None:
    """The plugin's part of `docker run` takes as long with 1,000 questions a second as without."""
    town, host = trio, trio.h2
    eventually("ann", lambda: town.ask(host, "bob", "ann")["addresses"])
    _calls(town, host, 1)
    calm = _calls(town, host, 6)
    with flooded(town, host, "bob", "ann", 20) as found:
        time.sleep(0.5)
        busy = _calls(town, host, 6)
    rate = found[0]
    town.note("plugin's part of `docker run` at 1,000 questions/s", f"median {statistics.median(busy):.0f} ms, {statistics.median(calm):.0f} ms without", "the same")  # fmt: skip # noqa: E501
    town.note("of those questions answered", f"{rate['answered']} of {rate['sent']} ({rate['sent'] / 20:.0f}/s)")
    assert rate["answered"] >= 0.99 * rate["sent"]
    assert statistics.median(busy) <= statistics.median(calm) + 25


def test_what_myoverlay_names_says(trio: Town) -> None:
    """Who is called what, that Docker is heard, and that nothing stands in the way."""
    town = trio
    state = eventually("cid", lambda: (s := town.state(town.h1)) and "cid" in [n for one in s["names"] for n in one["names"]] and s)  # fmt: skip # noqa: E501
    assert state["docker"] == {"socket": "/run/docker.sock", "followed": True, "trouble": ""}
    assert state["resolver"]["troubles"] == []
    (row,) = [one for one in state["names"] if "cid" in one["names"]]
    assert (row["overlay"], row["host"]) == ("web", "h3")
