"""Metrics: every row of the table is on the page, and the page is what Prometheus's own parser reads."""

from __future__ import annotations

from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from myoverlay.operate import exposition
from myoverlay.operate.exposition import FRESH, GAUGES, Exposition, families
from myoverlay.operate.metrics import ANY, METRICS, OVERLAYS, PEERS
from myoverlay.plan.fates import State
from myoverlay.plan.sight import HeldSight, Sight
from myoverlay.tally import BOUNDS, COUNTERS, DURATIONS, Tally
from tests.pure.kit import Clock
from tests.pure.sights import overlay, peer, sight

KINDS = {"counter", "gauge", "histogram", "info"}


class Page:
    """The page as a scraper reads it: values by name and labels, those in the order of their names."""

    def __init__(self, seen: Sight, tally: Tally | None = None) -> None:
        tally = tally or Tally()
        lookout: Any = type("Lookout", (), {"look": lambda _: seen})()
        self.text = Exposition(lookout, tally, wall=lambda: 10_000.0).page().decode()
        self.families = {family.name: family for family in text_string_to_metric_families(self.text)}
        self.values = {
            (sample.name, *(sample.labels[name] for name in sorted(sample.labels))): sample.value
            for family in self.families.values()
            for sample in family.samples
        }

    def series(self, name: str) -> dict[tuple[str, ...], float]:
        return {key[1:]: value for key, value in self.values.items() if key[0] == name}


def test_the_table_and_the_code_are_one() -> None:
    """Each counter and duration of the tally has a row, each gauge a reader, and nothing stands there twice."""
    of = {kind: [metric.name for metric in METRICS if metric.kind == kind] for kind in KINDS}
    assert sum(map(len, of.values())) == len(METRICS)
    assert sorted(of["counter"]) == sorted(COUNTERS)
    assert sorted(of["histogram"]) == sorted(DURATIONS)
    assert sorted(of["gauge"]) == sorted([*GAUGES, "start_time_seconds"])
    assert len({metric.exported for metric in METRICS}) == len(METRICS)


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.exported)
def test_each_row_says_what_it_means_and_what_to_do(metric: Any) -> None:
    """Name, meaning and remedy; a counter's fault is one of the outcomes that its meaning or remedy names."""
    assert metric.exported.replace("_", "").isalnum()
    assert metric.exported == metric.exported.lower()
    assert metric.meaning
    assert metric.remedy
    assert "{" not in metric.meaning
    if metric.kind == "counter":
        assert all(fault == ANY or fault in metric.meaning + metric.remedy for fault in metric.faults)
        assert metric.labels or metric.faults in ((), (ANY,))


def test_every_row_is_on_the_page() -> None:
    """With its type, also where nothing happened yet."""
    page = Page(sight())
    for metric in METRICS:
        kind = "gauge" if metric.kind == "info" else metric.kind
        assert f"# TYPE {metric.exported} {kind}\n" in page.text
        assert f"# HELP {metric.exported} " in page.text
    assert page.values["process_resident_memory_bytes",] > 1e6


def test_counters_have_their_labels_and_their_zeros() -> None:
    """What was counted, by each label apart; a fault that never happened stands there with 0, and a benign one not."""
    counts = {
        ("docker_calls", "NetworkDriver.Join ok"): 7,
        ("docker_calls", "NetworkDriver.Join 503"): 2,
        ("misses", "pull"): 4,
        ("overruns", ""): 3,
        ("repairs", "missing row"): 5,
    }
    page = Page(sight(counts=counts))
    assert page.series("myoverlay_docker_calls_total") == {
        ("NetworkDriver.Join", "ok"): 7.0,
        ("NetworkDriver.Join", "503"): 2.0,
        ("NetworkDriver.Join", "500"): 0.0,
        ("NetworkDriver.Join", "504"): 0.0,
    }
    assert page.series("myoverlay_misses_total") == {("pull",): 4.0, ("late",): 0.0}
    assert page.series("myoverlay_overruns_total") == {(): 3.0}
    assert page.series("myoverlay_doubts_total") == {(): 0.0}
    assert page.series("myoverlay_repairs_total") == {("missing row",): 5.0}


def test_durations_are_histograms() -> None:
    """Buckets add up from the left, the last holds all; sum and count are there."""
    tally = Tally()
    for seconds in (0.002, 0.2, 60.0):
        tally.took("store_call", "get answered", seconds)
    page = Page(sight(), tally)
    buckets = page.series("myoverlay_store_call_seconds_bucket")
    assert buckets["0.001", "get", "answered"] == 0
    assert buckets["0.0025", "get", "answered"] == 1
    assert buckets["0.25", "get", "answered"] == buckets[str(BOUNDS[-1]), "get", "answered"] == 2
    assert buckets["+Inf", "get", "answered"] == 3
    assert page.series("myoverlay_store_call_seconds_count") == {("get", "answered"): 3.0}
    assert page.series("myoverlay_store_call_seconds_sum")["get", "answered"] == pytest.approx(60.202)


