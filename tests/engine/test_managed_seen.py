"""All that is seen of a managed plugin, by README's line that runs a command in it, on engines of both ages."""

from __future__ import annotations

import http.client
import json
import secrets
import shlex
import socket
import tarfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from lab import leftovers
from lab.engine import EngineHost
from lab.lab import HostSpec, Lab
from myoverlay.operate.metrics import METRICS
from tests.attack.board import Board, board
from tests.engine.conftest import eventually
from tests.engine.managed import CREATE, OVERLAY, PIN, Managed, build, documented, run

NAME = "seen-m"
#: Consul has no ACL here and takes any token; it is secret all the same.
TOKEN = f"t0ken-{secrets.token_hex(12)}"
METRICS_AT, WEB_AT = "127.0.0.1:9555", "127.0.0.1:9556"
SOCKETS = ("run/docker/plugins/myoverlay.sock",)
WRONG_MAC = "02:42:66:66:66:66"
HOSTS = ("h1", "h2")

__all__ = ["board"]

pytestmark = pytest.mark.timeout(330)


class Seen(Managed):
    """Two hosts whose plugin serves metrics and the page on TCP and has a token; a container `talks` on each."""

    def __init__(self, lab: Lab) -> None:
        super().__init__(
            lab, f"CONSUL_HTTP_TOKEN={TOKEN}", f"MYOVERLAY_METRICS={METRICS_AT}", f"MYOVERLAY_WEB={WEB_AT}"
        )  # fmt: skip
        self.addresses: dict[str, str] = {}

    def prepare(self) -> None:
        self.install()
        for host in (self.h1, self.h2):
            host.docker(*CREATE)
            self.addresses[host.name] = run(host, "talks")
        eventually("the path is whole", lambda: self.trace()[0] == 0, 30)

    def host(self, name: str) -> EngineHost:
        return self.h1 if name == "h1" else self.h2

    def json(self, host: EngineHost, *words: str) -> Any:
        done = self.say(host, *words, "--json")
        assert done.stdout, done.stderr
        return json.loads(done.stdout)

    def trace(self, host: EngineHost | None = None) -> tuple[int, dict[str, Any]]:
        """From the container of h1 to that of h2."""
        done = self.say(host or self.h1, "trace", self.addresses["h1"], self.addresses["h2"], "--json")
        return done.returncode, json.loads(done.stdout) if done.stdout else {"first": None, "said": done.stderr}

    def first(self) -> dict[str, Any]:
        _, found = self.trace()
        return dict(found["steps"][found["first"]]) if found["first"] is not None else {}

    def read(self, host: EngineHost, where: str, path: str) -> http.client.HTTPResponse:
        """GET, on the host, of an address and port, or of a socket below the host's root."""

        def dial() -> socket.socket:
            if ":" in where:
                name, _, port = where.rpartition(":")
                return socket.create_connection((name, int(port)), 10)
            dialled = socket.socket(socket.AF_UNIX)
            dialled.settimeout(10)
            dialled.connect(str(host.fs / where))
            return dialled

        connection = http.client.HTTPConnection(where if ":" in where else "localhost", timeout=10)
        connection.sock = host.inside(dial)
        connection.request("GET", path)
        return connection.getresponse()

    def dump(self) -> str:
        return self.lab.dump()


@pytest.fixture(scope="module")
def seen() -> Iterator[Seen]:
    build()
    before = leftovers.snapshot()
    specs = [HostSpec("h1", engine="old"), HostSpec("h2", engine="new")]
    with Lab(NAME, specs, consul=True, registry=True) as lab:
        seen = Seen(lab)
        seen.prepare()
        yield seen
    assert leftovers.compare(before, leftovers.snapshot(), [NAME]) == []


@pytest.mark.parametrize("name", HOSTS)
def test_status(seen: Seen, name: str) -> None:
    """For people and for machines: this host, its overlay, the other host alive; exit code 0."""
    host = seen.host(name)
    eventually("nothing needs a person", lambda: seen.say(host, "status").returncode == 0, 20)
    said = seen.say(host, "status").stdout
    assert f"metrics   http://{METRICS_AT}/metrics" in said
    told = seen.json(host, "status")
    assert [(one["name"], one["state"]) for one in told["peers"]] == [(seen.other(host).name, "alive")]
    assert [one["overlay"] for one in told["overlays"]] == [OVERLAY]


