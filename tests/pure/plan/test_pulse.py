"""The heartbeat's plan: who is asked when, and what answers and silence mean."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from myoverlay.plan.pulse import (
    ENOUGH,
    FULL_COST,
    FULL_ENOUGH,
    FULL_ROTATION,
    LIMIT,
    PATIENCE,
    QUICK,
    REMEMBERED,
    ROTATION,
    WATCHED,
    Pulse,
    Pulses,
)
from myoverlay.values import HostId

ME = HostId("f" * 32)
START = 1000.0


def host(number: int) -> HostId:
    return HostId(f"{number:032x}")


A, B, C = host(1), host(2), host(3)


class Clock:
    """Runs a plan: wakes it when it wants to be, and lets the living answer after 1 ms."""

    def __init__(self, hosts: Iterable[HostId], alive: Callable[[HostId], bool] = lambda _: True) -> None:
        self.now, self.alive = START, alive
        self.pulses = Pulses(ME)
        self.pulses.aim(list(hosts), self.now)
        #: When a packet left, to whom, of full size?
        self.sent: list[tuple[float, HostId, bool]] = []
        self.routed: Callable[[HostId], bool] = lambda _: True
        self.wide: Callable[[HostId], bool] = lambda _: True

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while self.now < end:
            asks = self.pulses.due(self.now)
            for ask in asks:
                if not self.routed(ask.host):
                    self.pulses.unsent(ask.host)
                    continue
                self.sent.append((self.now, ask.host, False))
                self.sent += [(self.now, ask.host, True)] * FULL_COST * ask.full
            for ask in asks:
                if self.routed(ask.host) and self.alive(ask.host):
                    assert self.pulses.heard(ask.host, self.now + 0.001)
                    if ask.full and self.wide(ask.host):
                        assert self.pulses.heard_full(ask.host, self.now + 0.001)
            wait = self.pulses.wait(self.now)
            assert asks or wait > 0, "it would be woken for nothing, again and again"
            self.now = min(end, self.now + max(wait, 1e-6))

    def asked(self, which: HostId) -> list[float]:
        """When small questions went to a host, since the start."""
        return [round(at - START, 3) for at, to, full in self.sent if to == which and not full]


def busiest_second(times: list[float]) -> int:
    """The most packets in any second."""
    most = first = 0
    for last, at in enumerate(times):
        while times[first] <= at - 1.0:
            first += 1
        most = max(most, last - first + 1)
    return most


def test_nobody_is_asked_for_nothing() -> None:
    """Without hosts there is nothing to do; of a stranger nothing is known, and its answer is worth nothing."""
    pulses = Pulses(ME)
    assert pulses.due(START) == []
    assert pulses.wait(START) > 1
    assert pulses.of(A) == Pulse()
    assert not pulses.heard(A, START)
    assert not pulses.heard_full(A, START)
    pulses.unsent(A)
    assert not pulses.changed()


def test_all_are_asked_in_a_slow_rotation() -> None:
    """Each of a few is asked once in 15 s, spread over that time, and nobody is silent for not answering it."""
    clock = Clock([host(n) for n in range(30)], lambda which: which != A)
    clock.run(ROTATION * 4)
    assert {len(clock.asked(host(n))) for n in range(30)} == {4}
    assert all(
        b - a == pytest.approx(ROTATION, abs=0.2) for a, b in zip(clock.asked(B), clock.asked(B)[1:], strict=False)
    )
    assert max(Counter(int(at) for at, _, _ in clock.sent).values()) < 20
    assert not clock.pulses.of(A).silent
    assert clock.pulses.of(A).heard is None
    assert clock.pulses.of(B).rtt == pytest.approx(0.001)
    assert not clock.pulses.changed()


def test_a_dead_suspect_is_silent_after_four_questions() -> None:
    """It is asked at once and every 0.4 s; 0.4 s after the fourth it is silent, and is asked every 2 s from then on."""
    clock = Clock([A, B], lambda which: which != A)
    clock.pulses.suspect([A], START)
    clock.run(1.59)
    assert clock.asked(A) == [0.0, 0.4, 0.8, 1.2]
    assert not clock.pulses.of(A).silent
    clock.run(0.02)
    assert clock.pulses.of(A).silent
    assert clock.pulses.changed()
    assert not clock.pulses.changed(), "a change is told once"
    clock.run(6)
    late = [at for at in clock.asked(A) if at > 1.3]
    assert late == pytest.approx([3.2, 5.2, 7.2])


def test_a_living_suspect_is_never_silent() -> None:
    """It answers at once, is then asked every 2 s as long as it stays suspected, and goes back to the rotation."""
    clock = Clock([A])
    clock.pulses.suspect([A], START)
    clock.run(10)
    assert clock.asked(A) == pytest.approx([0, 2, 4, 6, 8], abs=0.02)
    assert clock.pulses.of(A).heard == pytest.approx(START + 8, abs=0.02)
    clock.pulses.suspect([], clock.now)
    clock.run(ROTATION * 2 + 1)
    assert clock.asked(A)[5:] == pytest.approx([25, 40], abs=0.1)
    assert not clock.pulses.changed()


def test_a_suspect_that_answered_and_dies_later_becomes_silent() -> None:
    """The first question without an answer makes it urgent again."""
    dead: set[HostId] = set()
    clock = Clock([A], lambda which: which not in dead)
    clock.pulses.suspect([A], START)
    clock.run(3)
    dead.add(A)
    clock.run(1.0 + ENOUGH * QUICK - 0.1)
    assert not clock.pulses.of(A).silent
    clock.run(0.2)
    assert clock.pulses.of(A).silent
    dead.clear()
    clock.run(WATCHED + 0.1)
    assert not clock.pulses.of(A).silent, "it came back"
    assert clock.pulses.changed()


def test_a_verdict_ends_with_the_suspicion() -> None:
    """Who is no longer suspected, or no longer a host of ours, is not silent; who stays suspected stays silent."""
    clock = Clock([A, B, C], lambda _: False)
    clock.pulses.suspect([A, B, C], START)
    clock.run(2.5)
    assert all(clock.pulses.of(which).silent for which in (A, B, C))
    clock.pulses.suspect([A, B], clock.now)
    assert clock.pulses.changed()
    assert clock.pulses.of(A).silent
    assert not clock.pulses.of(C).silent
    clock.pulses.aim([A, C], clock.now)
    assert clock.pulses.changed()
    assert clock.pulses.of(B) == Pulse()
    clock.run(5)
    assert clock.pulses.of(A).silent
    assert clock.asked(B)[-1] < 2.5


def test_old_answers_excuse_no_suspect() -> None:
    """What was asked before the suspicion has no part in its verdict: an answer that comes then was not asked for."""
    pulses = Pulses(ME)
    pulses.aim([A], START)
    now = START + ROTATION
    assert [ask.host for ask in pulses.due(now)] == [A]
    pulses.suspect([A], now + 0.1)
    assert not pulses.heard(A, now + 0.1)
    assert [ask.host for ask in pulses.due(now + 0.1)] == [A]
    assert pulses.heard(A, now + 0.1)


def test_a_suspect_that_becomes_a_target_later_is_asked_at_once() -> None:
    """Suspicion may come before the host's VTEP is known."""
    clock = Clock([B], lambda which: which != A)
    clock.pulses.suspect([A], START)
    clock.run(5)
    assert not clock.pulses.of(A).silent
    clock.pulses.aim([A, B], clock.now)
    clock.run(1.7)
    assert clock.pulses.of(A).silent


