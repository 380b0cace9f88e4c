"""A host's daemon in a process of its own, which ends by SIGKILL just before one of its *effects*.

An effect is whatever outlives the process: a statement of the journal, a commit to the store, a change of a link, an
address, a sysctl, a pin or a row, and the answer. What a kill after an effect leaves is what one before the next
leaves, so that a kill before each of them, the answer being the last, is a kill at every step.

Run as a program this is the nursery: it has imported everything, has no threads, and forks a daemon in some ten
milliseconds. Everybody speaks by `multiprocessing.connection` with the test's process, which also keeps the store.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Client, Connection
from pathlib import Path
from typing import Any, NamedTuple

from myoverlay.daemon import Daemon
from myoverlay.host import audit, holdings, leases, reconcile
from myoverlay.host.journal import Journal
from myoverlay.host.mirror import Mirror
from myoverlay.kernel import channel, netns
from myoverlay.kernel.netns import Namespace
from myoverlay.kernel.rtnetlink import Wire
from myoverlay.plan.pools import reserve_size
from myoverlay.settings import load

#: Seconds: how long what nobody asks for is left alone, and how often it is looked for.
USUAL, HASTY = (300.0, 5.0), (0.0, 0.05)


class Birth(NamedTuple):
    """What a daemon needs to know to be born."""

    name: str
    environ: dict[str, str]
    home: str
    control: str
    store: str
    log: str
    fatal: int


class Effects:
    """Counts what outlives this process while it is armed, and ends it before the n-th."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._fatal = 0
        self._seen: list[str] = []

    def arm(self, fatal: int) -> None:
        """Be killed before the effect of this number, the next one being 1; 0: never."""
        with self._lock:
            self._fatal = fatal
            self._seen.clear()

    def disarm(self) -> list[str]:
        """Live on; what was counted."""
        with self._lock:
            self._fatal = 0
            return list(self._seen)

    def before(self, what: str) -> None:
        with self._lock:
            self._seen.append(what)
            if len(self._seen) == self._fatal:
                logging.warning("killed before %s", what)
                os.kill(os.getpid(), signal.SIGKILL)


class _Counted:
    """An object of which some methods are effects."""

    def __init__(self, inner: Any, what: Callable[[str, tuple[Any, ...]], str | None], effects: Effects) -> None:
        self._inner, self._what, self._effects = inner, what, effects

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._inner, name)
        if not callable(method):
            return method

        def call(*args: Any, **kwargs: Any) -> Any:
            what = self._what(name, args)
            if what is not None:
                self._effects.before(what)
            return method(*args, **kwargs)

        return call


def _of_library(name: str, args: tuple[Any, ...]) -> str | None:
    changes = name in ("link", "addr") and args[0] in ("add", "set", "del", "delete")
    return f"{name} {args[0]}" if changes else None


def _of_libc(name: str, args: tuple[Any, ...]) -> str | None:
    return name if name in ("mount", "umount2") else None


def _of_store(name: str, args: tuple[Any, ...]) -> str | None:
    return name if name in ("commit", "open_session", "close_session") else None


def instrument(effects: Effects) -> None:
    """Put the counter before whatever changes journal, links, rows and pins. For this process alone."""
    write, follow = Journal.write, Mirror.follow
    commit, sysctls, unlink = Wire.commit, Namespace.sysctls, Path.unlink

    def counted_write(self: Journal, statement: str, *values: str | bytes) -> None:
        effects.before("{0} {2} of the journal".format(*statement.replace("OR REPLACE ", "").split()))
        write(self, statement, *values)

    def counted_follow(self: Mirror, copied: Callable[[Any], object]) -> None:
        effects.before("the journal's copy")
        follow(self, copied)

    def counted_commit(self: Wire, requests: Any) -> Any:
        if requests:
            kinds = sorted({one.kind for one in requests})
            effects.before(f"rows of kind {kinds}")
        return commit(self, requests)

    def counted_sysctls(self: Namespace, settings: Any) -> Any:
        effects.before("sysctls")
        return sysctls(self, settings)

    def counted_unlink(self: Path, missing_ok: bool = False) -> None:
        effects.before(f"unlink {self.name}")
        unlink(self, missing_ok)

    library, libc = channel.IPRoute, netns._libc
    Journal.write, Mirror.follow = counted_write, counted_follow  # type: ignore[method-assign]
    Wire.commit = counted_commit  # type: ignore[method-assign]
    Namespace.sysctls, Path.unlink = counted_sysctls, counted_unlink  # type: ignore[method-assign]
    channel.IPRoute = lambda **given: _Counted(library(**given), _of_library, effects)
    netns._libc = _Counted(libc, _of_libc, effects)  # type: ignore[assignment]


