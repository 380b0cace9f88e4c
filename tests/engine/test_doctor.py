"""`myoverlay doctor` on real hosts: each fault made, its check seen red and no other, the remedy applied as printed.

What cannot be made in a laboratory (kernel and engine versions, clocks, machine-wide sysctls, what a NIC spoils, a /run
that is not shared) has its reading handed in: `tests/pure/plan/test_checkup.py`; `proof` in the table says which.
"""

from __future__ import annotations

import json
import re
import signal
import time
from collections.abc import Iterator

import pytest

from lab import leftovers
from myoverlay.plan.checkup import CHECKS
from tests.engine.clinic import ALL, NAME, SECOND, TOKEN, Clinic, Patient, commands
from tests.engine.conftest import eventually

#: What needs the plugin, and is not looked at where none runs.
PLUGINS = {
    "names", "host-id", "peer-clocks", "vtep", "peer-port", "peer-mtu", "offload", "vni", "peer-vni", "subnets",
    "guard", "egress", "bridge-netfilter", "leftovers",
}  # fmt: skip
#: What needs the store, or other hosts' answers through it.
STORES = {"store-rights", "store-clock", "peer-clocks", "peer-vni", "stale-keys"}
#: What is not known of a host that nothing comes from through VXLAN.
WAYS = {"peer-mtu", "offload"}
WEB = "/run/docker/plugins/myoverlay/netns/web"
#: Every check whose fault is made here, by the tests below.
MADE = {
    "plugin", "sockets", "settings", "token-file", "journal", "names", "store", "store-rights", "host-id", "stale-keys",
    "vtep", "peer-port", "peer-mtu", "vni", "peer-vni", "subnets", "firewall", "guard", "egress", "bridge-netfilter",
    "leftovers",
}  # fmt: skip


@pytest.fixture(scope="module")
def clinic() -> Iterator[Clinic]:
    before = leftovers.snapshot()
    with Clinic.laboratory() as lab:
        clinic = Clinic(lab)
        clinic.begin()
        yield clinic
        clinic.end()
    assert leftovers.compare(before, leftovers.snapshot(), [NAME]) == []


@pytest.fixture(autouse=True)
def all_are_well(clinic: Clinic) -> None:
    """Each fault is made on hosts that have none."""
    for one in clinic.patients:
        one.recover()
        one.well()


def test_every_fault_is_made_here_or_handed_in() -> None:
    """The table says which; none is left out."""
    assert {check.name for check in CHECKS if check.proof == "fault"} == MADE


def test_healthy_hosts_are_green(clinic: Clinic) -> None:
    """All checks on engines of both ages; without an engine that one check cannot be looked at, and says so."""
    for one in clinic.patients:
        found = one.look()
        assert set(found) == {check.name for check in CHECKS}
        assert {name for name, row in found.items() if row["level"] != "ok"} == clinic.unseen(one), found
    assert clinic.h1.complete("doctor").returncode == 0


def test_a_plugin_that_does_not_run(clinic: Clinic) -> None:
    """Stopped: what a command sees by itself is looked at. Killed: the dead socket is named too. Started: green."""
    one = clinic.h3
    one.plugin.stop()
    found = one.sick("plugin", {"sockets", *PLUGINS})
    assert "`myoverlay serve`" in found["remedy"]
    assert one.look()["store"]["level"] == one.look()["store-rights"]["level"] == "ok"
    one.plugin.start()
    one.well()
    one.plugin.stop(signal.SIGKILL)
    seen = one.sick("sockets", {"plugin", *PLUGINS})
    assert "nobody answers on /run/docker/plugins/myoverlay.sock" in seen["saw"]
    assert commands(seen)[0] == "rm /run/docker/plugins/myoverlay.sock"
    one.sh(commands(seen)[0])
    one.plugin.start()
    one.well()


def test_a_socket_that_is_gone(clinic: Clinic) -> None:
    """One of two names is not served any more: Docker would not find the plugin by it. It is after a restart."""
    one = clinic.h3
    one.host.run(["rm", SECOND])
    assert f"{SECOND} is not there" in one.sick("sockets")["saw"]
    one.restart()
    one.well()


