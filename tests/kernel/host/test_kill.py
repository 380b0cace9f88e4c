"""kill -9 at every step of each of Docker's calls: nobody else notices, nothing is forgotten, nothing is left.

Each test kills a daemon before the first effect of a call, then before the second, and so on until the call, and what
follows it in the background, is through. Each time another daemon takes over (which is killed while it recovers, too),
and Docker does what it does after a call that failed: it takes back what it had done and tries again, or it was killed
as well and never calls again.
"""

from __future__ import annotations

import itertools
import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from myoverlay.errors import MyoverlayError
from myoverlay.kernel import netns
from myoverlay.values import Address, Mac, Subnet
from tests.kernel.conftest import open_fds
from tests.kernel.host.hosts import Container, DockerNetwork, Hosts, Refusal
from tests.kernel.host.nursery import Died, MortalHost, Nursery, StoreServer, Witness, difference
from tests.kernel.host.tools import ip, left_behind, link_names, until

#: Where containers stay and talk, and where a network comes and goes: alone, and beside another host's.
STAYING, LONELY, SHARED = Subnet("10.5.0.0/26"), Subnet("10.6.0.0/26"), Subnet("10.7.0.0/26")
#: The address that containers come and go with.
PLACE = 40
#: So many failures of one call are told.
ENOUGH = 8
#: Fewer steps than this cannot be right: the tests would prove nothing.
LEAST = {
    "RequestPool": 5,
    "gateway": 1,
    "CreateNetwork": 16,
    "RequestAddress": 3,
    "CreateEndpoint": 6,
    "Join": 3,
    "Leave": 2,
    "DeleteEndpoint": 3,
    "ReleaseAddress": 2,
    "release of the gateway": 1,
    "ReleasePool": 7,
    "DeleteNetwork": 9,
}


@pytest.fixture(autouse=True)
def nothing_left() -> None:
    """Compared once for the module, in `stage`: the scene stays up between tests."""


def _nth(subnet: Subnet, number: int) -> Address:
    return subnet.at(subnet.first - 1 + number)


class Stage:
    """Two hosts with containers that talk all the time, one of them with a daemon that is killed again and again."""

    def __init__(self, folder: Path, nursery: Nursery) -> None:
        folder.mkdir()
        self.hosts = Hosts(folder)
        self.server = StoreServer(self.hosts)
        self.witnesses: tuple[Witness, ...] = ()
        try:
            self._set_up(nursery)
        except BaseException:
            self.close()
            raise

    def _set_up(self, nursery: Nursery) -> None:
        self.here = MortalHost(self.hosts, nursery, self.server)
        self.there = self.hosts.host()
        self.network = self.here.create_network(STAYING)
        self.there.create_network(STAYING)
        self.shared = self.there.create_network(SHARED)
        self.a, self.near, self.far = self.here.run(), self.here.run(), self.there.run()
        self.beside = self.there.run(network=self.shared)
        until(lambda: not self.a.reaches(self.near, self.far, timeout=0.2))
        self.settle()
        until(lambda: len(self.here.picture()["rows"]["10.5.0.0-26"]) == 2 and len(self.there.rows()) == 4)
        self.before = self.here.picture()
        self.witnesses = (
            Witness(self.here, "10.5.0.0-26", self.far, ports=(self.a, self.near)),
            Witness(self.there, "10.5.0.0-26", self.a, self.near, ports=(self.far,)),
        )

    def settle(self) -> None:
        reasons: list[str] = []

        def settled() -> bool:
            reasons[:] = [self.here.ask("busy")]
            return not reasons[0]

        try:
            until(settled, 10.0)
        except AssertionError:
            raise AssertionError(f"the daemon does not settle: {reasons[0]}") from None

    def check(self, when: str) -> None:
        """Everybody who talks goes on talking, and lost no row, not for a moment."""
        assert not self.a.reaches(self.near, self.far), f"{when}: not reached from the killed daemon's host"
        assert not self.far.reaches(self.a, self.near), f"{when}: not reached from the other host"
        lost = [loss for witness in self.witnesses for loss in witness.losses()]
        assert not lost, f"{when}: {lost}"

    def check_clean(self) -> None:
        """Nothing is there that was not there at first, and nothing is missing."""
        found: dict[str, Any] = {}

        def clean() -> bool:
            found.clear()
            try:
                found.update(difference(self.here.picture(), self.before))
            except (OSError, MyoverlayError) as error:  # a part of it went while it was looked at
                found["no picture"] = str(error)
            return not found

        try:
            until(clean, 8.0)
        except AssertionError:
            raise AssertionError(f"left, missing: {found}") from None

    def recover(self, fatal: int) -> None:
        """Another daemon takes over, and another one after it where that was killed while it did."""
        try:
            if self.here.begin(fatal):
                self.settle()
                self.here.ask("disarm")
                return
        except Died:
            pass
        self.check("killed while recovering")
        assert self.here.begin()

    def close(self) -> None:
        for witness in self.witnesses:
            witness.close()
        self.hosts.close()
        self.server.close()


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[bool], Stage]]:
    """The scene, the same one as long as it is fit to be used, and at the end the proof that nothing is left of it."""
    fds, threads, before = open_fds(), threading.active_count(), left_behind()
    folder = tmp_path_factory.mktemp("kill")
    standing: list[Stage] = []
    numbers = itertools.count(1)

    def stage(anew: bool = False) -> Stage:
        if standing and anew:
            standing.pop().close()
        if not standing:
            standing.append(Stage(folder / f"s{next(numbers)}", nursery))
        return standing[0]

    with Nursery(folder) as nursery:
        yield stage
        for one in standing:
            one.close()
    until(lambda: open_fds() <= fds and threading.active_count() <= threads)
    after = left_behind()
    assert not [path for path in after["mounts"] if path.startswith(str(folder))]
    assert after["links"] <= before["links"]
    assert after["shares"] == before["shares"]


