"""The flight recorder: bounded in bytes and count, read by number, and whoever is slow is told what it missed."""

from __future__ import annotations

import json
import threading
import time
import tracemalloc

import pytest

from myoverlay.operate import recorder as recorder_module
from myoverlay.operate.recorder import CALL, KINDS, LONG, MISS, PIECE, STORE, WAITING, Recorder
from tests.pure.kit import Clock, until


def texts(recorder: Recorder, after: int = 0, kinds: tuple[str, ...] = KINDS, overlay: str = "") -> list[str]:
    return [json.loads(note.raw)["said"] for note in recorder.since(after, kinds, overlay).notes]


def test_what_was_noted_is_read_in_order() -> None:
    """Each reader gets what is behind its number, of the kinds and the overlay it asked for, with the time."""
    recorder = Recorder(1 << 20, Clock(1000.5))
    recorder.note(CALL, "web", said="one")
    recorder.note(STORE, "db", said="two")
    recorder.note(MISS, "web", said="three")
    assert texts(recorder) == ["one", "two", "three"]
    assert texts(recorder, 1) == ["two", "three"]
    assert texts(recorder, 0, (CALL, MISS)) == ["one", "three"]
    assert texts(recorder, 0, KINDS, "db") == ["two"]
    assert texts(recorder, 3) == []
    assert json.loads(recorder.everything()[0]) == {"at": 1000.5, "kind": CALL, "overlay": "web", "said": "one"}
    piece = recorder.since(-1, KINDS)
    assert (piece.notes, piece.last, piece.dropped) == ([], 3, 0)


def test_it_never_takes_more_than_it_may() -> None:
    """After a hundred thousand notes its bytes are below the limit, the newest are there and the oldest counted."""
    recorder = Recorder(64 * 1024)
    for number in range(100_000):
        recorder.note(CALL, "web", said=f"call {number}", method="NetworkDriver.Join")
        assert recorder.size <= 64 * 1024
    newest = recorder.since(99_990, KINDS)
    assert [json.loads(note.raw)["said"] for note in newest.notes] == [f"call {n}" for n in range(99_990, 100_000)]
    assert newest.dropped == 0
    old = recorder.since(0, KINDS)
    assert old.dropped == old.notes[0].number - 1 > 90_000


def test_its_memory_is_what_it_says() -> None:
    """What Python really holds for a full recorder is no more than its limit, and the same after twice the notes."""
    tracemalloc.start()
    try:
        recorder = Recorder(256 * 1024)
        for number in range(3_000):
            recorder.note(CALL, "web", said=f"call {number}", method="NetworkDriver.CreateEndpoint", ms=1.5)
        first = tracemalloc.get_traced_memory()[0]
        for number in range(3_000):
            recorder.note(CALL, "web", said=f"call {number}", method="NetworkDriver.CreateEndpoint", ms=1.5)
        second = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert second <= 256 * 1024 * 1.3
    assert second <= first * 1.05


def test_the_count_is_bounded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short notes do not make an endless ring."""
    monkeypatch.setattr(recorder_module, "COUNT", 10)
    recorder = Recorder(1 << 20)
    for number in range(25):
        recorder.note(MISS, "", said=str(number))
    assert texts(recorder) == [str(number) for number in range(15, 25)]


def test_texts_are_cut() -> None:
    """A sentence of any length, and an address of ours, fit."""
    recorder = Recorder(1 << 20)
    recorder.note(CALL, "web", said="x" * 10_000)
    assert texts(recorder) == ["x" * LONG]


def test_off_is_off() -> None:
    """With no memory nothing is held."""
    recorder = Recorder(0)
    recorder.note(CALL, "web", said="one")
    assert recorder.everything() == []
    assert recorder.since(-1, KINDS).last == 0


def test_a_reader_that_is_behind_gets_pieces() -> None:
    """What is more than a piece comes in several, without a gap and without a note twice."""
    recorder = Recorder(1 << 22)
    for number in range(2 * PIECE + 7):
        recorder.note(CALL if number % 2 else MISS, "web", said=str(number))
    got: list[str] = []
    last = 0
    for _ in range(10):
        piece = recorder.since(last, (CALL,))
        got += [json.loads(note.raw)["said"] for note in piece.notes]
        last = piece.last
    assert got == [str(number) for number in range(2 * PIECE + 7) if number % 2]


def test_a_reader_waits_for_what_it_wants() -> None:
    """It sleeps over notes of other kinds and wakes for its own, and without one when its time is over."""
    recorder = Recorder(1 << 20)
    found: list[list[str]] = []

    def read() -> None:
        found.append([json.loads(note.raw)["said"] for note in recorder.since(0, (STORE,), "", 5.0).notes])

    reader = threading.Thread(target=read)
    reader.start()
    until(lambda: recorder._waiting == 1)
    recorder.note(CALL, "web", said="not for it")
    recorder.note(STORE, "web", said="for it")
    reader.join(5)
    assert found == [["for it"]]
    begun = time.monotonic()
    assert recorder.since(2, KINDS, "", 0.05).notes == []
    assert time.monotonic() - begun >= 0.05
    assert recorder._waiting == 0


def test_only_few_may_wait() -> None:
    """Readers beyond the limit are answered at once: the threads they would hold answer Docker."""
    recorder = Recorder(1 << 20)
    readers = [threading.Thread(target=recorder.since, args=(0, KINDS, "", 5.0)) for _ in range(WAITING)]
    for reader in readers:
        reader.start()
    until(lambda: recorder._waiting == WAITING)
    begun = time.monotonic()
    assert recorder.since(0, KINDS, "", 5.0).notes == []
    assert time.monotonic() - begun < 1
    recorder.note(CALL, "web", said="all go home")
    for reader in readers:
        reader.join(5)
    assert recorder._waiting == 0


def test_many_write_at_once() -> None:
    """Eight threads note; no number is given twice and none is missing."""
    recorder = Recorder(1 << 22)

    def write(name: int) -> None:
        for number in range(500):
            recorder.note(CALL, "web", said=f"{name} {number}")

    writers = [threading.Thread(target=write, args=(name,)) for name in range(8)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(20)
    numbers: list[int] = []
    last = 0
    while piece := recorder.since(last, KINDS).notes:
        numbers += [note.number for note in piece]
        last = numbers[-1]
    assert numbers == list(range(1, 4001))


def test_a_note_is_cheap() -> None:
    """A note costs the thread that makes it some microseconds: a storm of misses makes 20,000 in a quarter second."""
    recorder = Recorder(1 << 20)
    best = 1.0
    for _ in range(5):
        begun = time.perf_counter()
        for _ in range(1000):
            recorder.note(MISS, "web", layer=3, address="10.5.0.3", outcome="late")
        best = min(best, (time.perf_counter() - begun) / 1000)
    print(f"a note: {best * 1e6:.1f} µs")
    assert best < 50e-6
