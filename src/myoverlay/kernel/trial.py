"""Whether a VXLAN device could be made here: the kernel's own answer, by one that is made and removed at once."""

from __future__ import annotations

import errno
import logging
from collections.abc import Iterable
from pathlib import Path

from myoverlay.errors import KernelRefused
from myoverlay.kernel import netns
from myoverlay.kernel.linkforms import Tunnel
from myoverlay.kernel.links import Links
from myoverlay.values import Address, Mac

log = logging.getLogger(__name__)

DEVICE = "trial"
_MAC = Mac("02:00:00:00:00:01")
#: It carries nothing.
_MTU = 1280


class Trial:
    """Tries VNIs and ports of this host. From any thread."""

    def __init__(self, links: Links, search: Iterable[Path]) -> None:
        """`search`: where namespaces are pinned, to name who has a VNI."""
        self._links = links
        self._search = tuple(search)

    def taken(self, vni: int, port: int, local: Address, deadline: float) -> tuple[bool, str] | None:
        """None where VNI and UDP port are free; else whether it is the port, and who has it.

        The device is born in a namespace of its own that is pinned nowhere, with its socket in the host's, as an
        overlay's would be. Raises KernelRefused where the kernel says no for another reason.
        """
        tunnel = Tunnel(name=DEVICE, mac=_MAC, vni=vni, port=port, local=local, mtu=_MTU)
        with netns.nameless() as namespace:
            try:
                self._links.ensure(namespace, tunnel, deadline=deadline)
            except KernelRefused as error:
                if error.code not in (errno.EEXIST, errno.EADDRINUSE):
                    raise
                holder = self._links.holder_of(vni, port, search=self._search, deadline=deadline)
                if error.code == errno.EADDRINUSE and holder is None:
                    return True, "a program that has bound it"
                return False, holder or "a device that cannot be seen"
            finally:
                # The namespace ends in the background, and the VNI would be taken until then.
                self._links.remove(namespace, DEVICE, deadline=deadline)
        return None