class RemoteStore:
    """The store in the test's process, by a connection for each thread, so that a blocked wait keeps nobody waiting."""

    def __init__(self, address: str, name: str) -> None:
        self._address, self._name = address, name
        self._mine = threading.local()

    def __getattr__(self, method: str) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            if not hasattr(self._mine, "line"):
                self._mine.line = Client(self._address, "AF_UNIX")
                self._mine.line.send(self._name)
            self._mine.line.send((method, args, kwargs))
            done, result = self._mine.line.recv()
            if not done:
                raise result
            return result

        return call

    def close(self) -> None:
        """The process is about to end."""


class Life:
    """One daemon, from its birth to its violent end."""

    def __init__(self, birth: Birth) -> None:
        self._birth = birth
        self._effects = Effects()
        self._line: Connection[Any, Any] = Client(birth.control, "AF_UNIX")

    def live(self) -> None:
        """Start, say so, and do as told, until killed or until the test has gone."""
        instrument(self._effects)
        self._effects.arm(self._birth.fatal)
        store = RemoteStore(self._birth.store, self._birth.name)
        counted: Any = _Counted(store, _of_store, self._effects)
        with netns.open_path(Path(self._birth.home)) as home:
            self._daemon = home.call(lambda: Daemon(load(self._birth.environ), counted))
        self._daemon.start()
        self._answer(None)
        while True:
            method, *args = self._line.recv()
            self._answer(getattr(self, method)(*args))

    def _answer(self, result: Any) -> None:
        self._line.send(result)

    def call(self, method: str, body: str) -> tuple[int, Any]:
        """One of Docker's calls."""
        said = self._daemon.app.test_client().post(f"/{method}", data=body)
        self._effects.before("the answer")
        return said.status_code, said.get_json()

    def arm(self, fatal: int) -> None:
        self._effects.arm(fatal)

    def disarm(self) -> list[str]:
        return self._effects.disarm()

    def haste(self, patience: tuple[float, float]) -> None:
        """Other constants of time: HASTY or USUAL."""
        holdings.ABANDONED, reconcile.ROUND = patience
        reconcile.SETTLE = patience[1]
        self._daemon.reconciler._abandoned = patience[0]
        audit.SLOW, leases.OWED = min(patience[0], 300.0), min(patience[0], 30.0)
        self._daemon.audit.want()
        self._daemon.reconciler.wake()

    def busy(self) -> str:
        """What the daemon still has to tell the store; nothing: it has settled."""
        daemon = self._daemon
        journal = daemon.journal
        held = journal.leases.all()
        if daemon.links._jobs._idle:
            return "removals that nobody waits for"
        daemon.links.routes(deadline=time.monotonic() + 5)  # behind the one that is under way
        if not daemon.liveness.announced.is_set():
            return "not announced"
        if any(lease.use == "releasing" or lease.promised for lease in held):
            return "leases"
        if journal.leaving.all() or any(not use.at for use in journal.uses.all()):
            return "pools or overlays it has left"
        for local in daemon.overlays.all():
            network = local.network
            listed = daemon.records.own_list(network.overlay, network.vtep)
            if set(local.records()) != set(listed.value.records if listed else ()):
                return f"the list of {network.overlay}"
            reserve = [lease for lease in held if lease.subnet == network.subnet and lease.use == "reserve"]
            use = journal.uses.get(network.pool or "")
            if use is not None and len(reserve) < reserve_size(use.within or use.subnet):
                return f"the reserve of {network.overlay}"
        return ""


def _bear(birth: Birth) -> None:
    logging.basicConfig(filename=birth.log, level="INFO", force=True, format=f"{birth.name} %(threadName)s %(message)s")
    try:
        Life(birth).live()
    except EOFError:
        pass  # the test has gone
    except BaseException:
        logging.exception("the daemon failed")
        traceback.print_exc()
        raise


def main(address: str) -> None:
    """Fork a daemon for each birth that is told, and wait for the end of each pid that is told."""
    line: Connection[Any, Any] = Client(address, "AF_UNIX")
    while True:
        try:
            told = line.recv()
        except EOFError:
            return
        if not isinstance(told, Birth):
            line.send(os.waitpid(told, 0)[1])
            continue
        pid = os.fork()
        if pid == 0:
            line.close()
            try:
                _bear(told)
            finally:
                os._exit(1)
        line.send(pid)


if __name__ == "__main__":
    # What is pickled must be the same here and in the test's process, whatever name this runs under.
    from tests.kernel.host import mortal

    mortal.main(sys.argv[1])
