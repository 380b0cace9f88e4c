"""What is noted in the flight recorder, in which words, and `Control.Watch`, by which it is followed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from myoverlay.errors import Refused
from myoverlay.host.hearing import Event
from myoverlay.host.local import LocalOverlay
from myoverlay.host.overlays import Overlays
from myoverlay.host.peers import PeerWatch
from myoverlay.host.view import View
from myoverlay.operate.control import Answer, Method
from myoverlay.operate.recorder import CALL, KERNEL, KINDS, MISS, STORE, Recorder
from myoverlay.plan.shared import apart, differing
from myoverlay.store.typed import Held
from myoverlay.values import Address, HostId, HostList, Miss, Peer, Record

#: A host that changes more at once is noted in one line: a first listing of thousands would push everything else out.
MANY = 20
#: Networks that are remembered by their overlay's name after they have gone.
_REMEMBERED = 1024


class Follow(msgspec.Struct, frozen=True, kw_only=True):
    """What has been noted behind number `after` of run `run`. Below 0: nothing yet, only where the end is."""

    after: int = -1
    run: str = ""
    kinds: tuple[str, ...] = KINDS
    overlay: str = ""
    wait: float = 0.0


class _Said(msgspec.Struct, frozen=True):
    """What of Docker's call is noted: whom it is about. Nothing else of it, so that no secret can be."""

    NetworkID: str = ""
    EndpointID: str = ""
    PoolID: str = ""
    Pool: str = ""
    Address: str = ""


_read = msgspec.json.Decoder(_Said).decode


