"""Who each container may be on its overlay: the one writer of the table of ports, MACs and addresses there."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Protocol

from myoverlay.errors import KernelRefused, Refused
from myoverlay.fence import Bound
from myoverlay.kernel.netns import Namespace
from myoverlay.plan import guard as plan
from myoverlay.tally import Tally
from myoverlay.values import Endpoint, Network

log = logging.getLogger(__name__)

#: In place of overlays' names: all of them.
ALL = "*"


class Table(Protocol):
    """What is needed of `kernel.bound.BoundTable`."""

    def lay(self, value: frozenset[Bound]) -> None: ...
    def change(self, more: frozenset[Bound], less: frozenset[Bound]) -> None: ...
    def is_untouched(self) -> bool: ...
    def look(self) -> frozenset[Bound] | None: ...
    def counts(self) -> dict[str, int]: ...
    def remove(self) -> None: ...
    def close(self) -> None: ...


class Binding:
    """What containers may call themselves, for all overlays of a host. Used under the overlay's lock."""

    def __init__(
        self, mode: str, free: Collection[str], tally: Tally, make: Callable[[Callable[[], Namespace]], Table]
    ) -> None:
        """`mode`: as the guard's; `free`: overlays whose containers may speak under any address."""
        self._mode, self._free, self._tally, self._make = mode, frozenset(free), tally, make
        #: Called with what was put right: overlay, reason, in words.
        self.on_repair: Callable[[str, str, Sequence[str]], None] = lambda *_: None
        self._counted: dict[str, int] = {}
        self._trouble: dict[str, str] = {}
        #: Overlays whose tables hold endpoints that have gone.
        self._stale: set[str] = set()

    def open(
        self, namespace: Namespace, network: Network, endpoints: Iterable[Endpoint], *, strict: bool
    ) -> Table | None:
        """Bind these endpoints, before their cables are there; None where nobody is bound.

        Raises Refused, with `strict`, where the kernel cannot.
        """
        table = self._make(lambda: namespace)
        try:
            if self._mode == plan.OFF or not self._free.isdisjoint((ALL, network.overlay)):
                table.remove()
                table.close()
                return None
            table.lay(plan.bound(endpoints))
        except KernelRefused as error:
            if strict and self._mode == plan.ON:
                table.close()
                raise Refused(
                    f"containers on overlay {network.overlay} cannot be bound to their addresses ({error}):"
                    f" {plan.remedy(error.code)}, or set MYOVERLAY_GUARD=warn to do without"
                ) from error
            self._fails(network.overlay, error)
        self._counted.pop(network.overlay, None)
        return table

    def add(
        self, table: Table | None, overlay: str, endpoint: Endpoint, everyone: Callable[[], Iterable[Endpoint]]
    ) -> None:
        """An endpoint is to come; `everyone`: all there are, with it."""
        if table is None:
            return
        try:
            table.change(plan.bound([endpoint]), frozenset())
        except KernelRefused:  # somebody took the table away
            self._lay(table, overlay, everyone())

    @property
    def trouble(self) -> Mapping[str, str]:
        """Why the containers of an overlay are not bound, in one sentence, by its name."""
        return dict(self._trouble)

    def forget(self, overlay: str) -> None:
        """That overlay is not on this host any more."""
        for known in (self._counted, self._trouble):
            known.pop(overlay, None)
        self._stale.discard(overlay)

    def gone(self, overlay: str) -> None:
        """Endpoints of that overlay have gone, or are about to: the next round looks at who is left."""
        self._stale.add(overlay)

    def is_as_left(self, table: Table | None, overlay: str) -> bool:
        """Has nobody changed the table, and is it there? Counts what it dropped. Needs no lock."""
        if table is None:
            return True
        if overlay in self._stale:
            return False
        try:
            self._count(table, overlay)
            return table.is_untouched()
        except KernelRefused:
            return False

    def check(self, table: Table | None, overlay: str, endpoints: Collection[Endpoint]) -> None:
        """Compare the table with what it should be, and put it right."""
        if table is None:
            return
        want = plan.bound(endpoints)
        self._stale.discard(overlay)
        try:
            held = table.look()
            if held is not None and want <= held:
                table.change(frozenset(), held - want)
            else:
                self._repaired(overlay)
                table.lay(want)
        except KernelRefused as error:
            self._fails(overlay, error)
        else:
            self._trouble.pop(overlay, None)

    def _lay(self, table: Table, overlay: str, endpoints: Iterable[Endpoint]) -> None:
        try:
            self._repaired(overlay)
            table.lay(plan.bound(endpoints))
        except KernelRefused as error:
            self._fails(overlay, error)

    def _repaired(self, overlay: str) -> None:
        self._tally.add("repairs", "binding")
        what = "what binds containers to their addresses was another, or gone: it is made anew"
        log.warning("overlay %s: %s", overlay, what)
        self.on_repair(overlay, "binding", [what])

    def _count(self, table: Table, overlay: str) -> None:
        now, before = table.counts()["spoofed"], self._counted.get(overlay, 0)
        self._tally.add("guard", "spoofed", now - before if now >= before else now)
        self._counted[overlay] = now

    def _fails(self, overlay: str, error: KernelRefused) -> None:
        if self._trouble.get(overlay) != str(error):
            log.error("overlay %s: its containers may speak under any address: %s", overlay, error)
            self._trouble[overlay] = str(error)
