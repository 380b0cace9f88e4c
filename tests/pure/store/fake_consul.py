"""As much of Consul 1.8.7 as the store uses, over real HTTP, with faults to order. It holds the same contract suite.

Its oddities are Consul's, measured on the real one: a prefix without keys has the index of the whole store and wakes
for any write; a listing that a token may not read is empty; `delete-cas` of an absent key succeeds; a write of what is
there keeps its index; a transaction that is not allowed is a conflict.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import socket
import ssl
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit


@dataclass
class Pair:
    value: bytes
    flags: int
    created: int
    modified: int
    session: str | None = None

    def shown(self, key: str, *, value: bool = True) -> dict[str, Any]:
        text = base64.b64encode(self.value).decode() if value and self.value else None
        lock = {"Session": self.session} if self.session else {}
        body = {"LockIndex": 0, "Key": key, "Flags": self.flags, "Value": text}
        return {**body, **lock, "CreateIndex": self.created, "ModifyIndex": self.modified}


@dataclass
class Seen:
    """A request as it came."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Reply:
    code: int = 200
    body: Any = None
    index: int | None = None

    @property
    def raw(self) -> bytes:
        return (
            self.body if isinstance(self.body, bytes) else b"" if self.body is None else json.dumps(self.body).encode()
        )


class Gone(Exception):
    """The fake was closed under a request."""


