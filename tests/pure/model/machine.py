"""One simulated host: its disk and kernel, and the runs of the real daemon on them.

Every call of a run to the store, the kernel or the journal goes through its guard: there it can be killed, and once it
is dead nothing of it has any effect, whatever is still on the stack.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from myoverlay.daemon import Daemon, Parts
from myoverlay.errors import Late, MyoverlayError, Unavailable
from myoverlay.host import loop as loops
from myoverlay.host import reconcile
from myoverlay.host.alive import TTL
from myoverlay.host.journal import Journal
from myoverlay.host.peers import Standing
from myoverlay.plan.measure import Reach
from myoverlay.settings import load
from myoverlay.store import Unchanged
from myoverlay.tally import Tally
from myoverlay.values import Address, HostId
from tests.pure.model.kernel import FakeBoundTable, FakeFenceTable, FakeGround, FakeLinks, FakePins, Kernel
from tests.pure.model.scheduler import Bell, Latch, Turn
from tests.pure.model.ways import Paper, on_paper

if TYPE_CHECKING:
    from tests.pure.model.world import World


class Killed(BaseException):
    """The daemon was killed at this call. No `except Exception` of the program stops it."""


class Blocked(BaseException):
    """Nothing below the prefix changed: the loop's thread would wait in the store now."""

    def __init__(self, prefix: str, timeout: float) -> None:
        super().__init__(prefix)
        self.prefix, self.timeout = prefix, timeout


class Failure(BaseException):
    """An invariant does not hold."""

    def __init__(self, invariant: str, told: str) -> None:
        super().__init__(f"{invariant}: {told}")
        self.invariant = invariant


class Run:
    """One life of the daemon."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.alive = True
        #: Calls left until it is killed, where somebody lit it.
        self.fuse: int | None = None
        self.killed_at = ""
        #: When it first listed each overlay.
        self.listed_at: dict[str, float] = {}
        #: The loop whose turn it is.
        self.turn: Driven | None = None

    def check(self) -> None:
        if not self.alive:
            raise Killed

    def guard(self, what: str) -> None:
        """Before and after each effect."""
        if not self.alive:
            raise Killed
        if self.fuse is not None:
            self.fuse -= 1
            if self.fuse < 0:
                self.killed_at = what
                self.machine.kill(f"kill -9 at {what or 'the end of a call'}")
                self.machine.world.scheduler.after(self.machine.restart_in, self.machine.start)
                raise Killed


class Disk:
    """The journal's database as one run uses it. It is on the disk: a later run finds what was executed."""

    def __init__(self, db: sqlite3.Connection, run: Run) -> None:
        self._db = db
        self._run = run

    def execute(self, statement: str, values: Any = ()) -> sqlite3.Cursor:
        if not statement.startswith(("INSERT", "DELETE")):
            self._run.check()
            return self._db.execute(statement, values)
        self._run.guard(f"journal {statement[:24]}")
        done = self._db.execute(statement, values)
        self._run.guard("")
        return done

    def close(self) -> None:
        """The disk stays."""


class Way:
    """A run's way to the store: it takes time, can be cut, and answers get lost."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._machine = run.machine
        self._world = run.machine.world

    def __getattr__(self, name: str) -> Callable[..., Any]:
        ask = self.__dict__[name] = partial(self._ask, name)
        return ask

    def _ask(self, name: str, *args: Any, timeout: float = 3.0, **more: Any) -> Any:
        world, machine = self._world, self._machine
        self._run.guard(f"store {name}")
        world.scheduler.elapse(world.random.uniform(0.001, 0.01))
        self._run.check()
        world.scheduler.budget -= 1
        if world.scheduler.budget < 0:
            raise Late("it took too long: try again")
        if not machine.reaches_store:
            machine.reaching_since, machine.missed_at = None, world.scheduler.now
            raise Unavailable("the store cannot be reached")
        if machine.reaching_since is None:
            machine.reaching_since = world.scheduler.now
        world.actor = machine
        answer = getattr(world.store, name)(*args, timeout=timeout, **more)
        world.actor = None
        self._run.guard("")
        if name == "commit" and machine.deaf > 0:
            machine.deaf -= 1
            machine.reaching_since = None
            raise Unavailable("the store did it, and its answer was lost")
        if isinstance(answer, Unchanged) and self._run.turn is not None and not self._run.turn.ripe:
            raise Blocked(args[0], timeout)
        if isinstance(answer, Unchanged) and self._run.turn is None:
            answer = self._wait_out(name, args, timeout)
        if not name.startswith("wait"):
            world.scheduler.elapse(world.random.uniform(0.001, 0.01))
            self._run.check()
        return answer

    def _wait_out(self, name: str, args: tuple[Any, ...], timeout: float) -> Any:
        """A call of Docker's waits in the store itself, and the others go on."""
        for _ in range(5):
            self._world.scheduler.elapse(timeout / 5)
            self._run.check()
        return getattr(self._world.store, name)(*args, timeout=timeout)

    def close(self) -> None:
        """Nothing is held."""


