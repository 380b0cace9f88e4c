"""What traffic control does to a packet on its way through devices: judged with three answers, as rules are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from myoverlay.path import Does, End, Key, Sieve, Tunnel
from myoverlay.plan.firewall import Blocked
from myoverlay.values import Address

_ALL, _IPV4, _IPV6, _UDP = 3, 0x0800, 0x86DD, 17
#: What stands before the network header.
_ETHER = bytes(14)


class Frame(NamedTuple):
    """A frame as far as it is known: `bytes_` from the network header on, None for what is not known; `ether` before
    it. `length`: of the whole frame at full size. `protocol`: of the network layer, as Ethernet calls it.
    """

    ether: Sequence[int | None]
    bytes_: Sequence[int | None]
    length: int
    protocol: int

    def at(self, place: int) -> int | None:
        """A byte; places before 0 are the Ethernet header's."""
        held, index = (self.bytes_, place) if place >= 0 else (self.ether, place + len(self.ether))
        return held[index] if 0 <= index < len(held) else None


def inner_frame(source: End, target: End, mtu: int) -> Frame:
    """A packet between two containers, of whatever transport."""
    ether = (*target.mac.packed, *source.mac.packed)
    return _frame(ether, source.address, target.address, None, (), mtu)


def outer_frame(source: Address, target: Address, tunnel: Tunnel) -> Frame:
    """The same in VXLAN (RFC 7348), between two VTEPs; the source port is drawn by lot for each flow."""
    port = tunnel.port.to_bytes(2, "big")
    udp = (None, None, *port, None, None, None, None, 8, 0, 0, 0, *(tunnel.vni << 8).to_bytes(4, "big"))
    around = (20 if source.version == 4 else 40) + 8 + 8 + len(_ETHER)
    return _frame((None,) * 12, source, target, _UDP, udp, tunnel.mtu + around)


def _frame(
    ether: Sequence[int | None], source: Address, target: Address, transport: int | None, rest: Sequence[int | None],
    size: int
) -> Frame:  # fmt: skip
    """`size`: bytes from the network header on."""
    four = source.version == 4
    kind = _IPV4 if four else _IPV6
    if four:
        head = [0x45, *[None] * 8, transport, None, None, *source.packed, *target.packed]
    else:
        head = [*[None] * 6, transport, None, *source.packed, *target.packed]
    return Frame((*ether, *kind.to_bytes(2, "big")), (*head, *rest), size + len(_ETHER), kind)


class Pass(NamedTuple):
    """A device, and which way through it: `ingress`, what it received; `egress`, what it sends."""

    device: str
    way: str


def stops(sieves: Iterable[Sieve], frame: Frame, passes: Sequence[Pass]) -> Blocked | None:
    """What takes the frame away first on its way; what is sure before what may be. `where`: what `tc` is told to
    remove it.
    """
    unsure: Blocked | None = None
    held = tuple(sieves)
    for one in passes:
        found = _through([sieve for sieve in held if (sieve.device, sieve.way) == one], frame)
        if found is not None and found.sure:
            return found
        unsure = unsure or found
    return unsure


def _through(sieves: Iterable[Sieve], frame: Frame) -> Blocked | None:
    unsure: Blocked | None = None
    for sieve in sieves:
        if sieve.does is Does.NOTHING or sieve.protocol not in (_ALL, frame.protocol):
            continue
        if sieve.longest and frame.length <= sieve.longest:
            continue
        meets = _meets(sieve.keys, frame)
        if meets is False:
            continue
        if sieve.does is Does.PASSES:
            if meets:
                return unsure  # what comes later is not asked
            continue
        sure = meets is True and sieve.does is Does.DROPS
        blocked = Blocked(sieve.find, f"{sieve.said} on {sieve.device} ({sieve.way})", sure)
        if sure:
            return blocked if unsure is None else unsure
        unsure = unsure or blocked
    return unsure


def _meets(keys: Sequence[Key] | None, frame: Frame) -> bool | None:
    """Whether all keys hold; None where one hangs on what is not known."""
    if keys is None:
        return None
    unknown = False
    for key in keys:
        for number, (mask, value) in enumerate(zip(key.mask, key.value, strict=False)):
            byte = frame.at(key.at + number)
            if not mask:
                continue
            if byte is None:
                unknown = True
            elif byte & mask != value & mask:
                return False
    return None if unknown else True
