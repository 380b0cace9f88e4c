"""Route netlink by `struct`: messages, attributes, and one socket that sends batches and reads dumps.

Fifty times cheaper per row than a general library, and therefore what the tables are written with. The library is the
oracle in tests. Sources: netlink(7), rtnetlink(7), net/netlink/af_netlink.c, include/uapi/linux/netlink.h.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import struct
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import NamedTuple, TypeAlias

from myoverlay.errors import KernelRefused, Late
from myoverlay.kernel.netns import Namespace, refusal

#: linux/sockios.h, linux/if.h: of a `struct ifreq` (40 bytes) with a name (16) the index (net/core/dev_ioctl.c).
SIOCGIFNAME, SIOCGIFINDEX, IFREQ, IFNAMSIZ = 0x8910, 0x8933, 40, 16

NLMSG_ERROR, NLMSG_DONE = 2, 3
NLM_F_REQUEST, NLM_F_ACK, NLM_F_DUMP_INTR, NLM_F_DUMP = 0x01, 0x04, 0x10, 0x300
NLM_F_REPLACE, NLM_F_EXCL, NLM_F_CREATE = 0x100, 0x200, 0x400
NLM_F_CAPPED, NLM_F_ACK_TLVS = 0x100, 0x200
NLMSGERR_ATTR_MSG = 1
SOL_NETLINK, NETLINK_CAP_ACK, NETLINK_EXT_ACK, NETLINK_GET_STRICT_CHK = 270, 10, 11, 12
SO_SNDBUFFORCE, SO_RCVBUFFORCE = 32, 33

#: struct nlmsghdr: length, type, flags, sequence, port id.
HEADER = struct.Struct("=IHHII")
#: struct nlattr: length with this header, type. Payloads are padded to four bytes.
ATTRIBUTE = struct.Struct("=HH")
_ERRNO = struct.Struct("=i")
#: linux/err.h; what is said of a number beyond it is not asked of the C library, which takes less than 32 bits.
_MAX_ERRNO = 4095
#: A message's flags, which stand at its sixth byte.
_FLAGS = struct.Struct("=H")

#: Messages per sendmsg. 1,000 rows are 48 to 60 kB, and their errors, if each fails, fit into the receive buffer.
BATCH = 1000
#: Bytes. The kernel fills up to 32 KiB per dump message if the reader offers that much (netlink_dump).
CHUNK = 1 << 16
BUFFER = 8 << 20
#: Seconds. The kernel answers before sendmsg returns, so this only ends what could never end.
PATIENCE = 5.0
DUMP_ATTEMPTS = 5


class Request(NamedTuple):
    """A message without its place in a batch: `flags` beside NLM_F_REQUEST, `body` behind the header."""

    kind: int
    flags: int
    body: bytes


class Reply(NamedTuple):
    kind: int
    flags: int
    sequence: int
    body: bytes


class Failure(NamedTuple):
    """A request (by its place in the batch) that the kernel refused, with its errno and its own words if it has any."""

    place: int
    code: int
    reason: str


#: Makes the messages from one place of a batch to another, header and all; the first one's number is given.
Pack: TypeAlias = Callable[[int, int, int], list[bytes]]


class _Overflow(Exception):
    """The receive buffer was full: some answers are lost."""


def attribute(kind: int, payload: bytes) -> bytes:
    """One attribute, padded."""
    length = 4 + len(payload)
    return ATTRIBUTE.pack(length, kind) + payload + bytes(-length & 3)


def attributes(body: bytes, start: int, limit: int = 64) -> dict[int, bytes]:
    """The first attributes from `start` on, by type without its flag bits. Stops where one would reach over the end."""
    found: dict[int, bytes] = {}
    last = len(body) - 4
    unpack = ATTRIBUTE.unpack_from
    while start <= last and limit:
        length, kind = unpack(body, start)
        end = start + length
        if length < 4 or end > last + 4:
            break
        found[kind & 0x3FFF] = body[start + 4 : end]
        start = (end + 3) & ~3
        limit -= 1
    return found


def members(raw: bytes) -> Iterator[bytes]:
    """The members of a list, in their order, whatever their types say. Stops where one would reach over the end."""
    start = 0
    while start + ATTRIBUTE.size <= len(raw):
        length = ATTRIBUTE.unpack_from(raw, start)[0]
        if length < ATTRIBUTE.size or start + length > len(raw):
            return
        yield raw[start + ATTRIBUTE.size : start + length]
        start += (length + 3) & ~3


def replies(raw: bytes) -> Iterator[Reply]:
    """The whole messages in what one recv gave. Stops where one is cut off or claims less than its own header."""
    start, end = 0, len(raw)
    while start + HEADER.size <= end:
        length, kind, flags, sequence, _port = HEADER.unpack_from(raw, start)
        if length < HEADER.size or start + length > end:
            return
        yield Reply(kind, flags, sequence, raw[start + HEADER.size : start + length])
        start += (length + 3) & ~3


def verdict(reply: Reply) -> tuple[int, str]:
    """What an NLMSG_ERROR says: errno (0 is an acknowledgement) and the reason, the kernel's own where it gives one."""
    if len(reply.body) < 4:
        return errno.EBADMSG, "an error message without a code"
    code = -_ERRNO.unpack_from(reply.body)[0]
    reason = (os.strerror(code) if 0 < code <= _MAX_ERRNO else f"error {code}") if code else ""
    if reply.flags & NLM_F_ACK_TLVS and code:
        # Behind the errno stands the header of the request, and, unless it was capped, its body too.
        length = HEADER.size
        if not reply.flags & NLM_F_CAPPED and len(reply.body) >= 8:
            length = HEADER.unpack_from(reply.body + bytes(HEADER.size), 4)[0]
        said = attributes(reply.body, 4 + (length + 3 & ~3)).get(NLMSGERR_ATTR_MSG)
        if said:
            reason = f"{reason} ({said.rstrip(bytes(1)).decode('utf-8', 'replace')})"
    return code, reason