#: Answers every request on a socket, as a plugin that is not ours would.
STRANGER = """
import http.server, socketserver
class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        self.send_response(200); self.end_headers(); self.wfile.write(b"{}")
    def address_string(self):
        return "-"
server = socketserver.UnixStreamServer("%s", Handler)
print("on", flush=True)
server.serve_forever()
"""


def test_a_name_that_another_plugin_answers(clinic: Clinic) -> None:
    """Docker would find a stranger under the plugin's second name: it is said so, until the stranger is stopped."""
    one = clinic.h3
    one.host.run(["rm", SECOND])
    stranger = one.host.popen(["python3", "-c", STRANGER % SECOND], stdout=-1, stderr=-1)
    try:
        assert stranger.stdout is not None
        assert stranger.stdout.readline() == "on\n"
        found = one.sick("sockets")
        assert f"{SECOND} is answered by another plugin" in found["saw"]
        assert found["remedy"].startswith("stop the other one")
    finally:
        stranger.kill()
        stranger.communicate(timeout=10)
    assert f"nobody answers on {SECOND}" in one.sick("sockets")["saw"]
    one.restart()
    one.well()


def test_a_word_that_is_no_setting(clinic: Clinic) -> None:
    """A typo is named with what was likely meant; unset, as the remedy says, all is well."""
    one = clinic.h3
    one.restart(MYOVERLAY_VTPE="eth0")
    found = one.sick("settings")
    assert "MYOVERLAY_VTPE" in found["saw"]
    assert "say MYOVERLAY_VTEP" in found["remedy"]
    assert commands(found)[0] == "unset MYOVERLAY_VTPE"
    one.restart(MYOVERLAY_VTPE="")
    one.well()


def test_a_token_that_others_may_read(clinic: Clinic) -> None:
    """By the file's permissions; the remedy is one command."""
    one = clinic.h1
    one.host.run(["chmod", "644", TOKEN])
    found = one.sick("token-file")
    one.sh(commands(found)[0])
    one.well()


def test_a_full_disk(clinic: Clinic) -> None:
    """The journal's file system is filled; room is made again by whoever filled it, whom `df` leads to."""
    one = clinic.h3
    one.plugin.stop()
    one.host.run(["mkdir", "-p", "/run/small"])
    one.host.run(["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", "/run/small"])
    one.restart(MYOVERLAY_STATE="/run/small")
    one.well()
    one.host.run(["dd", "if=/dev/zero", "of=/run/small/filler", "bs=1M", "count=36"], check=False)
    found = one.sick("journal")
    assert "MiB free at /run/small" in found["saw"]
    assert "/run/small" in one.sh(commands(found)[0])
    one.host.run(["rm", "/run/small/filler"])
    one.well()
    one.restart()
    one.host.run(["umount", "/run/small"])


def test_a_resolver_that_would_ask_itself(clinic: Clinic) -> None:
    """The host's own resolv.conf names it: the line is printed, and taken out."""
    one = clinic.h1
    before = one.host.run(["cat", "/etc/resolv.conf"])
    one.host.run(["sh", "-c", "cat > /etc/resolv.conf"], input=f"nameserver 169.254.77.53\n{before}\n")
    found = one.sick("names")
    kept = [line for line in one.host.run(["cat", "/etc/resolv.conf"]).splitlines() if line != commands(found)[0]]
    one.host.run(["sh", "-c", "cat > /etc/resolv.conf"], input="\n".join(kept) + "\n")
    one.well()


def test_consul_away(clinic: Clinic) -> None:
    """Everything that needs it says so, in time; what lies on the host and on the way to the others stays green."""
    clinic.consul.stop()
    try:
        found = clinic.h1.sick("store", STORES)
        assert clinic.consul.url in found["saw"]
        assert clinic.h1.host.complete(["bash", "-c", commands(found)[0]]).returncode != 0
        clinic.h3.plugin.stop()
        clinic.h3.sick("store", {"plugin", "sockets", *PLUGINS, *STORES})
    finally:
        clinic.consul.start()
        clinic.h3.plugin.start()
    assert clinic.h1.sh(commands(found)[0])
    for one in clinic.patients:
        one.well(60)