@pytest.mark.parametrize("name", HOSTS)
def test_doctor(seen: Seen, name: str) -> None:
    """A healthy host is green but for what is named here: there is no Docker socket to ask the engine's version."""
    host, last = seen.host(name), []

    def well() -> bool:
        last[:] = seen.json(host, "doctor")["findings"]
        return {one["check"] for one in last if one["level"] != "ok"} == {"engine"}

    try:
        eventually("all is green", well, 30)
    finally:
        print(name, [(one["check"], one["level"], one["saw"]) for one in last if one["level"] != "ok"])
    assert {one["level"] for one in last} == {"ok", "unknown"}


@pytest.mark.parametrize("name", HOSTS)
def test_report(seen: Seen, name: str, tmp_path: Path) -> None:
    """The archive comes out on the host, by the shell's own `>`; it has what the plugin says, tables of the host and of
    the overlay, and the token in none of its members."""
    host, path = seen.host(name), tmp_path / "report.tar.gz"
    done = seen.say(host, "report", "-", more=f">{path}", timeout=90)
    assert done.returncode == 0, done.stderr
    with tarfile.open(path) as archive:
        members = {one.name.partition("/")[2]: archive.extractfile(one).read() for one in archive}  # type: ignore[union-attr]
    assert [one for one in members if TOKEN.encode() in members[one]] == []
    settings = json.loads(members["daemon/settings.json"])
    assert settings["CONSUL_HTTP_TOKEN"] not in ("", TOKEN)
    assert OVERLAY in json.dumps(json.loads(members["daemon/journal.json"]))
    assert b"NetworkDriver.Join" in members["daemon/log.txt"]
    kinds = {json.loads(line)["kind"] for line in members["daemon/recorder.jsonl"].splitlines()}
    assert kinds >= {"call", "store"}
    other = seen.addresses[seen.other(host).name]
    assert f"{other} dev vxlan1 lladdr".encode() in members[f"overlays/{OVERLAY}/neighbour.txt"]
    assert seen.other(host).address.encode() in members[f"overlays/{OVERLAY}/fdb.txt"]
    assert b"vxlan id" in members[f"overlays/{OVERLAY}/address.txt"]
    assert host.address.encode() in members["host/address.txt"]
    assert (
        b"default" in members["host/route.txt"] or host.address.rpartition(".")[0].encode() in members["host/route.txt"]
    )
    print(name, members["index.txt"].decode())


@pytest.mark.parametrize("name", HOSTS)
@pytest.mark.parametrize("where", [*SOCKETS, METRICS_AT])
def test_metrics(seen: Seen, name: str, where: str) -> None:
    """On the plugin's socket and on the address of `MYOVERLAY_METRICS`: prometheus_client's parser takes the page, and
    each series is one of the documented."""
    answer = seen.read(seen.host(name), where, "/metrics")
    assert answer.status == 200
    families = list(text_string_to_metric_families(answer.read().decode()))
    samples = {sample.name for family in families for sample in family.samples}
    ours = {family.name for family in families if not family.name.startswith("process_")}
    assert ours <= {metric.exported.removesuffix("_total") for metric in METRICS}
    assert "myoverlay_docker_calls_total" in samples
    assert len(families) > 25
    assert all(family.documentation for family in families)


@pytest.mark.parametrize("name", HOSTS)
def test_the_web_page(seen: Seen, name: str) -> None:
    """Page, scripts and data are served on the host's loopback; the data names both containers, the matrix both hosts,
    the drawing the path between the two."""
    host, other = seen.host(name), seen.other(seen.host(name))
    for path, kind in (("/", "text/html"), ("/page.js", "text/javascript"), ("/page.css", "text/css")):
        answer = seen.read(host, WEB_AT, path)
        assert answer.status == 200
        assert str(answer.getheader("Content-Type")).startswith(kind)
        assert len(answer.read()) > 1000

    def data(path: str) -> Any:
        answer = seen.read(host, WEB_AT, f"/data/{path}")
        assert answer.status == 200
        return json.loads(answer.read())

    assert {address for address in seen.addresses.values() if address in json.dumps(data("endpoints"))} == set(
        seen.addresses.values()
    )
    assert host.name in json.dumps(data("host"))
    eventually("the other host tells what it sees", lambda: json.dumps(data("matrix")).count(other.name) >= 1, 30)
    pair = f"overlay={OVERLAY}&from={seen.addresses[host.name]}&to={seen.addresses[other.name]}"
    drawn = json.dumps(data(f"drawing?{pair}"))
    assert all(one in drawn for one in seen.addresses.values())


