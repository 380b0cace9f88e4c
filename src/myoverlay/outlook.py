"""What each host sees of the others, and the question for it: who draws a picture of all hosts has to ask them.

Both lie in the store and were written by somebody else: they are set aside in these forms, and everything in them is
bounded, so that a whole answer stays below the largest value that a store takes.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from myoverlay.networks import ANSWERED, check_id
from myoverlay.values import Address, HostId, OverlayName, Value

#: Rows of a host's tables, and containers of it, that are told of one overlay; tables that are told at once.
ROWS, PORTS, TABLES = 1024, 1024, 2
#: Tables that one asks for at once, and the addresses and MACs whose rows come first.
ABOUT, KEYS = 4, 8
#: Characters of a word in a row, and of a text.
WORD, TEXT = 64, 255

Word = Annotated[str, msgspec.Meta(max_length=WORD)]
Fate = Literal["alive", "pending", "cut off", "dead"]


class About(Value, frozen=True, kw_only=True):
    """One host's tables of one overlay, asked for; with another `turn` anew. `keys`: rows about these come first."""

    host: HostId
    overlay: OverlayName
    keys: Annotated[tuple[Word, ...], msgspec.Meta(max_length=KEYS)] = ()
    turn: int = 0


class Look(Value, frozen=True, kw_only=True):
    """The question: what does each host see? `about` asks some of them for more. A new `id` asks all anew."""

    id: str
    asker: HostId
    about: Annotated[tuple[About, ...], msgspec.Meta(max_length=ABOUT)] = ()

    def __post_init__(self) -> None:
        check_id(self.id)


class Glance(msgspec.Struct, frozen=True, array_like=True):
    """What a host sees of another one. `rtt` in seconds; `loss`: the share of its last questions without an answer.

    `carries`: do packets of the underlay's full size come back? None, in each: that is not known.
    """

    host: HostId
    state: Fate
    rtt: Annotated[float, msgspec.Meta(ge=0, le=3600)] | None = None
    loss: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    carries: bool | None = None


class TableRow(msgspec.Struct, frozen=True, array_like=True):
    """A row of the VXLAN device: `arp` (address → MAC) or `fdb` (MAC → VTEP), and its state as `ip neigh` calls it."""

    table: Literal["arp", "fdb"]
    key: Word
    to: Word
    state: Word


class Tables(Value, frozen=True, kw_only=True):
    """A host's side of an overlay: rows as its kernel has them, the bridge's ports of its containers.

    `more`: so many rows are there beside those told. `keys`: what was asked about: of these a row that is not told is
    not there. `trouble`: why they could not be read.
    """

    overlay: OverlayName
    rows: Annotated[tuple[TableRow, ...], msgspec.Meta(max_length=ROWS)] = ()
    more: Annotated[int, msgspec.Meta(ge=0, le=1 << 32)] = 0
    keys: Annotated[tuple[Word, ...], msgspec.Meta(max_length=ABOUT * KEYS)] = ()
    ports: Annotated[dict[Address, Word], msgspec.Meta(max_length=PORTS)] = {}
    trouble: Annotated[str, msgspec.Meta(max_length=TEXT)] = ""

    def row(self, table: str, key: str) -> TableRow | None:
        return next((row for row in self.rows if row.table == table and row.key == key), None)


class Outlook(Value, frozen=True, kw_only=True):
    """What a host sees. `mtu`: the full size that it asks the others with, bytes; 0: it asks with none."""

    host: HostId
    name: Annotated[str, msgspec.Meta(max_length=TEXT)] = ""
    version: Annotated[str, msgspec.Meta(max_length=WORD)] = ""
    mtu: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 0
    glances: Annotated[tuple[Glance, ...], msgspec.Meta(max_length=ANSWERED)] = ()
    tables: Annotated[tuple[Tables, ...], msgspec.Meta(max_length=TABLES)] = ()

    def on(self, overlay: str) -> Tables | None:
        return next((one for one in self.tables if one.overlay == overlay), None)
