"""The laboratory of whole hosts, and the proof that nothing is left of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernel.host.hosts import Host, Hosts
from tests.kernel.host.tools import left_behind


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[Hosts]:
    """An underlay and a store; no host yet. Beside this the parent's `nothing_left` compares fds and threads."""
    before = left_behind()
    with Hosts(tmp_path) as laboratory:
        yield laboratory
    after = left_behind()
    assert not [path for path in after["mounts"] if path.startswith(str(tmp_path))]
    assert after["links"] <= before["links"]
    assert after["shares"] == before["shares"], "the test's own thread was left in another namespace"


@pytest.fixture
def two(hosts: Hosts) -> tuple[Host, Host]:
    """Two hosts with a network on the overlay 10.5.0.0-24."""
    return hosts.pair()
