"""Containers' cables: the converger's hand for what Docker waits for. The caller holds the lock of the overlay.

A cable is laid while Docker makes the container's sandbox: asked for in CreateEndpoint, waited for in Join.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from myoverlay.errors import MyoverlayError
from myoverlay.host.binding import Binding
from myoverlay.host.ground import Ground
from myoverlay.kernel.links import Links
from myoverlay.plan import shape
from myoverlay.values import Endpoint, Network


class Cabling:
    """Lays cables, looks which are there, and takes them away."""

    def __init__(self, links: Links, binding: Binding | None) -> None:
        """`binding`: told of each endpoint before its cable is there."""
        self._links = links
        self._binding = binding

    def begin(
        self,
        ground: Ground,
        network: Network,
        endpoint: Endpoint,
        others: Callable[[], list[Endpoint]],
        deadline: float,
    ) -> None:
        """Have the endpoint's cable laid, if it is not there. `others`: all endpoints there are, with it."""
        if endpoint.port in ground.ports or endpoint.port in ground.coming:
            return
        if self._binding is not None:
            self._binding.add(ground.bound, network.overlay, endpoint, others)
        cable = shape.veth(network, endpoint)
        ground.coming[endpoint.port] = self._links.begin(ground.namespace, cable, deadline=deadline)

    def expect(self, ground: Ground | None, endpoint: Endpoint, deadline: float) -> None:
        """Wait until a cable that was begun is there, or is not going to be. Needs no lock."""
        coming = ground.coming.get(endpoint.port) if ground is not None else None
        if coming is not None:
            with suppress(MyoverlayError):  # told to whoever finishes it
                coming.wait(deadline)

    def finish(self, ground: Ground, endpoint: Endpoint, deadline: float) -> None:
        """A cable that was begun is there when this returns. Raises KernelRefused or Late."""
        coming = ground.coming.pop(endpoint.port, None)
        if coming is None:
            return
        try:
            coming.wait(deadline)
        except BaseException:
            # Half of it may be there, or be made after its deadline: this comes behind it in the queue.
            self._links.remove(ground.namespace, endpoint.port, deadline=deadline, wait=False)
            raise
        ground.ports.add(endpoint.port)

    def look(self, ground: Ground) -> None:
        """See which cables are still there: a container's namespace that dies takes its cable along."""
        laid = {port for port, coming in ground.coming.items() if coming.is_well()}
        for port in laid:
            del ground.coming[port]
        names = ground.link_names()
        ground.ports |= laid
        if self._binding is not None and not ground.ports <= names:
            self._binding.gone(ground.overlay)
        ground.ports &= names
        ground.leaving &= names

    def outside(self, ground: Ground, deadline: float) -> set[str]:
        """The ports whose far end is in no container: before Join, and where Docker put it back."""
        return set(self._links.far_ends(ground.namespace, deadline=deadline))

    def without(self, ground: Ground, endpoint: Endpoint, deadline: float) -> None:
        """Take the endpoint's cable away, by its end in our namespace; Docker does not wait for it."""
        coming = ground.coming.pop(endpoint.port, None)
        if coming is not None or endpoint.port in ground.ports:
            ground.ports.discard(endpoint.port)
            ground.leaving.add(endpoint.port)
            if self._binding is not None:
                self._binding.gone(ground.overlay)
            self._links.remove(ground.namespace, endpoint.port, deadline=deadline, wait=False)
