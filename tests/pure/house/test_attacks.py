"""`make attack` has a row for each attack that has to be stopped, and for each neighbour that has to be left alone."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lab.places import REPOSITORY

#: What must be on the board: words of a row that some test of `make attack` writes.
ROWS = {
    "an unknown source": "VXLAN from an unknown machine",
    "a known VTEP of another overlay": "VXLAN from a live VTEP of another overlay",
    "a local process": "VXLAN from a process of a member host",
    "a container on docker_gwbridge": "VXLAN from a container on docker_gwbridge",
    "a container by its overlay's way out": "VXLAN from a container by its overlay's gateway",
    "a way into an overlay": "a container on docker0 into an overlay, by its way out",
    "spoofed ARP": "ARP reply for another's address",
    "spoofed IP": "IP packet from another's address",
    "spoofed MAC": "frame from another's MAC",
    "a rogue record": "a rogue record: keys of a stranger in the index",
    "a stolen token": "stolen token, ",
    "an oversized body": "a body of 4 MB to the plugin's socket",
    "a slow client": "clients who send half a request",
    "a token searched for": "a token, searched for in all that a host writes",
    "Swarm beside": "none: Swarm's overlay on the same hosts",
    "the tutorial's host": "none: the tutorial's hand-made host",
}


def attacks() -> list[Path]:
    """The files that `make attack` runs."""
    makefile = (REPOSITORY / "Makefile").read_text().replace("\\\n", "")
    (words,) = re.findall(r"^ATTACKS := (.+)$", makefile, re.M)
    assert "pytest $(ATTACKS)" in makefile
    named = [REPOSITORY / word.partition("::")[0] for word in words.split()]
    return [file for path in named for file in (sorted(path.glob("test_*.py")) if path.is_dir() else [path])]


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_it_is_on_the_board(row: str) -> None:
    """One of those files has it, and writes to the board."""
    texts = [path.read_text() for path in attacks()]
    assert any(row in text and "board.write(" in text for text in texts), row
