"""What a host knows of the others on one overlay."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from myoverlay.plan.claims import Claims
from myoverlay.store.typed import Held
from myoverlay.values import Address, HostId, HostList, Mac, Peer


class View(msgspec.Struct, frozen=True):
    """What this host knows about the rest of an overlay; swapped whole, so that readers need no lock.

    `complete`: what is not here does not exist. `whole`: it was listed once from a store that had lost nothing.
    `peers` and `macs` are whose an address or a MAC is, `claims` also who else says that it is his.
    """

    lists: Mapping[HostId, Held[HostList]] | None = None
    outsiders: tuple[Peer, ...] | None = None
    peers: Mapping[Address, Peer] = {}
    macs: Mapping[Mac, Peer] = {}
    complete: bool = False
    whole: bool = False
    claims: Claims = Claims()
