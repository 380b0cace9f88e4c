"""Looks at a host on paper: one that is well, and what a test changes of it."""

from __future__ import annotations

from typing import Any

from myoverlay.plan.fates import State
from myoverlay.plan.sight import OverlaySight, PeerSight, Sight, StoreSight


def store(**changes: Any) -> StoreSight:
    fields: dict[str, Any] = {
        "kind": "consul", "where": "Consul at http://10.0.0.9:8500", "answers": True, "since": 3600.0, "answered": 0.5,
        "failure": "", "failed": None, "in_doubt": False, "unreadable": {},
    }  # fmt: skip
    return StoreSight(**(fields | changes))


def overlay(name: str, **changes: Any) -> OverlaySight:
    fields: dict[str, Any] = {
        "overlay": name, "network": "n" * 12, "vni": 0x700001, "port": 4789, "mtu": 1450, "subnet": "10.5.0.0/24",
        "vtep": "192.0.2.1", "endpoints": 2, "peers": 5, "hosts": 2, "eager": True, "built": True, "complete": True,
        "heard": 1.0,
    }  # fmt: skip
    return OverlaySight(**(fields | changes))


def peer(name: str, **changes: Any) -> PeerSight:
    fields: dict[str, Any] = {
        "id": f"{name}-id".ljust(32, "0"), "name": name, "vtep": "192.0.2.2", "version": "0.1.0", "state": State.ALIVE,
        "since": 500.0, "heard": 3.0, "rtt": 0.0004, "carries": True, "overlays": ("web",),
    }  # fmt: skip
    return PeerSight(**(fields | changes))


def sight(**changes: Any) -> Sight:
    """A host that is well. `store` and `names` are changes of theirs."""
    names = {"resolver": None, "docker": None, "catalogue": None} | changes.pop("names", {})
    fields: dict[str, Any] = {
        "id": "a" * 32, "name": "ann", "version": "0.1.0", "run": "r" * 16, "started": 3600.0, "session": True,
        "barred": None, "store": store(**changes.pop("store", {})), "overlays": (overlay("web"),),
        "peers": (peer("bob"),), "held": (), "counts": {}, "ages": {}, "compared": 1.0, "drift": 0,
        "journal_bytes": 4096, "heartbeat_trouble": "", "heartbeat_mtu": 1450, "unguarded": "", "names": names,
        "metrics_at": "", "metrics_trouble": "",
    }  # fmt: skip
    return Sight(**(fields | changes))
