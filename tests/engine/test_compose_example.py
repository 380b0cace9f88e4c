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
#: Off until containers are reached by name across hosts: then the web service is given the database's address.
BY_NAME = False
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
    with Lab("shop", [HostSpec("h1"), HostSpec("h2")], consul=True) as lab:
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
    """One `network create`, one `compose up` on each host: visits are counted, and go on after a restart."""
    h1, h2 = shop.h1, shop.h2
    shop.site.say("h1", "network", "create", "shop")
    shop.compose(h2, "db", "up", "-d")
    form = '{{(index .NetworkSettings.Networks "shop").IPAddress}}'
    address = h2.docker("inspect", "-f", form, "shop-db-db-1")
    database = "db" if BY_NAME else address
    shop.compose(h1, "web", "up", "-d", DB_HOST=database)
    get = functools.partial(shop.get, h2, h1.address)
    first = eventually("the first visit is counted", lambda: get().get("visits"), 20)
    second = get()
    assert second["visits"] == first + 1
    assert second["database"] == database
    shop.compose(h2, "db", "stop", "-t", "5")
    assert "cannot be asked" in get()["error"]
    shop.compose(h2, "db", "up", "-d")
    again = h2.docker("inspect", "-f", form, "shop-db-db-1")
    if not BY_NAME and again != address:
        shop.compose(h1, "web", "up", "-d", DB_HOST=again)
    third = eventually("it is counted again", lambda: get().get("visits"), 20)
    assert third > second["visits"], "what was counted is kept"
    for host, part in ((h1, "web"), (h2, "db")):
        shop.compose(host, part, "down", "-t", "0", "-v")
    assert shop.site.say("h2", "network", "rm", "shop") == "network shop is removed\n"
