"""`trace` and `watch NETWORK` as people read them: tables, sentences, exit codes. The plugin is played."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from click.testing import CliRunner, Result

from myoverlay.cli import ask as asking
from myoverlay.cli import trace
from myoverlay.cli.main import cli
from myoverlay.cli.recorded import as_text
from myoverlay.errors import Unavailable

STEP = {"host": "h1", "hop": "veth", "state": "right", "saw": "p1: up", "wanted": "", "remedy": "", "heals": False}
WRONG = STEP | {"host": "h2", "hop": "FDB row", "state": "wrong"}
WRONG |= {"saw": "none", "wanted": "a row", "remedy": "do so", "heals": True}
END = {"address": "10.5.0.2", "mac": "02:42:0a:05:00:02", "vtep": "192.0.2.1", "host": "h1", "names": ["web"]}
WHOLE = {
    "overlay": "demo", "source": END, "target": END | {"address": "10.5.0.3", "host": "h2", "names": []},
    "steps": [STEP], "first": None, "silent": [], "trouble": "", "outsiders": [], "whole": True,
}  # fmt: skip


def say(monkeypatch: pytest.MonkeyPatch, answer: dict[str, Any], *words: str) -> Result:
    asked: list[tuple[str, dict[str, Any]]] = []

    def ask(method: str, **body: Any) -> dict[str, Any]:
        asked.append((method, body))
        return answer

    monkeypatch.setattr(trace, "ask", ask)
    done = CliRunner().invoke(cli, ["trace", *words])
    assert all(method == "Control.Trace" for method, _ in asked)
    return done


def test_a_whole_path_is_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    """A line for each hop, who talks to whom, and one sentence; exit code 0."""
    done = say(monkeypatch, WHOLE, "web", "10.5.0.3")
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    assert lines[0] == "web 10.5.0.2 on h1 (192.0.2.1) → 10.5.0.3 on h2 (192.0.2.1), overlay demo"
    assert lines[1].split() == ["HOST", "HOP", "SEEN"]
    assert lines[2].split() == ["h1", "veth", "ok", "p1:", "up"]
    assert lines[-1] == "the path is whole"


@pytest.mark.parametrize("words", [("", "db"), ("web", " ")])
def test_an_empty_word_is_bad_usage(monkeypatch: pytest.MonkeyPatch, words: tuple[str, str]) -> None:
    """As a variable of a script that was not set: exit code 2, and nobody is asked for it."""
    done = say(monkeypatch, WHOLE, *words)
    assert done.exit_code == 2
    assert "an empty word is nobody" in done.stderr


def test_a_broken_path_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first wrong hop in one sentence on standard error: what there is, what should be, what repairs it."""
    done = say(monkeypatch, WHOLE | {"steps": [STEP, WRONG], "first": 1, "whole": False}, "web", "db")
    assert done.exit_code == 1
    assert "WRONG" in done.stdout
    assert done.stderr == (
        "myoverlay: the first wrong hop is FDB row on h2: there is none; there should be a row;"
        " what repairs it: do so\n"
    )


def test_a_host_that_is_silent_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing wrong is seen, and not all was: that is said, with the reason, and exit code 1."""
    done = say(monkeypatch, WHOLE | {"silent": ["h2"], "trouble": "Consul is away", "whole": False}, "web", "db")
    assert done.exit_code == 1
    assert done.stderr == "myoverlay: nothing wrong is seen, but h2 did not say what is there (Consul is away)\n"


def test_what_was_not_seen_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hops that could not be looked at are counted in the sentence, and an outsider is named."""
    unseen = STEP | {"state": "unseen"}
    done = say(
        monkeypatch, WHOLE | {"steps": [STEP, unseen], "outsiders": ["a container (10.5.0.3 on demo)"]}, "a", "b"
    )
    assert done.exit_code == 0
    assert done.stdout.splitlines()[-1] == (
        "the path is whole, as far as it is seen: 1 hops are not; a container (10.5.0.3 on demo) is an outsider,"
        " whose host cannot be asked"
    )


def test_json_is_the_answer_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """`--json` prints what the plugin answered and nothing beside it on standard output, and has the same exit code."""
    broken = WHOLE | {"steps": [STEP, WRONG], "first": 1, "whole": False}
    for answer, code in ((WHOLE, 0), (broken, 1)):
        done = say(monkeypatch, answer, "web", "db", "--json")
        assert json.loads(done.stdout) == answer
        assert done.exit_code == code


class Plugin:
    """Answers Control.Watch with pieces, one after the other."""

    def __init__(self, *pieces: dict[str, Any]) -> None:
        self.pieces = list(pieces)
        self.asked: list[dict[str, Any]] = []
        self.numbers = itertools.count(1)

    def __call__(self, method: str, **body: Any) -> dict[str, Any]:
        if method == "Control.Overlays":
            return {"overlays": [{"overlay": "demo", "network": "n" * 64, "endpoints": []}]}
        assert method == "Control.Watch"
        self.asked.append(body)
        usual = {"notes": [], "last": next(self.numbers), "dropped": 0, "run": "r", "again": False}
        return usual | (self.pieces.pop(0) if self.pieces else {})