class Driven:
    """A loop's turns: what its thread would do."""

    def __init__(self, run: Run, loop: loops.Loop) -> None:
        self.run = run
        self.loop = loop
        #: The prefix that its thread waits below, and until when; `ripe`: that time is over.
        self.blocked: str | None = None
        self.ripe = False
        self.first_looks = 10
        self._until = 0.0
        self._world = run.machine.world
        self._act = _TURNS.get(type(loop).__name__, _each_second)
        self._delay = loops.RETRY[0]
        self._due: float | None = None
        self._busy = False
        self._failed = False
        loop._again = Alarm(self._retry)
        self.wake()

    def _retry(self) -> None:
        """Whoever waits out the pause after a failure goes on at once, and pauses shortly anew."""
        if self._failed:
            self._delay = loops.RETRY[0]
            self.wake(0.001)

    def hurry(self) -> None:
        """Who waits to be wanted is; who is at it looks afterwards, and who failed pauses all the same."""
        if not self._busy and not self._failed:
            self.wake(self._world.random.uniform(0.001, 0.1))

    def wake(self, seconds: float = 0.0) -> None:
        """Take its turn then, if it would not before."""
        moment = self._world.scheduler.now + seconds
        if self._due is None or moment < self._due:
            self._due = moment
            self._world.scheduler.at(moment, partial(self._turn, moment))

    def _turn(self, moment: float) -> None:
        if self._due != moment or not self.run.alive or self.loop.stopping.is_set():
            return
        self._due = None
        if self._busy:
            self.wake(0.01)
            return
        was, self.blocked = self.blocked, None
        self.ripe = was is not None and moment >= self._until
        outer, self.run.turn = self.run.turn, self
        self._busy = True
        pause: float | None = None
        before, self._world.speaker = self._world.speaker, self.run.machine
        try:
            pause = self._act(self)
            self._delay, self._failed = loops.RETRY[0], False
        except Blocked as wait:
            self._delay, self._failed = loops.RETRY[0], False
            self._until = self._until if was == wait.prefix and not self.ripe else moment + wait.timeout
            self.blocked, pause = wait.prefix, max(0.001, self._until - self._world.scheduler.now)
        except (Unavailable, Late):
            pause = self._delay * self._world.random.uniform(0.5, 1.0)
            self._delay, self._failed = min(loops.RETRY[1], self._delay * 2), True
        except Killed:
            return
        except Exception as error:
            raise Failure("no bug", f"{self.run.machine.name}: {type(self.loop).__name__}: {error!r}") from error
        finally:
            self._busy = False
            self.run.turn = outer
            self._world.speaker = before
        if pause is not None:
            self.wake(pause)


def _each_second(driven: Driven) -> float:
    driven.loop.step()  # type: ignore[attr-defined]
    return max(1.0, 3 * driven.run.machine.world.pace)


def _liveness(driven: Driven) -> float:
    if not isinstance(driven.loop.stopping, Hurry):
        driven.loop.stopping = Hurry()
    driven.loop.round()
    return TTL / 3


def _publisher(driven: Driven) -> float | None:
    due = driven.loop.step()  # type: ignore[attr-defined]
    return None if due is None else max(0.001, due - driven.run.machine.world.scheduler.now)


def _watch(driven: Driven, *arguments: float) -> float:
    news = driven.loop.step(*arguments)  # type: ignore[attr-defined]
    return loops.COALESCE if news else 0.001


def _list_watch(driven: Driven) -> float:
    """It waits, bounded, until the store's incarnation was read."""
    epoch = driven.run.machine.daemon.epoch
    if not epoch.looked.is_set() and driven.first_looks > 0:
        driven.first_looks -= 1
        return 0.3
    pause = _watch(driven)
    if driven.loop._listed_at:  # type: ignore[attr-defined]
        overlay = driven.loop._local.network.overlay  # type: ignore[attr-defined]
        driven.run.listed_at.setdefault(overlay, driven.run.machine.world.scheduler.now)
    return pause


def _reconciler(driven: Driven) -> float:
    driven.loop.compare()  # type: ignore[attr-defined]
    return max(reconcile.ROUND, 5 * driven.run.machine.world.pace)


def _settler(driven: Driven) -> float:
    """It waits until it is wanted, at most so long."""
    wanted = driven.run.machine.daemon.leases.wanted
    driven.loop.step()  # type: ignore[attr-defined]
    return 0.001 if wanted.is_set() else reconcile.SETTLE


def _lookup(driven: Driven) -> float:
    while not driven.loop._queue.empty():  # type: ignore[attr-defined]
        driven.loop.round()
    return 10.0


