"""`examples/compose`: a web service on one host, its database on another, each by a Compose file of its own."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from importlib.util import module_from_spec, spec_from_file_location
from typing import Any

import pytest

from lab import places
from lab.engine import EngineHost
from lab.lab import HostSpec, Lab
from tests.engine.conftest import eventually
from tests.engine.test_networks import Site

EXAMPLE = places.REPOSITORY / "examples" / "compose"
#: What README says of `daemon.json`: the plugin is asked first. Nobody answers at the second, a documentation address.
DNS = ("--dns", "169.254.77.53", "--dns", "192.0.2.53")
#: The machine's `curl` may be missing; this is all that is needed of it.
GET = """
import sys, urllib.error, urllib.request
try:
    print(urllib.request.urlopen(sys.argv[1], timeout=5).read().decode())
except urllib.error.HTTPError as error:
    print(error.read().decode())
"""


class Shop:
    """The example on two hosts with the newest engine: Debian 12's has no Compose of today."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.h1, self.h2 = site.hosts["h1"], site.hosts["h2"]

    def compose(self, host: EngineHost, part: str, *words: str, **env: str) -> str:
        argv = ("compose", "-f", str(EXAMPLE / f"compose.{part}.yaml"), *words)
        return host.docker(*argv, env=env, timeout=120)

    def address(self, host: EngineHost) -> str:
        """The database's."""
        form = '{{(index .NetworkSettings.Networks "shop").IPAddress}}'
        return host.docker("inspect", "-f", form, "shop-db-db-1")

    def get(self, host: EngineHost, at: str) -> dict[str, Any]:
        """The page, asked for by a machine on the underlay; what else is said is no page yet."""
        said = host.run(["python3", "-c", GET, f"http://{at}:8080/"], check=False)
        try:
            return dict(json.loads(said))
        except ValueError:
            return {}


@pytest.fixture(scope="module")
def shop() -> Iterator[Shop]:
    spec = spec_from_file_location("images", EXAMPLE / "images.py")
    assert spec is not None
    assert spec.loader is not None
    images = module_from_spec(spec)
    spec.loader.exec_module(images)
    tars = images.build(places.IMAGES)
    with Lab("shop", [HostSpec("h1", extra=DNS), HostSpec("h2", extra=DNS)], consul=True) as lab:
        shop = Shop(Site(lab))
        for host in (shop.h1, shop.h2):
            for tar in tars:
                host.docker("load", "--input", str(tar), timeout=120)
            shop.site.plugins[host.name].start()
        eventually("both are there", lambda: len(lab.consul.keys("myoverlay/alive/")) == 2, 20)
        yield shop
        for plugin in shop.site.plugins.values():
            plugin.stop()


def test_a_web_service_and_its_database_on_two_hosts(shop: Shop) -> None:
    """One `network create`, one `compose up` on each host: visits are counted, and go on after a restart.

    The web service is told no address: its Compose file names the service `db`, which runs on the other host, and finds
    it again when it comes back with another one.
    """
    h1, h2 = shop.h1, shop.h2
    shop.site.say("h1", "network", "create", "shop")
    shop.compose(h2, "db", "up", "-d")
    shop.compose(h1, "web", "up", "-d")
    get = functools.partial(shop.get, h2, h1.address)
    first = eventually("the first visit is counted", lambda: get().get("visits"), 20)
    second = get()
    assert second["visits"] == first + 1
    assert second["database"] == "db"
    before = shop.address(h2)
    shop.compose(h2, "db", "down", "-t", "5")
    assert "cannot be asked" in get()["error"]
    idle = ("shop/web", "python3", "-c", "import time; time.sleep(600)")
    h2.docker("run", "-d", "--name", "other", "--network", "shop", "--ip", before, *idle)
    shop.compose(h2, "db", "up", "-d")
    assert shop.address(h2) != before, "another container has its address"
    third = eventually("it is counted again", lambda: get().get("visits"), 20)
    assert third > second["visits"], "what was counted is kept"
    h2.docker("rm", "-f", "other")
    for host, part in ((h1, "web"), (h2, "db")):
        shop.compose(host, part, "down", "-t", "0", "-v")
    assert shop.site.say("h2", "network", "rm", "shop") == "network shop is removed\n"