CALL = {"at": 1000.25, "kind": "call", "overlay": "demo", "method": "NetworkDriver.Join", "network": "abc", "status": 200, "ms": 3.1, "said": ""}  # fmt: skip # noqa: E501
STORE = {"at": 1000.5, "kind": "store", "overlay": "demo", "change": "came", "host": "h2", "address": "10.5.0.3", "mac": "02:42:0a:05:00:03"}  # fmt: skip # noqa: E501
MISS = {"at": 1000.5, "kind": "miss", "overlay": "demo", "layer": 3, "address": "10.5.0.9", "outcome": "unknown"}


def watch(monkeypatch: pytest.MonkeyPatch, plugin: Plugin, *words: str) -> Result:
    monkeypatch.setattr(asking, "ask", plugin)
    return CliRunner().invoke(cli, ["watch", *words], env={"MYOVERLAY_RUN": "/nowhere"})


def test_notes_are_followed_to_the_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """From where the ring ends on, until so many came; each question goes on from the last answer."""
    plugin = Plugin({}, {"notes": [CALL, STORE]}, {"notes": [MISS, MISS]})
    done = watch(monkeypatch, plugin, "demo", "--count", "3")
    assert done.exit_code == 0, done.output
    lines = [line.partition("  ")[2] for line in done.stdout.splitlines()]
    assert lines == [as_text(CALL), as_text(STORE), as_text(MISS)]
    assert plugin.asked[0] == {"kinds": ["miss", "store", "call", "kernel"], "overlay": "demo"}
    assert [(one["after"], one["run"]) for one in plugin.asked[1:]] == [(1, "r"), (2, "r")]
    assert "following the plugin on demo" in done.stderr


def test_it_follows_once_it_knows_where_the_ring_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who reads that it follows may rely on it: before the plugin has answered, it is not said."""

    def away(method: str, **_: Any) -> dict[str, Any]:
        if method == "Control.Watch":
            raise Unavailable("it is away")
        return Plugin()(method)

    monkeypatch.setattr(asking, "ask", away)
    done = CliRunner().invoke(cli, ["watch", "demo"], env={"MYOVERLAY_RUN": "/nowhere"})
    assert "it is away" in done.stderr + str(done.exception)
    assert "following" not in done.stderr


@pytest.mark.parametrize(
    ("word", "kind"), [("--misses", "miss"), ("--store", "store"), ("--calls", "call"), ("--kernel", "kernel")]
)
def test_kinds_are_chosen(monkeypatch: pytest.MonkeyPatch, word: str, kind: str) -> None:
    """One kind alone, of all networks where none is named."""
    plugin = Plugin({}, {"notes": [CALL]})
    assert watch(monkeypatch, plugin, word, "--count", "1").exit_code == 0
    assert plugin.asked[0] == {"kinds": [kind], "overlay": ""}


def test_json_is_a_note_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Machines get the notes as they were made."""
    done = watch(monkeypatch, Plugin({}, {"notes": [CALL, STORE]}), "demo", "--json", "--count", "2")
    assert [json.loads(line) for line in done.stdout.splitlines()] == [CALL, STORE]


def test_what_was_lost_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Notes that the ring let go, and a plugin that began anew, are told on standard error."""
    plugin = Plugin({}, {"notes": [CALL], "dropped": 17}, {"notes": [CALL], "again": True})
    done = watch(monkeypatch, plugin, "demo", "--count", "2")
    assert "17 notes came faster than they were read, and are lost" in done.stderr
    assert "the plugin was started anew" in done.stderr


def test_the_time_may_be_over_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a count the time's end is a failure, without one it is the end."""
    done = watch(monkeypatch, Plugin(), "demo", "--count", "2", "--timeout", "0.1")
    assert (done.exit_code, done.stderr.splitlines()[-1]) == (1, "myoverlay: 0 of 2 came within 0.1 s")
    assert watch(monkeypatch, Plugin(), "demo", "--timeout", "0.1").exit_code == 0


@pytest.mark.parametrize(
    "words",
    [("demo", "--device", "x"), ("--calls", "--raw"), ("demo", "--namespace", "current"), ("--store", "--link")],
)
def test_two_kinds_of_watching_do_not_mix(monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]) -> None:
    """What the kernel is listened to with says nothing to the plugin's notes: bad usage."""
    done = watch(monkeypatch, Plugin(), *words)
    assert done.exit_code == 2
    assert "leave those options out" in done.stderr


CAME = {"kind": "store", "overlay": "demo", "change": "host came", "host": "h2", "vtep": "192.0.2.2", "containers": 3}
GONE = {"kind": "kernel", "overlay": "demo", "event": "row gone", "thing": "10.5.0.3 lladdr 02:42:0a:05:00:03"}
LINES = [
    (CALL, "call   demo: NetworkDriver.Join network abc, 200 in 3.1 ms"),
    (CALL | {"status": 409, "said": "taken"}, "call   demo: NetworkDriver.Join network abc, 409 in 3.1 ms: taken"),
    (STORE, "store  demo: came 10.5.0.3 02:42:0a:05:00:03, host h2"),
    (CAME, "store  demo: host came 192.0.2.2 with 3 containers, host h2"),
    (MISS, "miss   demo: L3 10.5.0.9, unknown"),
    (GONE, "kernel demo: row gone: 10.5.0.3 lladdr 02:42:0a:05:00:03"),
    (GONE | {"event": "repaired", "reason": "missing row"}, f"kernel demo: repaired (missing row): {GONE['thing']}"),
]


@pytest.mark.parametrize(("note", "line"), LINES)
def test_a_note_is_a_line(note: dict[str, Any], line: str) -> None:
    """Each kind in words."""
    assert as_text(note) == line
