"""Names in the catalogue of the real Consul (1.8.7), asked for by its DNS."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from typing import Any

import dns.message
import dns.query
import pytest

from myoverlay.errors import Unavailable
from myoverlay.store import Delete, Put
from myoverlay.store.catalogue import Catalogue, services_of
from myoverlay.store.consul import ConsulStore
from myoverlay.values import Address, HostId, OverlayName
from tests.engine.store.test_consul import MASTER, Agent, _free_ports, until
from tests.pure.kit import ANN, BOB, PREFIX
from tests.store_contract import done

WEB = OverlayName("web")


class Site:
    """An agent with DNS and with ACLs on, and the catalogue as who may do everything has it."""

    def __init__(self, agent: Agent, dns: int) -> None:
        self.agent, self.dns = agent, dns
        self.store = ConsulStore(agent.address, token=MASTER)
        self.catalogue = Catalogue(self.store, PREFIX)

    def asked(self, name: str) -> set[str]:
        """The addresses that Consul's DNS tells."""
        query = dns.message.make_query(f"{name}.service.consul", "A")
        answer = dns.query.udp(query, "127.0.0.1", port=self.dns, timeout=5)
        return {str(item) for rrset in answer.answer for item in rrset}

    def limited(self, rules: str) -> Catalogue:
        """The catalogue as a token with these rules has it."""
        policy = self._put("/v1/acl/policy", {"Name": f"p{len(rules)}", "Rules": rules})
        token = self._put("/v1/acl/token", {"Policies": [{"ID": policy["ID"]}]})["SecretID"]
        self.other = ConsulStore(self.agent.address, token=token)
        return Catalogue(self.other, PREFIX)

    def _put(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        request = urllib.request.Request(
            f"http://{self.agent.address}{path}", json.dumps(body).encode(), {"X-Consul-Token": MASTER}, method="PUT"
        )
        with urllib.request.urlopen(request, timeout=5) as answer:
            return dict(json.loads(answer.read()))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    (port,) = _free_ports(1)
    # DNS asks as nobody in particular, as on most sites: who may read is said by the anonymous token.
    acl = {"enabled": True, "default_policy": "deny", "tokens": {"master": MASTER, "agent": MASTER, "default": MASTER}}
    agent = Agent(tmp_path_factory.mktemp("consul"), acl=acl)
    agent.settings["ports"] = {"dns": port, "grpc": -1, **agent.ports}
    agent.start()
    site = Site(agent, port)
    try:
        agent.wait_ready(site.store)
        yield site
    finally:
        site.store.close()
        agent.kill()


@pytest.fixture
def catalogue(site: Site) -> Iterator[Catalogue]:
    yield site.catalogue
    for host in (ANN, BOB):
        site.catalogue.remove(host)


def test_names_of_two_hosts_are_answered_by_consul_s_dns(site: Site, catalogue: Catalogue) -> None:
    """All addresses of a name, one overlay's by its tag; what is withdrawn is not answered any more."""
    shop = services_of(OverlayName("10.6.0.0-24"), Address("10.6.0.2"), ("db",))
    one = services_of(WEB, Address("10.5.0.2"), ("db", "shop_db_1"))
    assert catalogue.write(ANN, "192.0.2.1", one, frozenset()) == {}
    assert catalogue.write(BOB, "192.0.2.2", shop, frozenset()) == {}
    until(lambda: site.asked("db") == {"10.5.0.2", "10.6.0.2"})
    assert site.asked("shop_db_1") == {"10.5.0.2"}
    assert site.asked("10-6-0-0-24.db") == {"10.6.0.2"}
    assert site.asked("nobody") == set()
    assert catalogue.hosts() == {ANN, BOB}
    found = catalogue.read(ANN)
    assert found is not None
    assert (found.vtep, found.services) == ("192.0.2.1", one)
    assert catalogue.write(ANN, "192.0.2.1", frozenset(), one) == {}
    assert catalogue.write(ANN, "192.0.2.1", frozenset(), one) == {}, "what is gone already is no failure"
    until(lambda: site.asked("db") == {"10.6.0.2"})


def test_who_is_there_or_heard_is_not_collected(site: Site, catalogue: Catalogue) -> None:
    """The real one checks a key and deletes a node in one transaction, too."""
    catalogue.write(BOB, "192.0.2.2", services_of(WEB, Address("10.5.0.3"), ("db",)), frozenset())
    for key in ("alive", "witness"):
        done(site.store, Put(f"{PREFIX}/{key}/{BOB}", b"x"))
        assert not catalogue.collect(BOB)
        entry = site.store.get(f"{PREFIX}/{key}/{BOB}")
        assert entry is not None
        assert not catalogue.collect(BOB, entry.index - 1)
        assert catalogue.heard(BOB) == (entry.index if key == "witness" else 0)
        done(site.store, Delete(entry.key, entry.index))
    assert catalogue.collect(BOB)
    assert catalogue.collect(BOB), "nothing is left to do"
    assert catalogue.read(BOB) is None
    catalogue.write(BOB, "192.0.2.2", services_of(WEB, Address("10.5.0.3"), ("db",)), frozenset())
    done(site.store, Put(f"{PREFIX}/witness/{BOB}", b"x"))
    assert catalogue.collect(BOB, catalogue.heard(BOB)), "what was said before it died keeps nothing"
    assert catalogue.read(BOB) is None


def test_a_full_host_fits(catalogue: Catalogue) -> None:
    """A thousand names in transactions of 64."""
    many = frozenset(
        one for n in range(500) for one in services_of(WEB, Address(f"10.5.{n // 250}.{n % 250 + 1}"), (f"c{n}", "all"))
    )
    assert catalogue.write(ANN, "192.0.2.1", many, frozenset()) == {}
    found = catalogue.read(ANN)
    assert found is not None
    assert found.services == many


def test_a_token_that_may_little(site: Site, catalogue: Catalogue) -> None:
    """A service that it may not write is refused and the others are there; without the node nothing is."""
    both = services_of(WEB, Address("10.5.0.2"), ("app", "db"))
    some = site.limited('node_prefix "myoverlay-" { policy = "write" } service "app" { policy = "write" }')
    refused = some.write(ANN, "192.0.2.1", both, frozenset())
    assert {one.name: said for one, said in refused.items()} == {"db": "Permission denied"}
    site.other.close()
    found = catalogue.read(ANN)
    assert found is not None
    assert {one.name for one in found.services} == {"app"}
    none = site.limited('service_prefix "" { policy = "write" }')
    with pytest.raises(Unavailable, match="Permission denied"):
        none.write(HostId("f" * 32), "192.0.2.1", both, frozenset())
    site.other.close()
