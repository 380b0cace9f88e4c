"""What `myoverlay status` and the metrics say of real hosts: rows taken out, a store away, peers in every state."""

from __future__ import annotations

import http.client
import socket
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from tests.kernel.host.hosts import Host, Hosts
from tests.kernel.host.test_dead_hosts import end_session, pull_the_plug
from tests.kernel.host.tools import ip, until


def status(host: Host) -> dict[str, Any]:
    return host.call("Control.Status")


def peer_of(host: Host, other: Host) -> dict[str, Any]:
    """The other host's line; nothing where there is none."""
    nothing = {"state": "", "why": "", "rtt": None}
    return next((one for one in status(host)["peers"] if one["id"] == other.daemon.records.me), nothing)


def metrics(host: Host) -> dict[tuple[str, ...], float]:
    page = host.daemon.app.test_client().get("/metrics").get_data(as_text=True)
    return {
        (sample.name, *(sample.labels[name] for name in sorted(sample.labels))): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }


def concerned(host: Host) -> list[str]:
    return [one["what"] for one in status(host)["concerns"]]


def test_two_hosts_that_are_well(two: tuple[Host, Host]) -> None:
    """Overlay, endpoints and the other host are as they are, its kernel answers, nothing needs a person."""
    here, there = two
    mine, theirs = here.run(), there.run()
    until(lambda: here.knows(theirs) and there.knows(mine))
    here.daemon.beat.suspect([there.daemon.records.me])  # asked at once, not when its turn comes
    until(lambda: peer_of(here, there)["rtt"] is not None)
    said = status(here)
    (overlay,) = said["overlays"]
    assert (overlay["overlay"], overlay["endpoints"], overlay["peers"], overlay["hosts"]) == ("10.5.0.0-24", 1, 1, 1)
    assert (overlay["built"], overlay["complete"], overlay["vtep"]) == (True, True, here.vtep)
    assert overlay["heard"] < 60
    assert said["store"]["answers"] is True
    assert said["session"] is True
    line = peer_of(here, there)
    assert (line["name"], line["vtep"], line["state"]) == (there.name, there.vtep, "alive")
    assert line["version"] == said["version"]
    assert 0 < line["rtt"] < 0.5
    assert line["why"] == "in the store, and its kernel answers"
    until(lambda: status(here)["compared"] is not None)
    assert concerned(here) == []
    read = metrics(here)
    assert read["myoverlay_endpoints", "10.5.0.0-24"] == read["myoverlay_remote_endpoints", "10.5.0.0-24"] == 1
    assert read["myoverlay_peers", "alive"] == 1
    assert 0 < read["myoverlay_peer_rtt_seconds", there.name] < 0.5
    assert read["myoverlay_store_answers",] == read["myoverlay_has_session",] == 1
    assert read["myoverlay_docker_calls_total", "NetworkDriver.Join", "ok"] == 1
    assert read["myoverlay_docker_call_seconds_count", "NetworkDriver.Join"] == 1


def test_drift_is_counted_with_its_reason(two: tuple[Host, Host]) -> None:
    """A row that is taken out by hand is put right, counted, and told of as the drift of that round."""
    here, there = two
    theirs = there.run()
    here.run()
    until(lambda: here.knows(theirs))
    until(lambda: status(here)["compared"] is not None)
    with here.overlay() as ns:
        ip(ns, f"neigh del {theirs.address} dev vxlan1")
    until(lambda: status(here)["drift"], 10, "a round that put something right")
    assert status(here)["counters"]["repairs"]["missing row"] == 1
    assert here.knows(theirs)
    assert metrics(here)["myoverlay_repairs_total", "missing row"] == 1
    until(lambda: status(here)["drift"] == 0, 10, "a round with nothing to do")


def test_a_peer_in_every_state_has_its_reason(hosts: Hosts) -> None:
    """Cut off while its kernel answers, alive again, then dead, with what becomes of its rows: each in words."""
    here, there = hosts.pair_with(grace=60, lease_grace=600)
    theirs = there.run()
    here.run()
    until(lambda: here.knows(theirs))
    there.stop()
    end_session(hosts, there)
    until(lambda: peer_of(here, there)["state"] == "cut off", 10)
    assert "its kernel answered" in peer_of(here, there)["why"]
    assert concerned(here) == [f"1 host is cut off: {there.name}"]
    assert metrics(here)["myoverlay_peers", "cut off"] == 1
    there.start()
    until(lambda: peer_of(here, there)["state"] == "alive", 15)
    pull_the_plug(hosts, there)
    until(lambda: peer_of(here, there)["state"] == "dead", 10)
    assert "no session, and its kernel is silent: its rows go in " in peer_of(here, there)["why"]
    assert concerned(here) == [f"1 host is dead: {there.name}"]
    read = metrics(here)
    assert (read["myoverlay_peers", "dead"], read["myoverlay_peers", "alive"]) == (1, 0)
    assert read["myoverlay_concerns",] == 1


def test_a_store_that_is_away_is_said_and_ends(two: tuple[Host, Host]) -> None:
    """Since when, and what fails; when it is back that is over, and what failed is still known."""
    here, _ = two
    here.run()
    until(lambda: status(here)["store"]["answers"] and status(here)["session"])
    here.view.away = True
    until(lambda: status(here)["store"]["answers"] is False and not status(here)["session"], 10)
    assert "the store cannot be reached" in status(here)["store"]["failure"]
    read = metrics(here)
    assert read["myoverlay_store_answers",] == read["myoverlay_has_session",] == 0
    assert any(key[:1] == ("myoverlay_store_call_seconds_count",) and "failed" in key for key in read)
    here.view.away = False
    until(lambda: status(here)["store"]["answers"] and status(here)["session"], 15)
    assert status(here)["store"]["failed"] is not None


def test_metrics_on_an_address(hosts: Hosts) -> None:
    """With MYOVERLAY_METRICS they are read over TCP while the plugin runs, and the address is free afterwards."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    here = hosts.host(metrics=f"127.0.0.1:{port}")

    def scraped() -> str | None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("GET", "/metrics")
            return connection.getresponse().read().decode()
        except ConnectionRefusedError:
            return None
        finally:
            connection.close()

    assert f'host="{here.name}"' in until(scraped)
    assert status(here)["metrics_at"] == f"http://127.0.0.1:{port}/metrics"
    assert status(here)["metrics_trouble"] == ""
    here.stop()
    assert scraped() is None
