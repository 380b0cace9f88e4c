"""One namespace's links: read by struct, written by pyroute2."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
import sys
from collections.abc import Iterator
from typing import Any

from myoverlay.errors import KernelRefused
from myoverlay.kernel import cables, linkforms
from myoverlay.kernel.linkforms import IFINFO, Seen
from myoverlay.kernel.netns import Namespace, refusal
from myoverlay.kernel.pyroute import IPRoute, NetlinkError
from myoverlay.kernel.rtnetlink import Request, Wire, attribute, attributes

RTM_GETLINK, RTM_GETNSID = 18, 90
NETNSA_NSID, NETNSA_FD = 1, 3
IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS = 29, 8
NO_STATISTICS = attribute(IFLA_EXT_MASK, struct.pack("=I", RTEXT_FILTER_SKIP_STATS))


@contextlib.contextmanager
def attempt(what: str) -> Iterator[None]:
    try:
        yield
    except NetlinkError as error:
        raise KernelRefused(what, error.code, str(error.args[-1])) from error
    except OSError as error:
        raise refusal(what, error) from error


class Channel:
    """One namespace's links: read by struct (thirty times cheaper), written by pyroute2, which is opened when needed.

    Its sockets were born in the namespace: no fork, and the thread never leaves its own.
    """

    def __init__(self, ns: Namespace) -> None:
        self.ns = ns
        self.wire = Wire(ns)
        self._ipr: Any = None

    @property
    def ipr(self) -> Any:
        if self._ipr is None:
            with attempt(f"opening netlink in {self.ns!r}"):
                sock = self.ns.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, socket.NETLINK_ROUTE)
            try:
                self._ipr = IPRoute(use_socket=sock)
            except BaseException:
                sock.close()
                raise
        return self._ipr

    def close(self) -> None:
        self.wire.close()
        if self._ipr is not None:
            self._ipr.close()

    def find(self, name: str) -> Seen | None:
        request = IFINFO.pack(0, 0, 0, 0, 0) + attribute(linkforms.IFLA_IFNAME, os.fsencode(name) + b"\0")
        try:
            answer = self.wire.one(Request(RTM_GETLINK, 0, request + NO_STATISTICS), f"looking for {name}")
        except KernelRefused as said:
            if said.code == errno.ENODEV:
                return None
            raise
        return linkforms.decode_link(answer.body)

    def need(self, name: str) -> Seen:
        """A link that has to be there; KernelRefused (ENODEV) where it is not."""
        link = self.find(name)
        if link is None:
            raise KernelRefused(f"looking for {name}", errno.ENODEV, os.strerror(errno.ENODEV))
        return link

    def index_of(self, name: str) -> int | None:
        """The index of a link, None where there is none of that name; without RTNL, for which others make one wait."""
        return self.wire.index_of(name)

    def need_index(self, name: str) -> int:
        """The index of a link that has to be there; KernelRefused (ENODEV) where it is not."""
        index = self.index_of(name)
        if index is None:
            raise KernelRefused(f"looking for {name}", errno.ENODEV, os.strerror(errno.ENODEV))
        return index

    def all(self) -> list[Seen]:
        return [link for body in self.bodies() if (link := linkforms.decode_link(body)) is not None]

    def bodies(self) -> list[bytes]:
        """All links' messages, without statistics: what does not change is told by the same bytes each time."""
        return self.wire.dump(RTM_GETLINK, IFINFO.pack(0, 0, 0, 0, 0) + NO_STATISTICS)

    def nsid(self, other: Namespace) -> int | None:
        """The number by which this namespace's links mean the other one (IFLA_LINK_NETNSID); None where it has none."""
        request = bytes(4) + attribute(NETNSA_FD, struct.pack("=I", other.fd))
        answer = self.wire.one(Request(RTM_GETNSID, 0, request), f"asking {self.ns!r} for {other!r}")
        raw = attributes(answer.body, 4).get(NETNSA_NSID, b"")
        nsid = int.from_bytes(raw, sys.byteorder, signed=True) if raw else -1
        return nsid if nsid >= 0 else None

    def set(self, index: int, **given: Any) -> None:
        self.ipr.link("set", index=index, **given)

    def delete(self, name: str) -> None:
        index = self.index_of(name)
        if index is None:
            return
        for failure in self.wire.commit([cables.removed(index)]):
            if failure.code != errno.ENODEV:
                raise KernelRefused(f"removing {name}", failure.code, failure.reason)
