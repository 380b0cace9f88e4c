"""What the pictures show, and that they can be drawn where matplotlib is installed (`make bench` installs it)."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.names import DOCKER, HAND, OURS
from bench.plots import bars, draw
from bench.results import Results
from tests.pure.bench.test_report import tcp

SOME = Results({}, {"tcp1": tcp(1.0, 0.5)})


def test_each_ratio_is_shown_with_its_noise() -> None:
    """Ours by Docker's, ours by hand, and A/A; figures that were not measured are left out."""
    assert [(title, other, ratio.median) for title, other, ratio in bars(SOME)] == [
        ("TCP, 1 stream", DOCKER, 2.0),
        ("TCP, 1 stream", HAND, 1.0),
        ("TCP, 1 stream", OURS, 1.0),
    ]


@pytest.mark.filterwarnings("default")
def test_the_pictures_are_the_same_for_the_same_results(tmp_path: Path) -> None:
    """Two SVG files with the words in them; drawn again they do not differ."""
    pytest.importorskip("matplotlib", reason="only `make bench` installs it")
    first = [file.read_bytes() for file in draw(SOME, tmp_path / "a")]
    assert len(first) == 2
    assert all(b"<svg" in raw and b"TCP, 1 stream" in raw for raw in first)
    assert first == [file.read_bytes() for file in draw(SOME, tmp_path / "b")]
