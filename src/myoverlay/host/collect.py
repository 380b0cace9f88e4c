"""What a person may have done at once: collecting what nobody asks for, and the repairs of `doctor --fix`.

Nothing is done here that this host would not do by itself, sooner or later: the loops that own it are made to.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

from myoverlay.errors import MyoverlayError
from myoverlay.host.leftovers import Leftovers
from myoverlay.host.overlays import Overlays
from myoverlay.host.reconcile import Reconciler, Settler
from myoverlay.kernel.netns import Namespace
from myoverlay.plan.brake import Held
from myoverlay.values import OverlayName

#: Of what is collected, some is when it was seen in two rounds.
_ROUNDS = 2
#: Seconds that the store may take of a deadline.
_STORE = 4.0


class Collector:
    """For any thread."""

    def __init__(
        self,
        leftovers: Leftovers,
        reconciler: Reconciler,
        settler: Settler,
        want_audit: Callable[[], None],
        overlays: Overlays,
        filters_off: Callable[[OverlayName, Namespace], bool],
    ) -> None:
        """`filters_off`: sees to it in one overlay's namespace, and says whether that had to be done."""
        self._leftovers = leftovers
        self._reconciler = reconciler
        self._settler = settler
        self._want_audit = want_audit
        self._overlays = overlays
        self._filters_off = filters_off

    def collect(self, deadline: float) -> tuple[tuple[Held, ...], tuple[str, ...]]:
        """Compare kernel and store with what is asked for, now. Returns what went, and what could not be looked at."""
        mark = self._leftovers.mark()
        trouble = []
        for act in (self._kernel, self._store):
            try:
                act(deadline)
            except MyoverlayError as error:
                trouble.append(str(error))
        return self._leftovers.since(mark), tuple(trouble)

    def _kernel(self, deadline: float) -> None:
        for _ in range(_ROUNDS):
            self._reconciler.rounds.have(self._reconciler.wake, deadline, "comparing the kernel")

    def _store(self, deadline: float) -> None:
        until = min(deadline, time.monotonic() + _STORE)
        self._settler.rounds.have(self._want_audit, until, "comparing the store")

    def mend_kernel(self, deadline: float) -> None:
        """Have links and rows compared and put right. Raises KernelRefused or Late."""
        self._reconciler.rounds.have(self._reconciler.wake, deadline, "comparing the kernel")

    def filters_off(self, deadline: float) -> tuple[OverlayName, ...]:
        """See that no overlay's bridge hands frames to the firewall; the overlays where that had to be done.

        Raises KernelRefused or Late.
        """
        done = []
        for local in self._overlays.all():
            overlay = local.network.overlay
            if local.inside(partial(self._filters_off, overlay), deadline):
                done.append(overlay)
        return tuple(done)
