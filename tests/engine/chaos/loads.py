"""The three loads that run in every row: a flow, first contacts, and new containers on a third host."""

from __future__ import annotations

import json
import secrets
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from array import array
from datetime import datetime
from pathlib import Path
from typing import Any

from lab import places
from lab.engine import EngineHost
from lab.errors import LabError, TookTooLong
from tests.engine.chaos.counting import Contact, Direction, Measured, Start, Window, direction

IMAGE = "lab/base"
NETWORK = "web"
RATE = 1000
_FLOW = Path(__file__).with_name("flow.py")
_EVERY = 2.0
_DOCKER = 60.0


class Flow:
    """1,000 datagrams a second each way between two containers."""

    def __init__(self, ends: tuple[tuple[EngineHost, str, str], tuple[EngineHost, str, str]], folder: Path) -> None:
        self._ends = ends
        self._folder = folder
        self._running: list[subprocess.Popen[str]] = []
        self._began = self._ended = 0.0

    def start(self) -> None:
        """Both ends listen before either sends."""
        mark = str(secrets.randbits(62))
        for number, ((host, name, me), (_, _, peer)) in enumerate((self._ends, self._ends[::-1])):
            pid = host.container_pid(name, of_machine=False)
            files = [str(self._folder / f"{kind}{number}") for kind in ("sent", "got")]
            words = [sys.executable, "-IS", str(_FLOW), me, peer, str(RATE), mark, *files]
            argv = ["nsenter", f"--net=/proc/{pid}/ns/net", *words]
            self._running.append(host.popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=None))
        for each in self._running:
            assert each.stdout is not None
            if each.stdout.readline() != "ready\n":
                raise LabError("a flow program did not start")
        self._began = time.time()
        for each in self._running:
            assert each.stdin is not None
            each.stdin.write("go\n")
            each.stdin.flush()

    def stop(self) -> None:
        """End the sending; both ends listen a little longer."""
        for each in self._running:
            each.terminate()
        self._ended = time.time()
        for each in self._running:
            end(each)

    def measured(self, excused: tuple[Window, ...] = ()) -> tuple[Direction, ...]:
        """Both directions."""
        due = int((self._ended - self._began) * RATE)
        names = [host.name for host, _, _ in self._ends]
        found = []
        for sender, receiver in ((0, 1), (1, 0)):
            sent, got = self._read(f"sent{sender}", "d"), (self._folder / f"got{receiver}").read_bytes()
            pairs = _pairs(got)
            found.append(direction(f"{names[sender]}→{names[receiver]}", sent, pairs, due, excused))
        return tuple(found)

    def _read(self, name: str, kind: str) -> Any:
        values: array[Any] = array(kind)
        values.frombytes((self._folder / name).read_bytes())
        return values


def _pairs(data: bytes) -> list[tuple[int, float]]:
    numbers: array[int] = array("Q")
    moments: array[float] = array("d")
    numbers.frombytes(data)
    moments.frombytes(data)
    return list(zip(numbers[::2], moments[1::2], strict=True))