def test_memory_with_metrics_and_page(seen: Seen) -> None:
    """After all that, all processes of the plugin take at most 80 MB."""
    for host in (seen.h1, seen.h2):
        for where, path in ((METRICS_AT, "/metrics"), (WEB_AT, "/"), (WEB_AT, "/data/endpoints")):
            assert seen.read(host, where, path).status == 200
        taken = seen.memory(host)
        print(f"{host.name}: {taken / 1e6:.1f} MB of memory (sum of PSS), with metrics and the web page on")
        assert 0 < taken <= 80e6


def test_a_whole_path_is_traced(seen: Seen) -> None:
    """From either host every hop of both is seen and right, the containers' own among them."""
    for host in (seen.h1, seen.h2):
        code, found = seen.trace(host)
        assert code == 0, found
        assert [step for step in found["steps"] if step["state"] != "right"] == []
        assert {step["hop"] for step in found["steps"]} >= {"container route", "container neighbour", "underlay"}


FAULTS = {
    "container route": ("ip", "route", "del", "10.8.0.0/24"),
    "container neighbour": ("ip", "neigh", "replace", "{other}", "lladdr", WRONG_MAC, "dev", "{link}"),
    "container link": ("ip", "link", "set", "{link}", "mtu", "1200"),
}


@pytest.mark.parametrize("name", HOSTS)
@pytest.mark.parametrize("hop", FAULTS)
def test_a_fault_in_a_container_is_named(seen: Seen, hop: str, name: str) -> None:
    """In a container that the plugin cannot enter, on the near host and on the far one: named, and put right by what is
    printed, on the host, as it is printed."""
    host, other = seen.host(name), seen.addresses["h2" if name == "h1" else "h1"]
    listed = json.loads(host.in_container("talks", ["ip", "-j", "address"]))
    link = next(
        one["ifname"] for one in listed if any(a["local"] == seen.addresses[name] for a in one["addr_info"])
    )  # fmt: skip
    host.in_container("talks", [word.format(other=other, link=link) for word in FAULTS[hop]])
    named = seen.first()
    print(hop, name, named)
    assert (named.get("host"), named.get("hop")) == (name, hop)
    host.run(["sh", "-c", named["remedy"].partition(";")[0]])
    eventually("the path is whole", lambda: seen.trace()[0] == 0, 10)


def test_a_fault_of_the_host_is_named(seen: Seen) -> None:
    """A firewall on the far host, and a row that the plugin heals: as on a host with `myoverlay serve`."""
    seen.h2.run(["nft", "add table ip stop; add chain ip stop c { type filter hook prerouting priority 0; }; add rule ip stop c udp dport 4789 drop"])  # fmt: skip # noqa: E501
    try:
        named = seen.first()
        assert (named.get("host"), named.get("hop")) == ("h2", "host firewall")
    finally:
        seen.h2.run(["nft", "delete table ip stop"])
    eventually("the path is whole", lambda: seen.trace()[0] == 0, 15)


@pytest.mark.parametrize("name", HOSTS)
def test_exec(seen: Seen, name: str) -> None:
    """A command in the overlay's namespace, with iproute2 at hand; its exit code comes out."""
    host = seen.host(name)
    done = seen.say(host, "exec", OVERLAY, "--", "ip", "-br", "link")
    assert done.returncode == 0, done.stderr
    assert "vxlan1" in done.stdout
    rows = seen.say(host, "exec", OVERLAY, "--", "bridge", "fdb", "show", "dev", "vxlan1").stdout
    assert f"dst {seen.other(host).address}" in rows
    assert seen.say(host, "exec", OVERLAY, "--", "sh", "-c", "exit 5").returncode == 5


@pytest.mark.parametrize("name", HOSTS)
@pytest.mark.parametrize("place", ["inner", "outer"])
def test_capture(seen: Seen, name: str, place: str, tmp_path: Path) -> None:
    """A ping of the container is in the file that comes out of the plugin; outside it is in VXLAN."""
    host, other = seen.host(name), seen.other(seen.host(name))
    path, said = tmp_path / "x.pcap", tmp_path / "said"
    where = ("--inner", seen.addresses[name]) if place == "inner" else ("--outer",)
    words = ("capture", OVERLAY, *where, "-w", "-", "-c", "2", "--timeout", "20")
    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(seen.say, host, *words, more=f">{path} 2>{said}", timeout=60)
        eventually("it listens", lambda: said.exists() and "listening to" in said.read_text(), 15)
        other.docker("exec", "talks", "ping", "-c", "2", "-W", "2", seen.addresses[name])
        assert done.result().returncode == 0, said.read_text()
    read = host.run(["tcpdump", "-nr", str(path)])
    assert "ICMP echo request" in read
    assert ("VXLAN" in read) == (place == "outer")


