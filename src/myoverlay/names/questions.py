"""The wire format, by dnspython: a message in, a question; a verdict, a message out.

The library takes 0.3 ms for both. The same question comes again and again, but for its number, so what was made of one
is kept: 0.03 ms.

Sources: RFC 1035, 6891 (EDNS), 8020, 9619 (one question).
"""

from __future__ import annotations

import socket
import struct
from functools import lru_cache
from typing import NamedTuple

import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rrset

from myoverlay.plan.zone import Addresses, Empty, Nobody, Pointer, Question, Refuse

#: Seconds that an answer of ours may be kept: a container that moved is found again after this.
TTL = 2
#: Bytes of a question that anybody has reason to send, and of an answer over UDP without and with EDNS (RFC 9715).
QUESTION_LIMIT, PLAIN, EDNS = 1024, 512, 1232
#: id, flags, and the numbers of questions, answers, authorities and additional records.
HEADER = struct.Struct("!6H")
_QR, _OPCODE, _RD = 0x8000, 0x7800, 0x0100

#: Questions and answers that are kept.
_KEPT = 1024

Own = Addresses | Pointer | Empty | Nobody | Refuse


class Asked(NamedTuple):
    """A question that can be answered: as bytes, as dnspython has it (without its number), and what it is about."""

    raw: bytes
    message: dns.message.Message
    question: Question

    @property
    def room(self) -> int:
        """Bytes that the asker takes over UDP."""
        return min(max(self.message.payload, PLAIN), EDNS) if self.message.edns >= 0 else PLAIN


def read(raw: bytes) -> Asked | bytes | None:
    """A question, or what to answer at once to what is none, or nothing: who answers an answer never ends."""
    if len(raw) < HEADER.size:
        return None
    number, flags, questions, answers, authorities, more = HEADER.unpack_from(raw)
    if flags & _QR:
        return None
    if (flags & _OPCODE) >> 11 != dns.opcode.QUERY:
        return _bare(number, flags, dns.rcode.NOTIMP)
    if questions != 1 or answers or authorities or more > 2 or len(raw) > QUESTION_LIMIT or not question_end(raw):
        return _bare(number, flags, dns.rcode.FORMERR)
    parsed = _parse(raw[2:])
    if parsed is None:
        return _bare(number, flags, dns.rcode.FORMERR)
    message, question = parsed
    if message.edns > 0:
        return numbered(_small(message, dns.rcode.BADVERS), number)
    if question is None:
        return numbered(_small(message, dns.rcode.REFUSED), number)
    return Asked(raw, message, question)


@lru_cache(maxsize=_KEPT)
def _parse(rest: bytes) -> tuple[dns.message.Message, Question | None] | None:
    """A message behind its number; without a question where that is of another class than IN."""
    try:
        message = dns.message.from_wire(b"\0\0" + rest)
        asked = message.question[0]
    except Exception:  # noqa: BLE001 - whatever the library makes of hostile bytes, the resolver goes on
        return None
    known = asked.rdclass == dns.rdataclass.IN
    return message, Question(_text(asked.name), int(asked.rdtype)) if known else None


def _text(name: dns.name.Name) -> str:
    """In lower case, without the last dot. What is no host's name has escapes in it, and is none of ours."""
    return name.to_text(omit_final_dot=True).lower() if name != dns.name.root else ""


def _bare(number: int, flags: int, code: int) -> bytes:
    """An answer that is nothing but a header."""
    return HEADER.pack(number, _QR | flags & (_OPCODE | _RD) | code, 0, 0, 0, 0)


def _small(message: dns.message.Message, code: dns.rcode.Rcode, flags: int = 0) -> bytes:
    answer = dns.message.make_response(message, recursion_available=True, our_payload=EDNS)
    answer.set_rcode(code)
    answer.flags |= flags
    return answer.to_wire(max_size=65535)


def answer(asked: Asked, verdict: Own, room: int) -> bytes:
    """What is ours to say, in at most so many bytes: cut, and marked so, where there is more."""
    return numbered(_say(asked.raw[2:], verdict, room), number_of(asked.raw))


@lru_cache(maxsize=_KEPT)
def _say(rest: bytes, verdict: Own, room: int) -> bytes:
    parsed = _parse(rest)
    assert parsed is not None
    message = parsed[0]
    if isinstance(verdict, Refuse):
        return _small(message, dns.rcode.REFUSED)
    if isinstance(verdict, Nobody):
        return _small(message, dns.rcode.NXDOMAIN, dns.flags.AA)
    reply = dns.message.make_response(message, recursion_available=True, our_payload=EDNS)
    reply.flags |= dns.flags.AA
    records = _records(verdict)
    bare = len(reply.to_wire(max_size=65535))
    # Each record of ours is a pointer to the question's name and ten bytes before its data; a PTR has but one.
    fitting = max(0, room - bare) // (2 + 10 + 4) if isinstance(verdict, Addresses) else len(records)
    if fitting < len(records):
        reply.flags |= dns.flags.TC
    # A set of several is written in an order of its own, so each stands alone.
    reply.answer += [dns.rrset.from_rdata(message.question[0].name, TTL, one) for one in records[:fitting]]
    return reply.to_wire(max_size=65535)


def _records(verdict: Own) -> list[dns.rdata.Rdata]:
    if isinstance(verdict, Addresses):
        return [_record(dns.rdatatype.A, socket.inet_aton(address)) for address in verdict.addresses]
    if isinstance(verdict, Pointer):
        return [_record(dns.rdatatype.PTR, dns.name.from_text(verdict.name).to_wire() or b"")]
    return []


def _record(kind: dns.rdatatype.RdataType, raw: bytes) -> dns.rdata.Rdata:
    return dns.rdata.from_wire(dns.rdataclass.IN, kind, raw, 0, len(raw))


def failure(asked: Asked) -> bytes:
    """Nobody answered us: the asker may try another server."""
    return numbered(_small(asked.message, dns.rcode.SERVFAIL), number_of(asked.raw))


def cut(asked: Asked) -> bytes:
    """Ask again over TCP."""
    return numbered(_small(asked.message, dns.rcode.NOERROR, dns.flags.TC), number_of(asked.raw))


def is_answer(asked: Asked, number: int, raw: bytes) -> bool:
    """Is it the answer to our question: its number, and the very question, in the very letters?"""
    if len(raw) < HEADER.size:
        return False
    theirs, flags, questions, *_ = HEADER.unpack_from(raw)
    if theirs != number or not flags & _QR or flags & _OPCODE:
        return False
    if questions == 0:
        return flags & 0xF not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN)  # who did not understand repeats nothing
    end = question_end(asked.raw)
    return questions == 1 and raw[HEADER.size : end] == asked.raw[HEADER.size : end]


def question_end(raw: bytes) -> int:
    """Where the one question ends; 0 where it has no end. There is nothing before it that a pointer could mean."""
    place = HEADER.size
    while place < len(raw) and 0 < raw[place] <= 63:
        place += 1 + raw[place]
    return place + 5 if place < len(raw) and raw[place] == 0 else 0


def numbered(raw: bytes, number: int) -> bytes:
    """The same message under another number."""
    return number.to_bytes(2, "big") + raw[2:]


def number_of(raw: bytes) -> int:
    return int.from_bytes(raw[:2], "big")
