"""`exec` and `capture` as processes of their own, on an overlay whose namespace is pinned where the plugin pins its."""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from myoverlay.kernel import netns
from myoverlay.kernel.netns import Namespace
from tests.kernel.cli.conftest import Hand
from tests.kernel.host.tools import ip, run_in, until
from tests.pure.house.source import PACKAGE


class Site:
    """A host with an overlay `web`: a bridge, a VXLAN device, and a peer at the other end of the underlay."""

    def __init__(self, home: Namespace, far: Namespace, run: Path) -> None:
        self.home, self.far, self.run = home, far, run
        self.web = netns.create(run / "netns" / "web")
        # What namespace and bridge say of themselves (neighbours, snoopers' groups) is heard by `capture` too.
        self.web.sysctl("net/ipv6/conf/all/disable_ipv6", "1")
        self.web.sysctl("net/ipv6/conf/default/disable_ipv6", "1")
        ip(home, f"link add eth0 type veth peer name eth0 netns {far.path}", "addr add 192.0.2.1/24 dev eth0",
           "link set eth0 up", "link add vxlan1 type vxlan id 77 dstport 4789 local 192.0.2.1 nolearning",
           f"link set vxlan1 netns {self.web.path}")  # fmt: skip
        ip(far, "addr add 192.0.2.2/24 dev eth0", "link set eth0 up")
        ip(self.web, "link add br0 type bridge mcast_snooping 0", "link set br0 up", "link set vxlan1 master br0",
           "link set vxlan1 up", "addr add 10.5.0.1/24 dev br0",
           "neigh add 10.5.0.9 lladdr 02:42:0a:05:00:09 dev br0")  # fmt: skip
        run_in(self.web, "bridge", "fdb", "add", "02:42:0a:05:00:09", "dev", "vxlan1", "self", "dst", "192.0.2.2")

    def start(self, *words: str, **more: object) -> subprocess.Popen[str]:
        environ = {
            **os.environ,
            "PYTHONPATH": str(PACKAGE.parent),
            "MYOVERLAY_RUN": str(self.run),
            "MYOVERLAY_SOCKETS": str(self.run / "none.sock"),
            "DOCKER_HOST": f"unix://{self.run}/none",
        }
        command = [sys.executable, "-m", "myoverlay", *words]
        return self.home.call(
            lambda: subprocess.Popen(
                command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **more  # type: ignore[call-overload]
            )
        )  # fmt: skip

    def say(self, *words: str, code: int = 0) -> tuple[str, str]:
        process = self.start(*words)
        out, err = process.communicate(timeout=30)
        assert process.returncode == code, (process.returncode, out, err)
        return out, err

    def talk(self) -> None:
        """A packet to a container of the other host."""
        run_in(self.web, sys.executable, "-c", "import socket; socket.socket(2, 2).sendto(b'hello', ('10.5.0.9', 9))")


@pytest.fixture
def site(spaces: Callable[[str], Namespace], tmp_path: Path) -> Iterator[Site]:
    site = Site(spaces("home"), spaces("far"), tmp_path / "run")
    yield site
    ip(site.web, "link del vxlan1")
    site.web.close()
    netns.delete(tmp_path / "run" / "netns" / "web")


def test_exec_runs_in_the_overlay_namespace(site: Site) -> None:
    """What it prints is of there, its exit code is ours, and the plugin is not needed."""
    out, _ = site.say("exec", "web", "--", "ip", "-json", "-d", "link", "show", "vxlan1")
    assert json.loads(out)[0]["linkinfo"]["info_data"]["id"] == 77
    out, _ = site.say("exec", "web", "sh", "-c", "exit 42", code=42)
    site.say("exec", "web", "--", "sh", "-c", "kill -9 $$", code=-9)
    _, err = site.say("exec", "web", "--", "no-such-command", code=127)
    assert err == "myoverlay: there is no command no-such-command\n"
    _, err = site.say("exec", "web", "--", "/etc/passwd", code=126)
    assert "cannot be run: Permission denied" in err


def test_exec_passes_signals_on(site: Site) -> None:
    """What is sent to it reaches the command, which ends as it likes."""
    script = "trap 'echo told; exit 7' TERM; echo ready; while :; do sleep 0.05; done"
    process = site.start("exec", "web", "--", "sh", "-c", script)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=10)
    assert (process.returncode, out) == (7, "told\n")


