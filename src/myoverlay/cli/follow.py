"""What `myoverlay watch` tells: netlink messages become events, and each miss is followed until a row answers it.

No socket and no clock: bytes and the time go in, events come out. `Text` and `Json` write them.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from myoverlay.kernel import anatomy
from myoverlay.kernel.anatomy import Message
from myoverlay.kernel.neigh import decode_misses
from myoverlay.values import Address, Mac

#: States in which the kernel has no answer yet: NUD_INCOMPLETE, NUD_FAILED.
_UNANSWERED = 0x01 | 0x20
#: What a socket is told of each group: by the end of the message's name.
_GROUP = {"LINK": "link", "ROUTE": "route", "NEIGH": "neigh"}


class Missed(NamedTuple):
    """The kernel asked: whose MAC is it (layer 3), or behind which VTEP (layer 2)?"""

    at: float
    layer: int
    subject: str
    ifindex: int


class Outcome(NamedTuple):
    """What became of a miss: the row that answered it after so many ms, or None; `times` it was asked meanwhile."""

    at: float
    layer: int
    subject: str
    ifindex: int
    row: str | None
    ms: float
    times: int


class Told(NamedTuple):
    """Another notification that is followed, in one phrase."""

    at: float
    group: str
    text: str
    ifindex: int


class Seen(NamedTuple):
    """A message as it came, for those who want its bytes; the events it made follow."""

    at: float
    message: Message
    raw: bytes


Event = Missed | Outcome | Told | Seen


class _Open(NamedTuple):
    since: float
    times: int


class NetworkFollower:
    """Turns messages into events.

    `patience`: seconds a miss is given; `only`: which interfaces count; after `limit` misses and followed messages no
    more are taken, only the answers to those that are open.
    """

    def __init__(
        self,
        groups: frozenset[str] = frozenset(),
        patience: float = 0.5,
        raw: bool = False,
        only: Callable[[int], bool] = lambda _: True,
        limit: int | None = None,
    ) -> None:
        self._groups = groups
        self._patience = patience
        self._raw = raw
        self._only = only
        self._limit = limit
        self._open: dict[tuple[int, str], _Open] = {}
        #: Misses and notifications so far.
        self.count = 0

    @property
    def waiting(self) -> bool:
        """Is the outcome of some miss not known yet?"""
        return bool(self._open)

    @property
    def full(self) -> bool:
        return self._limit is not None and self.count >= self._limit

    def hear(self, piece: bytes, now: float) -> list[Event]:
        """What one notification amounts to. Never raises on malformed bytes."""
        events: list[Event] = []
        for message in anatomy.dissect(piece):
            events += self._hear(message, piece, now)
        return events

    def _hear(self, message: Message, piece: bytes, now: float) -> list[Event]:
        ifindex = _ifindex(message)
        if not self._only(ifindex):
            return []
        if message.kind == "RTM_GETNEIGH":
            events = self._misses(piece[message.offset : message.offset + message.size], now)
        else:
            events = self._answers(message, ifindex, now) + self._notices(message, ifindex, now)
        if events and self._raw:
            return [Seen(now, message, piece), *events]
        return events

    def _misses(self, raw: bytes, now: float) -> list[Event]:
        events: list[Event] = []
        for miss in decode_misses(raw) if not self.full else ():
            subject = str(miss.address or miss.mac)
            known = self._open.get((miss.ifindex, subject), _Open(now, 0))
            self._open[miss.ifindex, subject] = _Open(known.since, known.times + 1)
            self.count += 1
            events.append(Missed(now, miss.layer, subject, miss.ifindex))
        return events

    def _answers(self, message: Message, ifindex: int, now: float) -> list[Event]:
        """The outcome of an open miss, if this row is its answer."""
        if message.kind != "RTM_NEWNEIGH" or message.number("ndm_state") & _UNANSWERED:
            return []
        address, mac = message.text("NDA_DST"), message.text("NDA_LLADDR")
        # A row of the bridge itself names no destination; only the tunnel's does.
        if address is None or mac is None:
            return []
        subject, layer = (mac, 2) if anatomy.is_bridge(message) else (address, 3)
        known = self._open.pop((ifindex, subject), None)
        if known is None:
            return []
        row = f"{mac} dst {address}" if layer == 2 else f"{address} lladdr {mac}"
        return [Outcome(now, layer, subject, ifindex, row, (now - known.since) * 1000, known.times)]

    def _notices(self, message: Message, ifindex: int, now: float) -> list[Event]:
        group = next((group for ending, group in _GROUP.items() if message.kind.endswith(ending)), "")
        if group not in self._groups or not message.body or self.full:
            return []
        self.count += 1
        return [Told(now, group, describe(message), ifindex)]

    def due(self, now: float) -> list[Event]:
        """The misses that nobody answered in time."""
        late = [key for key, known in self._open.items() if now - known.since >= self._patience]
        return [self._nothing(key, self._open.pop(key), now) for key in late]

    def _nothing(self, key: tuple[int, str], known: _Open, now: float) -> Event:
        ifindex, subject = key
        return Outcome(now, _layer(subject), subject, ifindex, None, self._patience * 1000, known.times)


def _layer(subject: str) -> int:
    try:
        Mac(subject)
    except ValueError:
        Address(subject)
        return 3
    return 2


def _ifindex(message: Message) -> int:
    if message.struct == "rtmsg":
        return int(message.text("RTA_OIF") or 0)
    return message.number("ndm_ifindex") or message.number("ifi_index")


def describe(message: Message) -> str:
    """A link, route or neighbour in the words of `ip monitor` and `bridge monitor`."""
    gone = "deleted " if message.kind.startswith("RTM_DEL") else ""
    return gone + {"ndmsg": _neighbour, "ifinfomsg": _link, "rtmsg": _route}[message.struct](message)


def _neighbour(message: Message) -> str:
    address, mac = message.text("NDA_DST"), message.text("NDA_LLADDR")
    if anatomy.is_bridge(message):
        master = message.text("NDA_MASTER")
        words = [f"fdb {mac}", f"dst {address}" if address else "", f"master {{{master}}}" if master else ""]
    else:
        words = [f"neigh {address}", f"lladdr {mac}" if mac else ""]
    state = message.field("ndm_state")
    return " ".join(filter(None, [*words, state.text.replace("NUD_", "") if state and state.value else ""]))


def _link(message: Message) -> str:
    kind = message.text("IFLA_LINKINFO", "IFLA_INFO_KIND")
    flags = message.field("ifi_flags")
    words = ["link", message.text("IFLA_IFNAME"), f"type {kind}" if kind else ""]
    words += [f"<{flags.text.replace('IFF_', '').replace('|', ',')}>" if flags else ""]
    for word, name in (("mtu", "IFLA_MTU"), ("lladdr", "IFLA_ADDRESS")):
        if value := message.text(name):
            words.append(f"{word} {value}")
    if (master := message.text("IFLA_MASTER")) not in (None, "0"):
        words.append(f"master {{{master}}}")
    return " ".join(filter(None, words))


def _route(message: Message) -> str:
    target = message.text("RTA_DST")
    where = f"{target}/{message.number('rtm_dst_len')}" if target else "default"
    kind = message.field("rtm_type")
    words = ["route", "" if kind is None or kind.value == 1 else kind.text.replace("RTN_", "").lower(), where]
    for word, name in (("via", "RTA_GATEWAY"), ("src", "RTA_PREFSRC")):
        if value := message.text(name):
            words.append(f"{word} {value}")
    return " ".join(filter(None, words))


# Writing

_COLOURS = {"nlmsghdr": "36", "ndmsg": "33", "ifinfomsg": "33", "rtmsg": "33", "rtattr": "35", "rest": "31"}
_MISS, _ANSWERED, _NOTHING = "1", "32", "31"


class Text:
    """Lines for people. `names`: interfaces by index."""

    def __init__(self, names: Callable[[int], str], colour: bool) -> None:
        self._names = names
        self._colour = colour

    def lines(self, event: Event) -> list[str]:
        if isinstance(event, Seen):
            return self._anatomy(event)
        return [f"{_clock(event.at)}  {self._line(event)}"]

    def _line(self, event: Missed | Outcome | Told) -> str:
        where = self._names(event.ifindex)
        if isinstance(event, Missed):
            return self._paint(_MISS, f"L{event.layer} miss {event.subject} {where}")
        if isinstance(event, Told):
            return f"{_named(event.text, self._names)}{f' dev {where}' if where and event.group != 'link' else ''}"
        again = f", asked {event.times} times" if event.times > 1 else ""
        if event.row is None:
            return self._paint(_NOTHING, f"  -> nothing for {event.subject} within {event.ms:.0f} ms{again}")
        return self._paint(_ANSWERED, f"  -> row {event.row} {where} after {event.ms:.1f} ms{again}")

    def _anatomy(self, event: Seen) -> list[str]:
        message, raw = event.message, event.raw
        lines = []
        for part, depth, field in anatomy.walk(message):
            shown = raw[field.offset : field.offset + field.size].hex(" ")
            for start in range(0, max(len(shown), 1), 48):
                row = f"  {field.offset - message.offset + start // 3:04x}  {shown[start : start + 48]:<47}  "
                row += f"{'  ' * depth}{part} {field.name} = {field.text}" if not start else ""
                lines.append(self._paint(_COLOURS.get(part, ""), row.rstrip()))
        if message.rest is not None:
            offset, size = message.rest
            row = f"  {offset - message.offset:04x}  {raw[offset : offset + size].hex(' ')}  not understood"
            lines.append(self._paint(_COLOURS["rest"], row))
        return lines

    def _paint(self, code: str, text: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self._colour and code else text


class Json:
    """An object a line for machines."""

    def __init__(self, names: Callable[[int], str]) -> None:
        self._names = names

    def lines(self, event: Event) -> list[str]:
        return [json.dumps({"event": _KINDS[type(event)], **self._object(event)})]

    def _object(self, event: Event) -> Mapping[str, Any]:
        if isinstance(event, Seen):
            return {"time": event.at, "message": event.message.kind, **anatomy.plain(event.message, event.raw)}
        device = {"device": self._names(event.ifindex), "ifindex": event.ifindex}
        if isinstance(event, Told):
            return {"time": event.at, "group": event.group, "text": _named(event.text, self._names), **device}
        about = {"time": event.at, "layer": event.layer, "subject": event.subject, **device}
        if isinstance(event, Outcome):
            about |= {"row": event.row, "ms": round(event.ms, 3), "times": event.times}
        return about


_KINDS: Mapping[type, str] = {Missed: "miss", Outcome: "outcome", Told: "notice", Seen: "bytes"}


def _named(text: str, names: Callable[[int], str]) -> str:
    """The phrase with `{index}` put as the interface's name."""
    head, brace, rest = text.partition("{")
    number, _, tail = rest.partition("}")
    return f"{head}{names(int(number))}{tail}" if brace and number.isdecimal() else text


def _clock(at: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(at)) + f"{at % 1:.6f}"[1:]
