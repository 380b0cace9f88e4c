"""The links thread's queue: who goes first, and who must not be overtaken."""

from __future__ import annotations

from myoverlay.kernel.jobs import Job, Jobs


class Written:
    """Jobs that write their names down, and a queue they are put into."""

    def __init__(self) -> None:
        self.jobs = Jobs()
        self.done: list[str] = []

    def job(self, name: str) -> Job:
        return lambda: self.done.append(name)

    def put(self, name: str, link: str | None = None) -> None:
        self.jobs.put(self.job(name), link)

    def put_idle(self, name: str, link: str) -> bool:
        """Is it going to be done?"""
        return self.jobs.put_idle(self.job(name), link) is None

    def run(self) -> str:
        self.jobs.end()
        while (job := self.jobs.take()) is not None:
            job()
        return " ".join(self.done)


def test_idle_jobs_wait_for_the_others() -> None:
    """What somebody waits for is done in its order, then the rest in its own."""
    queue = Written()
    assert queue.put_idle("-a", "a")
    assert queue.put_idle("-b", "b")
    queue.put("+c", "c")
    queue.put("look")
    assert queue.run() == "+c look -a -b"


def test_a_link_is_removed_before_it_is_made_again() -> None:
    """An idle job comes just before the next job on its link that was asked for later."""
    queue = Written()
    queue.put("+c", "c")
    queue.put_idle("-a", "a")
    queue.put_idle("-b", "b")
    queue.put("+b", "b")
    assert queue.run() == "+c -b +b -a"


def test_a_removal_asked_for_later_comes_later() -> None:
    """Made, then removed: the removal is not drawn in front of what it must undo."""
    queue = Written()
    queue.put("+a", "a")
    queue.put_idle("-a", "a")
    assert queue.run() == "+a -a"


def test_the_same_removal_twice_is_done_once() -> None:
    """A second removal of a link that nothing was asked of in between is superfluous, and said to be."""
    queue = Written()
    assert queue.put_idle("-a", "a")
    assert not queue.put_idle("-a again", "a")
    assert queue.run() == "-a"


def test_removed_made_and_removed_again() -> None:
    """Both removals are done, one on each side of what stands between them."""
    queue = Written()
    queue.put_idle("-a", "a")
    queue.put("+a", "a")
    assert queue.put_idle("-a again", "a")
    assert queue.run() == "-a +a -a again"


def test_the_end_comes_after_everything() -> None:
    """What was put before the end is still done, idle jobs too; then there is none."""
    queue = Written()
    queue.put_idle("-a", "a")
    assert queue.run() == "-a"
    assert queue.jobs.take() is None
