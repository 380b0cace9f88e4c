"""resolv.conf as it is found on hosts."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from myoverlay.plan.resolvers import LIMIT, read


def test_servers_in_order_without_ourselves_and_dockers() -> None:
    """Three at most, each once; comments, other words, and what is no address are passed over."""
    text = """# nameserver 192.0.2.1
search example.com
nameserver 169.254.77.53
nameserver 192.0.2.2 # the first
nameserver 127.0.0.53
nameserver 192.0.2.2
nameserver 127.0.0.11
nameserver fe80::1%eth0
nameserver nonsense
nameserver
nameserver 192.0.2.4
options ndots:0
"""
    assert read(text, {"169.254.77.53"}) == ("192.0.2.2", "127.0.0.53", "fe80::1%eth0")


@given(st.text())
def test_any_text_is_read(text: str) -> None:
    """No file makes it fail."""
    assert len(read(text, ())) <= LIMIT