def _meet(container: Container, *others: Container) -> None:
    """One that just started reaches the others as soon as they have heard of it."""
    until(lambda: not container.reaches(*others, timeout=0.5), what=f"that {container.address} reaches the others")


class EndpointLife:
    """What Docker says from `docker run --ip` to `docker rm`, call by call."""

    calls = ("RequestAddress", "CreateEndpoint", "Join", "Leave", "DeleteEndpoint", "ReleaseAddress")
    #: What Docker 20.10 to 28 calls after a call that failed; after what only takes away it goes on.
    takes_back = {
        "RequestAddress": (),
        "CreateEndpoint": ("ReleaseAddress",),
        "Join": ("DeleteEndpoint", "ReleaseAddress"),
        "Leave": ("DeleteEndpoint", "ReleaseAddress"),
        "DeleteEndpoint": ("ReleaseAddress",),
        "ReleaseAddress": (),
    }

    def __init__(self, stage: Stage, network: DockerNetwork | None = None) -> None:
        self.stage, self.host = stage, stage.here
        self.network = network or stage.network
        self.address = _nth(self.network.subnet, PLACE)
        self.mac = Mac.of(self.address)
        self.endpoint = secrets.token_hex(32)
        self.container: Container | None = None
        self.link = ""

    def bodies(self) -> dict[str, tuple[str, dict[str, Any]]]:
        of = {"NetworkID": self.network.id, "EndpointID": self.endpoint}
        interface = {"Address": f"{self.address}/{self.network.subnet.prefixlen}", "AddressIPv6": "", "MacAddress": ""}
        lease = {"PoolID": self.network.pool, "Address": self.address}
        return {
            "RequestAddress": ("IpamDriver.RequestAddress", lease | {"Options": None}),
            "CreateEndpoint": ("NetworkDriver.CreateEndpoint", of | {"Interface": interface, "Options": {}}),
            "Join": ("NetworkDriver.Join", of | {"SandboxKey": "/x", "Options": {}}),
            "Leave": ("NetworkDriver.Leave", of),
            "DeleteEndpoint": ("NetworkDriver.DeleteEndpoint", of),
            "ReleaseAddress": ("IpamDriver.ReleaseAddress", lease),
        }

    def say(self, call: str) -> None:
        method, body = self.bodies()[call]
        if call == "DeleteEndpoint":
            self.interface_goes_home()
        answer = self.host.call(method, **body)
        if call == "Join":
            self.link = answer["InterfaceName"]["SrcName"]
            self.container = self.host.give_interface(self.network, self.endpoint, self.address, self.mac, self.link)

    def interface_goes_home(self) -> None:
        """What libnetwork does after Leave with an interface that it still finds; then the container is no more."""
        if self.container is not None:
            with suppress(AssertionError):  # it is going, or gone
                inside = self.container.ns
                ip(inside, "link set eth0 down", f"link set eth0 name {self.link} netns {self.host.ns.path}")
            self.container_dies()

    def container_dies(self) -> None:
        if self.container is not None:
            self.host.containers.remove(self.container)
            self.container.die()
            self.container = None

    def between(self, after: str) -> None:
        """What can be seen once this call is through."""
        if after == "Join" and self.container is not None:
            others = (self.stage.a, self.stage.far) if self.network is self.stage.network else ()
            _meet(self.container, *others)

    def known(self, call: str) -> bool:
        """Is on disk what this call was answered for?"""
        journal = self.host.journal()
        ours = {joined for endpoint, _, joined in journal["endpoints"] if endpoint == self.endpoint}
        held = (self.address, "endpoint") in journal["leases"]
        return {
            "RequestAddress": held,
            "CreateEndpoint": held and ours == {False},
            "Join": held and ours == {True},
            "Leave": held and ours == {True},
            "DeleteEndpoint": held and not ours,
            "ReleaseAddress": not held and not ours,
        }[call]

    def again(self) -> EndpointLife:
        """A person tries once more: another endpoint with the same address."""
        return EndpointLife(self.stage, self.network)

    def forget(self, call: str) -> None:
        """Docker was killed as well and knows nothing of it; so was its container."""
        self.container_dies()

    def close(self) -> None:
        self.container_dies()