def _never(driven: Driven) -> None:
    return None


_TURNS: dict[str, Callable[[Driven], float | None]] = {
    "Liveness": _liveness,
    "Publisher": _publisher,
    "Watch": _list_watch,
    "OutsiderWatch": _watch,
    "Respondent": lambda driven: _watch(driven, loops.WAIT),
    "PeerWatch": lambda driven: _watch(driven, loops.WAIT),
    "Reconciler": _reconciler,
    "Settler": _settler,
    "MirrorKeeper": _never,
    "Lookup": _lookup,
    "MissLoop": _never,
    "KernelWatch": _never,
}


class Pulse(NamedTuple):
    heard: float | None
    silent: bool
    rtt: float | None = None
    carries: bool | None = None
    loss: float | None = None


class Alarm(threading.Event):
    """Tells somebody when it is set."""

    def __init__(self, told: Callable[[], None]) -> None:
        super().__init__()
        self._told = told

    def set(self) -> None:
        super().set()
        self._told()


class Hurry(threading.Event):
    """Nobody waits for it: pauses are the scheduler's business."""

    def wait(self, timeout: float | None = None) -> bool:
        return self.is_set()


class FakeBeat:
    """`host.beat.Beat`: it knows what the world knows, and takes as long to be sure."""

    #: Seconds of silence after the suspicion.
    SURE = 4.0

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._suspected: dict[HostId, float] = {}
        self._heard: dict[HostId, float] = {}
        self.on_change: Callable[[], None] = lambda: None

    def suspect(self, hosts: Collection[HostId]) -> None:
        now = self._machine.world.scheduler.now
        self._suspected = {host: self._suspected.get(host, now) for host in hosts}

    def pulse(self, host: HostId) -> Pulse:
        world = self._machine.world
        if host not in self._suspected:
            return Pulse(self._heard.get(host), False)
        other = next(machine for machine in world.machines if machine.id == host)
        now = world.scheduler.now
        if world.reach(self._machine, other):
            self._heard[host] = now
            return Pulse(now, False)
        since = max(self._suspected[host], self._heard.get(host, 0.0))
        return Pulse(self._heard.get(host), now - since >= self.SURE)

    def state(self) -> Standing:
        """It can always ask, and knows no MTU."""
        return Standing("", 0)

    def measure(self, targets: Mapping[HostId, Address], size: int, patience: float) -> dict[HostId, Reach]:
        """No schedule asks for it."""
        return dict.fromkeys(targets, Reach.UNASKED)