def test_it_ends_in_time_whatever_is_away(clinic: Clinic, capsys: pytest.CaptureFixture[str]) -> None:
    """All well; packets to Consul lost; to the other hosts too: 10 s. The plugin frozen: 20 s, and it says so."""
    one = clinic.h1
    done, quick = one.timed("doctor")
    assert done.returncode == 0, done.stdout
    took = {"all well": quick}
    lost = "table ip lost {{ chain out {{ type filter hook output priority 0; {}; }} }}"
    nft(one, lost.format("tcp dport 8500 drop"))
    done, took["Consul out of reach"] = one.timed("doctor", "--json")
    assert {row["check"] for row in json.loads(done.stdout)["findings"] if row["level"] == "bad"} == {"store"}
    nft(one, lost.format(f"ip daddr {{ {clinic.h2.host.address}, {clinic.h3.host.address} }} drop"))
    done, took["the others too"] = one.timed("doctor", "--json")
    assert "peer-port" in {row["check"] for row in json.loads(done.stdout)["findings"] if row["level"] == "bad"}
    one.host.run(["nft", "delete", "table", "ip", "lost"])
    pids = one.host.run(["pgrep", "-f", "myoverlay serve"]).split()
    one.host.run(["kill", "-STOP", *pids])
    try:
        done, frozen = one.timed("doctor", "--json")
    finally:
        one.host.run(["kill", "-CONT", *pids])
    found = {row["check"]: row for row in json.loads(done.stdout)["findings"]}
    assert "did not answer within 10 s" in found["plugin"]["saw"]
    assert max(took.values()) < 10, took
    assert frozen < 20
    with capsys.disabled():
        print("".join(f"\n  doctor, {what}: {seconds:.1f} s" for what, seconds in (took | {"frozen": frozen}).items()))


def test_a_token_without_a_right(clinic: Clinic) -> None:
    """Each right that is lacking is named by its rule; with these rules added, as printed, all is well."""
    one = clinic.h3
    some = ('key_prefix "" { policy = "write" } key_prefix "myoverlay/pools/" { policy = "read" }',
            'session_prefix "" { policy = "read" }')  # fmt: skip
    one.give(clinic.token(some))
    found = one.sick("store-rights", {"host-id", "store", "peer-clocks", "peer-vni", "stale-keys"})
    assert "write myoverlay/pools/, open a session" in found["saw"]
    assert commands(found) == [
        'key_prefix "myoverlay/pools/" { policy = "write" } session_prefix "" { policy = "write" }'
    ]
    one.give(clinic.token((some[0].partition(' key_prefix "myoverlay')[0], *commands(found))))
    one.well(60)
    one.give(clinic.token(ALL))


def test_two_hosts_with_one_address(clinic: Clinic) -> None:
    """h3 says that it has h2's VTEP: it is barred, in a sentence that names h2, until it has its own again."""
    one = clinic.h3
    one.plugin.stop()
    eventually("its session is over", lambda: len(clinic.consul.keys("myoverlay/alive/")) == 2, 40)
    one.host.run(["ip", "addr", "add", f"{clinic.h2.host.address}/32", "dev", "lo"])
    one.plugin.settings = one.settings | {"MYOVERLAY_VTEP": clinic.h2.host.address}
    one.plugin.start()
    found = one.sick("host-id", {"peer-port", "peer-mtu", "offload"})
    assert "host h2 uses the VTEP" in found["saw"]
    one.host.run(["ip", "addr", "del", f"{clinic.h2.host.address}/32", "dev", "lo"])
    one.restart()
    one.well(60)


def test_a_host_that_will_not_come_back(clinic: Clinic) -> None:
    """The store has keys of one that is not there: `host forget`, as printed, takes them away."""
    host = "deadbeef" * 4
    vtep = clinic.lab.underlay.address(99)
    listed = {"host": host, "overlay": "web", "vtep": vtep, "records": []}
    clinic.consul.put(f"myoverlay/hosts/{host}/overlays/web", json.dumps(listed))
    clinic.consul.put(f"myoverlay/overlays/web/members/{host}", json.dumps({"name": "ghost", "vtep": vtep}))
    found = clinic.h1.sick("stale-keys", within=60)
    assert commands(found) == ["myoverlay host forget ghost"]
    clinic.h1.sh(commands(found)[0])
    clinic.h1.well()
    assert not [key for key in clinic.consul.keys("myoverlay/") if host in key]


