"""Traffic control as the kernel has it, put there by `tc` and read by netlink."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator

import pytest

from myoverlay.kernel import netns, observe, traffic
from myoverlay.kernel.netns import Namespace
from myoverlay.kernel.rtnetlink import Wire
from myoverlay.path import Does, Key, Sieve
from tests.kernel.host.tools import run_in


@pytest.fixture
def room() -> Iterator[Namespace]:
    """A namespace with the ends `va` and `vb` of a cable."""
    with netns.nameless() as ns:
        run_in(ns, "ip", "link", "add", "va", "type", "veth", "peer", "name", "vb")
        yield ns


def tc(ns: Namespace, line: str, *more: str) -> None:
    run_in(ns, "tc", *line.split(), *more)


def seen(ns: Namespace, *names: str) -> tuple[Sieve, ...]:
    with contextlib.closing(Wire(ns)) as wire:
        index = {link.index: link.name for link in observe.links(wire).values() if link.name in (names or ("va",))}
        return traffic.read(wire, index)


def test_an_untouched_device_has_nothing(room: Namespace) -> None:
    """Neither what the kernel gives each device, nor a queue that only orders."""
    assert seen(room, "va", "vb", "lo") == ()
    tc(room, "qdisc add dev va root handle 1: htb default 1")
    assert seen(room) == ()


def test_filters_of_both_ways(room: Namespace) -> None:
    """u32 with its keys, and a program that drops: in, out, and nothing of another device."""
    tc(room, "qdisc add dev va clsact")
    tc(room, "filter add dev va egress protocol ip pref 7 u32 match ip dport 4789 0xffff match ip src 192.0.2.0/24"
             " action mirred egress redirect dev lo")  # fmt: skip
    tc(room, "filter add dev va ingress pref 3 bpf da bytecode", "1,6 0 0 2")
    into, out = sorted(seen(room), key=lambda one: one.way, reverse=True)
    assert into == Sieve(
        "va", "ingress", "filter bpf pref 3, a program", "filter del dev va ingress pref 3", Does.DROPS
    )
    assert (out.way, out.does, out.protocol) == ("egress", Does.DROPS, 0x0800)
    assert "mirred redirect" in out.said
    assert set(out.keys or ()) == {
        Key(20, b"\0\0\xff\xff", b"\0\0\x12\xb5"), Key(12, b"\xff\xff\xff\0", b"\xc0\0\x02\0")
    }  # fmt: skip
    assert seen(room, "vb") == ()


def test_filters_below_a_queue_and_of_the_older_kind(room: Namespace) -> None:
    """Below `ingress`, and below a queue at the root, where it is removed by its parent; a mere class is no filter."""
    tc(room, "qdisc add dev va ingress")
    tc(room, "filter add dev va parent ffff: pref 5 bpf da bytecode", "1,6 0 0 2")
    tc(room, "qdisc add dev va root handle 1: htb default 1")
    tc(room, "filter add dev va parent 1: protocol ip pref 9 u32 match ip dport 22 0xffff flowid 1:1")
    found = {one.way: one for one in seen(room)}
    assert found["ingress"].find == "filter del dev va ingress pref 5"
    assert (found["egress"].does, found["egress"].find) == (Does.NOTHING, "filter del dev va parent 1: pref 9")


def test_what_a_program_decides_that_may_do_both(room: Namespace) -> None:
    """It returns 2 for some and 0 for others: that is not told apart."""
    tc(room, "qdisc add dev va clsact")
    code = "4,40 0 0 12,21 0 1 2048,6 0 0 2,6 0 0 0"
    tc(room, "filter add dev va ingress bpf da bytecode", code)
    assert [one.does for one in seen(room)] == [Does.MAYBE]


def test_a_bucket_that_is_too_small(room: Namespace) -> None:
    """Its burst, within a few bytes, is the longest packet that passes."""
    tc(room, "qdisc add dev va root handle 1: tbf rate 1mbit burst 1000 limit 3000")
    (one,) = seen(room)
    assert (one.does, one.find) == (Does.DROPS, "qdisc del dev va root")
    assert 990 <= one.longest <= 1000
    tc(room, "qdisc replace dev va root handle 2: bfifo limit 300")
    assert [(one.said, one.longest) for one in seen(room)] == [("qdisc bfifo limit 300", 300)]


def test_what_is_printed_removes_it(room: Namespace) -> None:
    """`tc` takes each of the words."""
    tc(room, "qdisc add dev va clsact")
    tc(room, "filter add dev va egress pref 3 bpf da bytecode", "1,6 0 0 2")
    tc(room, "filter add dev va ingress pref 3 bpf da bytecode", "1,6 0 0 2")
    tc(room, "qdisc add dev va root bfifo limit 300")
    for one in seen(room):
        tc(room, one.find)
    assert seen(room) == ()


def test_the_words_are_tc_s_own(room: Namespace) -> None:
    """`tc` calls the filter the same."""
    tc(room, "qdisc add dev va clsact")
    tc(
        room,
        "filter add dev va egress protocol ip pref 7 u32 match ip dport 53 0xffff action mirred egress redirect dev lo",
    )
    listed = room.call(
        lambda: subprocess.run(
            ["tc", "filter", "show", "dev", "va", "egress"], capture_output=True, text=True, check=True
        )
    )
    (one,) = seen(room)
    kind, _, preference = one.said.removeprefix("filter ").partition(",")[0].partition(" pref ")
    assert f"pref {preference} {kind}" in listed.stdout