def test_not_to_be_able_to_ask_proves_nothing() -> None:
    """A host without a route to it is tried again and again and never silent; with one it is found out."""
    clock = Clock([A], lambda _: False)
    clock.routed = lambda _: False
    clock.pulses.suspect([A], START)
    clock.run(30)
    assert not clock.pulses.of(A).silent
    assert clock.sent == []
    assert clock.pulses.unanswered == 0
    clock.routed = lambda _: True
    clock.run(2.1)
    assert clock.pulses.of(A).silent


def test_an_answer_counts_once_and_in_time() -> None:
    """Copies of an answer, and one that comes after 5 s, are worth nothing."""
    pulses = Pulses(ME)
    pulses.aim([A], START)
    now = START + ROTATION
    assert pulses.due(now)
    assert pulses.heard(A, now + 0.5)
    assert not pulses.heard(A, now + 0.6)
    assert pulses.due(now + ROTATION)
    assert not pulses.heard(A, now + ROTATION + PATIENCE + 0.1)
    assert pulses.of(A).heard == now + 0.5


def test_full_size_is_tried_in_its_own_rotation() -> None:
    """With the first question and then every five minutes; what comes back says that the path carries it."""
    clock = Clock([A])
    clock.run(ROTATION)
    assert clock.pulses.of(A).carries is True
    clock.run(FULL_ROTATION * 2)
    full = [at for at, _, full in clock.sent if full]
    assert len(full) in (3 * FULL_COST, 2 * FULL_COST)


def test_a_path_that_loses_full_packets_does_not_carry_them() -> None:
    """Three in a row are enough, while small ones come back; one that comes back takes it back."""
    clock = Clock([A])
    clock.wide = lambda _: False
    clock.run(ROTATION * FULL_ENOUGH)
    assert clock.pulses.of(A).carries is None
    clock.run(ROTATION)
    assert clock.pulses.of(A).carries is False
    clock.wide = lambda _: True
    clock.run(ROTATION)
    assert clock.pulses.of(A).carries is True


def test_a_dead_host_says_nothing_of_the_path() -> None:
    """Where small packets get no answer either, the full ones prove nothing."""
    clock = Clock([A], lambda _: False)
    clock.run(ROTATION * 10)
    assert clock.pulses.of(A).carries is None


