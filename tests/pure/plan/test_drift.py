"""What of the kernel's news on links and rows is nobody of ours doing."""

from __future__ import annotations

import pytest

from myoverlay.plan import drift
from myoverlay.plan.drift import Look, of_link, of_row
from myoverlay.plan.rows import Rows, Written
from myoverlay.values import Address, Fdb, Mac, Neigh

MAC, OTHER = Mac("02:42:0a:05:00:03"), Mac("02:42:66:66:66:66")
NEIGH, FDB = Neigh(address=Address("10.5.0.3"), mac=MAC), Fdb(mac=MAC, vtep=Address("192.0.2.2"))
WRONG_NEIGH = Neigh(address=Address("10.5.0.3"), mac=OTHER)
WRONG_FDB = Fdb(mac=MAC, vtep=Address("192.0.2.9"))
KNOWN = Written(Rows(frozenset({NEIGH}), frozenset({FDB})))


@pytest.mark.parametrize(
    ("gone", "row", "state", "said"),
    [
        (True, NEIGH, "permanent", drift.ROW_GONE),
        (True, FDB, "permanent", drift.ROW_GONE),
        (True, WRONG_NEIGH, "permanent", ""),  # what was never ours is welcome to go
        (True, None, "stale", ""),
        (False, NEIGH, "permanent", ""),  # as it should be, whoever wrote it
        (False, WRONG_NEIGH, "permanent", drift.FOREIGN_ROW),
        (False, WRONG_FDB, "permanent", drift.FOREIGN_ROW),
        (False, None, "reachable", drift.FOREIGN_ROW),  # one that ages, or has a remote of its own
        (False, None, "learned", drift.FOREIGN_ROW),
        (False, None, "incomplete", ""),
        (False, None, "failed", ""),
    ],
)
def test_rows(gone: bool, row: Neigh | Fdb | None, state: str, said: str) -> None:
    """Ours that go and others' that come are told; what is as wanted, and what holds nothing, is not."""
    assert of_row(gone, row, state, KNOWN, ()) == said


@pytest.mark.parametrize("gone", [True, False])
@pytest.mark.parametrize("row", [NEIGH, FDB, WRONG_FDB])
def test_what_we_did_just_now_is_ours(gone: bool, row: Neigh | Fdb) -> None:
    """A row that we wrote or took away lately is none of it, whatever is wanted by the time it is heard."""
    for known in (KNOWN, Written()):
        assert of_row(gone, row, "permanent", known, [frozenset({NEIGH}), frozenset({FDB, WRONG_FDB})]) == ""


def test_links() -> None:
    """One that is in use and changes, or goes, is told; one that comes, or is as before, is not."""
    up, down, out = Look(True, 1450, "br0"), Look(False, 1450, "br0"), Look(True, 1450)
    assert of_link(None, up) == of_link(None, None) == of_link(up, up) == ""
    assert of_link(up, down) == of_link(up, out) == of_link(down, up) == of_link(up, Look(True, 1400, "br0"))
    assert of_link(up, down) == drift.LINK_CHANGED
    assert of_link(up, None) == of_link(down, None) == drift.LINK_GONE
    assert (str(down), str(out)) == ("down, MTU 1450, in br0", "up, MTU 1450")
