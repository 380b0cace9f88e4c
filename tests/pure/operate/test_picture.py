"""What the page shows, from a made-up site: it is what is known, and what is not known is None."""

from __future__ import annotations

import json
import time

import pytest

from myoverlay.errors import Unknown
from myoverlay.host.peers import Known
from myoverlay.operate.web.picture import Picture
from myoverlay.outlook import About, Glance
from myoverlay.plan.fates import State
from myoverlay.store.typed import Held
from myoverlay.values import Mac, OverlayName, Peer, encode
from tests.pure.kit import endpoint
from tests.pure.paper import WEB, Site, at, host_id


def test_the_host_itself() -> None:
    """Names, overlays and the other hosts with their states; times are moments, so that it stays the same."""
    site = Site()
    shown = site.picture().host()
    assert (shown["id"], shown["name"]) == (site.me, "host-0")
    assert [one["overlay"] for one in shown["overlays"]] == ["web"]
    assert [(one["name"], one["state"]) for one in shown["peers"]] == [("host-1", "alive"), ("host-2", "alive")]
    assert shown["peers"][0]["since"] == round(site.clock.now - 500)
    assert encode(site.picture().host()) == encode(shown)


def test_what_needs_a_person_is_there() -> None:
    """The same sentences as `myoverlay status` says."""
    site = Site()
    site.states[site.ids[2]] = State.DEAD
    assert "host-2" in site.picture().host()["concerns"][0]["what"]


def test_overlays_of_others_are_named_and_no_more() -> None:
    """This host knows who has one, and nothing of what is on it."""
    site = Site()
    of = site.of()
    of.peers.known = Known(listed={site.ids[1]: frozenset({WEB, OverlayName("db")})}, names=of.peers.known.names)
    assert Picture(of).host()["elsewhere"] == [{"overlay": "db", "hosts": ["host-1"]}]


def test_endpoints_of_all_hosts() -> None:
    """Each once, in the order of addresses, with its host's name; the columns are named."""
    shown = Site(hosts=2, each=2).picture().endpoints()
    assert shown["columns"] == ["overlay", "address", "mac", "host", "vtep", "names", "joined"]
    assert shown["rows"] == [
        ["web", "10.5.0.2", "02:42:0a:05:00:02", "host-0", "192.0.2.1", ["app-0-0"], True],
        ["web", "10.5.0.3", "02:42:0a:05:00:03", "host-0", "192.0.2.1", ["app-0-1"], True],
        ["web", "10.5.1.2", "02:42:0a:05:01:02", "host-1", "192.0.2.2", ["app-1-0"], True],
        ["web", "10.5.1.3", "02:42:0a:05:01:03", "host-1", "192.0.2.2", ["app-1-1"], True],
    ]


def test_an_endpoint_that_has_not_joined_says_so() -> None:
    """Docker made it, and its container has no interface yet."""
    site = Site()
    site.local.own.append(endpoint("10.5.0.200"))
    assert [row[6] for row in site.picture().endpoints()["rows"] if row[1] == "10.5.0.200"] == [False]


def test_an_outsider_has_no_host() -> None:
    """It is there by records alone."""
    site = Site()
    other = Peer(address=at(9, 0), mac=Mac.of(at(9, 0)), vtep=site.vtep(9))
    site.local.view.peers[other.address] = other  # type: ignore[index]
    assert site.picture().endpoints()["rows"][-1][1:6] == ["10.5.9.2", "02:42:0a:05:09:02", "", "192.0.2.10", []]
    assert [one["address"] for one in site.picture().drawing("web")["outsiders"]] == ["10.5.9.2"]


def test_the_matrix_is_what_each_host_told() -> None:
    """State, latency in ms, loss, full size; by the id of who is seen. Looking at it asks for it."""
    site = Site()
    other = (Glance(site.me, "cut off", 0.012345, 0.0625, False), Glance(site.ids[2], "dead"))
    site.tell(1, glances=other)
    shown = site.picture().matrix()
    assert site.onlooker.asked == [()]
    assert [one["name"] for one in shown["hosts"]] == ["host-0", "host-1", "host-2"]
    assert shown["hosts"][1]["cells"] == {
        site.me: ["cut off", 12.0, 0.062, False],
        site.ids[2]: ["dead", None, None, None],
    }
    assert shown["hosts"][1]["told"] == round(site.clock.now - 2)
    assert shown["hosts"][0]["told"] is None, "this host is always asked"


def test_a_host_that_told_nothing_has_no_cells() -> None:
    """Nothing is made up for it, its version is known from the store."""
    site = Site()
    site.onlooker.seen = {site.me: site.onlooker.seen[site.me]}
    silent = site.picture().matrix()["hosts"][2]
    assert silent == {
        "id": site.ids[2], "name": "host-2", "version": "0.1.0", "mtu": None, "told": None, "cells": None
    }  # fmt: skip