def test_capture_on_the_screen_says_what_it_needs(seen: Seen) -> None:
    """There is no tcpdump in the plugin: one sentence says so, and that -w needs none."""
    done = seen.say(seen.h1, "capture", OVERLAY, "-c", "1", "--timeout", "3")
    assert done.returncode == 1
    assert "tcpdump" in done.stderr
    assert "-w" in done.stderr


@pytest.mark.parametrize("name", HOSTS)
def test_watch(seen: Seen, name: str, tmp_path: Path) -> None:
    """A container that starts on the other host is a change of the store here, and its calls are seen there."""
    host, other = seen.host(name), seen.other(seen.host(name))
    follow = {
        "here": (host, ("watch", OVERLAY, "--store", "--json", "--count", "1", "--timeout", "50")),
        "there": (other, ("watch", OVERLAY, "--calls", "--json", "--count", "3", "--timeout", "50")),
    }
    with ThreadPoolExecutor(2) as pool:
        running = {}
        for one, (at, words) in follow.items():
            said = tmp_path / one
            running[one] = pool.submit(seen.say, at, *words, more=f"2>{said}", timeout=60)
            eventually("it follows", lambda said=said: said.exists() and "Ctrl-C ends" in said.read_text(), 15)
        started = run(other, "cid")
        told = {one: [json.loads(line) for line in done.result().stdout.splitlines()] for one, done in running.items()}
    other.docker("rm", "-f", "cid")
    assert [(note["kind"], note["change"], note["address"]) for note in told["here"]] == [("store", "came", started)]
    methods = [note["method"] for note in told["there"]]
    assert methods == ["IpamDriver.RequestAddress", "NetworkDriver.CreateEndpoint", "NetworkDriver.Join"]


@pytest.mark.parametrize("name", HOSTS)
def test_the_flight_recorder_has_what_the_kernel_told(seen: Seen, name: str, tmp_path: Path) -> None:
    """Somebody takes a row away: `watch --kernel` tells it as it happens, then its repair; the report has both."""
    host, other = seen.host(name), seen.other(seen.host(name))
    gone, said = f"{seen.addresses[other.name]} lladdr", tmp_path / "said"
    words = ("watch", OVERLAY, "--kernel", "--json", "--count", "2", "--timeout", "20")
    with ThreadPoolExecutor(1) as pool:
        told = pool.submit(seen.say, host, *words, more=f"2>{said}", timeout=60)
        eventually("it follows", lambda: said.exists() and "Ctrl-C ends" in said.read_text(), 15)
        host.run(["nsenter", f"--net={PIN}", "ip", "neigh", "del", seen.addresses[other.name], "dev", "vxlan1"])
        notes = [json.loads(line) for line in told.result().stdout.splitlines()]
    assert [(note["event"], note.get("reason")) for note in notes] == [
        ("row gone", None),
        ("repaired", "missing row"),
    ], said.read_text()
    assert all(note["thing"].startswith(gone) for note in notes)
    path = tmp_path / "report.tar.gz"
    assert seen.say(host, "report", "-", more=f">{path}", timeout=90).returncode == 0
    with tarfile.open(path) as archive:
        recorded = archive.extractfile("myoverlay-report/daemon/recorder.jsonl")
        assert recorded is not None
        kept = [json.loads(line) for line in recorded]
    assert all(note in kept for note in notes)


