"""What is known of addresses on other hosts, beside the leases: for whoever is about to give one out."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from myoverlay.host.epoch import Epoch
from myoverlay.host.overlays import Overlays
from myoverlay.host.peers import Fates
from myoverlay.store.records import Records
from myoverlay.store.typed import Held
from myoverlay.values import Address, HostId, HostList, Network, OverlayName

#: Seconds that a call waits, just after the start, until it is known whether the store lost something.
_FIRST_LOOK = 1.0


class Elsewhere:
    """Reads only: the overlays' views, the store's epoch, the fates."""

    def __init__(
        self, overlays: Overlays, records: Records, epoch: Epoch, fates: Fates, host_name: Callable[[HostId], str]
    ) -> None:
        self._overlays = overlays
        self._records = records
        self._epoch = epoch
        self._fates = fates
        self._host_name = host_name

    def hosts(self) -> dict[OverlayName, dict[HostId, Address]]:
        """This host's overlays, and whose lists it goes by there, with their VTEPs."""
        return {
            local.network.overlay: {host: held.value.vtep for host, held in (local.view.lists or {}).items()}
            for local in self._overlays.all()
        }

    def addresses(self, network: Network) -> set[Address]:
        """The addresses that other hosts list, whatever became of their leases, as far as is known here."""
        return _addresses(self._known(network) or {})

    def listed(self, network: Network) -> set[Address]:
        """The same, read from the store where nothing is known yet, soon after a start. Raises Unavailable."""
        return _addresses(self._lists(network))

    def has(self, network: Network, address: Address) -> bool:
        """Does another host list the address, as of now? A list that is lost, or an old one, takes nothing back.

        Raises Unavailable.
        """
        for host, held in self._lists(network).items():
            if all(record.address != address for record in held.value.records):
                continue
            now = self._records.lists(network.overlay, [host]).get(host)
            if now is None:
                return True
            latest = self._epoch.latest(held.value, now.value)
            if any(record.address == address for record in latest.records):
                return True
        return False

    def held_back(self, network: Network) -> str | None:
        """Why new addresses of a network are held back, in one sentence, or None. Raises Unavailable."""
        if not self._epoch.looked.wait(_FIRST_LOOK):
            return f"the store was not reached yet, and this host's reserve of {network.subnet} is used up: try again"
        # Between two looks a snapshot may have been brought back, in which this address is free.
        self._epoch.look()
        known = {host: held.value.incarnation for host, held in (self._known(network) or {}).items()}
        waiting = self._epoch.waits_for(known, self._fates.lost())
        local = self._overlays.find(network.network)
        # Who began to look within the doubt does not know whom else to wait for.
        part = local is not None and local.view.lists is not None and not local.view.whole and self._epoch.in_doubt()
        if waiting is None and not part:
            return None
        names = ", ".join(sorted(map(self._host_name, waiting or ()))) or "the other hosts"
        return (
            f"the store lost what it held, and the reserve of {network.subnet} on this host is used up: new addresses"
            f" are given when {names} published again, or when the grace ends; try again"
        )

    def remedy(self, host: HostId) -> str:
        """How an address of a host that is no longer there becomes free; "" while it is there."""
        if not self._fates.is_dead(host):
            return ""
        return f"free it at once with `myoverlay host forget {self._host_name(host)}`: that host is dead"

    def _known(self, network: Network) -> Mapping[HostId, Held[HostList]] | None:
        """The lists known here; None where none was read yet."""
        local = self._overlays.find(network.network)
        return local.view.lists if local is not None else None

    def _lists(self, network: Network) -> Mapping[HostId, Held[HostList]]:
        """The lists known here, or in the store where none was read yet."""
        known = self._known(network)
        if known is not None:
            return known
        hosts = self._records.hosts_of(network.overlay) - {self._records.me}
        return self._records.lists(network.overlay, hosts) if hosts else {}


def _addresses(lists: Mapping[HostId, Held[HostList]]) -> set[Address]:
    return {record.address for held in lists.values() for record in held.value.records}