def test_an_unknown_network_is_one_sentence(site: Site) -> None:
    """Without plugin and without Docker it is said who could not be asked."""
    _, err = site.say("exec", "db", "--", "true", code=1)
    assert err.startswith("myoverlay: no plugin answers on ")
    assert err.count("\n") == 1
    site.say("exec", "web", code=2)


def test_capture_writes_what_leaves_by_the_tunnel(site: Site, tmp_path: Path) -> None:
    """`--inner` and `--outer` hear the same packet, inside as it was sent, outside in VXLAN; files end whole at -c."""
    for words, size in ((("--inner", "vxlan"), 47), (("--outer",), 97)):
        path = tmp_path / "x.pcap"
        process = site.start("capture", "web", *words, "-w", str(path), "-c", "1", "--timeout", "20")
        assert process.stderr is not None
        assert "listening to" in process.stderr.readline()
        site.talk()
        _, err = process.communicate(timeout=20)
        assert process.returncode == 0, err
        assert err == f"1 packets written to {path}\n"
        raw = path.read_bytes()
        kept = struct.unpack_from("=IIII", raw, 24)[2]
        assert kept == len(raw) - 40 == size
        assert raw.endswith(b"hello")


def test_capture_hears_no_other_overlay_outside(site: Site, tmp_path: Path) -> None:
    """A packet of another VNI on the same UDP port is not in the file."""
    path = tmp_path / "x.pcap"
    process = site.start("capture", "web", "--outer", "-w", str(path), "-c", "1", "--timeout", "20")
    assert process.stderr is not None
    assert "VNI 77" in process.stderr.readline()
    foreign = "import socket; socket.socket(2, 2).sendto(bytes([8,0,0,0,0,0,78,0]) + b'x' * 60, ('192.0.2.2', 4789))"
    run_in(site.home, sys.executable, "-c", foreign)
    site.talk()
    process.communicate(timeout=20)
    raw = path.read_bytes()
    assert raw.endswith(b"hello")
    assert b"xxxx" not in raw


def test_capture_ends_cleanly_when_told(site: Site, tmp_path: Path) -> None:
    """Ctrl-C: what came is in the file, and the exit code is 0; at the time's end without -c too, with -c it is 1."""
    path = tmp_path / "x.pcap"
    process = site.start("capture", "web", "-w", str(path))
    assert process.stderr is not None
    process.stderr.readline()
    site.talk()
    until(lambda: path.stat().st_size > 24)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=10)
    assert process.returncode == 0, err
    assert "packets written" in err
    site.say("capture", "web", "-w", str(path), "--timeout", "0.2")
    _, err = site.say("capture", "web", "-w", str(path), "--inner", "bridge", "-c", "9", "--timeout", "0.2", code=1)
    assert "of 9 packets came within 0.2 s" in err
    _, err = site.say("capture", "web", "-w", str(tmp_path), "--timeout", "0.2", code=1)
    assert "cannot be written" in err


def test_capture_shows_by_tcpdump(site: Site) -> None:
    """Without a file it is tcpdump that prints, in the right namespace and with the right filter; Ctrl-C ends both."""
    process = site.start("capture", "web", "--outer", "-c", "1")
    assert process.stderr is not None
    while "listening on" not in process.stderr.readline():
        assert process.poll() is None
    site.talk()
    out, _ = process.communicate(timeout=20)
    assert process.returncode == 0
    assert "VXLAN" in out
    assert "vni 77" in out
    process = site.start("capture", "web", "--inner", "bridge")
    assert process.stderr is not None
    while "listening on" not in process.stderr.readline():
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=10)
    assert process.returncode == 0


def test_capture_without_tcpdump_says_which_package(site: Site, monkeypatch: pytest.MonkeyPatch, hand: Hand) -> None:
    """One sentence: install it, or write a file."""
    from click.testing import CliRunner

    from myoverlay.cli import capture as module
    from myoverlay.cli.main import cli

    monkeypatch.setattr(module.shutil, "which", lambda *_, **__: None)
    monkeypatch.setenv("MYOVERLAY_RUN", str(site.run))
    done = site.home.call(lambda: CliRunner().invoke(cli, ["capture", "web"]), timeout=20)
    assert done.exit_code == 1
    assert "package tcpdump" in done.stderr


def test_exec_is_quick(site: Site) -> None:
    """It costs little more than its command."""
    took = []
    for _ in range(5):
        begun = time.perf_counter()
        site.say("exec", "web", "--", "true")
        took.append(time.perf_counter() - begun)
    print(f"exec: {min(took) * 1000:.0f} ms")
    assert min(took) < 1.0