@dataclass
class FakeConsul:
    """A server at `address` from `start` to `close`. `token`: what is asked for. `denied`: a prefix nobody may touch.

    `fault` stands before every request while it is set: it may answer (a Reply), write to the socket and return None
    for an end of the connection, or raise.
    """

    max_ops: int = 64
    token: str | None = None
    denied: str | None = None
    tls: ssl.SSLContext | None = None
    port: int = 0
    fault: Callable[[Seen, socket.socket], Reply | None] | None = None
    seen: list[Seen] = field(default_factory=list)
    crashes: list[BaseException] = field(default_factory=list)
    kv: dict[str, Pair] = field(default_factory=dict)
    graves: dict[str, int] = field(default_factory=dict)
    sessions: set[str] = field(default_factory=set)
    index: int = 10
    #: Nodes of the catalogue by name, as `/v1/catalog/node` shows them.
    nodes: dict[str, dict[str, Any]] = field(default_factory=dict)
    #: A leader that has not replayed its log: who does not ask it to make sure finds an empty catalogue.
    replaying: bool = False
    #: A service that a token may not register.
    refused: str | None = None

    def __post_init__(self) -> None:
        self.changed = threading.Condition()
        self.closing = threading.Event()
        self.connections: set[socket.socket] = set()

    def start(self) -> FakeConsul:
        self.closing.clear()
        self.server = _Server(self, self.port)
        self.port = self.server.server_port
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.005})
        self.thread.start()
        return self

    def close(self) -> None:
        """Stop serving; what it holds stays for another `start` at the same port."""
        self.closing.set()
        with self.changed:
            self.changed.notify_all()
        self.server.shutdown()
        self.thread.join()
        with self.changed:
            for connection in self.connections:
                _shut(connection)
        self.server.server_close()

    @property
    def address(self) -> str:
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}"

    # What can happen to a Consul

    def reap(self) -> None:
        """Forget deleted keys, as Consul does after 15 minutes: a prefix's index may fall."""
        with self.changed:
            self.graves.clear()

    def wipe(self) -> None:
        """Lose everything, the index too."""
        with self.changed:
            self.kv.clear()
            self.graves.clear()
            self.index = 3
            self.changed.notify_all()

    def snapshot(self) -> tuple[dict[str, Pair], dict[str, int], int]:
        with self.changed:
            return {key: Pair(**vars(pair)) for key, pair in self.kv.items()}, dict(self.graves), self.index

    def restore(self, old: tuple[dict[str, Pair], dict[str, int], int]) -> None:
        """All is as it was then. What blocks now ends with what it has; what comes to block later does not."""
        with self.changed:
            self.kv, self.graves, self.index = old
            self.changed.notify_all()

    # Requests

    def answer(self, seen: Seen) -> Reply:
        url = urlsplit(seen.target)
        query = {name: values[0] for name, values in parse_qs(url.query, keep_blank_values=True).items()}
        path = unquote(url.path)
        if self.token is not None and seen.headers.get("x-consul-token") != self.token:
            return Reply(403, b"ACL not found")
        if seen.method == "GET" and path.startswith("/v1/kv/"):
            return self.read(path.removeprefix("/v1/kv/"), query)
        if seen.method == "PUT" and path == "/v1/txn":
            ops = json.loads(seen.body)
            return self.txn(ops) if all("KV" in op for op in ops) else self.catalogue_txn(ops)
        if seen.method == "GET" and path.startswith("/v1/catalog/node/"):
            behind = self.replaying and "consistent" not in query
            node = None if behind else self.nodes.get(path.removeprefix("/v1/catalog/node/"))
            return Reply(200, json.dumps(node).encode(), self.index)
        if seen.method == "GET" and path == "/v1/catalog/nodes":
            key, _, value = query["node-meta"].partition(":")
            return Reply(200, [one["Node"] for one in self.nodes.values() if one["Node"]["Meta"].get(key) == value])
        if seen.method == "PUT" and path.startswith("/v1/session/"):
            return self.session(path.removeprefix("/v1/session/"), seen.body)
        return Reply(404, b"404 page not found")

    def read(self, key: str, query: dict[str, str]) -> Reply:
        tree = "recurse" in query or "keys" in query
        if not tree and self.is_denied(key):
            return Reply(403, b"Permission denied")
        with self.changed:
            kv, known = self.kv, int(query.get("index", 0))
            abandoned = known > 0 and self.block(key, known, _seconds(query["wait"]), tree=tree)
            found = {name: pair for name, pair in kv.items() if _is_at(name, key, tree=tree)}
            found = {name: found[name] for name in sorted(found, key=str.encode) if not self.is_denied(name)}
            index = known if abandoned else self.index_of(key, tree=tree)
        if not found:
            return Reply(404, None, index)
        if "keys" in query:
            return Reply(200, list(found), index)
        return Reply(200, [pair.shown(name) for name, pair in found.items()], index)

    def is_denied(self, key: str) -> bool:
        return self.denied is not None and key.startswith(self.denied)

    def block(self, key: str, index: int, wait: float, *, tree: bool) -> bool:
        """True where a restore ended it."""
        ends, kv = time.monotonic() + wait, self.kv
        while self.index_of(key, tree=tree) <= index and (left := ends - time.monotonic()) > 0:
            self.changed.wait(left)
            if self.closing.is_set():
                raise Gone
            if self.kv is not kv:
                return True
        return False

    def index_of(self, key: str, *, tree: bool) -> int:
        alive = [pair.modified for name, pair in self.kv.items() if _is_at(name, key, tree=tree)]
        dead = [index for name, index in self.graves.items() if tree and name.startswith(key)]
        return max([*alive, *dead], default=self.index)

    def catalogue_txn(self, ops: list[dict[str, Any]]) -> Reply:
        """Nodes, services, and checks of keys, which come first."""
        if len(ops) > self.max_ops:
            return Reply(413, b"Transaction contains too many operations")
        with self.changed:
            errors = [{"OpIndex": at, "What": what} for at, op in enumerate(ops) if (what := self.objection(op))]
            if errors:
                return Reply(409, {"Results": None, "Errors": errors})
            for op in ops:
                self.apply_to_catalogue(op)
            self.index += 1
            self.changed.notify_all()
        return Reply(200, {"Results": [], "Errors": None})

    def objection(self, op: dict[str, Any]) -> str:
        if "KV" in op:
            assert op["KV"]["Verb"] in ("check-not-exists", "check-index")
            try:
                self.apply(op["KV"])
            except LookupError as error:
                return str(error.args[0])
            return ""
        service = op.get("Service", {}).get("Service", {})
        if service and not (service.get("ID") and service.get("Service")):
            return "Must provide service name with ID"
        return "Permission denied" if service and service["Service"] == self.refused else ""

    def apply_to_catalogue(self, op: dict[str, Any]) -> None:
        if "Node" in op:
            name = op["Node"]["Node"]["Node"]
            if op["Node"]["Verb"] == "delete":
                self.nodes.pop(name, None)
            else:
                self.nodes.setdefault(name, {"Services": {}})["Node"] = op["Node"]["Node"]
        elif "Service" in op:
            services, service = self.nodes[op["Service"]["Node"]]["Services"], op["Service"]["Service"]
            if op["Service"]["Verb"] == "delete":
                services.pop(service["ID"], None)
            else:
                services[service["ID"]] = service

    def txn(self, ops: list[dict[str, Any]]) -> Reply:
        ops = [op["KV"] for op in ops]
        if len(ops) > self.max_ops:
            return Reply(413, b"Transaction contains too many operations")
        read_only = all(op["Verb"] in ("get", "check-index", "check-not-exists") for op in ops)
        if not read_only and (denied := [at for at, op in enumerate(ops) if self.is_denied(op["Key"])]):
            return Reply(
                409, {"Results": None, "Errors": [{"OpIndex": at, "What": "Permission denied"} for at in denied]}
            )
        with self.changed:
            before = {key: Pair(**vars(pair)) for key, pair in self.kv.items()}, dict(self.graves)
            results, errors = [], []
            for at, op in enumerate(ops):
                try:
                    results.append(self.apply(op))
                except LookupError as error:
                    errors.append({"OpIndex": at, "What": str(error.args[0])})
            if errors:
                self._put_back(*before)
                return Reply(409, {"Results": None, "Errors": errors})
            if not read_only:
                self.index += 1
                self.changed.notify_all()
        shown = [{"KV": result} for result in results if result is not None and not self.is_denied(result["Key"])]
        return Reply(200, {"Results": shown, "Errors": None})

    def _put_back(self, kv: dict[str, Pair], graves: dict[str, int]) -> None:
        """Into the same dicts: others mean a restore."""
        self.kv.clear()
        self.kv.update(kv)
        self.graves.clear()
        self.graves.update(graves)

    def apply(self, op: dict[str, Any]) -> dict[str, Any] | None:
        verb, key, held = op["Verb"], op["Key"], self.kv.get(op["Key"])
        if verb == "get":
            if held is None:
                raise LookupError(f'key "{key}" doesn\'t exist')
            return held.shown(key)
        if verb == "check-not-exists":
            if held is not None:
                raise LookupError(f'key "{key}" exists')
            return None
        if verb == "check-index":
            if held is None or held.modified != op["Index"]:
                raise LookupError(f'failed to check index, key "{key}"')
            return held.shown(key, value=False)
        if verb == "delete-cas":
            if held is not None and held.modified != op["Index"]:
                raise LookupError(f'failed to delete key "{key}", index is stale')
            if held is not None:
                self.bury(key)
            return None
        return self.write(verb, op, held).shown(key, value=False)

    def write(self, verb: str, op: dict[str, Any], held: Pair | None) -> Pair:
        session = held.session if held else None
        if verb == "cas" and op["Index"] != (held.modified if held else 0):
            raise LookupError(f'failed to set key "{op["Key"]}", index is stale')
        if verb == "lock":
            if op["Session"] not in self.sessions:
                raise LookupError(f'invalid session "{op["Session"]}"')
            if session not in (None, op["Session"]):
                raise LookupError(f'failed to lock key "{op["Key"]}", lock is already held')
            session = op["Session"]
        if verb == "unlock":
            if session is None or session != op["Session"]:
                raise LookupError(f'failed to unlock key "{op["Key"]}", lock isn\'t held')
            session = None
        if verb not in ("set", "cas", "lock", "unlock"):
            raise LookupError(f'unknown KV verb "{verb}"')
        new = Pair(base64.b64decode(op["Value"]), op.get("Flags", 0), self.index + 1, self.index + 1, session)
        if held is not None:
            new.created = held.created
            if (held.value, held.flags, held.session) == (new.value, new.flags, new.session):
                new.modified = held.modified
        self.kv[op["Key"]] = new
        return new

    def bury(self, key: str) -> None:
        del self.kv[key]
        self.graves[key] = self.index + 1

    def session(self, path: str, body: bytes) -> Reply:
        verb, _, session = path.partition("/")
        with self.changed:
            if verb == "create":
                return self.create(json.loads(body))
            if verb == "renew":
                known = session in self.sessions
                return (
                    Reply(200, [{"ID": session}]) if known else Reply(404, f"Session id '{session}' not found".encode())
                )
            if verb == "destroy":
                self.end(session)
                return Reply(200, True)
        return Reply(404, b"404 page not found")

    def create(self, wish: dict[str, Any]) -> Reply:
        if not 10 <= _seconds(wish["TTL"]) <= 86400:
            return Reply(500, b"Invalid Session TTL")
        session = str(uuid.uuid4())
        self.sessions.add(session)
        return Reply(200, {"ID": session})

    def end(self, session: str) -> None:
        held = [key for key, pair in self.kv.items() if pair.session == session]
        for key in held:
            self.bury(key)
        self.sessions.discard(session)
        self.index += 1
        self.changed.notify_all()


