"""A proxy in front of Consul that does what networks and servers do on a bad day.

    with FaultProxy(host.inside(lambda: listen("127.0.0.1", 8500)), dial(lab.consul)) as proxy:
        proxy.set(faults.HALF_OPEN)      # holds, for connections that are open too, when this returns
        proxy.set(faults.PASS)

The listening socket may belong to any host; the proxy itself is one thread of the test's process. Requests and answers
are taken apart only as far as a fault needs it. No request is sent to Consul twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import re
import socket
import struct
import threading
from collections.abc import Callable, Coroutine
from dataclasses import replace
from types import TracebackType
from typing import Any, TypeVar

from lab import faults
from lab.faults import PASS, Fault, Message
from lab.service import Service

T = TypeVar("T")

#: From asm-generic/socket.h; Python has no names for them.
_SO_ATTACH_FILTER, _SO_DETACH_FILTER = 26, 27
_CONNECT = 3.0
_SILENT = ("half-open", "black hole")


def listen(address: str, port: int = 0) -> socket.socket:
    """A listening socket, to be opened inside a host."""
    return socket.create_server((address, port), backlog=64)


def dial(service: Service) -> Callable[[], socket.socket]:
    """Opens connections to a service of the laboratory, from that service's own host."""
    place = (service.host.address, service.port)
    return lambda: service.host.inside(lambda: socket.create_connection(place, _CONNECT))