def test_gauges_say_what_was_seen() -> None:
    """Store, overlays, peers, brake: each as the look has it, and nothing where nothing is known."""
    seen = sight(
        store={
            "answers": False,
            "since": 30.0,
            "answered": 31.0,
            "in_doubt": True,
            "unreadable": {"a": "b"},
            "untold": 2,
        },
        overlays=(overlay("web", endpoints=3, heard=None), overlay("db", built=False)),
        peers=(peer("bob", rtt=None, carries=False), peer("eve", state=State.DEAD, heard=None, carries=None)),
        held=(HeldSight(kind="link", overlay="web", count=60), HeldSight(kind="link", overlay="db", count=1)),
        names={"resolver": {"process": None, "troubles": []}},
    )
    page = Page(seen)
    expected = {
        ("myoverlay_store_answers",): 0.0,
        ("myoverlay_store_silent_seconds",): 31.0,
        ("myoverlay_store_in_doubt",): 1.0,
        ("myoverlay_store_unreadable_keys",): 1.0,
        ("myoverlay_store_untold_addresses",): 2.0,
        ("myoverlay_overlays",): 2.0,
        ("myoverlay_overlays_down",): 1.0,
        ("myoverlay_endpoints", "web"): 3.0,
        ("myoverlay_peers", "dead"): 1.0,
        ("myoverlay_peers", "pending"): 0.0,
        ("myoverlay_peer_full_size", "bob"): 0.0,
        ("myoverlay_held", "link"): 61.0,
        ("myoverlay_held", "key"): 0.0,
        ("myoverlay_names_answered",): 0.0,
        ("myoverlay_start_time_seconds",): 6400.0,
        ("myoverlay_instance_info", "ann", "a" * 32, "r" * 16, "0.1.0"): 1.0,
    }
    assert {key: page.values.get(key) for key in expected} == expected
    assert page.series("myoverlay_peer_rtt_seconds") == {("eve",): 0.0004}
    assert page.series("myoverlay_peer_heard_seconds") == {("bob",): 3.0}
    assert page.series("myoverlay_watch_silence_seconds") == {("db",): 1.0}
    assert page.series("myoverlay_docker_heard") == {}


def test_series_are_bounded() -> None:
    """Thousands of hosts have no more series than the bound, those in trouble first; the rest is counted."""
    peers = tuple(peer(f"p{number:04}", wrong=number == 2999) for number in range(3000))
    overlays = tuple(overlay(f"o{number:04}", endpoints=number) for number in range(500))
    page = Page(sight(peers=peers, overlays=overlays))
    assert len(page.series("myoverlay_peer_rtt_seconds")) == PEERS
    assert ("p2999",) in page.series("myoverlay_peer_rtt_seconds")
    assert len(page.series("myoverlay_endpoints")) == OVERLAYS
    assert ("o0499",) in page.series("myoverlay_endpoints")
    assert page.series("myoverlay_peers_unlisted") == {(): 3000.0 - PEERS}
    assert page.series("myoverlay_overlays_unlisted") == {(): 500.0 - OVERLAYS}
    assert page.series("myoverlay_peers") == {("alive",): 3000.0, ("pending",): 0.0, ("cut off",): 0.0, ("dead",): 0.0}


def test_two_hosts_of_one_name_are_two_series() -> None:
    """A scraper refuses a page that has one series twice; names are what other hosts say of themselves."""
    twins = (peer("bob", id="b" * 32), peer("bob", id="c" * 32), peer("", id="d" * 32))
    page = Page(sight(peers=twins))
    assert set(page.series("myoverlay_peer_rtt_seconds")) == {("b" * 12,), ("c" * 12,), ("d" * 12,)}
    lines = [line for line in page.text.splitlines() if not line.startswith("#")]
    assert len({line.rpartition(" ")[0] for line in lines}) == len(lines)


def test_what_a_host_calls_itself_breaks_no_line() -> None:
    """Quotes, newlines and backslashes of a hostile name stay inside their label."""
    name = 'x"} 1\nmyoverlay_barred 1\\'
    page = Page(sight(peers=(peer(name),)))
    assert page.series("myoverlay_peer_rtt_seconds") == {(name,): 0.0004}
    assert page.series("myoverlay_barred") == {(): 0.0}


def test_a_page_is_handed_out_again_for_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks a thousand times a second makes it be written once."""
    clock, written = Clock(5.0), []

    def counting(*of: Any) -> Any:
        written.append(clock.now)
        return families(*of)

    monkeypatch.setattr(exposition, "families", counting)
    lookout: Any = type("Lookout", (), {"look": lambda _: sight()})()
    shown = Exposition(lookout, Tally(), now=clock)
    pages = {shown.page() for _ in range(1000)}
    assert len(pages) == len(written) == 1
    clock.now += FRESH
    shown.page()
    assert len(written) == 2
