"""Who may know whom: `cli`, `docker`, `operate` → `host` → `plan`, `store`, `kernel` → `values`, `errors`."""

from __future__ import annotations

import pytest

from tests.pure.house.source import calls, imports, modules

#: Each room and what it may import of the program; a room's own modules are always allowed, `myoverlay` is its version.
LEAVES = {"errors", "naming", "values", "networks", "path", "outlook", "fence", "egress"}
ROOMS = {
    "errors": set(),
    "naming": set(),
    "values": {"errors", "naming"},
    "networks": {"errors", "naming", "values"},
    "path": {"errors", "naming", "values", "networks"},
    "outlook": {"errors", "naming", "values", "networks"},
    "fence": {"values"},
    "egress": {"values"},
    "tally": set(),
    "settings": LEAVES,
    "plan": LEAVES,
    "store": LEAVES,
    "kernel": LEAVES,
    "names": LEAVES | {"plan"},
    "host": LEAVES | {"tally", "plan", "store", "kernel", "names"},
    "docker": LEAVES | {"tally", "plan", "host"},
    "engine": LEAVES | {"tally", "plan", "host"},
    "operate": LEAVES | {"tally", "plan", "store", "kernel", "host", "engine"},
    "overview": LEAVES | {"tally", "settings", "plan", "store", "host", "docker", "operate", "clusterwide"},
    "wiring": LEAVES | {"tally", "settings", "store", "kernel", "host", "engine"},
    "clusterwide": LEAVES | {"tally", "settings", "plan", "store", "kernel", "host", "engine", "operate"},
    "insight": LEAVES | {"tally", "settings", "plan", "store", "kernel", "host", "operate", "clusterwide"},
    "daemon": LEAVES
    | {
        "tally",
        "settings",
        "plan",
        "store",
        "kernel",
        "host",
        "docker",
        "operate",
        "clusterwide",
        "insight",
        "overview",
        "diagnosis",
        "wiring",
    },
    "diagnosis": LEAVES | {"tally", "settings", "plan", "store", "kernel", "host", "operate", "daemon", "wiring"},
    "cli": LEAVES | {"tally", "settings", "plan", "store", "kernel", "host", "operate", "daemon", "diagnosis"},
    "__main__": {"cli"},
    "myoverlay": set(),
}
#: Foreign modules that a room must not touch: what is pure stays pure, and each library has one door.
BARRED = {
    "plan": {"threading", "time", "socket", "logging", "os", "random", "subprocess", "queue", "select", "sqlite3"},
    "values": {"threading", "time", "logging", "os", "random"},
    "errors": {"threading", "time", "logging", "os", "socket"},
    "store": {"pyroute2", "docker", "flask", "gunicorn"},
    "kernel": {"docker", "flask", "consul", "requests", "sqlite3", "gunicorn"},
    "host": {"pyroute2", "consul", "docker", "flask", "gunicorn", "requests"},
    "docker": {"pyroute2", "consul", "docker", "sqlite3"},
    "engine": {"pyroute2", "consul", "flask", "gunicorn", "sqlite3"},
    "networks": {"threading", "time", "logging", "os", "random"},
    "path": {"threading", "time", "logging", "os", "random"},
    "outlook": {"threading", "time", "logging", "os", "random"},
    "fence": {"threading", "time", "logging", "os", "random"},
    "egress": {"threading", "time", "logging", "os", "random"},
    "names": {"threading", "pyroute2", "consul", "docker", "flask", "gunicorn", "requests", "sqlite3", "subprocess"},
    "operate": {"docker"},
}
#: What is made in the composition root and handed on.
COLLABORATORS = {
    "Daemon", "Journal", "Tally", "Records", "Links", "Leases", "Overlays", "Converger", "Publisher", "Liveness",
    "Discovery", "Lookup", "MissLoop", "Reconciler", "Prober", "Beat", "Presence", "Epoch", "PeerWatch", "Fates",
    "Graves", "Audit", "Holdings", "Elsewhere", "NetworkDriver", "IpamDriver", "ConsulStore", "SqliteStore",
    "Leftovers", "Control", "Mirror", "MirrorKeeper", "Farewell", "Halves", "Underlay", "Settler",
    "Claiming", "Ceding", "Upkeep", "Clusterwide", "ClusterNetworks", "Respondent", "Asker", "Observer",
    "NetworkFollower", "EngineNetworks", "Trial", "Departure", "Resolver", "Doorstep", "Called", "Follower",
    "Registrar", "Catalogue", "Insight", "Recorder", "Trace", "PathAsker", "Recording", "PathAnswering", "OverlayList",
    "Metered", "Lookout", "Exposition", "Exporter", "Status", "Overview", "Guard", "FenceTable",
    "Surveyor", "Collector", "Doctor", "MachineReadings", "StoreReadings", "HostReadings",
    "Observatory", "OutlookAnswering", "Onlooker", "OutlookRecords", "Page", "Picture", "Carrying", "Tracing",
    "Seeker",
}  # fmt: skip


