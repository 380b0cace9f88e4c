"""The queue to links: who goes first, and who must not be overtaken."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from myoverlay.kernel.jobs import Job, Jobs

PATIENCE = 10.0


class Workers:
    """A queue with both who serve it, and what was begun and ended, in that order."""

    def __init__(self) -> None:
        self.jobs = Jobs()
        self.told: list[str] = []
        self._told = threading.Condition()
        self._threads = [threading.Thread(target=self._serve, args=(work,)) for work in (self._work, self._work_idle)]

    def _work(self) -> bool:
        return self.jobs.work()

    def _work_idle(self) -> bool:
        return self.jobs.work_idle()

    def _serve(self, work: object) -> None:
        while work():  # type: ignore[operator]
            pass

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def end(self) -> str:
        """Everything is done; what came in which order."""
        self.jobs.end()
        for thread in self._threads:
            thread.join(PATIENCE)
            assert not thread.is_alive()
        return " ".join(self.told)

    def tell(self, name: str) -> None:
        with self._told:
            self.told.append(name)
            self._told.notify_all()

    def heard(self, name: str) -> None:
        with self._told:
            assert self._told.wait_for(lambda: name in self.told, PATIENCE)

    def job(self, name: str, until: threading.Event | None = None) -> Job:
        def run() -> None:
            if until is not None:
                self.tell(f"{name}…")
                assert until.wait(PATIENCE)
            self.tell(name)

        return run

    def put(self, name: str, link: str | None = None, until: threading.Event | None = None) -> None:
        self.jobs.put(self.job(name, until), link)

    def put_idle(self, name: str, link: str, until: threading.Event | None = None) -> bool:
        """Is it going to be done?"""
        return self.jobs.put_idle(self.job(name, until), link) is None


@pytest.fixture
def queue() -> Iterator[Workers]:
    one = Workers()
    yield one
    one.jobs.end()


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    event = threading.Event()
    yield event
    event.set()


def test_each_kind_is_done_in_its_order(queue: Workers) -> None:
    """What somebody waits for is done in its order, the rest in its own."""
    for name in "abc":
        queue.put(f"+{name}", name)
        assert queue.put_idle(f"-{name * 2}", name * 2)
    queue.start()
    told = queue.end().split()
    assert [one for one in told if one[0] == "+"] == ["+a", "+b", "+c"]
    assert [one for one in told if one[0] == "-"] == ["-aa", "-bb", "-cc"]


def test_nobody_waits_behind_a_removal(queue: Workers, gate: threading.Event) -> None:
    """While an idle job goes on, what somebody waits for is done."""
    queue.put_idle("-a", "a", gate)
    queue.start()
    queue.heard("-a…")
    queue.put("+b", "b")
    queue.put("look")
    queue.heard("look")
    gate.set()
    assert queue.end() == "-a… +b look -a"


def test_a_removal_does_not_wait_for_others(queue: Workers, gate: threading.Event) -> None:
    """While something that is waited for goes on, idle jobs are done."""
    queue.put("+a", "a", gate)
    queue.start()
    queue.heard("+a…")
    queue.put_idle("-b", "b")
    queue.heard("-b")
    gate.set()
    assert queue.end() == "+a… -b +a"


def test_a_link_is_removed_before_it_is_made_again(queue: Workers, gate: threading.Event) -> None:
    """Whether its removal waits yet or goes on just now."""
    queue.put_idle("-a", "a", gate)
    queue.start()
    queue.heard("-a…")
    queue.put("+a", "a")
    queue.put_idle("-b", "b")
    queue.put("+b", "b")
    gate.set()
    told = queue.end().split()
    assert told.index("-a") < told.index("+a")
    assert told.index("-b") < told.index("+b")


def test_a_removal_asked_for_later_comes_later(queue: Workers, gate: threading.Event) -> None:
    """Made, then removed: the removal neither overtakes what it must undo, nor begins while that goes on."""
    queue.put("+a", "a", gate)
    queue.put("+b", "b")
    queue.start()
    queue.heard("+a…")
    queue.put_idle("-b", "b")
    queue.put_idle("-a", "a")
    queue.put_idle("-c", "c")
    queue.heard("-c")
    gate.set()
    told = queue.end().split()
    assert told.index("+a") < told.index("-a")
    assert told.index("+b") < told.index("-b")
    assert told.index("-c") < told.index("+a")


def test_the_same_removal_twice_is_done_once(queue: Workers) -> None:
    """A second removal of a link that nothing was asked of in between is superfluous, and said to be."""
    assert queue.put_idle("-a", "a")
    assert not queue.put_idle("-a again", "a")
    queue.start()
    assert queue.end() == "-a"


def test_removed_made_and_removed_again(queue: Workers) -> None:
    """Both removals are done, one on each side of what stands between them."""
    queue.put_idle("-a", "a")
    queue.put("+a", "a")
    assert queue.put_idle("-a again", "a")
    queue.start()
    assert queue.end() == "-a +a -a again"


def test_a_job_that_fails_keeps_nobody_from_its_link(queue: Workers) -> None:
    """The link is free again, though whoever did the job has the error."""

    def fail() -> None:
        raise ValueError("it failed")

    queue.jobs.put(fail, "a")
    with pytest.raises(ValueError, match="it failed"):
        queue.jobs.work()
    queue.put("+a", "a")
    queue.start()
    assert queue.end() == "+a"


def test_the_end_comes_after_everything(queue: Workers) -> None:
    """What was put before the end is still done, idle jobs too; then there is nothing to do for either."""
    queue.put_idle("-a", "a")
    queue.start()
    assert queue.end() == "-a"
    assert not queue.jobs.work()
    assert not queue.jobs.work_idle()
