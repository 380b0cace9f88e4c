"""The door to links: what may be asked of them from any thread, done on the thread `links`. The cold path.

Removals that nobody waits for are done on another, `links-idle`, so that nobody waits behind one.
"""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import CancelledError, Future
from pathlib import Path
from types import TracebackType
from typing import Generic, Self, TypeVar

from myoverlay.errors import Late, MyoverlayError
from myoverlay.kernel import netns
from myoverlay.kernel.jobs import Jobs
from myoverlay.kernel.linkforms import Observed, Thing, form_of
from myoverlay.kernel.linkwork import Memory, Worker, remove
from myoverlay.kernel.netns import Namespace
from myoverlay.values import Address, Subnet

T = TypeVar("T")
log = logging.getLogger(__name__)


class Asked(Generic[T]):
    """Work that was asked for, and that may be waited for."""

    def __init__(self, what: str, future: Future[T]) -> None:
        self._what = what
        self._future = future

    def is_well(self) -> bool:
        """Is it done, without an error?"""
        return self._future.done() and not self._future.cancelled() and self._future.exception() is None

    def wait(self, deadline: float) -> T:
        """What came of it, or its error. Raises Late when the deadline passes first: it never begins then."""
        try:
            return self._future.result(max(0.0, deadline - time.monotonic()))
        except (TimeoutError, CancelledError):  # another one's deadline may have passed first
            self._future.cancel()
            raise Late(f"{self._what}: not done in time") from None


