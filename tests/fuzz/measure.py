"""Which branches of the decoders the inputs take."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from tests.fuzz.run import TARGETS, block

SOURCE = Path(__file__).parents[2] / "src" / "myoverlay"
#: The least share of branches.
LEAST = 0.95
#: The modules of each target's decoders, and what of them decodes; nothing named: all of it. The rest of these modules
#: opens sockets, waits, and writes.
DECODERS: dict[str, dict[str, tuple[str, ...]]] = {
    "http": {
        "docker/wire.py": (), "docker/ipam.py": (), "docker/driver.py": (),
        "docker/app.py": ("create_app", "_call", "_note", "_error", "_answer"),
        "operate/recording.py": ("Recording.follow", "Recording.called", "Recording._overlay_of"),
        "plan/definition.py": ("_number", "_switch", "_vtep", "read_options"),
    },
    "records": {
        "store/typed.py": ("Typed.read", "Typed.named", "Typed.by_host", "Typed.firmly", "Typed.distrust", "tail"),
        "store/records.py": (
            "read_row", "Records.definition", "Records.vnis", "Records.members", "Records.changes", "Records.outsiders",
            "Records._row", "Records.lookup", "Records._behind", "Records.lookup_mac", "Records.outsider", "_text", "_inside",
            "_vtep",
        ),
        "store/hostlists.py": (),
        "plan/believe.py": ("believed",),
        "store/pooled.py": (
            "Pooled.pools", "Pooled.pool", "Pooled._read_pool", "Pooled.leases", "Pooled.lease", "Pooled._read_lease",
            "Pooled.ring_at",
        ),
        "store/presence.py": (
            "Incarnation.__post_init__", "Presence.alive", "Presence.alive_of", "Presence.own", "Presence.witness",
            "Presence.incarnation",
        ),
        "store/networks.py": (
            "NetworkRecords._plans_in", "NetworkRecords._read_plan", "NetworkRecords.plan", "NetworkRecords.held",
            "NetworkRecords.everywhere", "NetworkRecords._is_held", "NetworkRecords._read_held", "NetworkRecords.called",
        ),
        "store/paths.py": ("AskedRecords.question", "AskedRecords.answered", "_is_id"),
        "store/outlooks.py": ("OutlookRecords.looks", "OutlookRecords.told"),
        "store/index.py": ("Index.wait", "Index.lookup", "Index.lookup_mac", "Index._get", "Index._read"),
        "store/outsiders.py": ("Outsider.lines", "_text"),
        "store/consul.py": (
            "ConsulStore._client", "ConsulStore._get", "ConsulStore._complete", "ConsulStore._txn", "ConsulStore.transact",
            "ConsulStore.clock", "ConsulStore._below", "_Client.read", "_Client.look", "_Client._expect", "_Port._ask",
            "_Answered.__init__", "_index", "_entry",
        ),
        "store/catalogue.py": ("Catalogue.read", "Catalogue.hosts", "Catalogue._decoded", "_host"),
        "networks.py": (), "path.py": ("Hop.__post_init__", "PathQuestion.__post_init__", "PathAnswer.__post_init__"),
        "values.py": (
            "Address.__new__", "Subnet.__new__", "Mac.__new__", "OverlayName.__new__", "HostId.__new__", "check_vni",
            "check_mtu", "check_port", "check_count", "Definition.__post_init__", "Record.__post_init__",
            "Lease.__post_init__", "_revive", "decoder",
        ),
    },
    "netlink": {
        "kernel/rtnetlink.py": (
            "attributes", "members", "replies", "verdict", "Wire.one", "Wire._dump", "Wire._collect", "Wire.transact",
        ),
        "kernel/neigh.py": (
            "decode_misses", "decode_row", "_usual_fdb", "_fdb", "_address", "_mac", "seen_row", "_static_rows",
        ),
        "kernel/linkforms.py": (
            "read_label", "_labelled_address", "decode_link", "_ip", "_maybe", "_inner", "_named", "_ipv6_off", "flags_of",
            "observed", "_value", "_vxlan",
        ),
        "kernel/changes.py": ("decode",), "kernel/neightable.py": ("decode",), "kernel/traffic.py": (),
        "kernel/anatomy.py": (), "kernel/ruleset.py": ("read", "_dump", "_chain", "drops_port", "_udp_match"),
        "kernel/underlay.py": (
            "places_of", "Route.decode", "Route.out", "Route.leads_to", "main_routes", "index_in", "_number",
        ),
        "kernel/observe.py": ("links", "bridged_macs"), "kernel/path.py": ("route_to", "_neighbour", "_forwarding"),
        "kernel/nft.py": ("Door.rules", "Door.chains", "Door.keys", "Door.counters", "word"),
        "kernel/fence.py": ("FenceTable._read",), "kernel/bound.py": ("BoundTable._read",),
        "kernel/egress.py": ("CrossingTable._read", "_defaults"), "kernel/kept.py": ("Kept.look",),
        "kernel/channel.py": ("Channel.all", "Channel.nsid"),
    },
    "frames": {
        "kernel/frames.py": (
            "announcement", "read_arp_reply", "read_echo_reply", "echo_answered_to", "read_arp_request", "_checksum",
        ),
    },
    "probe": {
        "kernel/probe.py": ("Prober.read",), "kernel/ping.py": ("_heard",),
        "kernel/frames.py": ("read_arp_reply", "read_echo_reply"), "host/beat.py": ("Beat._take", "Beat._count"),
        "plan/pulse.py": ("Pulses.heard", "Pulses.heard_full", "Pulses._say"),
    },
    "dns": {
        "names/questions.py": (),
        "names/visitors.py": ("Visitors._hear", "Visitors._go_on", "Visitors._next", "Visitors._answer"),
        "names/forward.py": ("Forwarder.take", "Forwarder._heard", "_Stream.__call__"),
        "names/server.py": ("Server._answer", "Server._serve", "Server._decide"),
    },
}  # fmt: skip


class Taken(NamedTuple):
    """Of so many branches those that were taken, and the lines from which one was not."""

    branches: int
    taken: int
    missing: tuple[str, ...]

    @property
    def share(self) -> float:
        return self.taken / self.branches if self.branches else 1.0


def measured(target: str, seed: str, inputs: int) -> Taken:
    """One target alone, in a process of its own: coverage wants to be there before what it measures."""
    with tempfile.TemporaryDirectory() as folder:
        data, report = Path(folder, "data"), Path(folder, "report.json")
        files = ",".join(str(SOURCE / name) for name in DECODERS[target])
        options = ["--branch", f"--data-file={data}", f"--include={files}"]
        command = [
            sys.executable,
            "-m",
            "coverage",
            "run",
            *options,
            "-m",
            "tests.fuzz",
            "inputs",
            target,
            seed,
            str(inputs),
        ]
        subprocess.run(command, check=True, cwd=SOURCE.parents[1])
        command = [sys.executable, "-m", "coverage", "json", f"--data-file={data}", "-q", "-o", str(report)]
        subprocess.run(command, check=True, cwd=SOURCE.parents[1])
        return _taken(target, json.loads(report.read_text())["files"])


def _taken(target: str, files: dict[str, Any]) -> Taken:
    branches = taken = 0
    missing = []
    for name, parts in DECODERS[target].items():
        functions = next(one["functions"] for path, one in files.items() if path.endswith(f"myoverlay/{name}"))
        for function, found in functions.items():
            if function and (not parts or function in parts):
                branches += found["summary"]["num_branches"]
                taken += found["summary"]["covered_branches"]
                missing += [f"{name}:{line}→{to if to > 0 else 'end'}" for line, to in found["missing_branches"]]
        absent = set(parts) - set(functions)
        assert not absent, f"{name} has no {sorted(absent)}"
    return Taken(branches, taken, tuple(missing))


def inputs(target: str, seed: str, count: int) -> None:
    """What is measured."""
    _, finding = block(target, seed, count)
    if finding is not None:
        sys.exit(str(finding))


def tell(seed: str, count: int, targets: Iterable[str] = TARGETS) -> bool:
    """A line for each target; have all of them enough?"""
    enough = True
    for target in targets:
        found = measured(target, seed, count)
        enough = enough and found.share >= LEAST
        print(f"{target:8} {found.taken} of {found.branches} branches of its decoders, {found.share:.1%}", flush=True)
        print("".join(f"         not taken: {line}\n" for line in found.missing), end="")
    return enough