def _is_at(name: str, key: str, *, tree: bool) -> bool:
    return name.startswith(key) if tree else name == key


def _seconds(duration: str) -> float:
    number, unit = re.fullmatch(r"([\d.]+)(ms|s)", duration).groups()  # type: ignore[union-attr]
    return float(number) * {"ms": 0.001, "s": 1}[unit]


def _shut(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        socket.socket.shutdown(connection, socket.SHUT_RDWR)


class _Server(ThreadingHTTPServer):
    daemon_threads = False
    block_on_close = True
    request_queue_size = 256

    def __init__(self, fake: FakeConsul, port: int) -> None:
        self.fake = fake
        super().__init__(("127.0.0.1", port), _Handler)

    def handle_error(self, *_: object) -> None:
        """A client that went, or sent what is no TLS, is nothing to the server; anything else is a test's business."""
        error = sys.exc_info()[1]
        if error is not None and not isinstance(error, ConnectionError | Gone | ssl.SSLError):
            self.fake.crashes.append(error)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    disable_nagle_algorithm = True
    server: _Server

    def setup(self) -> None:
        self.fake = self.server.fake
        if self.fake.tls is not None:
            self.request.settimeout(10)
            self.request = self.fake.tls.wrap_socket(self.request, server_side=True)
        super().setup()
        with self.fake.changed:
            self.fake.connections.add(self.connection)

    def finish(self) -> None:
        with self.fake.changed:
            self.fake.connections.discard(self.connection)
        try:
            super().finish()
        finally:
            if self.fake.tls is not None:
                self.connection.close()

    def handle_any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        headers = {name.lower(): value for name, value in self.headers.items()}
        seen = Seen(self.command, self.path, headers, body)
        self.fake.seen.append(seen)
        if self.fake.closing.is_set():
            raise Gone
        reply = self.fake.answer(seen) if self.fake.fault is None else self.fake.fault(seen, self.connection)
        if reply is None:
            self.close_connection = True
            return
        self.send_response(reply.code)
        self.send_header("Content-Length", str(len(reply.raw)))
        if reply.index is not None:
            self.send_header("X-Consul-Index", str(reply.index))
        self.end_headers()
        self.wfile.write(reply.raw)

    do_GET = do_PUT = do_DELETE = do_POST = handle_any

    def log_message(self, *_: object) -> None:
        pass


def make_pki(folder: Path) -> Path:
    """An authority (ca.pem), and a server's (for 127.0.0.1) and a client's certificate and key from it."""

    def openssl(*words: str) -> None:
        env = {**os.environ, "OPENSSL_CONF": str(folder / "empty.cnf")}
        subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True, env=env)

    (folder / "empty.cnf").write_text("[req]\ndistinguished_name = dn\n[dn]\n")
    new = ("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    sign = ("-x509", "-days", "2", "-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=keyCertSign")
    openssl(*new, *sign, "-subj", "/CN=ca", "-keyout", "ca.key", "-out", "ca.pem")
    for name, extension in (("server", "subjectAltName=IP:127.0.0.1"), ("client", "extendedKeyUsage=clientAuth")):
        (folder / "ext").write_text(extension)
        openssl(*new, "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.csr")
        signer = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", "ext")
        openssl("x509", "-req", "-in", f"{name}.csr", *signer, "-out", f"{name}.pem")
    return folder
