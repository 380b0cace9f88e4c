"""The wire format: what is answered to which bytes, and that no bytes whatever do harm."""

from __future__ import annotations

import struct

import dns.flags
import dns.message
import dns.opcode
import dns.rcode
import dns.rdataclass
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from myoverlay.names import questions
from myoverlay.names.questions import HEADER, QUESTION_LIMIT, Asked
from myoverlay.plan.zone import PTR, A, Addresses, Empty, Nobody, Pointer, Question, Refuse

QUERY = dns.message.make_query("Web.Example.", "A", use_edns=0)


def asked(name: str = "web", kind: str = "A", **given: int) -> Asked:
    found = questions.read(dns.message.make_query(name, kind, **given).to_wire())
    assert isinstance(found, Asked)
    return found


def test_a_question_is_read() -> None:
    """Name in lower case, type, and how much its asker takes."""
    found = questions.read(QUERY.to_wire())
    assert isinstance(found, Asked)
    assert found.question == Question("web.example", A)
    assert found.room == questions.EDNS
    assert asked(use_edns=-1).room == questions.PLAIN
    assert asked(use_edns=0, payload=600).room == 600
    assert asked(".", "NS").question.name == ""
    assert asked("2.0.5.10.in-addr.arpa", "PTR").question.type == PTR


@pytest.mark.parametrize(
    ("verdict", "code", "answers"),
    [
        (Addresses(("10.5.0.2", "10.5.0.1")), dns.rcode.NOERROR, ["10.5.0.2", "10.5.0.1"]),
        (Pointer("my_app"), dns.rcode.NOERROR, ["my_app."]),
        (Empty(), dns.rcode.NOERROR, []),
        (Nobody(), dns.rcode.NXDOMAIN, []),
        (Refuse(), dns.rcode.REFUSED, []),
    ],
)
def test_what_is_ours_to_say(verdict: questions.Own, code: dns.rcode.Rcode, answers: list[str]) -> None:
    """Number and question are repeated letter by letter; what is final is authoritative; the order is kept."""
    query = dns.message.make_query("WeB", "PTR" if isinstance(verdict, Pointer) else "A")
    known = questions.read(query.to_wire())
    assert isinstance(known, Asked)
    reply = dns.message.from_wire(questions.answer(known, verdict, known.room), one_rr_per_rrset=True)
    assert query.is_response(reply)
    assert reply.rcode() == code
    assert [str(one) for rrset in reply.answer for one in rrset] == answers
    assert bool(reply.flags & dns.flags.AA) == (not isinstance(verdict, Refuse))
    assert reply.flags & dns.flags.RA
    assert reply.question[0].name.to_text() == "WeB."
    assert all(0 < rrset.ttl <= 5 for rrset in reply.answer)


def test_the_same_question_under_another_number_is_another() -> None:
    """What is kept of a question does not keep its number."""
    for number in (1, 2, 65535):
        query = dns.message.make_query("kept", "A", id=number)
        known = questions.read(query.to_wire())
        assert isinstance(known, Asked)
        for raw in (questions.answer(known, Nobody(), 512), questions.failure(known), questions.cut(known)):
            assert questions.number_of(raw) == number
            assert query.is_response(dns.message.from_wire(raw))


@pytest.mark.parametrize("edns", [-1, 0])
def test_more_than_fits_is_cut_and_said(edns: int) -> None:
    """Over UDP as many as fit, marked; over TCP all."""
    known = asked(use_edns=edns)
    many = Addresses(tuple(f"10.5.{n // 250}.{n % 250}" for n in range(1000)))
    raw = questions.answer(known, many, known.room)
    assert known.room - 16 < len(raw) <= known.room
    assert dns.message.from_wire(raw).flags & dns.flags.TC
    whole = dns.message.from_wire(questions.answer(known, many, 65535))
    assert len(whole.answer[0]) == 1000
    assert not whole.flags & dns.flags.TC


def _bad(change: str) -> bytes:
    raw = bytearray(QUERY.to_wire())
    if change == "no question":
        raw[4:6] = b"\0\0"
    elif change == "two questions":
        raw[4:6] = b"\0\2"
    elif change == "an answer in it":
        raw[6:8] = b"\0\1"
    elif change == "cut off":
        return bytes(raw[:20])
    elif change == "a loop":
        return HEADER.pack(7, 0x0100, 1, 0, 0, 0) + b"\xc0\x0c\0\1\0\1"
    elif change == "a pointer into the header":
        return HEADER.pack(7, 0x0100, 1, 0, 0, 0) + b"\xc0\x04\0\1\0\1"
    elif change == "a label of 64":
        return HEADER.pack(7, 0x0100, 1, 0, 0, 0) + b"\x40" + b"a" * 64 + b"\0\0\1\0\1"
    elif change == "too long":
        return bytes(raw) + bytes(QUESTION_LIMIT)
    elif change == "junk behind it":
        return bytes(raw) + b"junk"
    return bytes(raw)


