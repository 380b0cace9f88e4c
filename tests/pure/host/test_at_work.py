"""Who leaves an overlay waits for what is being written there."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from myoverlay.host.at_work import AtWork
from myoverlay.host.publish import Publisher
from myoverlay.store.sqlite import SqliteStore
from myoverlay.values import OverlayName
from tests.pure.host.test_audit import Holder, Kernelless
from tests.pure.kit import DEMO, Host, every, soon


def test_the_writer_rests_when_it_is_at_something_else() -> None:
    """Whoever asks of the overlay at work waits in vain, of another one not; afterwards of none, whatever happened."""
    work = AtWork()
    assert work.rests(DEMO, 0.0)
    with suppress(ZeroDivisionError), work.on(DEMO):
        assert not work.rests(DEMO, 0.01)
        assert work.rests(OverlayName("other"), 0.0)
        raise ZeroDivisionError
    assert work.rests(DEMO, 0.0)


def test_an_overlay_is_not_left_while_it_is_published(
    host: Callable[[str], Host], store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A write that began before `docker network rm` brings no key back after it: the leaving waits, and is told later.

    It finds the overlay, and Docker's whole call comes before it reads what the store holds of its own.
    """
    ann = Holder(host("ann"), "192.0.2.1")
    on, records = ann.join(), ann.host.records
    publisher = Publisher(
        records, ann.overlays.named, str, ann.host.tally, lambda: True, str, lambda _: False, lambda above: above + 1,
        lambda _, read: read, lambda _: True,
    )  # fmt: skip
    ann.overlays.rests = publisher.at_work.rests
    read = records.own_list

    def meanwhile(*args: Any, **more: Any) -> Any:
        monkeypatch.setattr(records, "own_list", read)
        ann.overlays.delete(on.network, soon())
        return read(*args, **more)

    monkeypatch.setattr(Kernelless, "nothing", lambda *_: None)
    monkeypatch.setattr(records, "own_list", meanwhile)
    publisher.offer(on.overlay)
    publisher.step()
    assert [gone.overlay for gone in ann.host.journal.leaving.all()] == [on.overlay]
    ann.overlays.settle(soon())
    assert not [key for key in every(store) if "/overlays/demo" in key]
    assert not ann.host.journal.leaving.all()