def whole(request: Request, number: int) -> bytes:
    """A request as a message of that number."""
    kind, flags, body = request
    return HEADER.pack(16 + len(body), kind, flags | NLM_F_REQUEST, number, 0) + body


def packing(requests: Sequence[Request]) -> Pack:
    """The messages of requests."""
    return lambda start, stop, number: [whole(one, number + at) for at, one in enumerate(requests[start:stop])]


class _Ahead:
    """Makes the messages of the next batch while the kernel takes those before, for which it needs no interpreter."""

    def __init__(self, pack: Pack, count: int, other: Executor) -> None:
        self._pack = pack
        self._count = count
        self._other = other
        #: What is likely asked for next, and is being made. Another is, after a batch that is sent again in halves.
        self._next: tuple[tuple[int, int, int], Future[list[bytes]]] | None = None

    def __call__(self, start: int, stop: int, number: int) -> list[bytes]:
        asked, making = self._next or (None, None)
        made = making.result() if making is not None else []  # never two at once
        packed = made if asked == (start, stop, number) else self._pack(start, stop, number)
        after = (stop, min(stop + BATCH, self._count), number + stop - start)
        self._next = (after, self._other.submit(self._pack, *after)) if stop < self._count else None
        return packed


class Wire:
    """A netlink socket inside a namespace, route netlink's. For one thread at a time: its owner locks."""

    def __init__(self, ns: Namespace, family: int = socket.NETLINK_ROUTE) -> None:
        """`family`: another netlink's number, which has the same messages and dumps."""
        try:
            self._socket = ns.socket(socket.AF_NETLINK, socket.SOCK_RAW, family)
        except OSError as error:
            raise refusal(f"opening netlink in {ns!r}", error) from error
        self._socket.settimeout(PATIENCE)
        self._sequence = 0
        # The forced sizes need CAP_NET_ADMIN over the host's user namespace; the options are younger than some kernels.
        for level, option, value in (
            (socket.SOL_SOCKET, SO_SNDBUFFORCE, BUFFER),
            (socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER),
            (SOL_NETLINK, NETLINK_CAP_ACK, 1),
            (SOL_NETLINK, NETLINK_EXT_ACK, 1),
            (SOL_NETLINK, NETLINK_GET_STRICT_CHK, 1),
        ):
            with contextlib.suppress(OSError):
                self._socket.setsockopt(level, option, value)

    def close(self) -> None:
        self._socket.close()

    def index_of(self, name: str) -> int | None:
        """The index of a link, None where there is none of that name; without RTNL, for which others make one wait."""
        raw = os.fsencode(name)
        if len(raw) > IFNAMSIZ - 1:
            return None
        answer = self._ask(SIOCGIFINDEX, raw.ljust(IFREQ, b"\0"), name)
        return int(struct.unpack_from("=i", answer, IFNAMSIZ)[0]) if answer is not None else None

    def name_of(self, index: int) -> str | None:
        """The name of the link with an index, None where there is none."""
        answer = self._ask(SIOCGIFNAME, struct.pack(f"={IFNAMSIZ}xI", index).ljust(IFREQ, b"\0"), f"link {index}")
        return os.fsdecode(answer[:IFNAMSIZ].partition(b"\0")[0]) if answer is not None else None

    def _ask(self, request: int, argument: bytes, what: str) -> bytes | None:
        """One of the calls that any socket takes for its namespace (netdevice(7))."""
        try:
            return fcntl.ioctl(self._socket, request, argument)
        except OSError as error:
            if error.errno == errno.ENODEV:
                return None
            raise refusal(f"looking for {what}", error) from error

    def commit(self, requests: Sequence[Request]) -> list[Failure]:
        """Send all in the order given and tell which were refused; the others are done.

        Only the last of a batch asks for an acknowledgement: errors come by themselves. All requests must bear being
        sent twice, which happens when answers got lost in a full buffer (ENOBUFS): then in halves.
        """
        return self.commit_packed(packing(requests), len(requests))

    def commit_packed(self, pack: Pack, count: int) -> list[Failure]:
        """The same for so many messages, made as they are sent: on another thread where there are several batches."""
        if count <= BATCH:
            return self._commit_packed(pack, count)
        with ThreadPoolExecutor(1, "packing") as other:
            return self._commit_packed(_Ahead(pack, count, other), count)

    def _commit_packed(self, pack: Pack, count: int) -> list[Failure]:
        failures: list[Failure] = []
        for start in range(0, count, BATCH):
            for reply in self._collect_in_halves(pack, start, min(start + BATCH, count)):
                code, reason = verdict(reply) if reply.kind == NLMSG_ERROR else (0, "")
                if code:
                    failures.append(Failure(reply.sequence, code, reason))
        return failures

    def ask(self, requests: Sequence[Request]) -> list[Reply]:
        """Send questions that have at most one answer each, and return the answers; refused ones have none."""
        answers: list[Reply] = []
        for start in range(0, len(requests), BATCH):
            collected = self._collect_in_halves(packing(requests), start, min(start + BATCH, len(requests)))
            answers += [reply for reply in collected if reply.kind != NLMSG_ERROR]
        return answers

    def one(self, request: Request, attempt: str) -> Reply:
        """Send a question and return its answer. Raises KernelRefused where it is refused."""
        answer = self._collect_in_halves(packing([request]), 0, 1)[0]
        if answer.kind == NLMSG_ERROR:
            code, reason = verdict(answer)
            raise KernelRefused(attempt, code, reason or "no answer")
        return answer

    def transact(self, requests: Sequence[Request], attempt: str) -> None:
        """Send a netfilter transaction, its first and last message included. Raises KernelRefused: then all is undone.

        Where the kernel refuses it as a whole, its answer bears the first message's number (nfnetlink_rcv_batch).
        """
        last = len(requests) - 2
        acked = [one._replace(flags=one.flags | (NLM_F_ACK if at == last else 0)) for at, one in enumerate(requests)]
        base = self._send(packing(acked), 0, len(acked), 0)
        refused: KernelRefused | None = None
        while True:
            try:
                replies = self._receive()
            except _Overflow:  # there were more errors than fit
                self._drain()
                raise KernelRefused(attempt, errno.ENOBUFS, os.strerror(errno.ENOBUFS)) from None
            for reply in replies:
                place = reply.sequence - base - 1
                if reply.kind != NLMSG_ERROR or not 0 <= place < len(requests):
                    continue
                code, reason = verdict(reply)
                if code and refused is None:
                    refused = KernelRefused(attempt, code, reason)
                if place == last or (place == 0 and code):
                    if refused is not None:
                        raise refused
                    return

    def dump(self, kind: int, body: bytes) -> list[bytes]:
        """All bodies of a dump: complete, or KernelRefused (EINTR where the table kept changing while being read)."""
        for _attempt in range(DUMP_ATTEMPTS):
            bodies = self._dump(kind, body)
            if bodies is not None:
                return bodies
        raise KernelRefused(f"reading table {kind}", errno.EINTR, f"it changed {DUMP_ATTEMPTS} times while being read")

    def _send(self, pack: Pack, start: int, stop: int, last: int) -> int:
        """Send one batch, `last` added to the flags of its last message; the sequence number before its first."""
        count = stop - start
        base = self._sequence if self._sequence + count < 1 << 32 else 0
        self._sequence = base + count
        parts = pack(start, stop, base + 1)
        if last:
            (flags,) = _FLAGS.unpack_from(parts[-1], 6)
            parts[-1] = parts[-1][:6] + _FLAGS.pack(flags | last) + parts[-1][8:]
        try:
            self._socket.send(b"".join(parts))
        except TimeoutError as error:
            raise Late(f"the kernel took no netlink message within {PATIENCE:g} s") from error
        except OSError as error:
            raise refusal("sending to the kernel by netlink", error) from error
        return base

    def _receive(self) -> list[Reply]:
        """The next messages. Raises _Overflow where some got lost."""
        return list(replies(self._read()))

    def _read(self) -> bytes:
        """What one recv gives. Raises _Overflow where something got lost."""
        try:
            return self._socket.recv(CHUNK)
        except BlockingIOError:
            raise
        except TimeoutError as error:
            raise Late(f"the kernel gave no netlink answer within {PATIENCE:g} s") from error
        except OSError as error:
            if error.errno == errno.ENOBUFS:
                raise _Overflow from error
            raise refusal("reading the kernel's netlink answer", error) from error

    def _drain(self) -> None:
        """Empty the receive buffer; only then the kernel puts answers there again (NETLINK_S_CONGESTED)."""
        self._socket.setblocking(False)
        try:
            while True:
                with contextlib.suppress(_Overflow):
                    self._receive()
        except BlockingIOError:
            pass
        finally:
            self._socket.settimeout(PATIENCE)

    def _collect(self, pack: Pack, start: int, stop: int) -> list[Reply]:
        """Send a batch and return the messages that answer it, up to that to its last. Raises _Overflow.

        Their sequence is the place that they answer.
        """
        base = self._send(pack, start, stop, NLM_F_ACK)
        final = base + stop - start
        collected: list[Reply] = []
        while True:
            for reply in self._receive():
                if base < reply.sequence <= final:
                    collected.append(reply._replace(sequence=start + reply.sequence - base - 1))
                    if reply.sequence == final and reply.kind == NLMSG_ERROR:
                        return collected

    def _collect_in_halves(self, pack: Pack, start: int, stop: int) -> list[Reply]:
        """The same; when answers got lost it is done again in halves, which is why requests must bear repetition."""
        try:
            return self._collect(pack, start, stop)
        except _Overflow:
            self._drain()
        half = (stop - start) // 2
        if not half:
            raise KernelRefused("reading the kernel's netlink answer", errno.ENOBUFS, os.strerror(errno.ENOBUFS))
        return [*self._collect_in_halves(pack, start, start + half), *self._collect_in_halves(pack, start + half, stop)]

    def _dump(self, kind: int, body: bytes) -> list[bytes] | None:
        """One attempt. None where the kernel says that the table changed meanwhile, or messages got lost.

        Ten thousand rows come by here every few seconds, so the messages are taken apart in place.
        """
        sequence = self._send(packing([Request(kind, NLM_F_DUMP, body)]), 0, 1, 0) + 1
        bodies: list[bytes] = []
        whole = True
        header, ends = HEADER.unpack_from, (NLMSG_DONE, NLMSG_ERROR)
        while True:
            try:
                raw = self._read()
            except _Overflow:
                self._drain()
                return None
            start, size = 0, len(raw)
            while start + 16 <= size:
                length, what, flags, number, _port = header(raw, start)
                end = start + length
                if length < 16 or end > size:
                    break
                if number == sequence:
                    whole = whole and not flags & NLM_F_DUMP_INTR
                    if what in ends:
                        self._raise_if_refused(kind, Reply(what, flags, number, raw[start + 16 : end]))
                        return bodies if whole else None
                    bodies.append(raw[start + 16 : end])
                start = (end + 3) & ~3

    @staticmethod
    def _raise_if_refused(kind: int, reply: Reply) -> None:
        code, reason = verdict(reply) if reply.body else (0, "")
        if code:
            raise KernelRefused(f"reading table {kind}", code, reason)
