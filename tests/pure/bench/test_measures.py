"""What the measures read: qperf's words, the plugin's log, which requests are held back."""

from __future__ import annotations

import pytest

from bench.figures.handlers import of_containers
from bench.figures.traffic import parse
from bench.holding import is_watch
from bench.inside.storm import is_answer, question
from lab.errors import LabError


def test_qperf_is_read_in_seconds_and_bytes() -> None:
    """Numbers with commas; nothing at all is a failure, not 0."""
    assert parse("tcp_lat:\n    latency  =  35,419 ns\n    msg_rate = 28 /sec\n") == {
        "latency": pytest.approx(3.5419e-5)
    }
    assert parse("udp_bw:\n    send_bw  =  7,700,000 bytes/sec\n    recv_bw  =  7 bytes/sec\n")["send_bw"] == 7.7e6
    with pytest.raises(LabError, match="no figure"):
        parse("failed to connect")


def call(method: str, ms: float, outcome: str = "ok", **about: str) -> dict[str, object]:
    """A line of the log."""
    return {"method": method, "ms": ms, "outcome": outcome, **about}


def life(endpoint: str, address: str, ms: float) -> list[dict[str, object]]:
    """The calls about one container."""
    return [
        call("IpamDriver.RequestAddress", ms, f"ok {address}/24", pool="p"),
        call("NetworkDriver.CreateEndpoint", ms, endpoint=endpoint, address=f"{address}/24"),
        call("NetworkDriver.Join", ms, endpoint=endpoint),
        call("NetworkDriver.Leave", ms, endpoint=endpoint),
        call("NetworkDriver.DeleteEndpoint", ms, endpoint=endpoint),
        call("IpamDriver.ReleaseAddress", ms, pool="p", address=address),
    ]


def test_all_calls_of_a_container_are_one_figure() -> None:
    """Also where two are interleaved; one that has not ended is none yet, and other calls do not count."""
    one, other = life("e1", "10.5.0.3", 1.0), life("e2", "10.5.0.4", 2.0)
    mixed = [line for pair in zip(one, other, strict=True) for line in pair]
    noise = [call("Plugin.Activate", 50.0), call("NetworkDriver.CreateNetwork", 50.0, network="n")]
    assert of_containers([*noise, *mixed]) == [6.0, 12.0]
    assert of_containers(mixed[:-1]) == [6.0]
    assert of_containers([*one, *life("e3", "10.5.0.3", 3.0)]) == [6.0, 18.0]


@pytest.mark.parametrize(
    ("line", "held"),
    [
        (b"GET /v1/kv/myoverlay/overlays/bench/changes/?recurse=1&index=40&wait=54999ms HTTP/1.1", True),
        (b"GET /v1/kv/myoverlay/overlays/bench/changes/?recurse=1 HTTP/1.1", False),
        (b"GET /v1/kv/myoverlay/overlays/bench/changes/?recurse=1&index=0 HTTP/1.1", False),
        (b"GET /v1/kv/myoverlay/alive/?keys=1&index=24&wait=54999ms HTTP/1.1", False),
        (b"PUT /v1/txn HTTP/1.1", False),
    ],
)
def test_only_waits_for_changes_are_held(line: bytes, held: bool) -> None:
    """Look-ups, listings, writes and the watch of who is alive pass."""
    assert is_watch(line + b"\r\nHost: x\r\n") is held


def test_an_answer_is_told_from_a_question() -> None:
    """The storm's own question is none, and neither is an answer about another address."""
    asked = question(b"\2" * 6, b"\n\5\0\2", b"\n\5\0\3")
    assert len(asked) == 42
    assert not is_answer(asked, b"\n\5\0\3")
    answer = asked[:20] + b"\0\2" + b"\4" * 6 + b"\n\5\0\3" + asked[32:]
    assert is_answer(answer, b"\n\5\0\3")
    assert not is_answer(answer, b"\n\5\0\4")
