"""Checks of this host's kernel: its age and limits, what a bridge hands to the firewall, what is left over."""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

from myoverlay.plan.brake import Held
from myoverlay.plan.findings import Finding, bad, count, few, ok, unknown, warn

#: Before this the VXLAN FDB has 256 buckets; so many MACs per VNI are fine there.
HASHED, CROWD = (6, 16), 4000
#: Before this bridge-nf-call-* is one switch for the whole machine; and what was never tried.
OWN_FILTERS, OLDEST = (5, 3), (4, 19)
#: From here on permanent neighbours are not counted by the limits of the table.
EXEMPT = (5, 0)


class KernelSeen(msgspec.Struct, frozen=True):
    """`macs`: how many MACs each overlay has elsewhere."""

    release: str
    macs: Mapping[str, int] = {}


def release_of(text: str) -> tuple[int, int] | None:
    """`6.1.0-18-amd64` as numbers; None for what is none."""
    found = re.match(r"(\d{1,4})\.(\d{1,4})", text)
    return (int(found[1]), int(found[2])) if found else None


def judge_kernel(read: KernelSeen) -> Finding:
    release = release_of(read.release)
    if release is None:
        return unknown(f"the kernel calls itself {read.release!r:.60}")
    if release < OLDEST:
        return bad(
            f"Linux {read.release}",
            f"kernels before {OLDEST[0]}.{OLDEST[1]} lack what overlays need (netlink that checks, VXLAN that does not"
            " fragment)",
            f"boot Linux {OLDEST[0]}.{OLDEST[1]} or newer",
        )
    crowded = {overlay: macs for overlay, macs in read.macs.items() if macs > CROWD}
    if release < HASHED and crowded:
        overlay = max(crowded, key=lambda name: crowded[name])
        return warn(
            f"Linux {read.release}, and {crowded[overlay]} MACs on overlay {overlay}",
            f"before {HASHED[0]}.{HASHED[1]} the VXLAN table has 256 buckets: above {CROWD} MACs each packet is looked"
            " for in long rows",
            f"boot Linux {HASHED[0]}.{HASHED[1]} or newer, or spread the containers over more overlays",
        )
    if release < OWN_FILTERS:
        return warn(
            f"Linux {read.release}",
            "before 5.3 bridge-nf-call-* is one switch for the whole machine: the plugin cannot put it off for overlays"
            " alone",
            "boot Linux 5.3 or newer",
        )
    return ok(f"Linux {read.release}")


class Filters(msgspec.Struct, frozen=True):
    """Which of bridge-nf-call-* are on, by the path of the overlay namespace's pin; `looked`: how many there are."""

    on: Mapping[str, tuple[str, ...]] = {}
    looked: int = 0


def judge_filters(read: Filters) -> Finding:
    if not read.on:
        return ok(f"off in {count(read.looked, 'overlay namespace')}")
    path, keys = min(read.on.items())
    words = " ".join(f"{key.replace('/', '.')}=0" for key in keys)
    return bad(
        f"{few([key.rpartition('/')[2] for key in keys])} on in {count(len(read.on), 'overlay namespace')}: {path}",
        "frames between containers of this host go through firewall rules too: slower, and a FORWARD policy may drop"
        " them",
        f"`nsenter --net={path} sysctl -w {words}`, or for all of them `myoverlay doctor --fix`",
    )


class Neighbours(msgspec.Struct, frozen=True):
    """`thresholds`: gc_thresh1 to 3. `entries`: in the machine's table now. `fulls`: how often it was full since boot.

    `expected`: entries, if each container of this host talks to every other container of its overlays. `own`: rows that
    this host wrote for its overlays: permanent ones, which no limit counts (net/core/neighbour.c, gc_entries).
    """

    thresholds: tuple[int, int, int]
    entries: int = 0
    fulls: int = 0
    expected: int = 0
    own: int = 0


def judge_neighbours(read: Neighbours) -> Finding:
    first, second, third = read.thresholds
    used = max(0, read.entries - read.own)
    want = max(4096, 1 << max(0, (2 * max(read.expected, used) - 1).bit_length()))
    remedy = (
        f"`sysctl -w net.ipv4.neigh.default.gc_thresh3={want} net.ipv4.neigh.default.gc_thresh2={want // 2}"
        f" net.ipv4.neigh.default.gc_thresh1={want // 8}`, and the same in /etc/sysctl.d"
    )
    beside = f" beside {count(read.own, 'permanent row')} of overlays" if read.own else ""
    saw = f"{count(used, 'entry', 'entries')}{beside}, gc_thresh1 to 3: {first}, {second}, {third}"
    if used * 10 > third * 9:
        return bad(
            saw, "the table of all namespaces together is full: new connections fail with no buffer space", remedy
        )
    if not 0 < first <= second <= third:
        return bad(saw, "the thresholds are not in order: entries are thrown out while they are in use", remedy)
    if read.fulls and third < want:  # the kernel counts since boot: what was cured since is no finding any more
        return warn(
            f"{saw}; the table was full {count(read.fulls, 'time')} since boot", "packets were lost then", remedy
        )
    if read.expected > third:
        return warn(
            f"{saw}; containers here may come to talk to {read.expected} others",
            "the table is one for all containers of the host: above gc_thresh3 new connections fail",
            remedy,
        )
    return ok(saw)


class Left(msgspec.Struct, frozen=True):
    """`held`: what the brake keeps for a person. `nobodys`: pins, and cables, that nobody asks for, and that are being
    collected while the plugin runs.
    """

    held: tuple[Held, ...] = ()
    nobodys: tuple[str, ...] = ()
    running: bool = True


def judge_leftovers(read: Left) -> Finding:
    if read.held:
        kinds = [
            f"{count(len(one.names), one.kind)}" + (f" of {one.overlay}" if one.overlay else "") for one in read.held
        ]
        return bad(
            f"{few(kinds)} nobody asks for: {few([name for one in read.held for name in one.names], 3)}",
            "they are too many, or are in use, and are kept until a person has looked",
            "look with `myoverlay gc --dry-run`; if nobody needs them: `myoverlay gc --yes`",
        )
    if read.nobodys and not read.running:
        return warn(
            f"nobody asks for {few(sorted(read.nobodys))}",
            "they are of a former run; a running plugin collects them",
            "start the plugin; after it was removed for good: "
            + " ".join(f"`umount {path} && rm {path}`" for path in sorted(read.nobodys)[:8]),
        )
    note = f"; being collected: {few(sorted(read.nobodys))}" if read.nobodys else ""
    return ok(f"nothing waits for a word{note}")
