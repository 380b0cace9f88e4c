"""The program's words, said on a host that is a namespace, with a directory of its own for named namespaces."""

from __future__ import annotations

import ctypes
import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import UnixStreamServer
from typing import Any

import pytest
from click.testing import CliRunner

from myoverlay.cli.main import cli
from myoverlay.cli.words import Places
from myoverlay.kernel import netns
from myoverlay.kernel.netns import Namespace
from myoverlay.values import Address
from tests.kernel.host.echo import Echo

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass
class Hand:
    """Somebody at the keyboard of a host."""

    home: Namespace
    places: Places

    def __call__(self, *words: str, code: int = 0) -> str:
        """Say it, and see the exit code; returns what was printed, standard error included."""
        done = self.home.call(lambda: CliRunner().invoke(cli, words, obj=self.places), timeout=60)
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        assert done.exit_code == code, done.output
        return done.output

    def json(self, *words: str) -> Any:
        return json.loads(self(*words, "--json"))

    def namespace(self, name: str = "overlay-ns") -> Namespace:
        return netns.open_path(self.places.named / name)


def link_names(ns: Namespace) -> set[str]:
    return {name for _, name in ns.call(socket.if_nameindex)} - {"lo"}


def links_of(path: Path) -> set[str]:
    with netns.open_path(path) as ns:
        return link_names(ns)


def answers(ns: Namespace, address: str, times: int = 3) -> int:
    """How many of so many pings are answered, the first included."""
    echo = Echo(ns)
    try:
        for number in range(times):
            echo.send(Address(address), number)
        return sum(echo.receive(1.0) is not None for _ in range(times))
    finally:
        echo.close()


class Docker:
    """As much of Docker's API as says which process a container is."""

    pids: dict[str, int]

    def answer(self, path: str) -> tuple[int, dict[str, Any]]:
        if path.endswith("/version"):
            return 200, {"ApiVersion": "1.41", "Version": "20.10"}
        name = path.split("/")[-2]
        if name not in self.pids:
            return 404, {"message": f"No such container: {name}"}
        pid = self.pids[name]
        return 200, {"State": {"Pid": pid, "Status": "running" if pid else "exited"}}


@contextmanager
def engine(path: Path) -> Iterator[Docker]:
    """A Docker that listens on a socket of its own, which DOCKER_HOST names meanwhile."""
    docker = Docker()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            code, body = docker.answer(self.path)
            raw = json.dumps(body).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        def log_message(self, *_: object) -> None:
            pass

    with UnixStreamServer(str(path), Handler) as server, pytest.MonkeyPatch.context() as patch:
        patch.setenv("DOCKER_HOST", f"unix://{path}")
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield docker
        finally:
            server.shutdown()
            thread.join(5)


@pytest.fixture
def hand(host: Namespace, tmp_path: Path) -> Iterator[Hand]:
    with keyboard(host, tmp_path / "keyboard") as hand:
        yield hand


@contextmanager
def keyboard(home: Namespace, folder: Path) -> Iterator[Hand]:
    """A host's keyboard; what was named with it goes at the end."""
    places = Places(named=folder / "named", plugin=folder / "plugin" / "netns")
    yield Hand(home, places)
    for folder in (places.named, places.plugin):
        for path in folder.iterdir() if folder.is_dir() else ():
            netns.delete(path)
    _libc.umount2(os.fsencode(places.named), 2)  # what `netns.share` laid there


@pytest.fixture
def containers(spaces: Callable[[str], Namespace]) -> Callable[[str], str]:
    """Makes a namespace and returns its path, which is what `attach` is told."""
    return lambda name: str(spaces(name).path)
