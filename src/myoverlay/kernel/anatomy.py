"""Route netlink messages taken apart for people: every field with its name, its place and its bytes.

The driver reads what it needs with `neigh` and `rtnetlink`; this is for those who want to see what is on the wire.
Bytes in, values out, whatever the bytes: what is cut off or not understood stays there as `rest`.
Sources: netlink(7), rtnetlink(7), include/uapi/linux/{netlink,rtnetlink,neighbour,if_link}.h.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from myoverlay.kernel import anatomy_names as names
from myoverlay.kernel.anatomy_names import Reader, Table


class Field(NamedTuple):
    """`size` bytes at `offset` of what was received. `value` is a number or hex, `text` what a person calls it."""

    name: str
    offset: int
    size: int
    value: int | str
    text: str


class Attribute(NamedTuple):
    """One rtattr: its header's two fields, and its payload as one field or as the attributes inside."""

    name: str
    offset: int
    size: int
    fields: tuple[Field, ...]
    inside: tuple[Attribute, ...] = ()

    @property
    def payload(self) -> Field | None:
        return self.fields[2] if len(self.fields) > 2 else None


class Message(NamedTuple):
    """One message: `header` are nlmsghdr's fields, `body` those of the struct called `struct`, then the attributes.

    `rest` are bytes that belong to the message and to none of these, as (offset, size); padding is not told.
    """

    kind: str
    offset: int
    size: int
    header: tuple[Field, ...]
    struct: str = ""
    body: tuple[Field, ...] = ()
    attributes: tuple[Attribute, ...] = ()
    rest: tuple[int, int] | None = None

    def field(self, name: str) -> Field | None:
        """A field of the header or the body."""
        return next((field for field in self.header + self.body if field.name == name), None)

    def number(self, name: str) -> int:
        """The number in a field of the header or the body; 0 where there is none."""
        field = self.field(name)
        return field.value if field is not None and isinstance(field.value, int) else 0

    def text(self, *path: str) -> str | None:
        """What an attribute says, by its name and, for one inside another, those of all around it."""
        there: tuple[Attribute, ...] = self.attributes
        found: Attribute | None = None
        for name in path:
            found = next((attribute for attribute in there if attribute.name == name), None)
            if found is None:
                return None
            there = found.inside
        payload = found.payload if found is not None else None
        return payload.text if payload is not None else None


_HEADER = (("nlmsg_len", "I"), ("nlmsg_type", "H"), ("nlmsg_flags", "H"), ("nlmsg_seq", "I"), ("nlmsg_pid", "I"))
_HEADER_SIZE, _ATTRIBUTE_SIZE = 16, 4
#: How deep attributes are taken apart, and how many at each level: an enemy's could go on for ever.
_DEPTH, _LIMIT = 4, 256


def dissect(raw: bytes) -> list[Message]:
    """All messages in what one recv gave, the last one cut off perhaps. Never raises."""
    messages = []
    start = 0
    while start + _HEADER_SIZE <= len(raw):
        message = _message(raw, start)
        messages.append(message)
        length = message.number("nlmsg_len")
        if length < _HEADER_SIZE:
            break
        start += (length + 3) & ~3
    return messages


def _message(raw: bytes, start: int) -> Message:
    (length, kind) = struct.unpack_from("=IH", raw, start)
    end = min(start + max(length, _HEADER_SIZE), len(raw))
    at = start + _HEADER_SIZE
    name = names.KINDS.get(kind, str(kind))
    texts: Mapping[str, Reader] = {"nlmsg_type": lambda _: name, "nlmsg_flags": lambda bits: names.flags(kind, bits)}
    header = _fields(raw, start, _HEADER, texts)
    shape = names.SHAPES.get(kind)
    if shape is None:
        return Message(name, start, end - start, header, rest=(at, end - at) if at < end else None)
    size = struct.calcsize("=" + "".join(form for _, form in shape.fields))
    if at + size > end:
        return Message(name, start, end - start, header, shape.struct, rest=(at, end - at) if at < end else None)
    body = _fields(raw, at, shape.fields, shape.texts)
    family = next((field.value for field in body if field.name.endswith("_family")), 0)
    found, reached = _attributes(raw, at + size, end, shape.attributes(int(family)), _DEPTH)
    rest = (reached, end - reached) if reached < end else None
    return Message(name, start, end - start, header, shape.struct, body, found, rest)