@pytest.mark.parametrize(
    "change",
    ["no question", "two questions", "an answer in it", "cut off", "a loop", "a pointer into the header",
     "a label of 64", "too long", "junk behind it"],
)  # fmt: skip
def test_what_is_malformed_is_told_so(change: str) -> None:
    """FORMERR under the number it came with, and nothing more."""
    raw = _bad(change)
    reply = questions.read(raw)
    assert isinstance(reply, bytes)
    number, flags, *counts = HEADER.unpack(reply)
    assert number == questions.number_of(raw)
    assert flags & 0x800F == 0x8000 | dns.rcode.FORMERR
    assert counts == [0, 0, 0, 0]


def test_answers_and_fragments_are_met_with_silence() -> None:
    """Two resolvers that answer each other's answers would never end."""
    assert questions.read(dns.message.make_response(QUERY).to_wire()) is None
    assert questions.read(b"\0" * 11) is None
    assert questions.read(b"") is None


def test_what_is_no_plain_question_is_refused_in_the_protocols_words() -> None:
    """NOTIMP for other operations, BADVERS for a later EDNS, REFUSED for other classes."""
    update = dns.message.make_query("x", "A")
    update.set_opcode(dns.opcode.UPDATE)
    reply = questions.read(update.to_wire())
    assert isinstance(reply, bytes)
    assert dns.message.from_wire(reply).rcode() == dns.rcode.NOTIMP
    later = dns.message.make_query("x", "A", use_edns=1)
    reply = questions.read(later.to_wire())
    assert isinstance(reply, bytes)
    assert dns.message.from_wire(reply).rcode() == dns.rcode.BADVERS
    chaos = dns.message.make_query("version.bind", "TXT", rdclass="CH", id=9)
    reply = questions.read(chaos.to_wire())
    assert isinstance(reply, bytes)
    assert (dns.message.from_wire(reply).rcode(), questions.number_of(reply)) == (dns.rcode.REFUSED, 9)


@settings(max_examples=400)
@given(st.binary(max_size=QUESTION_LIMIT + 100))
@example(HEADER.pack(1, 0, 1, 0, 0, 2) + b"\0\0\1\0\1\0\0\x29\xff\xff\0\0\0\0\xff\xff")
def test_any_bytes_get_an_answer_or_silence(raw: bytes) -> None:
    """Whatever comes, nothing is raised, and what is answered is short and has the same number."""
    found = questions.read(raw)
    if isinstance(found, Asked):
        assert questions.question_end(raw) <= len(raw)
        found = questions.answer(found, Nobody(), found.room)
    if found is not None:
        assert questions.number_of(found) == questions.number_of(raw)
        assert len(found) <= len(raw) + 64


@settings(max_examples=400)
@given(st.data())
def test_any_change_of_a_good_question_gets_an_answer_or_silence(data: st.DataObject) -> None:
    """A few bytes turned, somewhere in a real question: nothing is raised."""
    raw = bytearray(QUERY.to_wire())
    for _ in range(data.draw(st.integers(1, 5))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    found = questions.read(bytes(raw))
    if isinstance(found, Asked):
        for verdict in (Addresses(("10.5.0.2",)), Empty(), Nobody(), Refuse()):
            questions.answer(found, verdict, found.room)
        questions.failure(found)


def test_only_the_answer_to_the_very_question_is_believed() -> None:
    """Another number, another name, other letters, a question, or no question at all are not."""
    known = asked("WeB.example.com")
    good = bytearray(dns.message.make_response(dns.message.from_wire(known.raw)).to_wire())
    struct.pack_into("!H", good, 0, 4711)
    assert questions.is_answer(known, 4711, bytes(good))
    assert not questions.is_answer(known, 4712, bytes(good))
    assert not questions.is_answer(known, 4711, bytes(good).replace(b"WeB", b"web"))
    assert not questions.is_answer(known, 4711, bytes(good).replace(b"WeB", b"WoB"))
    assert not questions.is_answer(known, 4711, questions.numbered(known.raw, 4711))
    assert not questions.is_answer(known, 4711, HEADER.pack(4711, 0x8180, 0, 0, 0, 0))
    assert questions.is_answer(known, 4711, HEADER.pack(4711, 0x8181, 0, 0, 0, 0))
    assert not questions.is_answer(known, 4711, b"\x12")