class NetworkLife:
    """What Docker says from `docker network create` to `docker network rm`, call by call."""

    calls = (
        "RequestPool",
        "gateway",
        "CreateNetwork",
        "release of the gateway",
        "ReleasePool",
        "DeleteNetwork",
    )
    takes_back = {
        "RequestPool": (),
        "gateway": ("ReleasePool",),
        "CreateNetwork": ("release of the gateway", "ReleasePool"),
        "release of the gateway": ("ReleasePool", "DeleteNetwork"),
        "ReleasePool": ("DeleteNetwork",),
        "DeleteNetwork": (),
    }

    def __init__(self, stage: Stage, subnet: Subnet) -> None:
        self.stage, self.host, self.subnet = stage, stage.here, subnet
        self.network = DockerNetwork(secrets.token_hex(32), subnet, _nth(subnet, 1), subnet.key)

    def bodies(self) -> dict[str, tuple[str, dict[str, Any]]]:
        pool, gateway = {"PoolID": self.subnet.key}, str(self.network.gateway)
        wanted = {"AddressSpace": "myoverlay", "Pool": self.subnet, "SubPool": "", "Options": None, "V6": False}
        kind = {"RequestAddressType": "com.docker.network.gateway"}
        data = {"AddressSpace": "myoverlay", "Pool": self.subnet, "Gateway": f"{gateway}/{self.subnet.prefixlen}"}
        options = {"com.docker.network.enable_ipv6": False, "com.docker.network.generic": {}}
        of = {"NetworkID": self.network.id}
        return {
            "RequestPool": ("IpamDriver.RequestPool", wanted),
            "gateway": ("IpamDriver.RequestAddress", pool | {"Address": "", "Options": kind}),
            "CreateNetwork": (
                "NetworkDriver.CreateNetwork",
                of | {"Options": options, "IPv4Data": [data], "IPv6Data": []},
            ),
            "release of the gateway": ("IpamDriver.ReleaseAddress", pool | {"Address": gateway}),
            "ReleasePool": ("IpamDriver.ReleasePool", pool),
            "DeleteNetwork": ("NetworkDriver.DeleteNetwork", of),
        }

    def say(self, call: str) -> None:
        method, body = self.bodies()[call]
        self.host.call(method, **body)

    def between(self, after: str) -> None:
        """Whether it serves is seen by a container."""

    def known(self, call: str) -> bool:
        journal = self.host.journal()
        network, pool = self.network.id in journal["networks"], (self.subnet.key, True) in journal["pools"]
        return {
            "RequestPool": pool,
            "gateway": pool,
            "CreateNetwork": pool and network,
            "release of the gateway": pool and network,
            "ReleasePool": network and not pool,
            "DeleteNetwork": not network,
        }[call]

    def again(self) -> NetworkLife:
        return NetworkLife(self.stage, self.subnet)

    def forget(self, call: str) -> None:
        """Docker was killed as well. What it was about to delete it deletes when it starts again.

        A network that was made while Docker itself was killed is known here for good: only a person, or asking Docker,
        can tell it from one that waits for its first container.
        """
        if call in ("release of the gateway", "ReleasePool"):
            self.say("DeleteNetwork")
        elif call == "CreateNetwork" and self.network.id in self.host.journal()["networks"]:
            _through(self, self.calls[3:])

    def close(self) -> None:
        pass