def _fields(raw: bytes, start: int, shape: names.Fields, texts: Mapping[str, Reader]) -> tuple[Field, ...]:
    """The fields of a struct that fits; those called "" are padding."""
    fields = []
    at = start
    for name, form in shape:
        size = struct.calcsize("=" + form)
        if name:
            (value,) = struct.unpack_from("=" + form, raw, at)
            fields.append(Field(name, at, size, value, texts.get(name, str)(value)))
        at += size
    return tuple(fields)


def _attributes(raw: bytes, start: int, end: int, table: Table, depth: int) -> tuple[tuple[Attribute, ...], int]:
    """The attributes between two places, and where the last whole one ended (its padding included)."""
    found: list[Attribute] = []
    while start + _ATTRIBUTE_SIZE <= end and len(found) < _LIMIT:
        length, kind = struct.unpack_from("=HH", raw, start)
        if length < _ATTRIBUTE_SIZE or start + length > end:
            break
        found.append(_attribute(raw, start, length, kind, table, depth))
        start = min((start + length + 3) & ~3, end)
    return tuple(found), start


def _attribute(raw: bytes, start: int, length: int, kind: int, table: Table, depth: int) -> Attribute:
    # The two highest bits are flags: NLA_F_NESTED and NLA_F_NET_BYTEORDER.
    row = table.get(kind & 0x3FFF)
    name = row.name if row is not None else str(kind & 0x3FFF)
    at, size = start + _ATTRIBUTE_SIZE, length - _ATTRIBUTE_SIZE
    fields = [Field("rta_len", start, 2, length, str(length)), Field("rta_type", start + 2, 2, kind, name)]
    if row is not None and row.inside is not None and depth > 1:
        inside, reached = _attributes(raw, at, at + size, row.inside, depth - 1)
        if reached == at + size:
            return Attribute(name, start, length, tuple(fields), inside)
    if size:
        payload = raw[at : at + size]
        text = _read(row.read if row is not None else None, payload)
        fields.append(Field("payload", at, size, payload.hex(), text))
    return Attribute(name, start, length, tuple(fields))


def _read(read: Callable[[bytes], str | None] | None, payload: bytes) -> str:
    """What the payload says; its bytes where it does not say what its name promises."""
    return (read(payload) if read is not None else None) or payload.hex(" ")


def walk(message: Message) -> Iterator[tuple[str, int, Field]]:
    """All fields in the order of their bytes, each with the part it belongs to and how deep that lies."""
    for field in message.header:
        yield "nlmsghdr", 0, field
    for field in message.body:
        yield message.struct, 0, field
    yield from _walk(message.attributes, 0)


def _walk(attributes: tuple[Attribute, ...], depth: int) -> Iterator[tuple[str, int, Field]]:
    for attribute in attributes:
        for field in attribute.fields:
            yield "rtattr", depth, field
        yield from _walk(attribute.inside, depth + 1)


def plain(message: Message, raw: bytes) -> dict[str, Any]:
    """The message for machines: its bytes, and its fields under their names."""
    return {
        "bytes": raw[message.offset : message.offset + message.size].hex(),
        "nlmsghdr": {field.name: field.value for field in message.header},
        **({message.struct: {field.name: field.value for field in message.body}} if message.body else {}),
        "rtattr": _plain(message.attributes),
    }


def _plain(attributes: tuple[Attribute, ...]) -> list[dict[str, Any]]:
    plain = []
    for attribute in attributes:
        length, kind = attribute.fields[:2]
        row: dict[str, Any] = {"name": attribute.name, "rta_len": length.value, "rta_type": kind.value}
        if attribute.payload is not None:
            row |= {"payload": attribute.payload.value, "value": attribute.payload.text}
        if attribute.inside:
            row["rtattr"] = _plain(attribute.inside)
        plain.append(row)
    return plain


def is_bridge(message: Message) -> bool:
    """Does a neighbour message speak of a forwarding table (a MAC) and not of an address?"""
    return message.number("ndm_family") == socket.AF_BRIDGE
