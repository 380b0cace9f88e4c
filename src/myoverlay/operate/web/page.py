"""The web page over TCP: a few files and the data they show, read by GET and nothing else.

It asks nobody who he is; so it takes care that no other page of a browser can read it. Only a request whose `Host` is
an address (or `localhost`) is answered: a name could be anybody's that was bound to this address a moment ago. What
the page itself may load is this server's alone.
"""

from __future__ import annotations

import gzip
import hashlib
import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple
from urllib.parse import parse_qs

from myoverlay.errors import Refused
from myoverlay.operate.serving import Server, request_line, response
from myoverlay.operate.trace import Ask
from myoverlay.operate.web.picture import Picture, Shown
from myoverlay.tally import Tally
from myoverlay.values import encode

#: A picture is handed out again for so long, seconds, and for so many times as long as it took: whoever asks more often
#: gets no newer one. So pictures never take more than a twentieth of the time, however many look.
FRESH, SHARE = 0.8, 20
#: Different pictures that are kept.
KEPT = 32
#: Requests that are answered without delay, in a second; then each waits, seconds.
AT_ONCE, DELAY = 200, 0.02
#: Characters of a target; fields of its query.
TARGET, FIELDS = 2048, 8
#: Only the page's own script sends this: what has one sent by a page of elsewhere is refused by the browser.
BUTTON = b"x-myoverlay-button"
#: So many digits no number of a trace has.
_DIGITS = 12
#: A body shorter than this is not worth packing, bytes.
SMALL = 512

_FILES = {
    b"/": ("index.html", "text/html; charset=utf-8"),
    b"/page.css": ("page.css", "text/css; charset=utf-8"),
    b"/page.js": ("page.js", "text/javascript; charset=utf-8"),
    b"/drawing.js": ("drawing.js", "text/javascript; charset=utf-8"),
    b"/trace.js": ("trace.js", "text/javascript; charset=utf-8"),
    b"/icon.svg": ("icon.svg", "image/svg+xml"),
}
_JSON = "application/json"
_SECURITY = (
    "Content-Security-Policy: default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self';"
    " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'\r\n"
    "X-Content-Type-Options: nosniff\r\n"
    "X-Frame-Options: DENY\r\n"
    "Referrer-Policy: no-referrer\r\n"
    "Cross-Origin-Resource-Policy: same-origin\r\n"
    "Cross-Origin-Opener-Policy: same-origin\r\n"
    "Cache-Control: no-cache\r\n"
)


class Body(NamedTuple):
    """What is sent, plain and packed, and its mark. `until`: when a newer one may be made."""

    kind: str
    plain: bytes
    packed: bytes
    mark: str
    until: float = float("inf")


class Request(NamedTuple):
    """What is asked, once it is known to be meant for us."""

    path: bytes
    query: dict[str, list[str]]
    headers: dict[bytes, bytes]
    silent: bool


