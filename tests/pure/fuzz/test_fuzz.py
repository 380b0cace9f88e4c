"""Fresh inputs for whatever reads other people's bytes, at each run: 5,000 of each target.

A failure prints the shortest tape that Hypothesis found, and the command that replays it.
"""

from __future__ import annotations

import os
import secrets

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from tests.fuzz import faults, measure, record, run
from tests.fuzz.tape import LENGTH, Tape
from tests.pure.model.faults import plant

#: FUZZ_SEED=… begins as that run did.
SEED = os.environ.get("FUZZ_SEED") or secrets.token_hex(4)
#: One bug of each target that few inputs find.
QUICK = {
    "http": "the gateway is not looked at",
    "records": "one bad key stops the reader",
    "netlink": "an address that is cut off is read",
    "frames": "whoever answers is believed",
    "probe": "a short ping is read",
    "dns": "an answer is answered",
}


@pytest.mark.parametrize("name", run.TARGETS)
def test_fresh_inputs_break_nothing(name: str) -> None:
    """5,000 bent inputs: nothing crashes, hangs, leaks, or is believed that is none."""
    print(f"FUZZ_SEED={SEED}")
    target = run.made(name)

    @seed(f"{SEED} {name}")
    @settings(
        max_examples=run.BLOCK,
        database=None,
        deadline=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    @given(st.binary(min_size=LENGTH, max_size=LENGTH))
    def check(tape: bytes) -> None:
        watch.number += 1
        given_input = target.make(Tape(tape))
        try:
            target.check(given_input)
        except Exception as error:
            error.add_note(f"input: {target.show(given_input)}")
            error.add_note(f"again: python -m tests.fuzz tape {name} {tape.hex()}   (all: FUZZ_SEED={SEED})")
            raise

    try:
        with run.Watch() as watch:
            check()
        run.bounded(target)
    finally:
        target.close()


@pytest.mark.parametrize("name", run.TARGETS)
def test_the_decoders_branches_are_taken(name: str) -> None:
    """At least 95 % of the branches of each target's decoders, by 5,000 inputs that are the same each time."""
    found = measure.measured(name, "coverage", run.BLOCK)
    assert found.share >= measure.LEAST, f"{found.taken} of {found.branches}: not taken are {found.missing}"


@pytest.mark.parametrize("name", faults.FAULTS)
def test_planted_bugs_fit_the_code(name: str) -> None:
    """Each bug of `make fuzz-proof` changes a line that is there."""
    with plant(faults.FAULTS[name].fault):
        pass


@pytest.mark.parametrize("target", QUICK)
def test_a_planted_bug_is_found(target: str) -> None:
    """The fuzzing is worth its while: with a bug in its decoders each target fails."""
    _, finding = faults.found(QUICK[target], "proof")
    assert finding is not None
    assert finding.target == target


def test_a_hang_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    """An input that computes for ever is ended, and told with its tape."""
    monkeypatch.setattr(run, "LIMIT", 0.3)

    class Hanging:
        LIMITS: dict[str, int] = {}

        def make(self, tape: Tape) -> int:
            return tape.byte()

        def check(self, _given: int) -> None:
            while True:
                pass

        def show(self, given: int) -> str:
            return str(given)

        def left(self) -> dict[str, int]:
            return {}

        def close(self) -> None:
            """Nothing is open."""

    monkeypatch.setattr(run, "made", lambda _name: Hanging())
    done, finding = run.block("hanging", "seed", 3)
    assert done == 1
    assert finding is not None
    assert "Hung" in finding.told
    assert finding.tape.hex() in str(finding)


def test_what_is_left_behind_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    """A target that keeps more than it may has failed at the end of its block."""
    target = run.made("dns")
    monkeypatch.setattr(target, "left", lambda: {"visitors": 1})
    monkeypatch.setattr(run, "made", lambda _name: target)
    _, finding = run.block("dns", "seed", 2)
    assert finding is not None
    assert "1 visitors are left behind" in finding.told


def test_an_input_is_the_same_by_the_same_tape() -> None:
    """What is replayed is what failed, in each target."""
    for name in run.TARGETS:
        target = run.made(name)
        try:
            for tape, _ in zip(run.tapes("again"), range(200), strict=False):
                assert target.make(Tape(tape)) == target.make(Tape(tape))
        finally:
            target.close()


def test_the_page_shows_the_record() -> None:
    """docs/fuzzing.md has the runs, decoders and bugs as they are: `make fuzz RECORD=1` writes them."""
    assert record.PAGE.read_text() == record.page(record.PAGE.read_text())
    assert set(record.stored()) == set(run.TARGETS)
    for target, one in record.stored().items():
        assert one["findings"] == 0, f"{target}: the recorded run has findings"
        assert record.is_whole(one), f"{target}: the recorded run is but a part"
