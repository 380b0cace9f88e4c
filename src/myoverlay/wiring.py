"""Parts of the composition root that stand together: the store, and what names are answered with."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from myoverlay.engine.client import Engine
from myoverlay.engine.follower import Follower
from myoverlay.errors import MyoverlayError
from myoverlay.host.beat import Beat
from myoverlay.host.binding import Binding
from myoverlay.host.binding import Table as Bounds
from myoverlay.host.called import Called
from myoverlay.host.converge import FOREIGN_PINS
from myoverlay.host.departure import Departure
from myoverlay.host.doorstep import BRIDGE, Doorstep
from myoverlay.host.egress import Egress
from myoverlay.host.guard import Guard, HeartbeatGuard, Table
from myoverlay.host.loop import Loop
from myoverlay.host.overlays import Overlays
from myoverlay.host.peers import Fates
from myoverlay.host.resolver import Resolver
from myoverlay.kernel import netns
from myoverlay.kernel.bound import BoundTable
from myoverlay.kernel.egress import Cables, CrossingTable, InnerTable
from myoverlay.kernel.fence import FenceTable
from myoverlay.kernel.links import Links
from myoverlay.kernel.pins import Pins
from myoverlay.kernel.probe import Prober
from myoverlay.settings import Settings
from myoverlay.store import Store
from myoverlay.tally import Tally
from myoverlay.values import Address, HostId, OverlayName

log = logging.getLogger(__name__)


def open_store(settings: Settings) -> Store:
    """Consul where it is configured, else the embedded store."""
    if settings.consul:
        from myoverlay.store.consul import ConsulStore

        return ConsulStore(
            settings.consul,
            token=settings.token or None,
            token_file=_path(settings.token_file),
            ca=_path(settings.cacert),
            cert=_path(settings.client_cert),
            key=_path(settings.client_key),
            server_name=settings.server_name or None,
        )
    from myoverlay.store.sqlite import SqliteStore

    return SqliteStore(Path(settings.state) / "store.db")


def place_of(store: Store, settings: Settings) -> tuple[str, str]:
    """The store's kind, and where it is, without secrets, as a sentence begins with it."""
    if settings.consul:
        from myoverlay.store.consul import ConsulStore

        return "consul", f"Consul at {store.address}" if isinstance(store, ConsulStore) else "the store"
    return "embedded", f"the embedded store in {settings.state}"


def make_guard(settings: Settings, table: Table | None, links: Links, tally: Tally) -> Guard:
    """This host's guard; `table` is a simulated host's own."""
    return Guard(table or FenceTable(lambda: links.home), settings.guard, tally)


def make_binding(
    settings: Settings, make: Callable[[Callable[[], netns.Namespace]], Bounds] | None, tally: Tally
) -> Binding:
    """What binds this host's containers to their addresses; `make` is a simulated host's own."""
    return Binding(settings.guard, settings.spoof, tally, make or BoundTable)


def make_egress(settings: Settings, links: Links, tally: Tally) -> Egress:
    """What leads this host's overlays to the outside."""
    home = lambda: links.home  # noqa: E731 - not there before the start
    return Egress(settings.egress_bridge, Cables(home), CrossingTable(home), InnerTable, tally)


def make_heartbeat(
    port: int,
    links: Links,
    pins: Pins,
    me: HostId,
    vteps: Callable[[], Sequence[Address]],
    guard: Guard,
    where: Callable[[], Mapping[HostId, Address]],
    tally: Tally,
    now: Callable[[], float],
) -> Beat:
    """The kernel's own, through VXLAN; `where`: whom it asks."""
    return Beat(Prober(links, pins, me, port, vteps, FOREIGN_PINS, guard=HeartbeatGuard(guard)), where, tally, now)


def _path(text: str) -> Path | None:
    return Path(text) if text else None


class Naming:
    """What names come from and are answered with, as the settings have it."""

    def __init__(
        self,
        settings: Settings,
        overlays: Overlays,
        fates: Fates,
        links: Links,
        tally: Tally,
        offer: Callable[[OverlayName], object],
        also: Callable[[], None] = lambda: None,
    ) -> None:
        """`also`: called when what is called how may have changed."""
        self._links = links
        self.called = Called(overlays, offer)
        self.resolver: Resolver | None = None
        self.follower: Follower | None = None
        if settings.names is not None:
            doorstep = Doorstep(links, tally, settings.names)
            self.resolver = Resolver(overlays, doorstep, fates.dead, tally, netns.current())
        if settings.docker_socket:
            self.follower = Follower(Engine(settings.docker_socket), self.called, tally)
        self._also = also
        overlays.on_news = fates.on_fate = self._changed

    def _changed(self) -> None:
        if self.resolver is not None:
            self.resolver.wake()
        self._also()

    def begin(self, deadline: float) -> None:
        """Where names are not answered any more, what a former run left on the host for them goes."""
        if self.resolver is not None or BRIDGE not in self._links.names():
            return
        try:
            self._links.remove_here(BRIDGE, deadline=deadline)
        except MyoverlayError as error:
            log.warning("%s of a former run stays: %s", BRIDGE, error)

    def loops(self) -> tuple[Loop, ...]:
        return tuple(loop for loop in (self.resolver, self.follower) if loop is not None)

    def forget(self, overlay: OverlayName) -> None:
        """The overlay is no longer on this host."""
        if self.resolver is not None:
            self.resolver.forget(overlay)

    def connect(self, departure: Departure) -> None:
        if self.resolver is not None:
            departure.on_left = self.resolver.retire
