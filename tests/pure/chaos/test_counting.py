"""What the table of `make chaos` says is what was counted, and a row that misses its bound is said to."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.engine.chaos.counting import Bound, Check, Contact, Direction, Measured, Result, Start, direction

SENT = [10.0 + n / 1000 for n in range(1000)]
FLOW = (Direction("h1→h2", 1000, 1000), Direction("h2→h1", 1000, 1000))
CONTACT = Contact("h1/c0", "h2/c0", 10.0, 1.5)
START = Start("h3", 10.0, 0.7)
GOOD = Measured(FLOW, (CONTACT,), (START,))


def arrived(*missing: int, late: float = 0.0) -> list[tuple[int, float]]:
    return [(n, moment + 0.001 + late) for n, moment in enumerate(SENT) if n not in missing]


def row(measured: Measured = GOOD, bound: Bound = Bound(), **more: object) -> Result:  # noqa: B008 - frozen
    return Result("row", "an event", bound, measured, **more)  # type: ignore[arg-type]


def test_every_number_that_did_not_arrive_is_lost() -> None:
    """Lost are the numbers sent and not received, wherever they lie, the first and the last one too."""
    one = direction("x", SENT, arrived(0, 500, 501, 999), 1000)
    assert one.lost == (0, 500, 501, 999)
    assert (one.sent, one.excused, one.doubled) == (1000, 0, 0)
    assert (one.lost_from, one.lost_until) == (SENT[0], SENT[999])


def test_all_arrived() -> None:
    """A flow without loss loses nothing, however late or disordered it arrives."""
    assert direction("x", SENT, arrived(late=3.0)[::-1], 1000).lost == ()


def test_what_the_senders_kernel_refused_is_lost() -> None:
    """A container that cannot even send has lost its network; the time is that of the attempt."""
    sendings = [-moment if n in (3, 4) else moment for n, moment in enumerate(SENT)]
    one = direction("x", sendings, arrived(3, 4), 1000)
    assert (one.lost, one.sent, one.refused) == ((3, 4), 1000, 2)
    assert one.lost_from == SENT[3]
    assert direction("x", sendings, arrived(3, 4), 1000, [(SENT[2], SENT[5])]).lost == ()


def test_what_was_never_sent_is_not_lost() -> None:
    """A sender that was kept from sending is behind its pace, nothing else."""
    one = direction("x", SENT[:800], arrived()[:800], 1000)
    assert one.lost == ()
    assert not one.paced


def test_a_double_does_not_hide_a_loss() -> None:
    """A number that arrives twice counts once."""
    one = direction("x", SENT, [*arrived(7), (8, 11.0)], 1000)
    assert (one.lost, one.doubled) == ((7,), 1)


def test_only_what_was_sent_in_the_window_is_excused() -> None:
    """The time of sending decides, not that of the neighbours' arrival."""
    one = direction("x", SENT, arrived(99, 100, 150, 200, 201), 1000, [(SENT[100], SENT[200])])
    assert one.lost == (99, 201)
    assert one.excused == 3


def test_gap_and_stall_are_told_apart() -> None:
    """100 numbers lost in a row are a gap of 101 ms at the receiver, and none at the sender."""
    one = direction("x", SENT, arrived(*range(400, 500)), 1000)
    assert one.gap_ms == pytest.approx(101)
    assert one.stall_ms == pytest.approx(1)
    paused = [moment + (0.3 if n >= 500 else 0) for n, moment in enumerate(SENT)]
    one = direction("x", paused, list(enumerate(paused)), 1000)
    assert one.gap_ms == one.stall_ms == pytest.approx(301)


def test_a_row_within_its_bound_holds() -> None:
    """Nothing lost, all answered, all started: nothing to complain of."""
    assert row().complaints() == []


@pytest.mark.parametrize("which", [0, 1])
def test_one_lost_packet_of_one_direction_fails_a_row(which: int) -> None:
    """The other direction's good figures do not cover it."""
    flow = tuple(replace(one, lost=(5,)) if n == which else one for n, one in enumerate(FLOW))
    assert "1 packets lost" in row(replace(GOOD, flow=flow)).complaints()[0]


def test_a_control_row_that_loses_nothing_fails() -> None:
    """The counter that does not count is found out."""
    assert len(row(bound=Bound(lost=200, lost_least=60)).complaints()) == 2


@pytest.mark.parametrize("lost", [10, 11])
def test_the_bound_itself_is_allowed(lost: int) -> None:
    """Ten may be lost, eleven may not."""
    flow = (replace(FLOW[0], lost=tuple(range(lost))), FLOW[1])
    assert row(replace(GOOD, flow=flow), Bound(lost=10)).good == (lost == 10)


def test_stated_only_is_never_a_failure() -> None:
    """A row whose losses are only stated holds with any number of them."""
    flow = (replace(FLOW[0], lost=tuple(range(900))), FLOW[1])
    assert row(replace(GOOD, flow=flow), Bound(lost=None)).good


def test_a_sender_that_did_not_keep_its_pace_proves_nothing() -> None:
    """Half of what was due was sent and all of it arrived: the row says nothing, and so it fails."""
    flow = (replace(FLOW[0], sent=500), FLOW[1])
    assert "says nothing" in row(replace(GOOD, flow=flow)).complaints()[0]


@pytest.mark.parametrize("part", ["flow", "contacts", "starts"])
def test_a_load_that_did_not_run_fails_a_row(part: str) -> None:
    """No figures are no good figures."""
    assert len(row(replace(GOOD, **{part: ()})).complaints()) == 1  # type: ignore[arg-type]


def test_a_first_contact_that_is_not_answered_fails_a_row() -> None:
    """It is named, and excused only where its moment lies within the event."""
    failed = replace(GOOD, contacts=(CONTACT, replace(CONTACT, ms=None, moment=12.0)))
    assert "h1/c0→h2/c0" in row(failed).complaints()[0]
    assert row(replace(failed, excused=((11.5, 12.5),))).good


def test_a_contact_that_was_not_the_first_fails_a_row() -> None:
    """An asker that still knew the target's MAC has proved nothing."""
    assert not row(replace(GOOD, contacts=(replace(CONTACT, first=False),))).good


def test_a_container_that_does_not_start_fails_a_row() -> None:
    """With Docker's words."""
    refused = replace(GOOD, starts=(START, replace(START, refused="no free address")))
    assert "no free address" in row(refused).complaints()[0]


def test_a_slow_start_fails_a_row() -> None:
    """One slow start is enough."""
    slow = replace(GOOD, starts=(START, replace(START, seconds=6.0)))
    assert not row(slow, Bound(slowest=5.0)).good
    assert row(slow, Bound(slowest=6.0)).good


def test_a_new_container_that_reaches_nobody_fails_where_it_is_bound() -> None:
    """Elsewhere it is only stated."""
    lonely = replace(GOOD, starts=(replace(START, answered=False),))
    assert not row(lonely, Bound(unanswered=0)).good
    assert row(lonely).good


def test_a_check_of_its_own_and_a_broken_row_fail() -> None:
    """What else a row must show counts as much as the loads."""
    assert row(checks=[Check("healed", "4.9 s", "5 s", True)]).good
    assert not row(checks=[Check("healed", "5.1 s", "5 s", False)]).good
    assert not row(broken="LabError: no engine").good