class FaultProxy:
    """Serves from its making until `stop`. `set` may be called from any thread at any moment.

    All state belongs to the event loop in the thread `fault-proxy`; `_changed` is set when the present fault ends.
    """

    def __init__(self, listener: socket.socket, dial: Callable[[], socket.socket]) -> None:
        self._listener = listener
        self._dial = dial
        self._fault = PASS
        self._index = 1
        self._lines: dict[asyncio.Task[None], _Line] = {}
        #: Request lines as they came, oldest first.
        self.asked: list[str] = []
        self._loop = asyncio.new_event_loop()
        self._changed = asyncio.Event()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fault-proxy", daemon=True)
        self._thread.start()
        self._server = self._do(asyncio.start_server(self._serve, sock=listener))

    def __enter__(self) -> FaultProxy:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def address(self) -> str:
        """What a client is told: `127.0.0.1:8500`."""
        host, port = self._listener.getsockname()[:2]
        return f"{host}:{port}"

    @property
    def fault(self) -> Fault:
        return self._fault

    @property
    def connections(self) -> int:
        """How many clients are connected."""
        return len(self._lines)

    def set(self, fault: Fault) -> None:
        """From when this returns everything goes by this fault; what was half-open until now is reset."""
        self._do(self._set(fault))

    def stop(self) -> None:
        """Reset all connections, close the listening socket, end the thread; once is enough."""
        if self._loop.is_closed():
            return
        self._do(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    # -- in the loop --------------------------------------------------------------------------------------------------

    async def _set(self, fault: Fault) -> None:
        before, self._fault = self._fault, fault
        ended, self._changed = self._changed, asyncio.Event()
        lines = tuple(self._lines.values())
        if (fault.kind == "reset" and not fault.only) or before.kind == "half-open":
            for line in lines:
                line.reset()
        for sock in (self._listener, *(line.sock for line in lines)):
            _stop_packets(sock, fault.kind == "black hole")
        ended.set()

    async def _close(self) -> None:
        self._server.close()
        for task, line in tuple(self._lines.items()):
            line.reset()
            task.cancel()
        await asyncio.gather(*self._lines, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task, line = asyncio.current_task(), _Line(reader, writer)
        assert task is not None
        self._lines[task] = line
        try:
            _stop_packets(line.sock, self._fault.kind == "black hole")
            while not (self._fault.kind == "reset" and not self._fault.only):
                request = await line.next_request()
                self.asked.append(request.first)
                message = await self._exchange(line, request)
                if not await self._send(line, request, message):
                    break
            else:
                line.reset()
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            line.reset()  # the client is gone, or Consul is, or we stop
        finally:
            line.end()
            del self._lines[task]

    async def _exchange(self, line: _Line, request: Message) -> Message:
        """What the client is told. Whenever the fault changes meanwhile, the new one decides.

        Raises OSError for an end with RST.
        """
        forwarded: asyncio.Task[Message] | None = None
        try:
            while True:
                fault, changed = self._at(request), self._changed
                if fault.kind in _SILENT:
                    await line.wait(changed)
                    continue
                if fault.kind == "status":
                    return faults.refusal(fault.code)
                if fault.kind == "empty" and (own := faults.nothing(request, fault.code, self._index)) is not None:
                    if self._is_news(request) or not await line.wait(changed, timeout=_seconds(request)):
                        return own
                    continue
                if forwarded is None:
                    forwarded = asyncio.create_task(self._forward(line, request))
                if await line.wait(changed, forwarded) or not forwarded.done():
                    continue
                message = forwarded.result()
                if fault.kind == "delay" and await line.wait(changed, timeout=fault.seconds):
                    continue
                if fault.kind in ("reset", "lost"):
                    raise ConnectionResetError
                return replace(message, headers=message.headers | _STALE) if fault.kind == "stale" else message
        finally:
            if forwarded is not None and not forwarded.done():
                forwarded.cancel()
                line.hang_up()

    def _at(self, request: Message) -> Fault:
        return self._fault if self._fault.only in request.first else PASS

    def _is_news(self, request: Message) -> bool:
        return int(request.query.get("index", "0")) < self._index

    async def _forward(self, line: _Line, request: Message) -> Message:
        """Ask Consul, once. Raises OSError where it is away."""
        if line.beyond is None:
            line.beyond = await asyncio.open_connection(sock=await self._dialled())
        reader, writer = line.beyond
        writer.write(b"".join(request.encoded()))
        message = await _read(reader, answer=True)
        if message.headers.get("connection") == "close":
            line.hang_up()
        self._index = max(self._index, int(message.headers.get("x-consul-index", "1")))
        return message

    async def _dialled(self) -> socket.socket:
        dialling = self._loop.run_in_executor(None, self._dial)
        try:
            return await asyncio.shield(dialling)
        except asyncio.CancelledError:
            dialling.add_done_callback(_close_result)
            raise

    async def _send(self, line: _Line, request: Message, message: Message) -> bool:
        """Send it; False where the connection is over."""
        head, body = message.encoded()
        fault = self._at(request)
        if fault.kind == "truncated":
            line.writer.write(head + body[: len(body) // 2] if len(body) > 1 else head[: len(head) // 2])
            await line.writer.drain()
            line.writer.close()
            return False
        rest = head + body
        while rest:
            fault, changed = self._at(request), self._changed
            if fault.kind in _SILENT:
                await line.wait(changed)
                continue
            count = 1 if fault.kind == "drip" else len(rest)
            line.writer.write(rest[:count])
            await line.writer.drain()
            rest = rest[count:]
            if rest:
                await line.wait(changed, timeout=fault.seconds)
        return True


_STALE = {"x-consul-index": "1"}


class _Line:
    """A client's connection, and ours to Consul in its name."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writer = writer
        self.sock: Any = writer.get_extra_info("socket")
        self.beyond: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._reader = reader
        # The next request's first byte, or the client's end: read ahead, so that the end is heard while we wait.
        self._first = asyncio.create_task(reader.read(1))

    async def next_request(self) -> Message:
        first = await self._first
        request = await _read(self._reader, first)
        self._first = asyncio.create_task(self._reader.read(1))
        return request

    async def wait(
        self, changed: asyncio.Event, other: asyncio.Task[Message] | None = None, timeout: float | None = None
    ) -> bool:
        """Until the fault changed (True), the other task or the time ended. Raises OSError when the client went."""
        change = asyncio.create_task(changed.wait())
        tasks = {change, self._first, *((other,) if other else ())}
        try:
            await asyncio.wait(tasks, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        finally:
            change.cancel()
        if self._first.done() and not self._first.result():
            raise ConnectionAbortedError("the client went")
        return changed.is_set()

    def reset(self) -> None:
        """End it with RST."""
        with contextlib.suppress(OSError):
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    def hang_up(self) -> None:
        """Let go of the connection to Consul."""
        if self.beyond is not None:
            self.beyond[1].transport.abort()
            self.beyond = None

    def end(self) -> None:
        if not self._first.cancel() and not self._first.cancelled():
            self._first.exception()  # heard, or asyncio complains
        self.hang_up()
        self.writer.close()


def _close_result(dialling: asyncio.Future[socket.socket]) -> None:
    if dialling.exception() is None:
        dialling.result().close()


def _stop_packets(sock: Any, stop: bool) -> None:
    """Drop whatever reaches this socket, unseen and unanswered, or let it in again (cf. tcp_filter in tcp_ipv4.c)."""
    if stop:
        drop_all = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0), 8)  # BPF_RET | BPF_K, 0 bytes
        program = struct.pack("HP", 1, ctypes.addressof(drop_all))
        sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)
    else:
        with contextlib.suppress(OSError):  # there is none, or the socket is closed
            sock.setsockopt(socket.SOL_SOCKET, _SO_DETACH_FILTER, 0)


async def _read(reader: asyncio.StreamReader, first: bytes = b"", *, answer: bool = False) -> Message:
    """One message, whole. Raises IncompleteReadError where it ends before."""
    head = (first + await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    line, *lines = head.rstrip("\r\n").split("\r\n")
    headers = {name.strip().lower(): text.strip() for name, _, text in (each.partition(":") for each in lines)}
    if headers.get("transfer-encoding") == "chunked":
        return Message(line, headers, await _read_chunks(reader))
    if "content-length" in headers:
        return Message(line, headers, await reader.readexactly(int(headers["content-length"])))
    return Message(line, headers, await reader.read() if answer else b"")


async def _read_chunks(reader: asyncio.StreamReader) -> bytes:
    body = b""
    while True:
        size = int((await reader.readuntil(b"\r\n")).split(b";")[0], 16)
        chunk = await reader.readexactly(size + 2)
        if size == 0:
            return body
        body += chunk[:-2]


def _seconds(request: Message) -> float:
    """How long the client would have a blocking query wait."""
    match = re.fullmatch(r"([0-9.]+)(ms|s)", request.query.get("wait", "0s"))
    return float(match[1]) * (0.001 if match[2] == "ms" else 1.0) if match else 0.0
