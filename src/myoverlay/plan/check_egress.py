"""The check of the ways out: do overlays that are to lead to the outside by themselves do so?"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from myoverlay.plan.findings import Finding, bad, count, few, ok


class Leading(msgspec.Struct, frozen=True):
    """`bridge`: the host's, that they lead to. `overlays`: how many are to. `trouble`: why some do not, by name."""

    bridge: str
    overlays: int = 0
    trouble: Mapping[str, str] = {}


def judge_egress(read: Leading) -> Finding:
    if not read.overlays:
        return ok("no overlay here has a way out of its own")
    if read.trouble:
        overlays = sorted(read.trouble)
        return bad(
            f"{few(overlays)}: {read.trouble[overlays[0]]}",
            "containers there that have one interface have no way to the outside; new ones get a second, on"
            " docker_gwbridge",
            f"`ip link set {read.bridge} up`; where Docker has no such bridge (`docker network inspect bridge`) name"
            " another of its own in `MYOVERLAY_EGRESS_BRIDGE`",
        )
    return ok(f"{count(read.overlays, 'overlay leads', 'overlays lead')} out by {read.bridge}")
