"""Docker's part on one simulated host: networks and containers, and the calls that libnetwork makes for them.

An operation is a generator: between two calls it yields the seconds until the next. It knows what Docker knows, and so
it is the truth that the invariants are judged by: a container is live from the end of its start to the begin of its
end.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from myoverlay.docker import wire
from myoverlay.errors import MyoverlayError
from myoverlay.values import Address, Fdb, Mac, Neigh
from tests.pure.model.machine import Failure, Killed, Machine

if TYPE_CHECKING:
    from tests.pure.model.world import Overlay, World

#: How long Docker's client tries to reach a plugin that does not answer, seconds.
PATIENCE = 15.0

#: A deadline that never passes: deadlines are moments of the real clock, which does not matter here.
FAR = 2e9

Steps = Iterator[float]


class GaveUp(Exception):
    """The plugin did not answer for so long that Docker forgot what it wanted."""


class DockerNetwork:
    def __init__(self, network: str, overlay: Overlay, pool: str | None, since: float) -> None:
        self.id, self.overlay, self.pool, self.since = network, overlay, pool, since
        self.going = False


class Container:
    """`live`: it runs and has its interface."""

    def __init__(self, machine: Machine, network: DockerNetwork, endpoint: str, address: Address) -> None:
        self.machine, self.network, self.endpoint, self.address = machine, network, endpoint, address
        self.overlay = network.overlay
        self.mac = Mac.of(address)
        #: The least generation of its record, in ms.
        self.born = int(machine.world.scheduler() * 1000)
        self.asked: Address | None = None
        self.promised = False
        self.live = False
        self.going = False

    def __repr__(self) -> str:
        return f"{self.machine.name}:{self.overlay.name}/{self.address}({self.mac[-5:]})"

    @property
    def port(self) -> str:
        return f"p{self.endpoint[:12]}"

    @property
    def link(self) -> str:
        return f"mo{self.endpoint[:12]}"

    @property
    def rows(self) -> tuple[Neigh, Fdb]:
        return Neigh(address=self.address, mac=self.mac), Fdb(mac=self.mac, vtep=self.machine.vtep)


class Engine:
    """Docker on a machine. `held` are the addresses that our IPAM gave it and that it has not given back."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.world: World = machine.world
        self.networks: dict[str, DockerNetwork] = {}
        self.containers: dict[str, Container] = {}
        self.held: dict[tuple[str, Address], bool] = {}
        #: How many running calls and containers hold each: two that are started at once may ask for the same `--ip`.
        self._holds: Counter[tuple[str, Address]] = Counter()
        self.busy: set[str] = set()
        self.working = 0
        self._life = 0

    # -- how Docker works ------------------------------------------------------------------------------------------

    def begin(self, steps: Steps) -> None:
        """Let an operation go on from call to call, until it ends or the power does."""
        life = self._life
        self.working += 1

        def turn() -> None:
            if life != self._life:
                return
            try:
                pause = next(steps)
            except StopIteration:
                if life == self._life:
                    self.working -= 1
                return
            self.world.scheduler.after(pause, turn)

        self.world.scheduler.after(0.001, turn)

    def _ask(self, what: str, call: Callable[[Any], Any], surely: bool = False) -> Iterator[Any]:
        """One call, tried again while the plugin does not answer. Raises MyoverlayError or GaveUp.

        `surely`: it is a clean-up, which must never be refused.
        """
        until = self.world.scheduler.now + PATIENCE
        while True:
            life = self._life
            try:
                answer = self.machine.call(lambda: call(self.machine.daemon))
                break
            except Killed:
                if life != self._life:
                    yield 0.0  # the power went: never resumed
                if self.world.scheduler.now >= until:
                    self.world.note(f"{self.machine.name}: Docker gives up: {what}")
                    raise GaveUp(what) from None
                yield self.world.random.uniform(0.3, 1.0)
            except MyoverlayError as error:
                if surely:
                    raise Failure("deletes succeed", f"{self.machine.name}: {what}: {error}") from error
                self.world.note(f"{self.machine.name}: {what}: {error}")
                self.world.refusals += 1
                raise
        if life != self._life:
            yield 0.0
        yield self.world.random.uniform(0.001, 0.03)
        return answer

    def _deadline(self) -> float:
        return FAR

    # -- networks --------------------------------------------------------------------------------------------------

    def create_network(self, overlay: Overlay) -> Steps:
        self.busy.add(overlay.name)
        network = DockerNetwork(self.world.hex(64), overlay, None, self.world.scheduler.now)
        done: list[Callable[[], Steps]] = []
        try:
            if overlay.ours:
                yield from self._request_pool(network, done)
            ask = wire.CreateNetwork(
                network=network.id,
                options={wire.GENERIC: overlay.options},
                ipv4=(wire.IpamData(pool=overlay.subnet, gateway=f"{overlay.gateway}/{overlay.subnet.prefixlen}"),),
            )
            # Once asked it may be there, whatever becomes of the answer.
            done.append(lambda: self._ask("DeleteNetwork", partial(_delete_network, network.id), surely=True))
            yield from self._ask(
                f"create network {overlay.name}", lambda d: d.driver.create_network(ask, self._deadline())
            )
            self.networks[network.id] = network
            self.world.note(f"{self.machine.name}: has network {overlay.name}")
        except (MyoverlayError, GaveUp):
            yield from self._undo(done)
        self.busy.discard(overlay.name)

    def _request_pool(self, network: DockerNetwork, done: list[Callable[[], Steps]]) -> Steps:
        overlay = network.overlay
        ask = wire.RequestPool(pool=overlay.subnet, options={"overlay": overlay.name})
        answer = yield from self._ask(
            f"request pool {overlay.subnet}", lambda d: d.ipam.request_pool(ask, self._deadline())
        )
        network.pool = pool = answer["PoolID"]
        done.append(lambda: self._ask("ReleasePool", partial(_release_pool, pool), surely=True))
        wish = wire.RequestAddress(pool=pool, address=overlay.gateway, options={wire.ADDRESS_TYPE: wire.GATEWAY})
        yield from self._ask("request the gateway", lambda d: d.ipam.request_address(wish, self._deadline()))

    def _undo(self, done: list[Callable[[], Steps]]) -> Steps:
        for act in reversed(done):
            try:
                yield from act()
            except GaveUp:
                continue

    def delete_network(self, network: DockerNetwork) -> Steps:
        """`docker network rm`: only for a network without containers, and from here on none begins there.

        Docker marks the network before it calls the plugin; a `docker run` that comes after that is refused.
        """
        network.going = True
        self.busy.add(network.overlay.name)
        return self._delete(network)

    def _delete(self, network: DockerNetwork) -> Steps:
        pool = network.pool
        acts: list[Callable[[], Steps]] = [
            lambda: self._ask("DeleteNetwork", partial(_delete_network, network.id), surely=True)
        ]
        if pool is not None:
            gateway = f"{network.overlay.gateway}/{network.overlay.subnet.prefixlen}"
            back = wire.ReleaseAddress(pool=pool, address=gateway)
            release = [
                lambda: self._ask(
                    "ReleaseAddress", lambda d: d.ipam.release_address(back, self._deadline()), surely=True
                ),
                lambda: self._ask("ReleasePool", partial(_release_pool, pool), surely=True),
            ]
            acts = [*release, *acts] if self.world.random.random() < 0.5 else [*acts, *release]
        for act in acts:
            while True:
                try:
                    yield from act()
                    break
                except GaveUp:
                    yield 1.0  # Docker finds the network marked as being deleted, and tries again
        self.networks.pop(network.id, None)
        self.busy.discard(network.overlay.name)
        self.world.note(f"{self.machine.name}: network {network.overlay.name} is gone")

    # -- containers ------------------------------------------------------------------------------------------------

    def run(self, network: DockerNetwork, asked: Address | None = None, mac: Mac | None = None) -> Steps:
        """`docker run`, with what libnetwork takes back when a part is refused."""
        done: list[Callable[[], Steps]] = []
        try:
            address, promised = yield from self._address(network, asked, done)
            container = Container(self.machine, network, self.world.hex(64), address)
            container.asked, container.promised = asked, promised
            self.containers[container.endpoint] = container
            done.append(lambda: self._delete_endpoint(container))
            interface = wire.Interface(address=f"{address}/{network.overlay.subnet.prefixlen}", mac=mac or "")
            ask = wire.CreateEndpoint(network=network.id, endpoint=container.endpoint, interface=interface)
            answer = yield from self._ask(
                f"create endpoint {address}", lambda d: d.driver.create_endpoint(ask, self._deadline())
            )
            container.mac = mac or Mac(answer["Interface"]["MacAddress"])
            wish = wire.Join(network=network.id, endpoint=container.endpoint)
            yield from self._ask(f"join {address}", partial(self._join, wish, container))
        except (MyoverlayError, GaveUp):
            yield from self._undo(done)

    def _join(self, wish: wire.Join, container: Container, daemon: Any) -> None:
        """Join, and the move of the interface into the container that follows at once."""
        answer = daemon.driver.join(wish, self._deadline())
        self.machine.run.check()  # type: ignore[union-attr]
        if not self.machine.kernel.take(answer["InterfaceName"]["SrcName"]):
            raise Failure("no bug", f"{container}: Docker was handed an interface that is not there")
        container.live = True
        self.world.note(f"{container} runs")
        self.world.truth.started(container)

    def _address(self, network: DockerNetwork, asked: Address | None, done: list[Callable[[], Steps]]) -> Iterator[Any]:
        if network.pool is None:
            return asked or self.world.foreign_address(self.machine, network.overlay), False
        pool = network.pool
        wish, began = wire.RequestAddress(pool=pool, address=asked or ""), self.world.scheduler.now
        lived = [one for one in self.containers.values() if one.network is network and one.live]

        def request(daemon: Any) -> tuple[Address, bool]:
            given = wire.address_of(daemon.ipam.request_address(wish, self._deadline())["Address"])
            return given, self._is_promise(daemon, network.overlay, given, began)

        address, promised = yield from self._ask(f"request address {asked or ''}", request)
        key = (network.overlay.name, address)
        again = asked is not None and key in self.held
        self.world.truth.given_again(address, [one for one in lived if one.live])
        if not again:
            self.world.truth.given(self, network.overlay, address, promised)
        self.held[key] = promised or (again and self.held[key])
        self._holds[key] += 1
        done.append(lambda: self._release_address(network, address))
        return address, promised

    def _is_promise(self, daemon: Any, overlay: Overlay, address: Address, began: float) -> bool:
        """Was it given on the host's word, because it could not reach the store at some moment of the call?"""
        lease = daemon.journal.leases.get(f"{overlay.subnet.key}/{address}")
        return lease is not None and lease.promised and self.machine.missed_at >= began

    def _release_address(self, network: DockerNetwork, address: Address) -> Steps:
        back = wire.ReleaseAddress(pool=network.pool or "", address=address)
        key = (network.overlay.name, address)
        self._holds[key] -= 1
        if self._holds[key] <= 0:
            self.held.pop(key, None)
        yield from self._ask("ReleaseAddress", lambda d: d.ipam.release_address(back, self._deadline()), surely=True)

    def _delete_endpoint(self, container: Container) -> Steps:
        ask = wire.OfEndpoint(network=container.network.id, endpoint=container.endpoint)
        self.end(container)
        yield from self._ask("DeleteEndpoint", lambda d: d.driver.delete_endpoint(ask, self._deadline()), surely=True)

    def end(self, container: Container) -> None:
        """The container is no more: its namespace goes, and its cable with it once an end was inside."""
        container.going = True
        self.containers.pop(container.endpoint, None)
        if container.live:
            container.live = False
            self.machine.kernel.kill_cable(container.port)

    def remove(self, container: Container) -> Steps:
        """`docker rm -f`."""
        container.going = True
        network = container.network
        ask = wire.OfEndpoint(network=network.id, endpoint=container.endpoint)
        self.world.note(f"{container} ends")
        acts: list[Callable[[], Steps]] = [
            lambda: self._leave(ask, container),
            lambda: self._delete_endpoint(container),
        ]
        if network.pool is not None:
            acts.append(lambda: self._release_address(network, container.address))
        yield from self._undo(list(reversed(acts)))

    def _leave(self, ask: wire.OfEndpoint, container: Container) -> Steps:
        container.live = False
        try:
            yield from self._ask("Leave", lambda d: d.driver.leave(ask, self._deadline()), surely=True)
        finally:
            self.machine.kernel.kill_cable(container.port)

    def move(self, container: Container, to: Engine, mac: Mac | None) -> Steps:
        """The container ends here and starts there with the same address."""
        asked = container.address
        yield from self.remove(container)
        network = to.network_of(container.overlay)
        if network is not None and to.machine.powered:
            to.begin(to.run(network, asked, mac))

    # -- the power -------------------------------------------------------------------------------------------------

    def power_lost(self) -> list[Container]:
        """Whatever ran is no more, and whatever was asked is forgotten; networks stay."""
        self._life += 1
        self.working = 0
        self.busy.clear()
        ran = [container for container in self.containers.values() if container.live]
        for container in list(self.containers.values()):
            container.live = False
            self.containers.pop(container.endpoint)
        self.held.clear()
        self._holds.clear()
        for network in list(self.networks.values()):
            if network.going:
                self.begin(self.delete_network(network))
        return ran

    def network_of(self, overlay: Overlay) -> DockerNetwork | None:
        return next((one for one in self.networks.values() if one.overlay is overlay and not one.going), None)


def _delete_network(network: str, daemon: Any) -> None:
    daemon.driver.delete_network(wire.OfNetwork(network=network), FAR)


def _release_pool(pool: str, daemon: Any) -> None:
    daemon.ipam.release_pool(wire.ReleasePool(pool=pool), FAR)