@pytest.mark.parametrize("suspects", [0, 1, 100, 1000])
def test_a_thousand_hosts_cost_fifty_packets_a_second(suspects: int) -> None:
    """In no second do more than 50 packets leave, full ones and those to suspects counted."""
    hosts = [host(n) for n in range(1, 1001)]
    clock = Clock(hosts, lambda which: int(which, 16) % 2 == 0)
    clock.pulses.suspect(hosts[:suspects], START)
    clock.run(120)
    assert busiest_second([at for at, _, _ in clock.sent]) <= LIMIT == 50
    assert len(clock.sent) > 40 * 120, "and it makes use of what it may"
    silent = {which for which in hosts if clock.pulses.of(which).silent}
    assert silent == {which for which in hosts[:suspects] if int(which, 16) % 2}


def test_suspects_go_before_the_thousand() -> None:
    """Ten dead suspects among 1,000 hosts are known for dead within 2.5 s."""
    hosts = [host(n) for n in range(1, 1001)]
    clock = Clock(hosts, lambda which: int(which, 16) > 10)
    clock.run(20)
    clock.pulses.suspect(hosts[:10], clock.now)
    clock.run(2.5)
    assert all(clock.pulses.of(which).silent for which in hosts[:10])


def test_long_silence_keeps_nobody_from_his_turn() -> None:
    """With 500 hosts dead for good and still suspected, the others are asked as before, only more slowly."""
    hosts = [host(n) for n in range(1, 1001)]
    clock = Clock(hosts, lambda which: int(which, 16) > 500)
    clock.pulses.suspect(hosts[:500], START)
    clock.run(300)
    last = {which: clock.pulses.of(which).heard for which in hosts[500:]}
    assert min(heard or 0 for heard in last.values()) > clock.now - 60


def test_verdicts_come_one_by_one() -> None:
    """Of 1,000 suspects the first verdicts are there within seconds: begun ones are finished first."""
    hosts = [host(n) for n in range(1, 1001)]
    clock = Clock(hosts, lambda _: False)
    clock.pulses.suspect(hosts, START)
    clock.run(10)
    assert sum(clock.pulses.of(which).silent for which in hosts) > 70


events = st.one_of(
    st.tuples(st.just("suspect"), st.sets(st.integers(1, 6))),
    st.tuples(st.just("aim"), st.sets(st.integers(1, 6))),
    st.tuples(st.just("alive"), st.sets(st.integers(1, 6))),
    st.tuples(st.just("routed"), st.sets(st.integers(1, 6))),
    st.tuples(st.just("run"), st.floats(0.01, 20)),
)


@given(st.lists(events, max_size=30), st.randoms(use_true_random=False))
def test_what_is_always_so(schedule: list[tuple[str, set[int] | float]], chance: random.Random) -> None:
    """Only suspects that were asked are silent, none that has answered since; every second keeps to the limit."""
    alive: set[int] = set()
    routed: set[int] = set(range(7))
    clock = Clock([], lambda which: int(which, 16) in alive)
    clock.routed = lambda which: int(which, 16) in routed
    suspects: set[int] = set()
    aimed: set[int] = set()
    for kind, what in schedule:
        if isinstance(what, float):
            clock.run(what * chance.random())
        elif kind == "suspect":
            suspects = what
            clock.pulses.suspect([host(n) for n in what], clock.now)
        elif kind == "aim":
            aimed = what
            clock.pulses.aim([host(n) for n in what], clock.now)
        elif kind == "alive":
            alive = what
        else:
            routed = what
        for n in range(1, 7):
            pulse = clock.pulses.of(host(n))
            if pulse.silent:
                times = clock.asked(host(n))
                assert n in suspects
                assert n in aimed
                assert len(times) >= ENOUGH
                assert pulse.heard is None or pulse.heard - START < times[-ENOUGH] + 0.002
    assert busiest_second([at for at, _, _ in clock.sent]) <= LIMIT
    # However it came: left alone, whoever is suspected, aimed at and has a route is told in time.
    routed.update(range(7))
    clock.run(5 + WATCHED + ENOUGH * QUICK)
    for n in suspects & aimed:
        assert clock.pulses.of(host(n)).silent == (n not in alive)


def test_loss_is_the_share_of_the_last_questions() -> None:
    """Nothing is known before the first is decided; then each question without an answer counts, the last 32 alone."""
    answers = [True]
    clock = Clock([A], alive=lambda _: answers[0])
    assert clock.pulses.of(A).loss is None
    clock.run(ROTATION * 5)
    assert clock.pulses.of(A).loss == 0.0
    answers[0] = False
    clock.run(ROTATION * 5)
    lost = clock.pulses.of(A).loss
    assert lost is not None
    assert 0.3 < lost < 0.7
    clock.run(ROTATION * (REMEMBERED + 2))
    assert clock.pulses.of(A).loss == 1.0
    answers[0] = True
    clock.run(ROTATION * (REMEMBERED + 2))
    assert clock.pulses.of(A).loss == 0.0


def test_what_was_not_sent_is_not_lost() -> None:
    """A host without a route to another one says nothing about the way there."""
    clock = Clock([A])
    clock.run(ROTATION * 2)
    clock.routed = lambda _: False
    clock.run(ROTATION * 10)
    assert clock.pulses.of(A).loss == 0.0