def nft(patient: Patient, text: str, *within: str) -> None:
    """Rules of the host, or within a namespace. nft wants a line's end, or a semicolon, behind a chain."""
    patient.host.run([*within, "nft", "-f", "-"], input=text.replace("} }", "}\n}"))


def stray(clinic: Clinic, patient: Patient, address: str) -> None:
    """An address that the store gives to a host which does not know of it, and has just compared the two."""
    patient.sh("myoverlay gc")
    told = json.loads(patient.complete("host", "ls", "--json").stdout)
    lease = {"address": address, "use": "endpoint", "hosts": [told["me"]["id"]]}
    clinic.consul.put(f"myoverlay/pools/10.5.0.0-24/{address}", json.dumps(lease))


def test_a_lease_that_nobody_asks_for(clinic: Clinic) -> None:
    """On its host it is bad and `gc` frees it; another host sees it too, and says where to look."""
    stray(clinic, clinic.h2, "10.5.0.77")
    found = clinic.h2.sick("stale-keys")
    assert "10.5.0.77" in found["saw"]
    other = clinic.h1.sick("stale-keys", level="warn")
    assert "10.5.0.77 (h2)" in other["saw"]
    assert commands(found) == commands(other) == ["myoverlay gc"]
    assert "10.5.0.77" in clinic.h2.sh(commands(found)[0])
    clinic.h2.well()
    clinic.h1.well()


def test_fix_frees_it_too(clinic: Clinic) -> None:
    """`doctor --fix` has the host do it, says so, and sees it green."""
    stray(clinic, clinic.h1, "10.5.0.78")
    clinic.h1.sick("stale-keys")
    done = clinic.h1.complete("doctor", "--fix")
    assert done.returncode == 0, done.stdout
    assert any(line.startswith("did: ") and "10.5.0.78" in line for line in done.stdout.splitlines()), done.stdout
    clinic.h1.well()


class Network:
    """A network on a host without an engine, by the calls that Docker makes."""

    def __init__(self, patient: Patient, overlay: str, subnet: str, **options: str) -> None:
        self._patient = patient
        self._id = f"{time.monotonic_ns():064x}"
        self._pool = self._call("IpamDriver.RequestPool", Pool=subnet, Options={"overlay": overlay})["PoolID"]
        kind = {"RequestAddressType": "com.docker.network.gateway"}
        gateway = self._call("IpamDriver.RequestAddress", PoolID=self._pool, Address="", Options=kind)["Address"]
        self._gateway = str(gateway).partition("/")[0]
        self._call(
            "NetworkDriver.CreateNetwork",
            NetworkID=self._id,
            Options={"com.docker.network.generic": {"overlay": overlay, **options}},
            IPv4Data=[{"AddressSpace": "x", "Pool": subnet, "Gateway": gateway}],
            IPv6Data=[],
        )

    def _call(self, method: str, **body: object) -> dict[str, object]:
        words = ["curl", "-sS", "--unix-socket", SECOND, "-d", json.dumps(body), f"http://plugin/{method}"]
        answer: dict[str, object] = json.loads(self._patient.host.run(words))
        assert "Err" not in answer, answer
        return answer

    def remove(self) -> None:
        self._call("IpamDriver.ReleaseAddress", PoolID=self._pool, Address=self._gateway)
        self._call("IpamDriver.ReleasePool", PoolID=self._pool)
        self._call("NetworkDriver.DeleteNetwork", NetworkID=self._id)


def test_an_address_that_is_lost(clinic: Clinic) -> None:
    """A network's VTEP is taken from the host: given back as printed, all is well."""
    one = clinic.h3
    vtep = clinic.lab.underlay.address(213)
    one.host.run(["ip", "addr", "add", f"{vtep}/24", "dev", "eth0"])
    lost = Network(one, "lost", "10.7.0.0/24", vtep=vtep)
    one.well()
    one.host.run(["ip", "addr", "del", f"{vtep}/24", "dev", "eth0"])
    found = one.sick("vtep", {"peer-port", *WAYS})
    assert vtep in found["saw"]
    one.sh(commands(found)[0])
    one.well()
    lost.remove()
    one.host.run(["ip", "addr", "del", f"{vtep}/24", "dev", "eth0"])
    one.well()


