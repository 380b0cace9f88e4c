"""What tests of several rooms stand on."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.pure.store.fake_consul import FakeConsul


@pytest.fixture
def fake() -> Iterator[FakeConsul]:
    """A Consul for faults; whatever crashed in it fails the test."""
    fake = FakeConsul().start()
    yield fake
    fake.close()
    assert fake.crashes == []