def room(module: str) -> str:
    return module.partition(".")[0]


def violations(module: str, text: str) -> list[str]:
    """What the module imports or makes though its room must not."""
    here = room(module)
    wrong = []
    for name in imports(text):
        first, _, rest = name.partition(".")
        if first != "myoverlay":
            if first in BARRED.get(here, ()):
                wrong.append(f"{module} imports {name}")
        elif rest and rest != "__version__" and room(rest) not in ROOMS[here] | {here}:
            wrong.append(f"{module} imports {name}")
    if here not in ("daemon", "clusterwide", "insight", "overview", "diagnosis", "wiring", "cli"):
        wrong += [f"{module} makes a {name}" for name in calls(text) if name in COLLABORATORS]
    return wrong


@pytest.mark.parametrize("module", modules())
def test_imports_go_one_way(module: str) -> None:
    """No module imports from a room above or beside it, nor a library that is not its own; only the root constructs."""
    assert violations(module, modules()[module]) == []


def test_every_room_is_known() -> None:
    """A new top-level module or package has to be given its place first."""
    assert {room(module) for module in modules()} <= set(ROOMS)
    assert len(modules()) > 30


@pytest.mark.parametrize(
    ("module", "planted"),
    [
        ("plan.pools", "import time"),
        ("plan.pools", "from time import monotonic"),
        ("plan.rows", "import os.path"),
        ("plan.rows", "def f() -> None:\n    import logging"),
        ("plan.shape", "from myoverlay.store import Store"),
        ("store.records", "from myoverlay.kernel.links import Links"),
        ("store.sqlite", "from myoverlay import kernel"),
        ("kernel.neigh", "from myoverlay.store.pooled import MARK"),
        ("kernel.links", "from myoverlay.docker import wire"),
        ("kernel.links", "import docker"),
        ("host.leases", "from myoverlay.docker.wire import GATEWAY"),
        ("host.leases", "from myoverlay.settings import load"),
        ("host.leases", "from myoverlay.daemon import Daemon"),
        ("host.leases", "import pyroute2.netlink"),
        ("docker.app", "from myoverlay.kernel.links import Links"),
        ("docker.app", "from myoverlay.cli import serve"),
        ("host.follow", "from myoverlay.engine.networks import EngineNetworks"),
        ("docker.driver", "import docker"),
        ("clusterwide", "from myoverlay.daemon import Daemon"),
        ("values", "from myoverlay.plan import pools"),
        ("errors", "from myoverlay.values import Mac"),
        ("naming", "from myoverlay.values import Mac"),
        ("names.server", "import threading"),
        ("names.server", "from myoverlay.host.view import View"),
        ("host.leases", "from myoverlay.engine.client import Engine"),
        ("operate.control", "import docker"),
        ("tally", "import myoverlay.settings"),
        ("host.leases", "tally = Tally()"),
        ("host.publish", "x = journal.Journal(path)"),
    ],
)
def test_a_planted_violation_is_seen(module: str, planted: str) -> None:
    """The checker catches each kind of wrong import, also a late one, in a text that is right otherwise."""
    text = modules()[module]
    assert violations(module, text) == []
    assert len(violations(module, f"{text}\n{planted}\n")) >= 1