def test_a_port_that_does_not_get_through(clinic: Clinic) -> None:
    """h3 lets everything in but VXLAN, by a policy: h1 names host, port and that pings get through. Then it does."""
    one = clinic.h3
    some = "meta l4proto tcp accept; meta l4proto icmp accept; iif lo accept;"
    nft(one, f"table ip filter {{ chain INPUT {{ type filter hook input priority 0; policy drop; {some} }} }}")
    found = clinic.h1.sick("peer-port", WAYS)
    assert "h3 (" in found["saw"]
    assert "though the host answers pings" in found["saw"]
    assert "UDP port 4789" in found["means"]
    one.sick("peer-port", WAYS)
    one.sh(commands(found)[0])
    clinic.h1.well()
    one.host.run(["nft", "delete", "table", "ip", "filter"])


def test_a_checksum_that_is_spoilt_on_the_way(clinic: Clinic) -> None:
    """h3 gets datagrams whose checksum something changed: told apart by who made it. `nft`, as printed, shows what."""
    one = clinic.h3
    spoil = "udp dport 4789 udp length gt 1000 @th,448,16 set 4660;"
    nft(one, f"table ip spoiler {{ chain in {{ type filter hook prerouting priority -300; {spoil} }} }}")
    found = clinic.h1.sick("offload", {"peer-mtu"})
    assert "datagrams to h3 arrive only where checksums are left to eth0" in found["saw"]
    assert "spoiler" in one.sh(commands(found)[1])
    one.host.run(["nft", "delete", "table", "ip", "spoiler"])
    clinic.h1.well()


def test_a_way_that_is_too_narrow(clinic: Clinic) -> None:
    """The switch's port to h3 carries 1,400 bytes: small packets pass, full ones do not, and what does is measured."""
    switch = clinic.lab.switch.host
    switch.run(["ip", "link", "set", "dev", "h3", "mtu", "1400"])
    found = clinic.h1.sick("peer-mtu")
    assert "packets of 1450 bytes do not come back from h3" in found["saw"]
    (largest,) = (int(word) for word in found["saw"].split() if word.isdecimal() and word not in ("1450",))
    assert 1400 - 50 - 16 <= largest <= 1400 - 50
    switch.run(["sh", "-c", commands(found)[0].replace("DEVICE", "h3")])
    clinic.h1.well()


def vni_of(clinic: Clinic, overlay: str) -> int:
    return int(json.loads(clinic.consul.get(f"myoverlay/overlays/{overlay}/definition").popitem()[1])["vni"])


def take(patient: Patient, vni: int) -> None:
    """The overlay's device goes, and another has its VNI and port before it is healed."""
    words = f"nsenter --net={WEB} ip link del vxlan1 && ip link add vx-old type vxlan id {vni} dstport 4789 dev eth0"
    eventually("the VNI is taken", lambda: patient.host.complete(["sh", "-c", words]).returncode == 0, 20)


def test_a_vni_that_somebody_else_has(clinic: Clinic) -> None:
    """The overlay's device is gone and another has its VNI and port: it is named, and removed as printed."""
    one, vni = clinic.h1, vni_of(clinic, "web")
    take(one, vni)
    found = one.sick("vni")
    assert f"VNI {vni} on UDP port 4789 of web is taken by device vx-old in the host's namespace" in found["saw"]
    one.sh(commands(found)[0])
    one.well()


def test_a_vni_that_somebody_has_on_another_host(clinic: Clinic) -> None:
    """Of a host that is not on the overlay it is a warning, of one that is it is bad: named with its holder there, and
    removed there as printed."""
    vni = vni_of(clinic, "web")
    for one, level in ((clinic.h3, "warn"), (clinic.h2, "bad")):
        if level == "warn":
            one.host.run(
                ["ip", "link", "add", "vx-old", "type", "vxlan", "id", str(vni), "dstport", "4789", "dev", "eth0"]
            )
        else:
            take(one, vni)
        found = clinic.h1.sick("peer-vni", level=level)
        taken = (
            f"on host {one.name} VNI {vni} on UDP port 4789 of web is taken by device vx-old in the host's namespace"
        )
        assert taken in found["saw"]
        assert f"on {one.name}: " in found["remedy"]
        one.sh(commands(found)[0])
        clinic.h1.well()
        one.well()


