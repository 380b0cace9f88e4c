"""Which rights a token is asked for: every place that the store is written to. That they are told: tests/engine."""

from __future__ import annotations

import re
from typing import Any, cast

from myoverlay.store.paths import PathRecords, SeekRecords
from myoverlay.store.policy import SHARED
from tests.pure.house.source import PACKAGE
from tests.pure.kit import ANN, PREFIX

#: What a host writes below its own id alone, and is asked for by that.
OWN = {"alive", "hosts"}


def test_every_place_that_is_written_is_asked_for() -> None:
    """The words that keys begin with in the code, and the places of questions that a few hosts answer."""
    text = "".join(path.read_text() for path in sorted((PACKAGE / "store").glob("*.py")))
    places = set(re.findall(r'\.key\("([a-z-]+)"', text))
    assert len(places) >= 10
    places |= {kind(cast(Any, None), PREFIX, ANN).places[1] for kind in (PathRecords, SeekRecords)}
    shared = {name.rstrip("/") for name in SHARED}
    assert places - OWN == shared