class Recording:
    """Puts what happens into words. Called by the threads that it happens to."""

    def __init__(self, recorder: Recorder, overlays: Overlays, peers: PeerWatch) -> None:
        self._recorder = recorder
        self._overlays = overlays
        self._peers = peers
        # Filled by the threads of calls: single writes to a dict, and one that is lost costs a name.
        self._names: dict[str, str] = {}

    def methods(self) -> dict[str, Method]:
        return {"Control.Watch": (Follow, self.follow)}

    def follow(self, call: Follow, deadline: float) -> Answer:
        """Notes as they were made, and what to ask with next. `again`: the plugin was started anew meanwhile."""
        if not self._recorder.limit:
            raise Refused("nothing is recorded: MYOVERLAY_RECORDER is 0")
        if not call.kinds or not set(call.kinds) <= set(KINDS):
            raise Refused(f"what may be followed is {', '.join(KINDS)}")
        again = call.after >= 0 and call.run != self._recorder.run
        piece = self._recorder.since(0 if again else call.after, call.kinds, call.overlay, max(0.0, call.wait))
        return {
            "notes": [msgspec.Raw(note.raw) for note in piece.notes],
            "last": piece.last,
            "dropped": 0 if again else piece.dropped,
            "run": self._recorder.run,
            "again": again,
        }

    # -- what happens ----------------------------------------------------------------------------------------------

    def called(self, method: str, body: bytes, took: float, status: int, sentence: str) -> None:
        """A call on the plugin's sockets was answered, after `took` ms. Our own commands' are not noted."""
        if method.startswith("Control."):
            return
        try:
            said = _read(body) if body else _Said()
        except (ValueError, RecursionError):  # it was refused for that, or has no body that anybody reads
            said = _Said()
        about = {
            "network": said.NetworkID[:12],
            "endpoint": said.EndpointID[:12],
            "pool": said.PoolID or said.Pool,
            "address": said.Address,
        }
        about = {name: text for name, text in about.items() if text}
        overlay = self._overlay_of(said.NetworkID, said.PoolID)
        self._recorder.note(CALL, overlay, method=method, **about, ms=round(took, 1), status=status, said=sentence)

    def _overlay_of(self, network: str, pool: str) -> str:
        """The overlay that a call is about; of a network that is gone, the one it was on."""
        if not network and not pool:
            return ""
        for local in self._overlays.all():
            if network == local.network.network or (pool and pool == local.network.pool):
                if len(self._names) >= _REMEMBERED:
                    self._names.clear()
                self._names[network or pool] = local.network.overlay
                return local.network.overlay
        return self._names.get(network or pool, "")

    def missed(self, local: LocalOverlay, address: Address | None, mac: str | None, outcome: str) -> None:
        """The kernel asked, or the store was asked for it."""
        asked = {"address": address} if address is not None else {"mac": mac}
        self._recorder.note(
            MISS, local.network.overlay, layer=3 if address is not None else 2, **asked, outcome=outcome
        )

    def heard(self, local: LocalOverlay, miss: Miss, outcome: str) -> None:
        self.missed(local, miss.address, miss.mac, outcome)

    def happened(self, local: LocalOverlay, events: Sequence[Event]) -> None:
        """The kernel told of links and rows what nobody of ours did, or more than could be heard."""
        by_kind: dict[str, list[str]] = {}
        for event in events:
            by_kind.setdefault(event.what, []).append(event.thing)
        for what, things in by_kind.items():
            self._noted(local.network.overlay, what, things)

    def overran(self, local: LocalOverlay) -> None:
        """The kernel asked more than could be heard."""
        self._noted(local.network.overlay, "overrun", ["more misses came than could be heard: all rows are compared"])

    def repaired(self, overlay: str, reason: str, things: Sequence[str]) -> None:
        """The kernel was put right, for the reason that the counter `repairs` has too."""
        self._noted(overlay, "repaired", things, reason=reason)

    def _noted(self, overlay: str, event: str, things: Sequence[str], **more: str) -> None:
        told = [f"{len(things)} of them, the first {things[0]}"] if len(things) > MANY else things
        for thing in told:
            self._recorder.note(KERNEL, overlay, event=event, **more, thing=thing)

    def learned(self, local: LocalOverlay, before: View, after: View) -> None:
        """The store told of other hosts' lists, or of outsiders."""
        old, new = before.lists or {}, after.lists or {}
        for host in differing(old, new):
            self._host_changed(local, host, old.get(host), new.get(host))
        if before.outsiders is not after.outsiders:
            then, now = (_by_address(view.outsiders or ()) for view in (before, after))
            self._changed(local, "an outsider", then, now)

    def _host_changed(
        self, local: LocalOverlay, host: HostId, old: Held[HostList] | None, new: Held[HostList] | None
    ) -> None:
        name = self._peers.known.names.get(host, host.short)
        if old is None or new is None:
            vtep = (new or old).value.vtep  # type: ignore[union-attr]
            count = len((new or old).value.records)  # type: ignore[union-attr]
            change = "host came" if new is not None else "host went"
            self._recorder.note(STORE, local.network.overlay, change=change, host=name, vtep=vtep, containers=count)
        elif old.value.vtep != new.value.vtep:
            self._recorder.note(STORE, local.network.overlay, change="host moved", host=name, vtep=new.value.vtep)
        gone, come = apart(*(held.value.records if held is not None else () for held in (old, new)))
        self._changed(local, name, _by_address(gone), _by_address(come))

    def _changed(self, local: LocalOverlay, host: str, then: Mapping[str, str], now: Mapping[str, str]) -> None:
        overlay = local.network.overlay
        different = sorted(address for address in then.keys() | now.keys() if then.get(address) != now.get(address))
        if len(different) > MANY:
            self._recorder.note(STORE, overlay, change=f"{len(different)} containers changed", host=host)
            return
        for address in different:
            word = "came" if address not in then else ("went" if address not in now else "changed")
            mac = now.get(address) or then[address]
            self._recorder.note(STORE, overlay, change=word, host=host, address=address, mac=mac)


def _by_address(records: Iterable[Record | Peer]) -> dict[str, str]:
    return {record.address: record.mac for record in records}