class Page(Server):
    """Owns the thread `web` and its sockets."""

    what = "the web page is"

    def __init__(
        self,
        address: tuple[str, int],
        picture: Picture,
        tracing: Callable[[Ask, int], Shown],
        tally: Tally,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """`tracing`: what there is to say of a pair's trace, at once; `Tracing.ask`."""
        super().__init__("web", address, tally, now)
        self._picture = picture
        self._tracing = tracing
        folder = Path(__file__).parent
        self._files = {path: _body(kind, (folder / name).read_bytes()) for path, (name, kind) in _FILES.items()}
        self._kept: OrderedDict[bytes, Body] = OrderedDict()
        self._second, self._answered = 0.0, 0

    def answer(self, head: bytes) -> bytes:
        """A file, a picture, or why there is none."""
        self._slow_down()
        asked = _understood(head)
        if isinstance(asked, bytes):
            return asked
        try:
            if asked.path == b"/data/trace":
                return self._traced(asked)
            body = self._files.get(asked.path) or self._pictured(asked)
        except Refused as error:
            return _said(f"{error.status} Refused", str(error))
        if body is None:
            return _said("404 Not Found", "there is nothing here: the page is at /")
        return _sent(body, asked)

    def _slow_down(self) -> None:
        """However fast somebody asks, the plugin's own work goes on."""
        now = self._now()
        if now - self._second >= 1.0:
            self._second, self._answered = now, 0
        self._answered += 1
        if self._answered > AT_ONCE:
            self.stopping.wait(DELAY)

    def _traced(self, asked: Request) -> bytes:
        """What the button asks for. It makes work on two hosts: whoever can have a link loaded has none made."""
        if asked.silent or BUTTON not in asked.headers:
            return _said("403 Forbidden", "a path is traced by the button of the page; `myoverlay trace` does it too")
        overlay, a, b = (asked.query.get(name, [""])[0] for name in ("overlay", "from", "to"))
        pair = Ask(overlay=overlay, a=a, b=b)
        self._picture.check_pair(overlay, a, b)
        had = asked.query.get("had", [""])[0]
        number = int(had) if had.isascii() and had.isdecimal() and len(had) < _DIGITS else 0
        return _sent(_body(_JSON, encode(self._tracing(pair, number))), asked)

    def _pictured(self, asked: Request) -> Body | None:
        take = self._taking(asked)
        if take is None:
            return None
        key = asked.path + b"?" + repr(sorted(asked.query.items())).encode()
        kept, now = self._kept.get(key), self._now()
        if kept is None or now >= kept.until:
            plain = encode(take())
            took = self._now() - now
            kept = _body(_JSON, plain, kept, now + max(FRESH, SHARE * took))
            self._kept[key] = kept
        self._kept.move_to_end(key)
        while len(self._kept) > KEPT:
            self._kept.popitem(last=False)
        return kept

    def _taking(self, asked: Request) -> Callable[[], Shown] | None:
        if asked.path == b"/data/drawing":
            query = asked.query
            overlay, pair = query.get("overlay", [""])[0], (query.get("from", [""])[0], query.get("to", [""])[0])
            return lambda: self._picture.drawing(overlay, query.get("host", [])[:1], pair if all(pair) else None)
        plain = {
            b"/data/host": self._picture.host,
            b"/data/endpoints": self._picture.endpoints,
            b"/data/matrix": self._picture.matrix,
        }
        return plain.get(asked.path)


def _understood(head: bytes) -> Request | bytes:
    """The request, or what is said to one that is not for us."""
    line = request_line(head)
    if line is None or not line[1].startswith(b"/") or len(line[1]) > TARGET or not line[1].isascii():
        return _said("400 Bad Request", "this is no HTTP request")
    headers: dict[bytes, bytes] = {}
    for field in head.split(b"\r\n")[1:]:
        name, colon, value = field.partition(b":")
        name = name.lower()
        if not colon or not name or name != name.strip() or (name == b"host" and name in headers):
            return _said("400 Bad Request", "this is no HTTP request")
        headers[name] = value.strip()
    if not is_ours(headers.get(b"host", b"").decode("latin-1")):
        return _said("421 Misdirected Request", "ask for this page by an address (or localhost), not by a name")
    if line[0] not in (b"GET", b"HEAD"):
        return _said("405 Method Not Allowed", "everything here is read by GET", "Allow: GET, HEAD\r\n")
    path, _, query = line[1].partition(b"?")
    try:
        fields = parse_qs(query.decode("ascii"), max_num_fields=FIELDS, errors="replace")
    except ValueError:
        return _said("400 Bad Request", f"a query has up to {FIELDS} fields")
    return Request(path, fields, headers, line[0] == b"HEAD")


def is_ours(host: str) -> bool:
    """Whether a `Host` header is an address or `localhost`, with or without a port, and so nobody's name."""
    name, colon, port = host.rpartition(":") if not host.endswith("]") else (host, "", "")
    if not colon:
        name = name or host
    elif not (port.isascii() and port.isdecimal()):
        return False
    if name.lower() == "localhost":
        return True
    bracketed = name.startswith("[") and name.endswith("]")
    try:
        address = ipaddress.ip_address(name[1:-1] if bracketed else name)
    except ValueError:
        return False
    return (address.version == 6) == bracketed


def _body(kind: str, plain: bytes, before: Body | None = None, until: float = float("inf")) -> Body:
    """With its mark; one that says what `before` said is that one, later."""
    if before is not None and before.plain == plain:
        return before._replace(until=until)
    packed = gzip.compress(plain, 3, mtime=0) if len(plain) >= SMALL else b""
    return Body(kind, plain, packed, f'"{hashlib.blake2b(plain, digest_size=12).hexdigest()}"', until)


def _sent(body: Body, asked: Request) -> bytes:
    more = f"{_SECURITY}ETag: {body.mark}\r\nVary: Accept-Encoding\r\n"
    marks = [
        mark.strip().removeprefix("W/")
        for mark in asked.headers.get(b"if-none-match", b"").decode("latin-1").split(",")
    ]
    packs = {word.partition(b";")[0].strip() for word in asked.headers.get(b"accept-encoding", b"").split(b",")}
    sent = body.plain
    if body.packed and b"gzip" in packs:
        sent, more = body.packed, more + "Content-Encoding: gzip\r\n"
    if body.mark in marks:
        return response("304 Not Modified", sent, more, body.kind, silent=True)
    return response("200 OK", sent, more, body.kind, silent=asked.silent)


def _said(status: str, sentence: str, more: str = "") -> bytes:
    return response(status, sentence.encode() + b"\n", _SECURITY + more)