def test_a_port_that_a_program_has(clinic: Clinic) -> None:
    """A program has bound the UDP port: `ss`, as printed, names it; when it has ended the device is there again."""
    one = clinic.h3
    ported = Network(one, "ported", "10.8.0.0/24", port="4799")
    one.well()
    bind = "import socket, sys; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(('', 4799));"
    bind += " print('on', flush=True); sys.stdin.read()"
    path = WEB.replace("web", "ported")
    script = f'nsenter --net={path} ip link del vxlan1; exec python3 -c "{bind}"'
    for _ in range(20):
        program = one.host.popen(["bash", "-c", script], stdin=-1, stdout=-1)
        assert program.stdout is not None
        if program.stdout.readline() == "on\n":
            break
        program.communicate(timeout=10)  # the device was healed first
    found = one.sick("vni")
    assert "UDP port 4799 of ported is taken by a program" in found["saw"]
    assert "python3" in one.sh(commands(found)[0])
    program.kill()
    program.communicate()
    one.well()
    ported.remove()
    one.well()


def test_a_route_into_an_overlay(clinic: Clinic) -> None:
    """A route of the host overlaps the subnet: it is named with its device, and goes as printed."""
    one = clinic.h1
    one.host.run(["ip", "route", "add", "10.5.0.128/25", "dev", "eth0"])
    found = one.sick("subnets", level="warn")
    assert "overlaps the route to 10.5.0.128/25 by eth0" in found["saw"]
    one.sh(commands(found)[0])
    one.well()


def test_a_network_of_dockers_in_an_overlay(clinic: Clinic) -> None:
    """Another network of this engine has addresses of the subnet: it is named by Docker's name, and removed."""
    for one in (clinic.h1, clinic.h2):
        one.host.docker("network", "create", "--subnet", "10.5.0.64/26", "other")
        found = one.sick("subnets")
        assert "overlaps 10.5.0.64/26 of Docker's network other" in found["saw"]
        one.sh(commands(found)[0])
        one.well()


def test_a_rule_that_drops_the_port(clinic: Clinic) -> None:
    """It is named by table, chain and handle, and deleted as printed."""
    one = clinic.h3
    two = "tcp dport 22 accept; udp dport 4789 counter drop;"
    nft(one, f"table inet site {{ chain in {{ type filter hook input priority 0; {two} }} }}")
    found = one.sick("firewall", {"peer-port", *WAYS})
    assert "drops UDP port 4789 by 1 rule: inet site in" in found["saw"]
    for command in commands(found):
        one.sh(command)
    one.well()
    one.host.run(["nft", "delete", "table", "inet", "site"])


def test_rules_that_were_flushed(clinic: Clinic) -> None:
    """What is forwarded is dropped by no rule, as after `iptables -F`; and a chain in an overlay's namespace."""
    one = clinic.h3
    nft(one, "table ip filter { chain FORWARD { type filter hook forward priority 0; policy drop; } }")
    found = one.sick("firewall")
    assert "ip filter FORWARD" in found["saw"]
    one.sh(commands(found)[0])
    one.well()
    one.host.run(["nft", "delete", "table", "ip", "filter"])
    one = clinic.h1
    strange = "table bridge strange { chain f { type filter hook forward priority 0; policy drop; } }"
    nft(one, strange, "nsenter", f"--net={WEB}")
    found = one.sick("firewall")
    assert WEB in found["saw"] + found["remedy"]
    one.sh(commands(found)[0])
    one.well()


def test_a_guard_that_is_taken_away(clinic: Clinic) -> None:
    """Somebody deletes the guard's table again and again: who that is, the remedy finds out; stopped, all is green.
    Switched off it is a warning that says what to take out.
    """
    one = clinic.h3
    argv = ["sh", "-c", "while :; do nft delete table inet myoverlay 2>/dev/null; sleep 0.1; done"]
    thief = one.host.popen(argv)
    try:
        found = one.sick("guard")
        assert "table inet myoverlay is gone" in found["saw"]
        assert commands(found)[0] == "nft monitor"
        words = one.sh("timeout 6 nft monitor || true")
        assert re.search(r"new generation \d+ by process \d+ \(nft\)", words), words
    finally:
        thief.kill()
        thief.communicate(timeout=10)
    one.well()
    one.restart(MYOVERLAY_GUARD="off")
    found = one.sick("guard", level="warn")
    assert commands(found)[0] == "MYOVERLAY_GUARD=off"
    one.restart()
    one.well()