def test_hosts_that_nobody_here_knows_are_not_in_the_matrix() -> None:
    """What a stranger told of strangers is left out, also as a column."""
    site = Site()
    site.tell(1, glances=(Glance(host_id(77), "alive"), Glance(site.me, "alive")))
    shown = site.picture().matrix()
    assert set(shown["hosts"][1]["cells"]) == {site.me}


def test_a_drawing_has_all_hosts_with_their_endpoints() -> None:
    """This host first; no tables are asked for while none are wanted."""
    site = Site()
    drawn = site.picture().drawing("web")
    assert [(one["name"], one["state"], len(one["endpoints"])) for one in drawn["hosts"]] == [
        ("host-0", "here", 2), ("host-1", "alive", 2), ("host-2", "alive", 2)
    ]  # fmt: skip
    assert (drawn["tables"], drawn["way"]) == ({}, None)
    assert site.onlooker.asked == [()]


def test_an_overlay_that_is_not_here_is_unknown() -> None:
    """The sentence says which; what is no name is shown without its control characters."""
    with pytest.raises(Unknown, match=r"no overlay no\?pe"):
        Site().picture().drawing("no\x1bpe")


def test_the_tables_of_a_wanted_host() -> None:
    """They are asked for, and shown once they were told; of a host that is not on the overlay nothing is asked."""
    site = Site()
    drawn = site.picture().drawing("web", [site.ids[1], "f" * 32])
    assert drawn["tables"] == {site.ids[1]: None}
    assert site.onlooker.asked[-1] == (About(host=site.ids[1], overlay=WEB),)
    site.tell(1, site.tables(1))
    told = site.picture().drawing("web", [site.ids[1]])["tables"][site.ids[1]]
    assert ["arp", "10.5.0.2", "02:42:0a:05:00:02", "permanent"] in told["rows"]
    assert told["ports"]["10.5.1.2"].startswith("p")


def test_the_way_of_a_pair() -> None:
    """Both hosts are asked for the rows about both ends; what they told makes the way, a missing row its fault."""
    site = Site()
    pair = (str(at(0, 0)), str(at(1, 1)))
    assert {one["state"] for one in site.picture().drawing("web", pair=pair)["way"]["stations"]} == {"right", "unseen"}
    about = site.onlooker.asked[-1]
    assert [one.host for one in about] == [site.me, site.ids[1]]
    assert set(about[0].keys) == {"10.5.0.2", "02:42:0a:05:00:02", "10.5.1.3", "02:42:0a:05:01:03"}
    ends = (at(0, 0), at(1, 1))
    site.tell(0, site.tables(0, asked=ends))
    site.tell(1, site.tables(1, asked=ends))
    way = site.picture().drawing("web", pair=pair)["way"]
    assert way["first_wrong"] is None
    assert {one["state"] for one in way["stations"]} == {"right"}
    site.tell(1, site.tables(1, but=(pair[0],), asked=ends))
    way = site.picture().drawing("web", pair=pair)["way"]
    assert (way["stations"][way["first_wrong"]]["where"], way["stations"][way["first_wrong"]]["kind"]) == (
        "host-1", "neighbour"
    )  # fmt: skip


def test_a_pair_that_is_none_has_no_way() -> None:
    """The same container twice, or one that is not there."""
    picture = Site().picture()
    assert picture.drawing("web", pair=("10.5.0.2", "10.5.0.2"))["way"] is None
    assert picture.drawing("web", pair=("10.5.0.2", "10.5.0.99"))["way"] is None


def test_names_of_strangers_are_one_line_of_text() -> None:
    """Control characters do not reach the page, and what looks like markup is a text in JSON."""
    site = Site(name=lambda n: f"<img src=x onerror=alert({n})>\x1b[31m\n")
    shown = json.loads(encode(site.picture().matrix()))
    assert shown["hosts"][1]["name"] == "<img src=x onerror=alert(1)>?[31m?"
    assert "\n" not in site.picture().host()["name"]


def test_a_thousand_endpoints_cost_little() -> None:
    """100 hosts with 10 containers each: every picture within 250 ms on this machine, and mostly far less."""
    site = Site(hosts=100, each=10)
    for number in range(100):
        site.tell(number, site.tables(number))
    picture = site.picture()
    pair = (str(at(0, 0)), str(at(99, 9)))
    for take in (picture.host, picture.endpoints, picture.matrix, lambda: picture.drawing("web", [site.me], pair)):
        took = []
        for _ in range(3):
            begun = time.thread_time()
            encode(take())
            took.append(time.thread_time() - begun)
        assert min(took) < 0.25


def test_lists_are_swapped_whole_under_the_page() -> None:
    """A picture that is taken while a list goes does not fail for it."""
    site = Site()
    del site.local.view.lists[site.ids[1]]  # type: ignore[union-attr,attr-defined]
    rows = site.picture().endpoints()["rows"]
    assert [row[5] for row in rows if row[3] == "host-1"] == [[], []]
    assert isinstance(next(iter(site.local.view.lists.values())), Held)  # type: ignore[union-attr]