Life = EndpointLife | NetworkLife


def _through(life: Life, calls: tuple[str, ...]) -> None:
    for call in calls:
        life.say(call)
        life.between(call)


def _strike(stage: Stage, life: Life, call: str, fatal: int) -> tuple[bool, bool, list[str]]:
    """Say it to a daemon that is killed before its effect of this number: was it killed, was it answered?

    At last, what it did where it lived on.
    """
    stage.here.ask("arm", fatal)
    answered = False
    try:
        life.say(call)
        answered = True
        stage.settle()
        seen = stage.here.ask("disarm")
    except Died:
        return True, answered, []
    assert len(seen) < fatal, f"not killed before {seen}"
    return False, answered, seen


def _after_the_kill(stage: Stage, life: Life, call: str, answered: bool, point: int) -> None:
    stage.check("right after the kill")
    if answered:
        assert life.known(call), "what was answered is not on disk"
    stage.recover(1 + point % 4)
    stage.check("after the restart")


def _docker_tries_again(life: Life, call: str, answered: bool) -> None:
    """Docker saw the call fail, or go well if it was answered: it takes back, or goes on; then somebody tries anew."""
    calls = life.calls
    if answered:
        _through(life, calls[calls.index(call) + 1 :])
    else:
        with pytest.raises(Refusal):
            life.host.call_raw(life.bodies()[call][0], "")  # what a client sends again has lost its body
        _through(life, life.takes_back[call])
    life.close()
    anew = life.again()
    try:
        _through(anew, calls[: len(calls) // 2])
        if isinstance(anew, NetworkLife):
            _use(anew)
        _through(anew, calls[len(calls) // 2 :])
    finally:
        anew.close()


def _use(life: NetworkLife) -> None:
    """A network that was made anew serves."""
    inside = EndpointLife(life.stage, life.network)
    try:
        _through(inside, inside.calls[:3])
        assert inside.container is not None
        if life.subnet == SHARED:
            _meet(inside.container, life.stage.beside)
        _through(inside, inside.calls[3:])
    finally:
        inside.close()


def _docker_never_calls_again(life: Life, call: str, answered: bool) -> None:
    life.forget(call)
    life.host.hurry()


def _at_every_step(
    stages: Callable[..., Stage], begin: Callable[[Stage], Life], call: str, then: Callable[[Life, str, bool], None]
) -> None:
    """Kill before each effect of the call; tells all that went wrong, each from a fresh scene."""
    wrong: list[str] = []
    for point in itertools.count(1):
        stage = stages()
        life = begin(stage)
        try:
            _through(life, life.calls[: life.calls.index(call)])
            stage.settle()
            killed, answered, seen = _strike(stage, life, call, point)
            if killed:
                _after_the_kill(stage, life, call, answered, point)
                then(life, call, answered)
            else:
                _through(life, life.calls[life.calls.index(call) + 1 :])
                life.close()
            stage.check_clean()
            if stage.here.life is not None:
                stage.here.hurry(False)
            stage.check("in the end")
        except (AssertionError, Refusal, Died) as error:
            wrong.append(f"{call}, {point}, {_last_words(stage)}: {type(error).__name__} {error}")
            with suppress(Exception):
                life.close()
            stages(anew=True)
            if len(wrong) >= ENOUGH:
                break
            continue
        if not killed:
            assert len(seen) >= LEAST[call], f"{call} had only these effects, what was counted? {seen}"
            break
    assert not wrong, "\n".join(("", *wrong))


def _last_words(stage: Stage) -> str:
    lines = (stage.hosts.folder / f"{stage.here.name}.log").read_text().splitlines()
    return ", ".join(line.partition("killed ")[2] for line in lines if "killed before" in line)[-60:]


@pytest.mark.parametrize("call", EndpointLife.calls)
def test_container_and_docker_tries_again(stages: Callable[..., Stage], call: str) -> None:
    """Killed at any step of a container's calls: Docker takes back, tries again with the same address, and succeeds."""
    _at_every_step(stages, EndpointLife, call, _docker_tries_again)


@pytest.mark.parametrize("call", EndpointLife.calls)
def test_container_and_docker_forgets(stages: Callable[..., Stage], call: str) -> None:
    """Killed at any step of a container's calls, and Docker never calls again: all of it is collected."""
    _at_every_step(stages, EndpointLife, call, _docker_never_calls_again)


@pytest.mark.parametrize("subnet", [LONELY, SHARED])
@pytest.mark.parametrize("call", NetworkLife.calls)
def test_network_and_docker_tries_again(stages: Callable[..., Stage], call: str, subnet: Subnet) -> None:
    """Killed at any step of a network's calls: Docker takes back, tries again, and succeeds."""
    _at_every_step(stages, lambda stage: NetworkLife(stage, subnet), call, _docker_tries_again)


@pytest.mark.parametrize("call", NetworkLife.calls)
def test_network_and_docker_forgets(stages: Callable[..., Stage], call: str) -> None:
    """Killed at any step of a network's calls, and Docker never calls again: all of it is collected."""
    _at_every_step(stages, lambda stage: NetworkLife(stage, LONELY), call, _docker_never_calls_again)


def test_recovery_of_a_reboot(stages: Callable[..., Stage]) -> None:
    """Killed at any step of rebuilding what a reboot took: the next daemon finishes it, and containers start there."""
    stage = stages(anew=True)
    here = stage.here
    for container in (stage.a, stage.near):
        container.die()
        here.containers.remove(container)
    for point in itertools.count(1):
        here.stop()
        _raze(here)
        steps = _begin_and_strike(here, point)
        if steps is None:
            assert here.begin(), f"after {_last_words(stage)}"
        (pin,) = [pin for pin in here.pins() if pin.name == "10.5.0.0-26"]
        with netns.open_path(pin) as ns:
            assert link_names(ns) == {"lo", "br0", "vxlan1"}, f"after {_last_words(stage)}"
        if steps is not None:
            break
    assert len(steps) >= 8, f"a reboot took only {steps}"
    until(lambda: not here.journal()["endpoints"] and not here.journal()["leases"])
    life = EndpointLife(stage)
    try:
        life.say("RequestAddress")
        life.say("CreateEndpoint")
        life.say("Join")
        assert life.container is not None
        _meet(life.container, stage.far)
    finally:
        life.close()
        stages(anew=True)


def _begin_and_strike(host: MortalHost, fatal: int) -> list[str] | None:
    """Start a daemon that is killed before its effect of this number; what it did where it lived on, None: it did not.

    It counts on until it is told to stop, so that a loop of the background may be the one that is struck, after the
    start was through: that is a kill like another. There are but a few such effects, so a later number strikes none.
    """
    if not host.begin(fatal):
        return None
    try:
        steps: list[str] = host.ask("disarm")
    except Died:
        return None
    return steps


def _raze(host: MortalHost) -> None:
    """What a power loss does to the overlay's namespace, whatever is there of it."""
    for pin in host.pins():
        if netns.is_pinned(pin):
            with netns.open_path(pin) as ns:
                if "vxlan1" in link_names(ns):
                    ip(ns, "link del vxlan1")  # by itself: the end of a namespace is not waited for
        netns.delete(pin)
