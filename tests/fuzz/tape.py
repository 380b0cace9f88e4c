"""Inputs are made of a tape: bytes that say what is chosen, where it is bent, and by what.

The tape is what is replayed and shrunk: of one that is all zeros comes the first line of a corpus as it stands.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

#: Bytes of a tape.
LENGTH = 96
CORPUS = Path(__file__).parent / "corpus"

T = TypeVar("T")


class Tape:
    """Read from its begin; behind its end there are zeros, which change nothing."""

    def __init__(self, raw: bytes) -> None:
        self._raw, self._at = raw, 0

    def byte(self) -> int:
        at, self._at = self._at, self._at + 1
        return self._raw[at] if at < len(self._raw) else 0

    def below(self, limit: int) -> int:
        """A number from 0 on, below the limit (at most 65536); 0 where that is 0."""
        if limit <= 256:
            return self.byte() % limit if limit else 0
        return (self.byte() << 8 | self.byte()) % limit

    def pick(self, among: Sequence[T]) -> T:
        return among[self.below(len(among))]

    def take(self, count: int) -> bytes:
        at, self._at = self._at, self._at + count
        return self._raw[at : at + count].ljust(count, b"\0")


def lines(target: str) -> list[bytes]:
    """A target's corpus of text: a line each, without its comments."""
    text = (CORPUS / f"{target}.txt").read_bytes()
    return [line for line in text.split(b"\n") if line and not line.startswith(b"#")]


def packets(target: str) -> list[bytes]:
    """A target's corpus of bytes: hex, a line each."""
    return [bytes.fromhex(line.decode()) for line in lines(target)]


#: Numbers at which lengths, counts and signs turn over.
_EDGES = (0, 1, 2, 3, 4, 7, 8, 15, 16, 17, 63, 64, 127, 128, 255, 256, 0x7FFF, 0x8000, 0xFFFE, 0xFFFF)


def bent(tape: Tape, raw: bytes, others: Sequence[bytes], most: int = 1 << 17) -> bytes:
    """Up to seven changes: bits, bytes, numbers at their edges, pieces that go, come twice, or are of another's."""
    data = bytearray(raw)
    for _ in range(tape.below(8)):
        what, at = tape.below(9), tape.below(min(len(data) + 1, 65536))
        if what == 0 and at < len(data):
            data[at] ^= 1 << tape.below(8)
        elif what == 1 and at < len(data):
            data[at] = tape.byte()
        elif what == 2:
            width = tape.pick((1, 2, 4))
            edge = tape.pick(_EDGES) & (1 << 8 * width) - 1
            data[at : at + width] = edge.to_bytes(width, tape.pick(("little", "big")))
        elif what == 3:
            del data[at:]
        elif what == 4:
            del data[at : at + 1 + tape.below(8)]
        elif what == 5:
            data[at:at] = tape.take(1 + tape.below(8))
        elif what == 6:
            data[at:at] = data[at : at + 1 + tape.below(64)] * (1 + tape.below(4))
        elif what == 7:
            other = tape.pick(others)
            data[at:] = other[tape.below(len(other) + 1) :]
        else:
            data += tape.take(1 + tape.below(16))
    return bytes(data[:most])


#: What stands in a text for what no value of Python's becomes when it is written as JSON.
_RAW = {
    "@deep": b"[" * 5000, "@deeper": b'{"a":' * 5000, "@huge": b"9" * 5000, "@infinite": b"1e999", "@nan": b"NaN",
    "@half": b'"\\ud800"', "@cut": b'"\\u00', "@wide": "\"\uff11\uff10.5.0.3\"".encode(), "@bad": b'"\xff\xfe"',
}  # fmt: skip
ODD: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2**31, 2**53, 2**63, 2**64, -(2**63) - 1, 10**30, 0.5, -0.0, 1e308, "", " ", "a",
    "\0", "a" * 300, "a" * 5000, "é", "\u202e", "\ud83d\ude00", "0", "-1", "1e3", "true", [], {}, [[]], [None], [0],
    [""], [{}], {"": ""}, {"a": None}, ["a"] * 70, "10.5.0.3", "10.5.0.3/24", "10.5.0.0/24", "10.5.0.0/33",
    "10.5.0.1/24", "10.5.0.0-24", "0.0.0.0", "0.0.0.0/0", "10.5.0.255", "255.255.255.255", "224.0.0.1", "127.0.0.1",
    "169.254.77.53", "::", "::1", "fd00::5", "fd00::/16", "fe80::1%eth0", "10.5.0.3%eth0", "::ffff:10.5.0.3",
    "010.5.0.3", "10.5.3", "1", "02:42:0a:05:00:03", "02:42:0A:05:00:03", "01:00:5e:00:00:01", "00:00:00:00:00:00",
    "ff:ff:ff:ff:ff:ff", "02:42:0a:05:00", "demo", "Demo", "de/mo", "..", "../x", "a" * 32, "b" * 32, "A" * 32,
    "endpoint", "aux", "reserve", "held", "4789", "65536", "7340033", "16777216", "on", "off",
    "com.docker.network.gateway", "AkIKBQAD", "====", *_RAW,
)  # fmt: skip


def _places(value: Any, found: list[tuple[Any, Any]]) -> None:
    """All containers with the keys of what lies in them."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inside in pairs:
        found.append((value, key))
        _places(inside, found)


def _copy(value: Any) -> Any:
    """Nothing may be in two places: what is done to one would be done to both."""
    return json.loads(json.dumps(value)) if isinstance(value, list | dict) else value


def bent_json(tape: Tape, raw: bytes, others: Sequence[bytes]) -> bytes:
    """A text of JSON in which up to three values are others, gone, doubled or renamed; now and then its bytes."""
    value = [json.loads(raw)]
    for _ in range(tape.below(4)):
        found: list[tuple[Any, Any]] = []
        _places(value, found)
        where, key = tape.pick(found)
        what = tape.below(8)
        if what <= 4:
            where[key] = _copy(tape.pick(ODD))
        elif what == 5 and where is not value:
            del where[key]
        elif what == 6 and isinstance(where, list) and where is not value:
            where.append(_copy(where[key]))
        elif what == 7 and isinstance(where, dict):
            where[str(tape.pick(ODD))[:400]] = _copy(where[key])
        if not value:
            value.append(None)
    text = json.dumps(value[0], separators=(",", ":")).encode()
    for name, instead in _RAW.items():
        text = text.replace(f'"{name}"'.encode(), instead) if b"@" in text else text
    return bent(tape, text, others) if tape.below(6) == 5 else text
