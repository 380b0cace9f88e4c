"""Containers' cables: asked for, laid meanwhile, waited for at Join, and what becomes of one that never is."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from myoverlay.errors import Clash, KernelRefused, Unknown
from myoverlay.host.converge import Converger
from myoverlay.host.leftovers import Leftovers
from myoverlay.host.local import LocalOverlay
from myoverlay.tally import Tally
from myoverlay.values import Address
from tests.pure.kit import DEMO, Host, network, soon
from tests.pure.model.kernel import FakeGround, FakeLinks, FakePins, Kernel, free

TWO, ID = Address("10.5.0.2"), "e" * 64


class Site:
    """A real overlay on a kernel of paper, which lays a cable when somebody looks at it."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.kernel = Kernel(Address("192.0.2.1"))
        self.links = FakeLinks(self.kernel)
        self.restart()

    def restart(self) -> None:
        """Another run of the plugin on the same kernel."""
        ground = lambda *given: FakeGround(self.kernel, free, *given)  # noqa: E731
        pins, tally = FakePins(self.kernel), Tally()
        converger = Converger(self.links, pins, tally, Leftovers(tally), ground)  # type: ignore[arg-type]
        self.local = LocalOverlay(network(), self.host.journal, converger, 1000)
        self.local.build(soon())

    def create(self, address: Address = TWO, endpoint: str = ID) -> None:
        self.local.add_endpoint(endpoint, address, None, 1, soon())

    def cables(self) -> set[str]:
        return {name for name in self.kernel.pins[DEMO].links if name.startswith("p")}

    def reboot(self) -> None:
        for name in tuple(self.kernel.pins):
            self.kernel.delete_pin(name)
        self.restart()

    @property
    def known(self) -> list[Address]:
        return [one.address for one in self.local.endpoints()]


@pytest.fixture
def site(host: Callable[..., Host]) -> Site:
    return Site(host("h1"))


def test_a_cable_is_there_at_join(site: Site) -> None:
    """Not before, for all that anybody waits for."""
    site.create()
    site.create()
    assert site.cables() == set()
    site.local.join(ID, soon())
    assert len(site.cables()) == 1


def test_an_endpoint_whose_cable_is_being_laid_is_alive(site: Site) -> None:
    """A round that looks for containers that died in between does not take it for one."""
    site.create()
    assert site.local.bury() == []
    assert site.known == [TWO]
    site.local.join(ID, soon())
    assert site.local.bury() == []


def test_a_cable_that_is_laid_and_cut_off_is_dead(site: Site) -> None:
    """Whether Join came or not."""
    site.create()
    site.local.bury()  # it is laid by now
    (cable,) = site.cables()
    site.kernel.remove(site.kernel.pins[DEMO], cable)
    assert [one.address for one in site.local.bury()] == [TWO]
    assert site.known == []
    with pytest.raises(Unknown):
        site.local.join(ID, soon())


def test_a_cable_that_cannot_be_laid_is_told_to_join(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """CreateEndpoint was answered by then; the next Join tries anew, and a round in between keeps the endpoint."""

    def refuse(*_: object) -> None:
        raise KernelRefused("creating it", 28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(site.kernel, "ensure", refuse)
        site.create()
        assert site.local.bury() == []
        with pytest.raises(KernelRefused, match="No space left"):
            site.local.join(ID, soon())
    assert not site.local.endpoint(ID).joined
    site.local.join(ID, soon())
    assert len(site.cables()) == 1


def test_who_goes_before_it_joined_leaves_nothing(site: Site) -> None:
    """DeleteEndpoint instead of Join, before the cable was laid and after."""
    for looked in (False, True):
        site.create()
        if looked:
            site.local.bury()
        site.local.delete_endpoint(ID, soon())
        assert site.local.bury() == []
        assert (site.cables(), site.known) == (set(), [])


def test_a_run_that_ended_before_it_was_laid(site: Site) -> None:
    """Docker was answered: the next run lays it, so that Join finds it, and buries nobody."""
    site.create()
    site.restart()
    assert len(site.cables()) == 1
    assert site.local.bury() == []
    site.local.join(ID, soon())


@pytest.mark.parametrize("joined", [False, True])
def test_nothing_is_laid_after_a_reboot(site: Site, joined: bool) -> None:
    """No container is left, and nobody is going to join."""
    site.create()
    if joined:
        site.local.join(ID, soon())
    site.reboot()
    assert site.cables() == set()
    assert [one.address for one in site.local.bury()] == [TWO]


def test_a_container_that_died_is_not_laid_anew(site: Site) -> None:
    """It had joined: its namespace took the cable along."""
    site.create()
    site.local.join(ID, soon())
    (cable,) = site.cables()
    site.kernel.remove(site.kernel.pins[DEMO], cable)
    site.restart()
    assert site.cables() == set()
    assert [one.address for one in site.local.bury()] == [TWO]


def test_the_same_address_again(site: Site) -> None:
    """A second endpoint with the address is refused while the first is being laid."""
    site.create()
    with pytest.raises(Clash, match="in use by another container on this host"):
        site.create(TWO, "f" * 64)
    assert site.known == [TWO]
