"""Hears what the kernel tells everybody about links, routes and neighbours, as `ip monitor` does. Bytes only."""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Iterable
from types import TracebackType
from typing import Self

from myoverlay.kernel.neigh import READ_LIMIT, RTNLGRP_NEIGH, Overrun
from myoverlay.kernel.netns import Namespace, refusal
from myoverlay.kernel.rtnetlink import BUFFER, CHUNK, SO_RCVBUFFORCE, SOL_NETLINK

#: linux/rtnetlink.h. Routes have a group per family.
GROUPS = {"link": (1,), "neigh": (RTNLGRP_NEIGH,), "route": (7, 11)}
NETLINK_ADD_MEMBERSHIP = 1


class Monitor:
    """A member of some groups in one namespace. For one thread, which selects on `fileno`."""

    def __init__(self, ns: Namespace, groups: Iterable[str]) -> None:
        try:
            self._socket = ns.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        except OSError as error:
            raise refusal(f"opening netlink in {ns!r}", error) from error
        try:
            self._socket.setblocking(False)
            with contextlib.suppress(PermissionError):
                self._socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER)
            self._socket.bind((0, 0))
            for number in (number for group in groups for number in GROUPS[group]):
                self._socket.setsockopt(SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, number)
        except OSError as error:
            self._socket.close()
            raise refusal(f"listening to the kernel in {ns!r}", error) from error

        self._overrun = False

    def fileno(self) -> int:
        return self._socket.fileno()

    def read(self) -> list[bytes]:
        """What has come, a piece per notification, without waiting.

        Raises Overrun where some were lost, after those before the gap have been handed out.
        """
        if self._overrun:
            self._overrun = False
            raise Overrun
        pieces: list[bytes] = []
        while len(pieces) < READ_LIMIT:
            try:
                raw, sender = self._socket.recvfrom(CHUNK)
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise refusal("reading the kernel's notifications", error) from error
                if not pieces:
                    raise Overrun from error
                self._overrun = True
                break
            if sender[0] == 0:  # the kernel; a privileged process may write to a group too
                pieces.append(raw)
        return pieces

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()