class Contacts:
    """A first contact each second between containers that never talked."""

    def __init__(self, containers: list[dict[str, str]], file: Path) -> None:
        self._containers = containers
        self._file = file
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Returns when all sockets are open."""
        with self._file.open("w") as out:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.engine.chaos.contacts"],
                cwd=places.REPOSITORY, stdin=subprocess.PIPE, stdout=out, stderr=subprocess.PIPE, text=True,
            )  # fmt: skip
        assert self._process.stdin is not None
        assert self._process.stderr is not None
        self._process.stdin.write(json.dumps(self._containers) + "\n")
        self._process.stdin.flush()
        said = self._process.stderr.readline()
        if said != "ready\n":
            raise LabError(f"the first contacts did not start: {said}{self._process.stderr.read()}")

    def stop(self) -> None:
        """End it; what was asked is waited for."""
        if self._process is not None:
            self._process.terminate()
            end(self._process)

    def measured(self) -> tuple[Contact, ...]:
        """All contacts that came to an end."""
        return tuple(Contact(**json.loads(line)) for line in self._file.read_text().splitlines())


class Starts:
    """`docker run` of a container that pings another host's once, and `docker rm`, each two seconds."""

    def __init__(self, host: EngineHost, target: str) -> None:
        self._host = host
        self._target = target
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"starts-{host.name}", daemon=True)
        self._found: list[Start] = []
        self._failure: BaseException | None = None

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End when the last container is gone."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join(3 * _DOCKER)
        if self._failure is not None:
            raise LabError(f"new containers on {self._host.name}: {self._failure}")

    def measured(self) -> tuple[Start, ...]:
        """All that came to an end."""
        return tuple(self._found)

    def _run(self) -> None:
        number, due = 0, time.monotonic()
        try:
            while not self._stop.wait(max(0.0, due - time.monotonic())):
                due = max(due + _EVERY, time.monotonic())
                number += 1
                self._found.append(one_start(self._host, f"new{number}", self._target))
        except (LabError, OSError) as error:
            self._failure = error


def one_start(host: EngineHost, name: str, target: str, *arguments: str, ask: bool = False) -> Start:
    """`docker run` of one ping, timed, and `docker rm`; with `ask` it is asked when the process ran."""
    ping = ("ping", "-c", "1", "-W", "2", target)
    began, moment = time.monotonic(), time.time()
    refused, answered = "", False
    try:
        done = host.docker_complete(
            "run", "--name", name, "--network", NETWORK, *arguments, IMAGE, *ping, timeout=_DOCKER
        )
        if done.returncode in (125, 126, 127):
            refused = done.stderr.strip() or f"status {done.returncode}"
        answered = done.returncode == 0
    except TookTooLong as error:
        refused = str(error)
    seconds = time.monotonic() - began
    running = _running_since(host, name) if ask and not refused else 0.0
    try:
        host.docker("rm", "-f", name, check=False, timeout=_DOCKER)
    except TookTooLong as error:
        refused = refused or str(error)
    return Start(host.name, moment, seconds, refused, answered, running)


def _running_since(host: EngineHost, name: str) -> float:
    text = host.docker("inspect", "-f", "{{.State.StartedAt}}", name)
    whole, _, fraction = text.rstrip("Z").partition(".")
    return datetime.fromisoformat(f"{whole}+00:00").timestamp() + float(f"0.{fraction or 0}")


def end(process: subprocess.Popen[Any]) -> None:
    """Wait for a process that was told to end; kill it if it does not."""
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(10)
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            stream.close()


class Loads:
    """All three; `measured` may be asked after `stop`."""

    def __init__(
        self,
        ends: tuple[tuple[EngineHost, str, str], tuple[EngineHost, str, str]],
        pool: list[dict[str, str]],
        starter: EngineHost,
    ) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="chaos-"))
        self.flow = Flow(ends, self._folder)
        self.contacts = Contacts(pool, self._folder / "contacts")
        self.starts = Starts(starter, ends[0][2])
        self.excused: list[Window] = []

    def start(self) -> None:
        """All three, the flow last."""
        self.contacts.start()
        self.flow.start()
        self.starts.start()

    def stop(self) -> None:
        """End all three, even where one of them failed."""
        failures = []
        for each in (self.flow, self.contacts, self.starts):
            try:
                each.stop()
            except (LabError, OSError) as error:
                failures.append(str(error))
        if failures:
            raise LabError("; ".join(failures))

    def measured(self) -> Measured:
        """What they saw."""
        excused = tuple(self.excused)
        return Measured(
            self.flow.measured(excused), self.contacts.measured(), self.starts.measured(), excused
        )  # fmt: skip

    def clear(self) -> None:
        """Remove their notes."""
        shutil.rmtree(self._folder, ignore_errors=True)
