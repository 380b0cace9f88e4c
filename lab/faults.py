"""What can go wrong between a host and Consul, as values, and the answers that are given in Consul's place."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import parse_qs, urlsplit

Kind = Literal[
    "pass", "delay", "reset", "half-open", "black hole", "status", "stale", "empty", "truncated", "drip", "lost"
]


@dataclass(frozen=True)
class Fault:
    """What is done with every request whose method and target contain `only`; all others pass."""

    kind: Kind
    #: Seconds: how late an answer is (`delay`), or the pause after each byte of it (`drip`).
    seconds: float = 0.0
    code: int = 0
    #: In the request line: `PUT /v1/txn`, `index=`; empty: every request, and connections as such.
    only: str = ""

    def __str__(self) -> str:
        more = f" {self.code}" if self.code else f" {self.seconds:g} s" if self.seconds else ""
        return f"{self.kind}{more}{f' on {self.only}' if self.only else ''}"


PASS = Fault("pass")
#: Connections that are open, and new ones, end with RST.
RESET = Fault("reset")
#: Connections are accepted, requests read, and nothing is ever answered.
HALF_OPEN = Fault("half-open")
#: No packet gets in: a SYN is not answered, and what is sent on open connections is not even acknowledged.
BLACK_HOLE = Fault("black hole")
#: X-Consul-Index is always 1.
STALE = Fault("stale")
#: Reads find nothing: 404 for a key or a prefix, as Consul does; `code=200`: an empty list.
EMPTY = Fault("empty", code=404)
EMPTY_LIST = Fault("empty", code=200)
#: Half of the body, then the end of the connection.
TRUNCATED = Fault("truncated")
#: It is done, and instead of the answer comes RST.
LOST = Fault("lost")


def delay(seconds: float) -> Fault:
    return Fault("delay", seconds=seconds)


def drip(seconds: float) -> Fault:
    """One byte at a time."""
    return Fault("drip", seconds=seconds)


def status(code: int) -> Fault:
    return Fault("status", code=code)


#: What Consul says with a status that is not a success.
WORDS = {
    403: "Permission denied",
    413: "Transaction contains too many operations (65 > 64)",
    429: "Your IP is issuing too many concurrent connections, please rate limit your calls\n",
    500: "No cluster leader",
    503: "rpc error making call: Server is shutting down",
}


@dataclass(frozen=True)
class Message:
    """A request or an answer: its first line, headers with small names, whole body."""

    first: str
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    def encoded(self) -> tuple[bytes, bytes]:
        """Head and body as sent; the length is told, chunks are not made."""
        kept = {name: text for name, text in self.headers.items() if name != "transfer-encoding"}
        lines = [self.first, *(f"{name}: {text}" for name, text in (kept | {"content-length": str(len(self.body))}).items())]  # fmt: skip # noqa: E501
        return "\r\n".join([*lines, "", ""]).encode("latin-1"), self.body

    @property
    def target(self) -> str:
        return self.first.split(" ")[1]

    @property
    def query(self) -> dict[str, str]:
        return {name: texts[0] for name, texts in parse_qs(urlsplit(self.target).query).items()}


def answer(code: int, body: bytes = b"", **headers: str) -> Message:
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    return Message(f"HTTP/1.1 {code} .", {"content-type": "application/json"} | named, body)


def refusal(code: int) -> Message:
    """Consul's words for a status."""
    return answer(code, WORDS.get(code, "no").encode(), content_type="text/plain; charset=utf-8")


def nothing(request: Message, code: int, index: int) -> Message | None:
    """What a store that holds nothing says to a read; None for what is no read."""
    if request.first.startswith("GET /v1/kv/"):
        tree = "?" in request.target
        return answer(code if tree else 404, b"[]" if tree and code == 200 else b"", x_consul_index=str(index))
    if request.first.startswith("PUT /v1/txn"):
        ops = [op["KV"] for op in json.loads(request.body)]
        if all(op["Verb"] == "get" for op in ops):
            errors = [{"OpIndex": at, "What": f'key "{op["Key"]}" doesn\'t exist'} for at, op in enumerate(ops)]
            return answer(409, json.dumps({"Results": None, "Errors": errors}).encode())
    return None
