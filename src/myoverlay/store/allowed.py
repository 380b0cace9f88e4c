"""Which rights this host's token has, found out by asking for each of them; nothing is written.

A transaction that could never be done (a key is to have an index that none has) is refused key by key: by ACL where the
token may not write there, else for the index. So one transaction tells of all keys.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from typing import NamedTuple

from myoverlay.errors import Denied
from myoverlay.store.consul import ConsulStore
from myoverlay.store.policy import SHARED, rule
from myoverlay.values import HostId

#: An index that no key has.
_NEVER = 1 << 62
#: Seconds that a session lives which is opened to see whether one may be, should its end get lost.
_TTL = 10.0
_DENIED = "ermission denied"


class Asked(NamedTuple):
    """A right, by the rule that gives it in Consul's words, and what was denied; empty where it is held."""

    rule: str
    denied: str


def asked(
    store: ConsulStore, prefix: str, me: HostId, records: Iterable[str], catalogue: bool, *, timeout: float
) -> tuple[Asked, ...]:
    """All rights that this host needs. `records`: other places where its overlays' `arp/` and `fib/` keys lie.

    Raises Unavailable where Consul does not answer at all.
    """
    keys = {
        f"{prefix}/alive/{me}": ("key", f"{prefix}/alive/{me}"),
        f"{prefix}/hosts/{me}/x": _below(f"{prefix}/hosts/{me}/"),
    }
    keys |= {f"{prefix}/{name}x": _below(f"{prefix}/{name}") for name in SHARED}
    keys |= {f"{place}/arp/x": _below(f"{place}/") for place in records}
    found = _writes(store, keys, timeout)
    for name in ("alive/", "hosts/"):
        found.append(
            Asked(rule("key_prefix", f"{prefix}/{name}", "read"), _reading(store, f"{prefix}/{name}", timeout))
        )
    found.append(Asked(rule("session_prefix", ""), _session(store, timeout)))
    if catalogue:
        found += _catalogue(store, timeout)
    return tuple(found)


def _below(name: str) -> tuple[str, str]:
    return "key_prefix", name


def _writes(store: ConsulStore, keys: dict[str, tuple[str, str]], timeout: float) -> list[Asked]:
    lines = [{"KV": {"Verb": "cas", "Key": key, "Value": "", "Index": _NEVER}} for key in keys]
    said = store.transact(lines, "asking what may be written", timeout=timeout)
    return [
        Asked(rule(*named), f"write {named[1]}" if _DENIED in said.get(place, "") else "")
        for place, named in enumerate(keys.values())
    ]


def _reading(store: ConsulStore, prefix: str, timeout: float) -> str:
    try:
        store.keys(prefix, timeout=timeout)
    except Denied:
        return f"read {prefix}"
    return ""


def _session(store: ConsulStore, timeout: float) -> str:
    try:
        store.close_session(store.open_session("myoverlay doctor", _TTL, timeout=timeout), timeout=timeout)
    except Denied:
        return "open a session"
    return ""


def _catalogue(store: ConsulStore, timeout: float) -> list[Asked]:
    """A node and a service, each with an index that it cannot have."""
    name = f"myoverlay-{uuid.uuid4().hex}"
    node = {"Verb": "cas", "Node": {"Node": name, "Address": "192.0.2.1", "ModifyIndex": _NEVER}}
    service = {"Verb": "cas", "Node": name, "Service": {"ID": name, "Service": name, "ModifyIndex": _NEVER}}
    said = store.transact([{"Node": node}, {"Service": service}], "asking what may be registered", timeout=timeout)
    rules = (rule("node_prefix", "myoverlay-"), rule("service_prefix", ""))
    return [
        Asked(needed, f"register {what}" if _DENIED in said.get(place, "") else "")
        for place, (needed, what) in enumerate(zip(rules, ("its node", "services"), strict=True))
    ]
