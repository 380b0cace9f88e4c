"""The host's resolvers, as resolv.conf(5) names them."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection

#: As many as a C library asks (MAXNS).
LIMIT = 3
#: Docker's own resolver answers inside containers alone.
_DOCKER = "127.0.0.11"


def read(text: str, never: Collection[str]) -> tuple[str, ...]:
    """The servers' addresses in order, each once, without those of `never`: a resolver does not ask itself."""
    found: dict[str, None] = {}
    for line in text.splitlines():
        words = line.partition("#")[0].partition(";")[0].split()
        if len(words) >= 2 and words[0] == "nameserver":
            try:
                address = str(ipaddress.ip_address(words[1]))
            except ValueError:
                continue
            if address not in never and address != _DOCKER:
                found[address] = None
    return tuple(found)[:LIMIT]