#: Runs in the plugin, as root there: what of the host's it can reach, and where the token is. It is told that
#: backwards, so that it is not in its own arguments.
LOOK = """
import json, os, stat, sys
token = sys.argv[1][::-1].encode()
sockets, written, found = [], [], []
for top, folders, files in os.walk("/"):
    folders[:] = [one for one in folders if os.path.join(top, one) not in ("/proc", "/sys", "/dev")]
    for name in files:
        path = os.path.join(top, name)
        seen = os.lstat(path)
        if stat.S_ISSOCK(seen.st_mode):
            sockets.append((path, seen.st_mode & 0o777, seen.st_uid))
        elif not stat.S_ISREG(seen.st_mode) or seen.st_dev != os.lstat(top).st_dev:
            pass  # a pinned namespace is no file to read
        elif top.startswith(("/data", "/run", "/host", "/tmp", "/var")):
            with open(path, "rb") as file:
                written.append(path)
                found += [path] if token in file.read() else []
for process in set(filter(str.isdigit, os.listdir("/proc"))) - {str(os.getpid())}:  # what `runc exec` was given
    for name in ("cmdline", "environ"):
        try:
            with open(f"/proc/{process}/{name}", "rb") as file:
                found += [f"/proc/{process}/{name}"] if token in file.read() else []
        except OSError:
            pass
with open("/proc/net/unix") as file:
    abstract = [line.split()[7] for line in file.readlines()[1:] if " @" in line]
status = open("/proc/1/status").read()
print(json.dumps({
    "sockets": sockets, "written": written, "found": found, "abstract": abstract,
    "capabilities": status.partition("CapEff:")[2].split()[0], "processes": len(list(filter(str.isdigit, os.listdir("/proc")))),
    "mounts": [line.split()[4] for line in open("/proc/self/mountinfo")], "folders": {
        path: stat.S_IMODE(os.lstat(path).st_mode) for path in ("/run/docker/plugins", "/host/plugins/myoverlay")
    },
}))
"""  # noqa: E501


def _look(seen: Seen, host: EngineHost) -> dict[str, Any]:
    entry = documented().replace("NAME", seen.name).removesuffix(" -m myoverlay")
    done = host.engine.run(["sh", "-c", f"{entry} -c {shlex.quote(LOOK)} {TOKEN[::-1]}"], timeout=60)
    return dict(json.loads(done.stdout))


@pytest.mark.parametrize("name", HOSTS)
def test_it_reaches_no_socket_of_the_host_but_plugins(seen: Seen, board: Board, name: str) -> None:
    """A search of all that it can see, from the inside: no docker.sock, no containerd's, which the host has; its own
    two are root's alone. Nor does it see processes of the host, or anything else of the host's /run."""
    host = seen.host(name)
    host.engine.run(["ls", "/run/docker.sock"])
    looked = _look(seen, host)
    print(name, looked)
    assert all(path.startswith(("/host/plugins/", "/run/docker/plugins/")) for path, _, _ in looked["sockets"])
    own = {"/host/plugins/myoverlay.sock", "/run/docker/plugins/mo.sock"}
    own.add(f"/host/plugins/{host.docker('plugin', 'inspect', '-f', '{{.Id}}', seen.name).strip()}/mo.sock")
    assert {path for path, _, _ in looked["sockets"]} == own
    assert {(mode, owner) for _, mode, owner in looked["sockets"]} == {(0o600, 0)}
    assert looked["folders"] == dict.fromkeys(looked["folders"], 0o700)
    assert looked["processes"] < 10
    on_host = host.engine.run(["sh", "-c", "find /run -type s | wc -l"]).strip()
    board.write(f"sockets of the host, from within the plugin ({name})", f"{on_host} on the host", "its own two")
    ours = [one for one in looked["mounts"] if one.startswith("/run")]
    assert all(one.startswith("/run/docker/plugins") for one in ours), ours


@pytest.mark.parametrize("name", HOSTS)
def test_its_token_is_found_nowhere(seen: Seen, board: Board, name: str) -> None:
    """Though it was given in the environment: not in what the plugin wrote, in arguments or environments of its
    processes, in the engine's log, which has what it prints, in what its commands answer, or on its pages."""
    host = seen.host(name)
    looked = _look(seen, host)
    assert looked["found"] == []
    assert any("journal" in path for path in looked["written"]), looked["written"]
    assert looked["processes"] >= 3
    texts = {words[0]: seen.say(host, *words).stdout for words in (
        ("status", "--json"), ("doctor", "--json"), ("names", "--json")
    )}  # fmt: skip
    for where, path in ((WEB_AT, "/data/host"), (WEB_AT, "/data/endpoints"), (METRICS_AT, "/metrics")):
        texts[path] = seen.read(host, where, path).read().decode()
    texts["log"] = "\n".join(line for line in host.log.read_text(errors="replace").splitlines() if "plugin=" in line)
    assert all(texts.values()), [one for one, text in texts.items() if not text]
    assert [one for one, text in texts.items() if TOKEN in text] == []
    looked_at = f"looked for in {len(looked['written'])} files, {looked['processes']} processes, {len(texts)} texts"
    board.write(f"the token of a managed plugin ({name})", looked_at, "found nowhere")
