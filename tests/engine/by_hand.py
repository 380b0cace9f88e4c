"""`make by-hand`: docs/by-hand.md is walked in the laboratory, each of its commands as written.

A fenced block whose language is `sh` is a step. What follows `sh` says where it runs and what must come of it; people
who read the page do not see that:

    h1 h2                  on these hosts, one after the other
    ip | ours              only on the walk with ip and bridge, or only on that with our commands; else on both
    ok | fails             it ends with 0 (the default), or with anything else
    prints P, not P        its output has the regular expression P, or has it nowhere
    first<=20, first>=500  round trip in ms of the first ping that was answered
    tries N                so often at most, until all this holds
    background NAME P      it goes on by itself; the next step waits until its output has P
    stop NAME              that one is ended by Ctrl-C, and what was said of output holds for all it printed

A block `output` that follows tells people what is printed. Each of its lines must be there, in that order; `…` in it
stands for anything.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from lab.engine import EngineHost
from lab.errors import LabError, TookTooLong
from lab.lab import HostSpec, Lab

REPOSITORY = Path(__file__).parents[2]
PAGE = REPOSITORY / "docs" / "by-hand.md"
TOOLS = Path(__file__).parent / "bin"
NAME = "byhand"
WAYS = {"ip": "with ip and bridge", "ours": "with our commands"}
#: The three columns that each chapter with steps has, by the words that begin them.
COLUMNS = ("**With `ip` and `bridge`.**", "**With our command.**", "**What the driver does here.**")
#: Seconds that one step may take, and that a background step has until it says that it is ready.
PATIENCE = 30.0
_FIRST = re.compile(r"first(<=|>=)([0-9.]+)")


class PageWrong(Exception):
    """The page cannot be read."""


class NotAsWritten(Exception):
    """A step came out in another way than the page says."""


@dataclass(frozen=True)
class Step:
    """One block of the page."""

    line: int
    chapter: str
    script: str
    hosts: tuple[str, ...] = ()
    way: str = ""
    fails: bool = False
    prints: tuple[str, ...] = ()
    lacks: tuple[str, ...] = ()
    first: tuple[tuple[str, float], ...] = ()
    tries: int = 1
    background: str = ""
    ready: str = ""
    stop: str = ""
    output: tuple[str, ...] = ()

    def complaint(self, status: int, said: str) -> str:
        """What is not as the page says, or nothing."""
        if not self.background and not self.stop and self.fails != (status != 0):
            return f"it ended with {status}, where the page says that it {'fails' if self.fails else 'works'}"
        for pattern in self.prints:
            if not re.search(pattern, said):
                return f"{pattern!r} is not in what it printed"
        for pattern in self.lacks:
            if re.search(pattern, said):
                return f"{pattern!r} is in what it printed"
        for sign, limit in self.first:
            trip = first_trip(said)
            if trip is None or (trip > limit if sign == "<=" else trip < limit):
                return f"the first answer came after {trip} ms, not {sign} {limit:g}"
        return _missing(self.output, said)


def first_trip(said: str) -> float | None:
    """Milliseconds until the first ping was answered, if any was."""
    found = re.search(r"time=([0-9.e+]+) ms", said)
    return float(found.group(1)) if found else None


def _missing(wanted: tuple[str, ...], said: str) -> str:
    lines = iter(said.splitlines())
    for line in wanted:
        words = ".*".join(r"\s+".join(re.escape(word) for word in part.split()) for part in line.split("…"))
        pattern = re.compile(rf"\s*{words}\s*")
        if not any(pattern.fullmatch(each) or (not line.strip() and not each.strip()) for each in lines):
            return f"the line {line!r} of the page is not in what it printed, or not in that order"
    return ""


# Reading the page


def read(text: str) -> list[Step]:
    """The steps of a page. Raises PageWrong."""
    steps: list[Step] = []
    chapter = ""
    for line, language, info, body in _blocks(text):
        if language == "#":
            chapter = info
        elif language == "sh":
            steps.append(_step(line, chapter, info, body))
        elif language == "output":
            if not steps:
                raise PageWrong(f"line {line}: an output without a step")
            steps[-1] = Step(**{**vars(steps[-1]), "output": tuple(row for row in body.splitlines() if row.strip())})
    return steps


def _blocks(text: str) -> Iterator[tuple[int, str, str, str]]:
    """Line, language, rest of the info string and text of each fenced block; a heading has the language `#`."""
    lines = iter(enumerate(text.splitlines(), 1))
    for number, line in lines:
        if heading := re.fullmatch(r"## (.+)", line):
            yield number, "#", heading.group(1), ""
        elif line.startswith("```"):
            language, _, info = line[3:].partition(" ")
            body: list[str] = []
            for _, inner in lines:
                if inner.startswith("```"):
                    break
                body.append(inner)
            else:
                raise PageWrong(f"line {number}: this block has no end")
            yield number, language, info, "\n".join(body)


def _step(line: int, chapter: str, info: str, body: str) -> Step:
    try:
        words = iter(shlex.split(info))
        values = _values(words)
    except (ValueError, StopIteration, RuntimeError):
        raise PageWrong(f"line {line}: {info!r} is not understood") from None
    if not values["hosts"]:
        raise PageWrong(f"line {line}: on which host?")
    return Step(line=line, chapter=chapter, script=body, **values)


def _values(words: Iterator[str]) -> dict[str, Any]:
    """What an info string says. Raises ValueError and StopIteration."""
    found: dict[str, Any] = {"hosts": (), "prints": (), "lacks": (), "first": ()}
    for word in words:
        if word in ("h1", "h2"):
            found["hosts"] += (word,)
        elif word in WAYS:
            found["way"] = word
        elif word in ("ok", "fails"):
            found["fails"] = word == "fails"
        elif word in ("prints", "not"):
            found["prints" if word == "prints" else "lacks"] += (next(words),)
        elif word == "tries":
            found["tries"] = int(next(words))
        elif word == "background":
            found["background"], found["ready"] = next(words), next(words)
        elif word == "stop":
            found["stop"] = next(words)
        elif limit := _FIRST.fullmatch(word):
            found["first"] += ((limit.group(1), float(limit.group(2))),)
        else:
            raise ValueError(word)
    return found


def chapters(text: str) -> Mapping[str, str]:
    """The text of each chapter by its heading."""
    parts = re.split(r"^## (.+)$", text, flags=re.M)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


# Walking it


@dataclass
class _Running:
    process: subprocess.Popen[Any]
    file: IO[str]
    words: str

    def said(self) -> str:
        self.file.seek(0)
        return self.file.read()


@dataclass
class Walk:
    """One way through the page, from its first step to its last."""

    lab: Lab
    way: str
    tell: Callable[[str], None] = print
    #: First pings in ms, where the page sets a limit, by the command that ran beside it.
    trips: dict[str, float] = field(default_factory=dict)
    _running: dict[tuple[str, str], _Running] = field(default_factory=dict)

    def run(self, steps: list[Step]) -> None:
        """Raises NotAsWritten at the first step that does not come out as the page says."""
        chapter = ""
        try:
            for step in steps:
                if step.way not in ("", self.way):
                    continue
                if step.chapter != chapter:
                    chapter = step.chapter
                    self.tell(f"\n  {chapter}")
                for host in step.hosts:
                    self._one(step, self.lab.hosts[host])
        finally:
            self._end()

    def _one(self, step: Step, host: EngineHost) -> None:
        began = time.monotonic()
        for attempt in range(1, step.tries + 1):
            status, said = self._outcome(step, host)
            wrong = step.complaint(status, self._words(said, host))
            if not wrong:
                break
            time.sleep(0.2 if attempt < step.tries else 0)
        took = f"({time.monotonic() - began:.1f} s)"
        head, *rest = (line for line in step.script.splitlines() if line.strip())
        self.tell(f"    {'✗' if wrong else '✓'} {host.name}  {head}")
        for line in rest:
            self.tell(f"          {line}")
        if wrong:
            shown = "\n".join(f"          | {line}" for line in said.splitlines()[-40:])
            self.tell(f"          ✗ {wrong} {took}\n{shown}")
            raise NotAsWritten(f"docs/by-hand.md, line {step.line}, on {host.name}, {WAYS[self.way]}: {wrong}\n{said}")
        if step.first and (trip := first_trip(said)) is not None:
            beside = [running.words for (where, _), running in self._running.items() if where == host.name]
            self.trips[beside[-1] if beside else step.script] = trip
        self.tell(f"          → {_outcome_words(step, said)} {took}")

    def _outcome(self, step: Step, host: EngineHost) -> tuple[int, str]:
        if step.background:
            return 0, self._start(step, host)
        if step.stop:
            return 0, self._stop(host.name, step.stop)
        try:
            done = host.complete(["bash", "-ec", step.script], env=self._environment(host), timeout=PATIENCE)
        except TookTooLong as error:
            return -1, str(error)
        return done.returncode, done.stdout + done.stderr

    def _words(self, said: str, host: EngineHost) -> str:
        """The output with the hosts' addresses put as the page's variables."""
        for name, value in self._variables().items():
            said = said.replace(value, f"${name}")
        return said

    def _variables(self) -> dict[str, str]:
        # The longest first: one address may begin another.
        values = {"H1_SECOND": "172.30.0.111", "H1": self.lab.hosts["h1"].address, "H2": self.lab.hosts["h2"].address}
        return {"CONSUL_HTTP_ADDR": self.lab.consul.url, **values}

    def _environment(self, host: EngineHost) -> dict[str, str]:
        path = ":".join([str(TOOLS), str(REPOSITORY / ".venv" / "bin"), os.environ.get("PATH", ""), "/usr/sbin:/sbin"])
        view = f"/proc/{host.holder}/ns/mnt"
        settings = {"PATH": path, "PYTHONPATH": str(REPOSITORY / "src"), "ENGINE_VIEW": view, "NO_COLOR": "1"}
        return {**settings, "PYTHONUNBUFFERED": "1", "PYTHONWARNINGS": "ignore", **self._variables()}

    # -- steps that go on by themselves ------------------------------------------------------------------------------

    def _start(self, step: Step, host: EngineHost) -> str:
        with contextlib.ExitStack() as stack:
            file = stack.enter_context(tempfile.TemporaryFile("w+", errors="replace"))
            argv = ["bash", "-ec", step.script]
            process = host.popen(argv, env=self._environment(host), stdout=file, stderr=subprocess.STDOUT)
            stack.pop_all()
        running = self._running[host.name, step.background] = _Running(process, file, step.script.splitlines()[0])
        until = time.monotonic() + PATIENCE
        while not re.search(step.ready, running.said()):
            if process.poll() is not None or time.monotonic() > until:
                raise NotAsWritten(f"docs/by-hand.md, line {step.line}: it did not get ready: {running.said()}")
            time.sleep(0.02)
        return running.said()

    def _stop(self, host: str, name: str) -> str:
        time.sleep(0.1)  # what was caused a moment ago may still be on its way to it
        running = self._running.pop((host, name))
        with running.file:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(running.process.pid, signal.SIGINT)
            try:
                running.process.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(running.process.pid, signal.SIGKILL)
                running.process.wait(10)
            return running.said()

    def _end(self) -> None:
        for host, name in list(self._running):
            self._stop(host, name)


def _outcome_words(step: Step, said: str) -> str:
    """The gist of what came out, in a phrase."""
    if step.background:
        return "goes on"
    if found := re.search(r"(\d+) packets transmitted, (\d+) received", said):
        trip = first_trip(said)
        first = f", the first after {trip:g} ms" if trip is not None else ""
        return f"{found.group(2)} of {found.group(1)} answered{first}{', as it must be' if step.fails else ''}"
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    telling = [line for line in lines if any(re.search(pattern, line) for pattern in step.prints)]
    last = next(reversed(telling or ([] if step.stop and not step.output else lines)), "")
    if step.fails:
        return f"refused, as it must be: {last[:150]}"
    return last[:150] or ("ended" if step.stop else "done")


def laboratory(name: str = NAME) -> Lab:
    return Lab(name, [HostSpec("h1", engine="old"), HostSpec("h2", engine="new")], consul=True)


def main() -> int:
    """Run the whole page both ways; exit code 0 only if all came out as written."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    steps, began = read(PAGE.read_text()), time.monotonic()
    try:
        with laboratory() as lab:
            for way, words in WAYS.items():
                print(f"\ndocs/by-hand.md, {words}:")
                walk = Walk(lab, way, lambda text: print(text, flush=True))
                walk.run(steps)
                print("\n  First pings side by side:")
                for command, trip in walk.trips.items():
                    print(f"    {trip:8.1f} ms  {command}")
    except (LabError, NotAsWritten) as error:
        print(f"\nby-hand: {str(error).splitlines()[0]}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nby-hand: interrupted; nothing was left behind", file=sys.stderr)
        return 130
    print(f"\nThe page is true, both ways; {time.monotonic() - began:.0f} s.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