class Links:
    """The one door to links. Every method may be called from any thread and takes a `deadline` (`time.monotonic()`).

    Late is raised when it passes first: work that had not begun then never begins, work that had is finished unseen.
    KernelRefused carries the errno; EEXIST for a VXLAN device means that its VNI and port are taken (`holder_of`).
    """

    def __init__(self, host: Namespace | None = None) -> None:
        """`host` is where containers' ends and VXLAN sockets are born: by default the calling thread's namespace."""
        self._host = host.dup() if host is not None else netns.current()
        self._jobs = Jobs()
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()  # guards _open
        self._open = False
        self._worker = Worker(self._host)  # the links thread's alone
        #: Removals nobody waited for that failed; each is logged.
        self.failed_removals = 0

    @property
    def home(self) -> Namespace:
        """The host's own namespace, for as long as this is started: to look at, never to close."""
        return self._host

    def start(self) -> None:
        """Start the threads. Once per object."""
        with self._lock:
            self._open = True
            for name, serve in (("links", self._serve), ("links-idle", self._serve_idle)):
                self._threads.append(threading.Thread(target=serve, name=name, daemon=True))
                self._threads[-1].start()

    def stop(self, timeout: float) -> None:
        """Finish what was asked, then end the threads. Raises Late where that takes over `timeout` seconds."""
        until = time.monotonic() + timeout
        with self._lock:
            if not self._open:
                return
            self._open = False
            self._jobs.end()
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))
        if any(thread.is_alive() for thread in self._threads):
            raise Late(f"links were still being worked on after {timeout:g} s")
        self._host.close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop(30)

    def ensure(self, ns: Namespace, thing: Thing, *, deadline: float, ipv6: bool = False) -> tuple[str, ...]:
        """Make a link be as `thing` says, whatever is there: created, corrected, or made anew. Repeating is free.

        The answer names the sysctls that could not be set, one sentence each: the link works without them. `ipv6` says
        of a bridge that its overlay carries IPv6 (one with an IPv6 address does anyhow), and the tunnel does as its
        bridge; else IPv6 is off on both, which would only send neighbour discovery of their own.

        A Veth's container end is born in the host's namespace, down, and is not sought when it has moved from there.
        A Vxlan that differs in VNI, port or local address is made anew and loses its rows.
        """
        return self.begin(ns, thing, deadline=deadline, ipv6=ipv6).wait(deadline)

    def begin(self, ns: Namespace, thing: Thing, *, deadline: float, ipv6: bool = False) -> Asked[tuple[str, ...]]:
        """As `ensure`, to be waited for later."""
        work = lambda own: self._worker.ensure(own, thing, ipv6)  # noqa: E731
        return self._begin(f"{thing!r}", deadline, ns, work, form_of(thing).name)

    def remove(self, ns: Namespace, name: str, *, deadline: float, wait: bool = True) -> None:
        """Delete a link by name, a veth with its other end. Absent is success.

        With `wait` off it is done beside what others wait for (18 ms a veth), though before the next thing that is
        asked of that link; the deadline is moot, and a failure is logged and counted.
        """
        if wait:
            self._ask(f"removing {name}", deadline, ns, lambda own: remove(own, name), name)
            return
        held = ns.dup()
        try:
            with self._lock:
                self._check_open()
                superfluous = self._jobs.put_idle(lambda: self._remove_unseen(held, name), (ns.inode, name))
        except BaseException:
            held.close()
            raise
        if superfluous is not None:
            held.close()

    def equip(self, ns: Namespace, name: str, address: Address, prefixlen: int, *, deadline: float) -> None:
        """Give a container's end an address beside those it has, and set it up, in the container's namespace."""
        self._ask(f"setting up {name}", deadline, ns, lambda own: self._worker.equip(own, name, address, prefixlen))

    def far_ends(self, ns: Namespace, *, deadline: float) -> dict[str, str]:
        """Which veths of another namespace have their other end in the host's, and what it is called there."""
        return self._ask("following cables", deadline, ns, self._worker.far_ends)

    def forwards(self, ns: Namespace, port: str, *, deadline: float) -> bool:
        """Does the bridge's port forward? The kernel's link watch opens it some time after its far end came up."""
        return self._ask(f"looking at {port}", deadline, ns, lambda own: self._worker.forwards(own, port))

    def observe(self, ns: Namespace, *, deadline: float, memory: Memory | None = None) -> tuple[Observed, ...]:
        """All links of the namespace but `lo`, each as the value it amounts to and what is wrong with it.

        `memory` is the caller's, one for each namespace, and makes the next time cheap.
        """
        return self._ask("observing links", deadline, ns, lambda own: self._worker.observe(own, memory))

    def ifindex(self, ns: Namespace, name: str, *, deadline: float) -> int | None:
        """The index of a link, or None where there is none of that name."""
        return self._ask(f"finding {name}", deadline, ns, lambda own: self._worker.ifindex(own, name))

    def names(self) -> set[str]:
        """The names of all links of the host's namespace."""
        return {name for _, name in self._host.call(socket.if_nameindex)}

    def loose_ends(self, prefix: str, *, deadline: float) -> set[str]:
        """Veths of the host's namespace whose name begins so and whose other end is there too."""
        return self._ask("looking at cables", deadline, None, lambda _: self._worker.loose_ends(prefix))

    def remove_here(self, name: str, *, deadline: float) -> None:
        """Delete a link of the host's namespace by name. Absent is success."""
        self.remove(self._host, name, deadline=deadline)

    def ensure_here(self, thing: Thing, *, deadline: float) -> tuple[str, ...]:
        """As `ensure`, in the host's namespace."""
        return self.ensure(self._host, thing, deadline=deadline)

    def look_here(self, name: str, *, deadline: float) -> Observed | None:
        """A link of the host's namespace as `observe` tells it; None where there is none of that name."""
        return self._ask(f"looking at {name}", deadline, None, lambda _: self._worker.look_here(name))

    def bearer_of(self, address: Address, *, deadline: float) -> str | None:
        """The link of the host's namespace that has the address, of global or link scope; None where none has."""
        return self._ask(f"seeking {address}", deadline, None, lambda _: self._worker.bearer_of(address))

    def addresses(self, *, deadline: float) -> frozenset[Address]:
        """All addresses of the host that are of global scope."""
        return self._ask("reading addresses", deadline, None, lambda _: self._worker.addresses())

    def routes(self, *, deadline: float) -> tuple[Subnet, ...]:
        """Where the host's main table leads: no default, link-local, loopback or multicast destinations."""
        return self._ask("reading routes", deadline, None, lambda _: self._worker.routes())

    def leads(self, *, deadline: float) -> tuple[tuple[Subnet, str], ...]:
        """The same with the name of the interface that each route leaves by."""
        return self._ask("reading routes", deadline, None, lambda _: self._worker.leads())

    def address_of(self, name_or_address: str, *, deadline: float) -> tuple[Address, str, int]:
        """Address, interface name and MTU that an interface's name or an address of this host means.

        With "" those of the default route, else of the only global address. Raises Refused, naming what there is.
        """
        return self._ask("reading addresses", deadline, None, lambda _: self._worker.address_of(name_or_address))

    def route_mtu(self, address: Address, *, deadline: float) -> int:
        """Bytes that the host's route to `address` carries. Raises KernelRefused where there is none."""
        return self._ask(f"finding the route to {address}", deadline, None, lambda _: self._worker.route_mtu(address))

    def holder_of(self, vni: int, port: int, *, search: Sequence[Path], deadline: float) -> str | None:
        """Whose VXLAN device has this VNI and port in the host's namespace, as a phrase; None where none was found.

        Looked at are the host's own namespace and those pinned in the directories of `search`: a device keeps its
        claim in the namespace where its socket lives, wherever it is itself (vxlan_core.c).
        """
        return self._ask("seeking a VNI", deadline, None, lambda _: self._worker.holder_of(vni, port, search))

    # The queue.

    def _check_open(self) -> None:
        if not self._open:
            raise RuntimeError("links are not started, or stopped")

    def _submit(self, job: Callable[[], None], link: Hashable = None) -> None:
        with self._lock:
            self._check_open()
            self._jobs.put(job, link)

    def _ask(
        self, what: str, deadline: float, ns: Namespace | None, work: Callable[[Namespace], T], name: str | None = None
    ) -> T:
        """Have the work done on the thread, in `ns` or the host's namespace, and wait for it until the deadline."""
        return self._begin(what, deadline, ns, work, name).wait(deadline)

    def _begin(
        self, what: str, deadline: float, ns: Namespace | None, work: Callable[[Namespace], T], name: str | None = None
    ) -> Asked[T]:
        """`name`: the link that it is about, which an earlier removal of that link must not come after."""
        future: Future[T] = Future()
        # Its own fd: abandoned work may still run when the caller's is closed and its number is another's.
        held = (ns or self._host).dup()

        def job() -> None:
            with held:
                if future.set_running_or_notify_cancel():
                    self._fulfil(future, what, deadline, lambda: work(held))

        try:
            self._submit(job, (held.inode, name) if name is not None else None)
        except BaseException:
            held.close()
            raise
        return Asked(what, future)

    def _fulfil(self, future: Future[T], what: str, deadline: float, work: Callable[[], T]) -> None:
        try:
            if time.monotonic() >= deadline:
                raise Late(f"{what}: not begun in time")
            future.set_result(work())
        except BaseException as error:  # noqa: BLE001 - it belongs to the caller, who gets it from the future
            if not isinstance(error, MyoverlayError):
                self._worker.close()  # who knows what state the library is in: the next job opens anew
            future.set_exception(error)

    def _serve(self) -> None:
        try:
            while self._jobs.work():
                pass
        finally:
            self._worker.close()

    def _serve_idle(self) -> None:
        while self._jobs.work_idle():
            pass

    def _remove_unseen(self, ns: Namespace, name: str) -> None:
        with ns:
            try:
                remove(ns, name)
            except MyoverlayError as error:
                self.failed_removals += 1
                log.warning("%s", error)
