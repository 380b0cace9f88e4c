"""What a program or library is linked with, read from the file itself: no loader runs, so the machine's own may differ.

Source: elf(5), for 64-bit little-endian files (amd64, arm64, riscv64, ppc64el).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

from plugin.errors import BuildError

_PT_LOAD, _PT_DYNAMIC, _PT_INTERP = 1, 2, 3
_DT_NEEDED, _DT_STRTAB = 1, 5
_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SEGMENT = struct.Struct("<IIQQQQQQ")
_DYNAMIC = struct.Struct("<qQ")


@dataclass(frozen=True)
class Linked:
    """The loader a program names ('' for a library) and the libraries it needs, by their sonames."""

    interpreter: str
    needed: tuple[str, ...]


@dataclass(frozen=True)
class _Segment:
    kind: int
    offset: int
    address: int
    size: int


def is_elf(file: Path) -> bool:
    """Whether a regular file is a program or library at all."""
    with file.open("rb") as opened:
        return opened.read(4) == b"\x7fELF"


def read(file: Path) -> Linked:
    """Read a program or library; a static one needs nothing."""
    data = file.read_bytes()
    if data[:6] != b"\x7fELF\x02\x01":
        raise BuildError(f"{file} is no 64-bit little-endian ELF file")
    segments = _segments(data)
    interpreter = next((_bytes(data, s).rstrip(b"\0").decode() for s in segments if s.kind == _PT_INTERP), "")
    dynamic = next((_bytes(data, s) for s in segments if s.kind == _PT_DYNAMIC), b"")
    return Linked(interpreter, _needed(data, segments, dynamic))


def _segments(data: bytes) -> list[_Segment]:
    header = _HEADER.unpack_from(data)
    start, size, count = header[5], header[9], header[10]
    rows = (_SEGMENT.unpack_from(data, start + number * size) for number in range(count))
    return [_Segment(kind, offset, address, length) for kind, _, offset, address, _, length, _, _ in rows]


def _bytes(data: bytes, segment: _Segment) -> bytes:
    return data[segment.offset : segment.offset + segment.size]


def _needed(data: bytes, segments: list[_Segment], dynamic: bytes) -> tuple[str, ...]:
    rows = list(_DYNAMIC.iter_unpack(dynamic[: len(dynamic) // _DYNAMIC.size * _DYNAMIC.size]))
    address = next((value for tag, value in rows if tag == _DT_STRTAB), None)
    if address is None:
        return ()
    loaded = next(s for s in segments if s.kind == _PT_LOAD and s.address <= address < s.address + s.size)
    strings = loaded.offset + address - loaded.address
    return tuple(_text(data, strings + value) for tag, value in rows if tag == _DT_NEEDED)


def _text(data: bytes, start: int) -> str:
    return data[start : data.index(b"\0", start)].decode()
