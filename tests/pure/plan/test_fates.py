"""What became of a host: the session says who is there, the heartbeat says who is dead, and only both condemn."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from myoverlay.plan.fates import Fate, State, judge

ALIVE, PENDING, CUT_OFF, DEAD = State.ALIVE, State.PENDING, State.CUT_OFF, State.DEAD
NOW = 100.0


@pytest.mark.parametrize(
    ("known", "present", "silent", "heard", "state", "since"),
    [
        # Whose session lives is alive, whatever the heartbeat thinks: the underlay between two hosts may be broken.
        (None, True, False, None, ALIVE, NOW),
        (None, True, True, None, ALIVE, NOW),
        (Fate(ALIVE, 5.0), True, True, None, ALIVE, 5.0),
        (Fate(PENDING, 90.0), True, False, None, ALIVE, NOW),
        (Fate(CUT_OFF, 90.0), True, False, 99.0, ALIVE, NOW),
        (Fate(DEAD, 90.0), True, True, None, ALIVE, NOW),
        # The session is gone: the heartbeat has to decide, by what it hears from now on.
        (None, False, False, None, PENDING, NOW),
        (Fate(ALIVE, 5.0), False, False, None, PENDING, NOW),
        (Fate(ALIVE, 5.0), False, False, 99.0, PENDING, NOW),
        (None, False, False, 99.0, PENDING, NOW),
        (Fate(PENDING, 98.0), False, False, None, PENDING, 98.0),
        (Fate(PENDING, 98.0), False, False, 97.9, PENDING, 98.0),
        (Fate(PENDING, 98.0), False, False, 98.0, CUT_OFF, NOW),
        (Fate(PENDING, 98.0), False, False, 99.0, CUT_OFF, NOW),
        (Fate(PENDING, 98.0), False, True, None, DEAD, NOW),
        (Fate(ALIVE, 5.0), False, True, None, DEAD, NOW),
        (None, False, True, None, DEAD, NOW),
        # Cut off: heard of later it stays so, falling silent it dies, and between two answers nothing changes.
        (Fate(CUT_OFF, 50.0), False, False, 99.0, CUT_OFF, 50.0),
        (Fate(CUT_OFF, 50.0), False, False, 51.0, CUT_OFF, 50.0),
        (Fate(CUT_OFF, 50.0), False, False, None, CUT_OFF, 50.0),
        (Fate(CUT_OFF, 50.0), False, True, 60.0, DEAD, NOW),
        # Dead: only what comes after it was found dead makes it less so, and its time is not begun anew meanwhile.
        (Fate(DEAD, 50.0), False, True, 40.0, DEAD, 50.0),
        (Fate(DEAD, 50.0), False, False, 49.9, DEAD, 50.0),
        (Fate(DEAD, 50.0), False, False, None, DEAD, 50.0),
        (Fate(DEAD, 50.0), False, False, 99.0, CUT_OFF, NOW),
    ],
)
def test_what_is_seen_decides(
    known: Fate | None, present: bool, silent: bool, heard: float | None, state: State, since: float
) -> None:
    """Each case of what was known and what is seen has one outcome, and a state that stays keeps its beginning."""
    assert judge(known, present, silent, heard, NOW) == Fate(state, since)


sights = st.lists(
    st.tuples(st.booleans(), st.booleans(), st.none() | st.floats(0.0, 60.0), st.floats(0.0, 30.0)), max_size=40
)


def story(seen: list[tuple[bool, bool, float | None, float]]) -> list[tuple[float, bool, bool, float | None, Fate]]:
    """A host judged again and again; an answer came so many seconds before each judgement."""
    now, known, told = 1000.0, None, []
    for present, silent, ago, passes in seen:
        now += passes
        heard = None if ago is None else now - ago
        known = judge(known, present, silent, heard, now)
        told.append((now, present, silent, heard, known))
    return told


@given(sights)
def test_nobody_dies_whose_session_lives_or_who_was_just_heard(
    seen: list[tuple[bool, bool, float | None, float]],
) -> None:
    """Whatever came before: death needs a session that is gone and a heartbeat that gave up, at some one moment."""
    condemned = False
    for _, present, silent, _, fate in story(seen):
        if present:
            condemned = False
            assert fate.state is ALIVE
        elif silent:
            condemned = True
            assert fate.state is DEAD
        if fate.state is DEAD:
            assert condemned


@given(sights)
def test_a_time_runs_without_a_break(seen: list[tuple[bool, bool, float | None, float]]) -> None:
    """`since` is when the state began: never later than now, never earlier than the last moment of another state."""
    last: tuple[float, State] | None = None
    began = None
    for now, _, _, _, fate in story(seen):
        if last is None or last[1] is not fate.state:
            began = now
        assert fate.since == began
        assert fate.dead_for(now) == (now - began if fate.state is DEAD else -1.0)
        last = (now, fate.state)


@given(sights)
def test_being_cut_off_needs_an_answer_of_its_own_time(seen: list[tuple[bool, bool, float | None, float]]) -> None:
    """What was heard before the session was found gone does not save a host: it may have died together with it."""
    missing_since, proof = None, False
    for now, present, silent, heard, fate in story(seen):
        if present:
            missing_since, proof = None, False
        elif silent:  # found dead: an answer counts from the moment of that
            missing_since, proof = fate.since, False
        else:
            missing_since = now if missing_since is None else missing_since
            proof = proof or (heard is not None and heard >= missing_since)
        if fate.state is CUT_OFF:
            assert proof
