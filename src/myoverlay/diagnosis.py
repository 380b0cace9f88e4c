"""The composition root's part for `myoverlay doctor`: from inside the daemon, and where there is none.

An examination takes its readings in threads `doctor_n`, which end with it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from myoverlay.errors import MyoverlayError
from myoverlay.host.collect import Collector
from myoverlay.host.journal import peek
from myoverlay.host.preflight import Asker
from myoverlay.kernel import netns
from myoverlay.kernel.pins import Pins
from myoverlay.operate.doctor import Doctor, Reading, examine
from myoverlay.operate.readings_host import HostReadings, Parts, expected, macs, written
from myoverlay.operate.readings_machine import Inside, MachineReadings, Place
from myoverlay.operate.readings_store import Known, StoreReadings
from myoverlay.plan.check_plugin import Environment, Running
from myoverlay.plan.findings import Check, Finding
from myoverlay.settings import SETTINGS, Settings, load
from myoverlay.store.presence import Presence
from myoverlay.store.records import Records
from myoverlay.values import Address, HostId, Subnet
from myoverlay.wiring import open_store

if TYPE_CHECKING:
    from myoverlay.daemon import Daemon


def doctor(settings: Settings, daemon: Daemon, collector: Collector) -> Doctor:
    """The daemon's."""
    # Late: a host that is simulated has links of another kind, and is never examined.
    home = lambda: daemon.links.home.dup()  # noqa: E731
    overlays, journal = daemon.overlays, daemon.journal

    def held(subnet: Subnet) -> set[Address]:
        return {lease.address for lease in journal.leases.all() if lease.subnet == subnet}

    inside = Inside(
        daemon.records.me,
        lambda: [network.network for network in journal.networks.all()],
        lambda: macs(overlays),
        lambda: expected(overlays),
        lambda: written(overlays),
        lambda: [local.network.definition.port for local in overlays.all()],
    )
    machine = MachineReadings(_place(settings, daemon.pins, os.environ), home, inside)
    store = StoreReadings(
        daemon.records,
        daemon.presence,
        lambda: [place for local in overlays.all() if (place := local.network.definition.records)],
        settings.catalogue,
        Known(lambda: {host: fate.state.value for host, fate in daemon.fates.all().items()}, held),
        daemon.wall,
    )
    parts = Parts(
        daemon.records, daemon.presence, overlays, daemon.liveness, daemon.beat, daemon.peers, daemon.fates,
        daemon.links, daemon.pins, daemon.leftovers, daemon.clusterwide.carrying,
        Asker(daemon.clusterwide.records, daemon.presence), daemon.naming.resolver, daemon.wall,
        daemon.guard, daemon.converger.binding, daemon.converger.egress, daemon.tally,
    )  # fmt: skip
    host = HostReadings(parts, machine, settings.vtep, settings.port)
    return Doctor({**machine.readings(), **store.readings(), **host.readings()}, collector)


def alone(environ: Mapping[str, str], running: Running) -> list[tuple[Check, Finding]]:
    """What a process of this machine sees where no daemon answers. `running`: how it does not."""
    readings: dict[str, Reading] = {"plugin": lambda _: running}
    try:
        settings = load(environ)
    except MyoverlayError as error:
        refused = _environment(environ, str(error))
        readings["settings"] = lambda _: refused
        return examine(readings, why="the settings are refused")
    machine = MachineReadings(_place(settings, Pins(Path(settings.run) / "netns"), environ), netns.current)
    readings |= machine.readings()
    if not settings.consul:
        return examine(readings)
    try:
        store = open_store(settings)
    except MyoverlayError as error:  # a TLS file that cannot be used
        refused = _environment(environ, str(error))
        readings["settings"] = lambda _: refused
        return examine(readings)
    try:
        me = peek(Path(settings.state))
        who = me or HostId.random()
        records, presence = Records(store, settings.prefix, who), Presence(store, settings.prefix, who)
        of_store = dict(StoreReadings(records, presence, tuple, settings.catalogue).readings())
        if me is None:  # some rights are for this host's own keys alone
            del of_store["store-rights"]
        return examine(readings | of_store)
    finally:
        store.close()


def _environment(environ: Mapping[str, str], refused: str = "") -> Environment:
    given = tuple(sorted(name for name, text in environ.items() if name.startswith("MYOVERLAY_") and text.strip()))
    return Environment(given, tuple(row.env for row in SETTINGS), refused)


def _place(settings: Settings, pins: Pins, environ: Mapping[str, str]) -> Place:
    return Place(
        sockets=tuple(Path(path.strip()) for path in settings.sockets.split(",")),
        state=Path(settings.state),
        pins=pins,
        docker=settings.docker_socket,
        token_file=settings.token_file,
        port=settings.port,
        environment=_environment(environ),
    )
