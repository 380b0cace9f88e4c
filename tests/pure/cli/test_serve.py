"""The sockets that Docker dials: bound over a dead one, refused beside a live one, taken away by who bound them."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.places import REPOSITORY
from myoverlay.cli import serve
from myoverlay.cli.serve import bind
from myoverlay.docker.app import MAX_BODY
from myoverlay.errors import Clash
from myoverlay.settings import Settings
from tests.attack.board import Board, board
from tests.pure.house.source import PACKAGE
from tests.pure.kit import until

__all__ = ["board"]


def test_a_door_goes_with_who_made_it(tmp_path: Path) -> None:
    """The file is root's alone, and gone after `remove`; removing twice is once."""
    path = tmp_path / "plugins" / "x.sock"
    door = bind(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    door.remove()
    door.remove()
    assert not path.exists()
    door.listener.close()


def test_a_door_that_another_run_made_since_is_left_alone(tmp_path: Path) -> None:
    """An old run that ends late does not cut the new one off."""
    path = tmp_path / "x.sock"
    old = bind(path)
    old.listener.close()  # dead, its file still there
    new = bind(path)
    old.remove()
    with socket.socket(socket.AF_UNIX) as probe:
        assert probe.connect_ex(str(path)) == 0
    with pytest.raises(Clash, match="another plugin answers"):
        bind(path)
    new.remove()
    assert not path.exists()
    new.listener.close()


def after_going_ahead(first: str = "") -> tuple[str, int, str]:
    """What a process of its own session says, and the numbers that it and its session's group have then."""
    code = (
        "import logging, os, sys; logging.basicConfig(level='INFO', stream=sys.stdout, format='%(message)s')\n"
        "from myoverlay.cli.serve import go_ahead\n"
        f"{first}\n"
        "go_ahead(-7)\n"
        "print(os.getpriority(os.PRIO_PROCESS, 0), open('/proc/self/autogroup').read().split()[-1])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=20, start_new_session=True
    )
    assert done.returncode == 0, done.stderr
    *said, numbers = done.stdout.splitlines()
    return " ".join(said), int(numbers.split()[0]), numbers.split()[1]


def test_it_goes_ahead_of_others() -> None:
    """Its threads and its session's group; not the group of a session that others began."""
    assert after_going_ahead() == ("", -7, "-7")
    assert after_going_ahead("if os.fork(): os._exit(os.waitstatus_to_exitcode(os.wait()[1]))") == ("", -7, "0")


def test_who_may_not_go_ahead_says_so() -> None:
    """And goes on as it was started."""
    said, *numbers = after_going_ahead("os.setuid(65534)")
    assert said == "MYOVERLAY_NICE=-7 has no effect here: [Errno 13] Permission denied"
    assert numbers == [os.getpriority(os.PRIO_PROCESS, 0), "0"]


def test_it_begins_without_the_library_of_the_words() -> None:
    """What the server's first process loads it keeps; who cannot begin is told in one sentence all the same."""
    code = [sys.executable, "-X", "importtime", "-m", "myoverlay", "serve"]
    environ = {**os.environ, "MYOVERLAY_GRACE": "soon", "PYTHONPATH": str(PACKAGE.parent)}
    done = subprocess.run(code, capture_output=True, text=True, timeout=20, check=False, env=environ)
    lines = done.stderr.splitlines()
    assert (done.returncode, lines[-1]) == (1, "myoverlay: MYOVERLAY_GRACE: 'soon' is no whole number")
    loaded = {line.rpartition("|")[2].strip() for line in lines}
    assert "myoverlay.settings" in loaded
    assert "click" not in loaded


def test_the_environment_keeps_no_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is started from here would have it in its own, where `ps e` shows it; the settings have it."""
    seen: list[tuple[Settings, str | None]] = []
    monkeypatch.setattr(
        serve, "_serve", lambda settings, _: seen.append((settings, os.environ.get("CONSUL_HTTP_TOKEN")))
    )
    monkeypatch.setenv("CONSUL_HTTP_TOKEN", "secret-of-this-host")
    monkeypatch.setenv("CONSUL_HTTP_ADDR", "192.0.2.100")
    monkeypatch.setenv("MYOVERLAY_SOCKETS", str(tmp_path / "x.sock"))
    opened: list[serve.Door] = []
    monkeypatch.setattr(serve, "bind", lambda path: opened.append(bind(path)) or opened[-1])
    serve.run(os.environ)
    ((settings, left),) = seen
    assert settings.token == "secret-of-this-host"
    assert left is None
    assert "secret" not in subprocess.run(["env"], capture_output=True, text=True, check=True).stdout
    for door in opened:
        door.remove()
        door.listener.close()


@pytest.mark.parametrize("defended", [False, True])
def test_ps_shows_no_token(board: Board, defended: bool) -> None:
    """What the kernel shows of the environment that a process was started with has no secret in it any more, and all
    else: neither the process itself nor those that it forks."""
    code = """
import os, sys
from pathlib import Path
from myoverlay.cli import serve

def show(*_):
    child = os.fork()
    print(Path("/proc/self/environ").read_text(), flush=True)
    if child == 0:
        os._exit(0)
    os.wait()

if "defended" not in sys.argv:
    serve._blot_out = lambda name: None
serve._serve = show
serve.bind = lambda path: None
serve.run(os.environ)
"""
    environ = {"A": "1", "CONSUL_HTTP_TOKEN": "secret-of-this-host", "CONSUL_HTTP_ADDR": "192.0.2.100", "B": "secret"}
    environ["PYTHONPATH"] = str(REPOSITORY / "src")
    command = [sys.executable, "-c", code, *(["defended"] if defended else [])]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    shown = [one.split("\0") for one in done.stdout.splitlines()]
    assert len(shown) == 2
    token = "x" * 19 if defended else environ["CONSUL_HTTP_TOKEN"]
    for one in shown:
        assert {"A=1", "B=secret", "CONSUL_HTTP_ADDR=192.0.2.100", f"CONSUL_HTTP_TOKEN={token}"} <= set(one)
    if defended:
        board.write("a token in the environment, looked for by `ps e`", "shown", "not shown")


# -- the server itself, in a process of its own ----------------------------------------------------------------------

SERVER = """
import sys
from pathlib import Path
from unittest.mock import MagicMock
import msgspec
from myoverlay.cli import patience
from myoverlay.cli.serve import bind, listen
from myoverlay.docker import app as application
from myoverlay.docker.app import create_app
from myoverlay.tally import Tally
patience.Worker.patience = float(sys.argv[2])
application.MAX_BODY = int(sys.argv[3])

class Filled(msgspec.Struct):
    filler: str

def make():
    more = {
        "Length": (Filled, lambda call, _: {"Length": len(call.filler)}),
        "Hello": (None, lambda _: {"it": "is open"}),
    }
    app = create_app(MagicMock(), MagicMock(), Tally(), more)
    @app.post("/much")
    def much():
        return b"x" * (64 << 20)
    return app

listen([bind(Path(sys.argv[1]))], make)
"""
#: Seconds that a request may take there.
PATIENCE = 1.0


@contextlib.contextmanager
def _server(path: Path, patience: float, largest: int) -> Iterator[Path]:
    command = [sys.executable, "-c", SERVER, str(path), str(patience), str(largest)]
    env = {**os.environ, "PYTHONPATH": str(REPOSITORY / "src")}
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, env=env)
    try:
        until(lambda: path.exists() and _ask(path, b"POST /Plugin.Activate HTTP/1.1\r\nHost: x\r\n\r\n"), 30)
        yield path
    finally:
        process.terminate()
        assert process.wait(30) == 0


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with _server(tmp_path_factory.mktemp("plugins") / "x.sock", PATIENCE, MAX_BODY) as path:
        yield path


def test_without_the_limits_they_do_harm(tmp_path: Path, served: Path, board: Board) -> None:
    """What the tests below show is not shown by chance: where nobody is hurried and nothing is too large, a body of
    4 MB is taken whole, and as many slow clients as there are threads keep a call waiting."""
    body = b'{"filler":"' + b"x" * (4 << 20) + b'"}'
    with _server(tmp_path / "open.sock", 3600.0, 1 << 40) as path:
        taken = _ask(path, _post("/Length", body))
        assert taken.endswith(b'{"Length":%d}' % (4 << 20))
        with contextlib.ExitStack() as slow:
            for _ in range(16):
                slow.enter_context(_dial(path)).sendall(
                    b"POST /Length HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n"
                )
            asked = slow.enter_context(_dial(path))
            asked.settimeout(3 * PATIENCE)
            asked.sendall(_post("/Hello", b"{}"))
            with pytest.raises(TimeoutError):
                asked.recv(1)
    refused = _ask(served, _post("/Length", body)).splitlines()[0]
    board.write("a body of 4 MB to the plugin's socket", "taken whole", refused.decode().partition(" ")[2])
    board.write("16 clients who send half a request", "a call is not answered", "answered in their limit (10 s)")


def _dial(path: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    try:
        sock.settimeout(20)
        sock.connect(str(path))
    except OSError:
        sock.close()
        raise
    return sock


def _all(sock: socket.socket) -> bytes:
    """What comes until the other side ends, or cuts it off."""
    heard = b""
    with contextlib.suppress(ConnectionError):
        while data := sock.recv(1 << 16):
            heard += data
    return heard


def _ask(path: Path, request: bytes) -> bytes:
    try:
        with _dial(path) as sock:
            with contextlib.suppress(BrokenPipeError):  # it may have heard enough before it was all said
                sock.sendall(request)
            return _all(sock)
    except ConnectionRefusedError:
        return b""


def _post(path: str, body: bytes) -> bytes:
    return f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def test_a_body_that_is_too_large_is_refused(served: Path) -> None:
    """By the length it says, and, where it says none, by what comes: nobody fills the memory, nothing is cut off."""

    def filled(size: int) -> bytes:
        return b'{"filler":"' + b"x" * (size - len(b'{"filler":""}')) + b'"}'

    def in_chunks(body: bytes) -> bytes:
        head = b"POST /Length HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        pieces = (body[start : start + 0x10000] for start in range(0, len(body), 0x10000))
        return head + b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"

    assert b'{"Length":%d}' % (MAX_BODY - 13) in _ask(served, _post("/Length", filled(MAX_BODY)))
    assert b" 413 " in _ask(served, _post("/Length", filled(MAX_BODY + 1))).splitlines()[0]
    assert b'{"Length":%d}' % (MAX_BODY - 14) in _ask(served, in_chunks(filled(MAX_BODY - 1)))
    for path in ("/Length", "/Hello"):  # a method that reads no body takes none that is too large either
        said = _ask(served, in_chunks(filled(2 * MAX_BODY)).replace(b"/Length", path.encode(), 1))
        assert b" 413 " in said.splitlines()[0], said[:200]
    with _dial(served) as sock:  # one that never says what it announced is not waited for
        sock.sendall(b"POST /Length HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n")
        assert b" 413 " in _all(sock).splitlines()[0]


def test_heads_that_are_too_long_or_none_are_refused(served: Path) -> None:
    """A line of 100 kB, ten thousand headers, no HTTP at all: a refusal or the end, and the next one is served."""
    for odd in (
        b"POST /" + b"x" * 100_000 + b" HTTP/1.1\r\n\r\n",
        b"POST /x HTTP/1.1\r\n" + b"a: b\r\n" * 10_000 + b"\r\n",
        b"\x16\x03\x01\x02\x00" + b"\x00" * 600,
        b"\r\n" * 5000,
    ):
        said = _ask(served, odd)
        assert not said or said.splitlines()[0].split()[1][:1] == b"4", said[:200]
    assert b"is open" in _ask(served, _post("/Hello", b"{}"))


def test_slow_clients_hold_nobody_up(served: Path) -> None:
    """More of them than there are threads: drips of a head, of a body, silence, an answer that nobody takes.

    Each is cut off when its time is over, and a call that comes meanwhile is answered.
    """
    slow = [_dial(served) for _ in range(3 * 16)]
    starts = (
        b"POST /Length HTTP/1.1\r\nHost:",
        b"POST /Length HTTP/1.1\r\nHost: x\r\nContent-Length: 999\r\n\r\n",
        _post("/much", b""),
    )
    try:
        for number, sock in enumerate(slow):
            sock.sendall(starts[number % 3])
        began = time.monotonic()
        stop = threading.Event()

        def drip() -> None:
            while not stop.wait(0.1):
                for number, sock in enumerate(slow):
                    with contextlib.suppress(OSError):
                        if number % 3 < 2:
                            sock.send(b"x")

        dripping = threading.Thread(target=drip, daemon=True)
        dripping.start()
        assert b"is open" in _ask(served, _post("/Hello", b"{}"))
        # Three rounds of threads, each with its time for the request and again for the answer.
        assert time.monotonic() - began < 6 * PATIENCE + 6
        for number, sock in enumerate(slow):
            if number % 3 < 2:
                _all(sock)
        stop.set()
        dripping.join(5)
        assert time.monotonic() - began < 6 * PATIENCE + 10
    finally:
        for sock in slow:
            sock.close()