class Machine:
    """A host of the world. `daemon` is that of the current run."""

    def __init__(self, world: World, number: int) -> None:
        self.world = world
        self.number = number
        self.name = f"h{number}"
        self.vtep = Address(f"192.0.2.{number}")
        self.kernel, self.ways = Kernel(self.vtep), Paper()
        self.kernel.on_rows = lambda space, gone, why: world.truth.rows_gone(self, space, gone, why)
        self.kernel.on_hole = self._hole
        self.powered, self.off_since = True, 0.0
        self.doomed = False
        #: Since when its daemon has had answers from the store, without a failure; since when it has run.
        self.reaching_since: float | None = None
        #: When it could not reach the store last.
        self.missed_at = 0.0
        #: Since when the store has not had what the host holds.
        self.lost_since: float | None = None
        self.cut = False
        self.deaf = 0
        #: After a kill at a call: seconds until it starts again, and the calls it is then given.
        self.restart_in = 1.0
        self.next_fuse: int | None = None
        #: What `--restart always` starts at boot: networks, with the address that was asked for.
        self.always: list[tuple[Any, Address | None]] = []
        #: What ran when the power went, of networks whose addresses are Docker's own.
        self.lost: list[Any] = []
        self.run: Run | None = None
        self.daemon: Any = None
        self.loops: list[Driven] = []
        self._db = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        self._db.execute("CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value BLOB) WITHOUT ROWID")
        self.id = HostId(f"{world.random.getrandbits(128):032x}")
        self._db.execute("INSERT INTO meta VALUES ('host', ?)", (self.id.encode(),))

    def __repr__(self) -> str:
        return self.name

    @property
    def runs(self) -> bool:
        return self.run is not None and self.run.alive

    def writes(self) -> bool:
        """Has it reached the store for long enough to have written all it holds?"""
        return self.reaching_since is not None and self.world.scheduler.now - self.reaching_since >= 10.0

    @property
    def reaches_store(self) -> bool:
        return self.powered and not self.cut and not self.world.store_down

    def start(self) -> None:
        """Start the daemon, if the machine has power and it does not run."""
        if not self.powered or self.runs:
            return
        run = self.run = Run(self)
        run.fuse, self.next_fuse = self.next_fuse, None
        self.loops = []
        try:
            self.daemon = self._make(run)
            self.daemon.start()
        except Killed:
            self._let_go()
        except MyoverlayError as error:
            raise Failure("starts", f"{self.name} does not start: {error}") from error

    def _make(self, run: Run) -> Daemon:
        world = self.world
        settings = load({"MYOVERLAY_HOST_NAME": self.name, **world.environ})
        tally = Tally()
        parts = Parts(
            journal=Journal(Path("/model"), lambda _: Disk(self._db, run)),  # type: ignore[arg-type, return-value]
            links=FakeLinks(self.kernel, run.guard),  # type: ignore[arg-type]
            pins=FakePins(self.kernel, run.guard),  # type: ignore[arg-type]
            open_ground=partial(_open_ground, self.kernel, run),  # type: ignore[arg-type]
            begin=partial(self._begin, run),
            now=world.scheduler,
            wall=world.scheduler,
            heartbeat=FakeBeat(self),
            fence=FakeFenceTable(self.kernel, run.guard),
            bounds=partial(FakeBoundTable, guard=run.guard),
            egress=on_paper(self.ways, tally),
            tally=tally,
        )
        daemon = Daemon(settings, Way(run), parts)  # type: ignore[arg-type]
        # What waits or is held across calls to the store does so under virtual time.
        daemon.publisher._turn = Turn(world.scheduler, run.check, partial(self._wake, "Publisher", run))  # type: ignore[assignment]
        daemon.publisher.at_work._turn = Turn(world.scheduler, run.check, lambda: None)  # type: ignore[assignment]
        daemon.overlays._creating = Latch(world.scheduler)  # type: ignore[assignment]
        daemon.epoch._looking = Latch(world.scheduler)  # type: ignore[assignment]
        daemon.epoch.looked = Bell(world.scheduler, run.check)
        daemon.pools._choosing = Latch(world.scheduler)  # type: ignore[assignment]
        daemon.reconciler._abandoned = world.abandoned
        wanted = Alarm(partial(self._hurry, run))
        daemon.pools.wanted = daemon.leases.wanted = daemon.ceding._wanted = wanted
        daemon.fates.on_expired = wanted.set
        return daemon

    def _begin(self, run: Run, loop: loops.Loop) -> None:
        run.check()
        self.loops = [one for one in self.loops if not one.loop.stopping.is_set()]
        self.loops.append(Driven(run, loop))

    def _wake(self, kind: str, run: Run) -> None:
        if run is self.run:
            for driven in self.loops:
                if type(driven.loop).__name__ == kind:
                    driven.wake(0.001)

    def _hurry(self, run: Run) -> None:
        if run is self.run:
            for driven in self.loops:
                if isinstance(driven.loop, reconcile.Settler):
                    driven.hurry()

    def call(self, act: Callable[[], Any]) -> Any:
        """Docker calls the plugin. Raises Killed where nobody answers (any more), MyoverlayError where it refuses."""
        if not self.runs:
            raise Killed
        run = self.run
        for local in self.daemon.overlays.all():
            if not isinstance(local.listed, Bell):
                bell = Bell(self.world.scheduler, run.check)  # type: ignore[union-attr]
                if local.listed.is_set():
                    bell.set()
                local.listed = bell
        before, self.world.speaker = self.world.speaker, self
        turn, run.turn = run.turn, None  # type: ignore[union-attr]  # it is no loop that waits in the store now
        try:
            answer = act()
        except (MyoverlayError, Killed):
            raise
        except Exception as error:
            raise Failure("no bug", f"{self.name}: a call of Docker's: {error!r}") from error
        finally:
            self.world.speaker = before
            run.turn = turn  # type: ignore[union-attr]
        run.check()  # type: ignore[union-attr]
        return answer

    def kill(self, why: str) -> None:
        """The daemon ends in the middle of whatever it does."""
        if self.run is None or not self.run.alive:
            return
        self.world.note(f"{self.name}: {why}")
        self.run.alive, self.reaching_since = False, None
        self._let_go()

    def _let_go(self) -> None:
        if self.daemon is not None:
            self.daemon.misses.stop(0)
            self.daemon = None
        self.loops = []

    def _hole(self, told: str) -> None:
        raise Failure("guarded", f"{self.name}: {told}")

    def power_off(self) -> None:
        self.kill("loses power")
        self.powered, self.off_since = False, self.world.scheduler.now
        self.kernel.power_off()

    def power_on(self) -> None:
        self.powered = True
        self.start()

    def close(self) -> None:
        self.kill("the end")
        self._db.close()


def _open_ground(kernel: Kernel, run: Run, namespace: Any, ifindex: int, ports: Iterable[str]) -> FakeGround:
    run.guard("open ground")
    return FakeGround(kernel, run.guard, namespace, ifindex, ports)