def test_a_bridge_that_leads_nowhere(clinic: Clinic) -> None:
    """Docker's own, set down: overlays have no way out by it; up as printed, they have."""
    one = clinic.h2
    one.host.run(["ip", "link", "set", "docker0", "down"])
    found = one.sick("egress")
    assert found["saw"].startswith("web: ")
    one.sh(commands(found)[0])
    one.well()


def test_a_bridge_that_hands_frames_to_the_firewall(clinic: Clinic) -> None:
    """Put on in an overlay's namespace: off as printed, and, once more, by --fix."""
    one = clinic.h1
    switch_on = ["nsenter", f"--net={WEB}", "sysctl", "-w", "net.bridge.bridge-nf-call-iptables=1"]
    one.host.run(switch_on)
    found = one.sick("bridge-netfilter")
    one.sh(commands(found)[0])
    one.well()
    one.host.run(switch_on)
    one.sick("bridge-netfilter")
    done = one.complete("doctor", "--fix")
    assert done.returncode == 0, done.stdout
    assert "did: bridge-nf-call-* was put off for web" in done.stdout
    one.well()


def test_networks_under_both_names(clinic: Clinic) -> None:
    """One network under the plugin's other name: it is named, and goes as printed; made anew under the one name all is
    well."""
    one = clinic.h2
    one.restart(MYOVERLAY_SOCKETS=f"/run/docker/plugins/myoverlay.sock,{SECOND}")
    one.host.docker("network", "create", "-d", "second", "--ipam-driver", "second", "--subnet", "10.9.0.0/24", "two")
    found = one.sick("sockets", level="warn")
    assert "made under 2 names (myoverlay: web; second: two)" in found["saw"]
    remove, again = commands(found)
    one.sh(remove)
    one.host.docker("network", "create", *again.split(), "--subnet", "10.9.0.0/24", "two")
    one.well()
    one.host.docker("network", "rm", "two")
    one.restart()
    one.well()


def test_leftovers_that_are_too_many(clinic: Clinic) -> None:
    """Five namespaces of nobody beside one that is asked for: held, shown by gc, not taken by --fix, gone by --yes."""
    one = clinic.h1
    paths = " ".join(WEB.replace("web", f"old-{number}") for number in range(5))
    one.plugin.stop()  # a round in between would see one or two of them, which it takes away by itself
    one.host.run(["sh", "-c", f"for path in {paths}; do touch $path && unshare --net=$path true; done"])
    one.plugin.start()
    found = one.sick("leftovers")
    assert "5 namespaces nobody asks for: old-0, old-1, old-2 and 2 more" in found["saw"]
    assert one.complete("gc").returncode == 1
    assert one.complete("doctor", "--fix").returncode == 1
    look, collect = commands(found)
    assert "old-4" in one.sh(look)
    assert "old-4" in one.sh(collect)
    one.well()
    assert one.host.run(["ls", WEB.rpartition("/")[0]]).split() == ["_probe", "web"]


def test_cables_that_are_too_many(clinic: Clinic) -> None:
    """Veths of nobody in an overlay's namespace, more than half of what is there: held, shown, gone by a word."""
    one = clinic.h1
    for number in range(5):
        link = f"p00000000000{number}"
        one.host.run(
            ["nsenter", f"--net={WEB}", "ip", "link", "add", link, "type", "veth", "peer", "name", f"x{number}"]
        )
    found = one.sick("leftovers")
    assert "nobody asks for" in found["saw"]
    assert one.complete("doctor", "--fix").returncode == 1
    look, collect = commands(found)
    assert "p000000000004" in one.sh(look)
    assert "p000000000004" in one.sh(collect)
    one.well()
    assert "p00000000000" not in one.host.run(["nsenter", f"--net={WEB}", "ip", "-br", "link"])
