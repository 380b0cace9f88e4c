"""The web page over TCP, on the loopback: who may read it, what it is made of, and that no visitor can do harm."""

from __future__ import annotations

import gzip
import json
import re
import socket
import time
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from myoverlay.operate import serving
from myoverlay.operate.serving import CONNECTIONS
from myoverlay.operate.trace import Ask
from myoverlay.operate.web import page as paging
from myoverlay.operate.web.page import Page, is_ours
from myoverlay.tally import Tally
from plugin import wheels
from tests.pure.kit import until
from tests.pure.operate.visiting import Visited, free_port
from tests.pure.paper import Site, at

FOLDER = Path(paging.__file__).parent
HTML = (FOLDER / "index.html").read_text()
SCRIPTS = {name: (FOLDER / name).read_text() for name in ("page.js", "drawing.js", "trace.js")}
CSS = (FOLDER / "page.css").read_text()


class Served(Visited):
    """A page of a made-up site on a free port."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.tally = Tally()
        self.picture = site.picture()
        self.traced: list[tuple[Ask, int]] = []
        self.page = Page(("127.0.0.1", free_port()), self.picture, self._tracing, self.tally)
        super().__init__(self.page)

    def _tracing(self, pair: Ask, had: int) -> dict[str, Any]:
        self.traced.append((pair, had))
        return {"state": "running"}


@pytest.fixture
def served() -> Iterator[Served]:
    served = Served(Site())
    yield served
    served.end()
    assert served.tally.total("bugs") == 0


PATHS = ("/", "/page.css", "/page.js", "/drawing.js", "/trace.js", "/icon.svg", "/data/host", "/data/endpoints",
         "/data/matrix", "/data/drawing?overlay=web")  # fmt: skip


@pytest.mark.parametrize("path", PATHS)
def test_everything_is_read_by_get(served: Served, path: str) -> None:
    """Each is there, with a type that no browser guesses about, and the same headers; HEAD has no body."""
    answer = served.ask(path)
    assert answer.status == 200
    assert answer.body
    policy = answer.getheader("Content-Security-Policy")
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
    assert "unsafe" not in policy
    assert "http" not in policy
    assert answer.getheader("X-Content-Type-Options") == "nosniff"
    assert answer.getheader("Cross-Origin-Resource-Policy") == "same-origin"
    assert answer.getheader("Access-Control-Allow-Origin") is None
    head = served.ask(path, "HEAD")
    assert (head.status, head.body, head.getheader("Content-Length")) == (200, b"", answer.getheader("Content-Length"))


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "get"])
def test_nothing_else_is_done(served: Served, method: str) -> None:
    """The page changes nothing: each other method is refused, and says which are allowed."""
    answer = served.ask("/data/host", method)
    assert (answer.status, answer.getheader("Allow")) == (405, "GET, HEAD")


@pytest.mark.parametrize(
    "path",
    ["/data", "/../page.js", "//page.js", "/page.py", "/data/host/", "/data/drawing/x", "/index.html", "/%2e%2e/x"],
)
def test_other_paths_are_not_there(served: Served, path: str) -> None:
    """Paths are a table, and reach no file."""
    assert served.ask(path).status == 404


@pytest.mark.parametrize(
    ("host", "ours"),
    [
        ("127.0.0.1", True),
        ("127.0.0.1:9556", True),
        ("10.0.0.7:80", True),
        ("[::1]:9556", True),
        ("[fd00::7]", True),
        ("localhost", True),
        ("LocalHost:9556", True),
        ("", False),
        ("evil.example", False),
        ("evil.example:9556", False),
        ("127.0.0.1.evil.example", False),
        ("localhost.evil.example", False),
        ("127.0.0.1:80:80", False),
        ("127.0.0.1:x", False),
        ("127.0.0.1:", False),
        ("::1", False),
        ("[127.0.0.1]", False),
        ("[::1", False),
        ("127.1", False),
        ("user@127.0.0.1", False),
        ("127.0.0.1 evil.example", False),
    ],
)
def test_a_name_is_not_answered(served: Served, host: str, ours: bool) -> None:
    """A name may be a stranger's that was bound to this address a moment ago: only addresses and localhost are ours."""
    assert is_ours(host) is ours
    answer = served.raw(f"GET /data/endpoints HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 200 " if ours else b"HTTP/1.1 421 ")
    assert (b"app-0-0" in answer) is ours


@pytest.mark.parametrize(
    "request_text",
    [
        b"\r\n\r\n",
        b"GET /\r\n\r\n",
        b"GET / HTTP/2\r\nHost: 127.0.0.1\r\n\r\n",
        b"GET http://127.0.0.1/ HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: evil.example\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost : 127.0.0.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nnonsense\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        b"GET /" + b"x" * 3000 + b" HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        b"GET /data/drawing?" + b"&".join(b"a%d=1" % n for n in range(20)) + b" HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        b"x" * 9000,
    ],
)
def test_what_is_no_request_is_refused(served: Served, request_text: bytes) -> None:
    """One sentence, and the connection ends; the page goes on."""
    assert served.raw(request_text).startswith(b"HTTP/1.1 400 ")
    assert served.ask("/").status == 200


def test_what_is_the_same_is_not_sent_again(served: Served) -> None:
    """Who has a picture is told that it is still that; after a change he gets the new one."""
    first = served.ask("/data/endpoints")
    mark = first.getheader("ETag")
    again = served.ask("/data/endpoints", If_None_Match=f'W/"x", W/{mark}')
    assert (again.status, again.body, again.getheader("ETag")) == (304, b"", mark)
    served.site.local.own.pop()
    changed = until(lambda: (a := served.ask("/data/endpoints", If_None_Match=mark)).status == 200 and a)
    assert len(json.loads(changed.body)["rows"]) == 5


def test_it_is_packed_for_who_takes_that(served: Served) -> None:
    """By gzip, and the same inside."""
    plain, packed = served.ask("/page.js"), served.ask("/page.js", Accept_Encoding="br;q=1, gzip;q=0.5")
    assert packed.getheader("Content-Encoding") == "gzip"
    assert gzip.decompress(packed.body) == plain.body
    assert len(packed.body) < len(plain.body) / 2


def test_a_picture_is_taken_once_a_second_however_many_look(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fifty visitors within that time get the same one, in the same form."""
    taken = []
    real = served.picture.endpoints
    monkeypatch.setattr(served.picture, "endpoints", lambda: taken.append(1) or real())
    begun = time.monotonic()
    assert len({served.ask("/data/endpoints").body for _ in range(50)}) == 1
    assert len(taken) <= 1 + (time.monotonic() - begun) / paging.FRESH


def test_a_slow_picture_is_taken_more_seldom(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures never take more than a twentieth of the time."""
    taken = []

    def slow() -> Any:
        taken.append(1)
        time.sleep(0.1)
        return {}

    monkeypatch.setattr(served.picture, "matrix", slow)
    begun = time.monotonic()
    while time.monotonic() - begun < 1.5:
        served.ask("/data/matrix")
    assert len(taken) == 1


def test_whoever_asks_without_a_pause_is_slowed_down(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """After so many requests in a second each waits, so that the plugin's own work goes on."""
    monkeypatch.setattr(paging, "AT_ONCE", 20)
    begun = time.monotonic()
    for _ in range(40):
        assert served.ask("/icon.svg").status == 200
    assert time.monotonic() - begun >= 19 * paging.DELAY


def test_the_kept_pictures_are_few(served: Served) -> None:
    """Whatever overlays and pairs are asked for."""
    for number in range(paging.KEPT * 2):
        served.ask(f"/data/drawing?overlay=web&from={number}&to=x")
    assert len(served.page._kept) <= paging.KEPT


def test_an_unknown_overlay_is_said_in_a_sentence(served: Served) -> None:
    """404, as text that no browser takes for markup."""
    answer = served.ask("/data/drawing?overlay=%3Cscript%3E")
    assert (answer.status, answer.body) == (404, b"this host is on no overlay <script>\n")
    assert answer.getheader("Content-Type") == "text/plain; charset=utf-8"


def test_the_drawing_takes_its_pair_from_the_query(served: Served) -> None:
    """From, to and the host whose tables are wanted."""
    served.site.tell(0, served.site.tables(0))
    query = f"overlay=web&from={at(0, 0)}&to={at(1, 0)}&host={served.site.me}"
    drawn = json.loads(served.ask(f"/data/drawing?{query}").body)
    assert drawn["way"]["stations"][0]["name"] == "app-0-0"
    assert drawn["tables"][served.site.me]["rows"]


def test_a_pair_is_traced_by_the_button_alone(served: Served) -> None:
    """What the page's script sends is taken; a link, an image or a form of another page cannot send it; HEAD asks for
    nothing."""
    path = f"/data/trace?overlay=web&from={at(0, 0)}&to={at(1, 0)}"
    assert served.ask(path).status == 403
    assert served.ask(path, "HEAD", X_Myoverlay_Button="trace").status == 403
    assert served.ask(path, "POST", X_Myoverlay_Button="trace").status == 405
    assert served.traced == []
    answer = served.ask(path, X_Myoverlay_Button="trace")
    assert (answer.status, json.loads(answer.body)) == (200, {"state": "running"})
    for number in ("7", "-7", "9" * 40, "x"):
        assert served.ask(f"{path}&had={number}", X_Myoverlay_Button="trace").status == 200
    pair = Ask(overlay="web", a=str(at(0, 0)), b=str(at(1, 0)))
    assert served.traced == [(pair, had) for had in (0, 7, 0, 0, 0)]
    assert re.search(r'"X-Myoverlay-Button": "trace"', SCRIPTS["trace.js"])


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("overlay=red&from=10.5.0.2&to=10.5.1.2", "this host is on no overlay red"),
        ("overlay=web&from=10.5.0.2&to=app-1-0", "app-1-0 is no endpoint's address on web"),
        ("overlay=web&from=10.5.0.2", "nothing is no endpoint's address on web"),
    ],
)
def test_only_two_endpoints_are_traced(served: Served, query: str, said: str) -> None:
    """What is looked for among all hosts where a person asks for it is not here."""
    answer = served.ask(f"/data/trace?{query}", X_Myoverlay_Button="trace")
    assert (answer.status, answer.body.decode()) == (404, f"{said}\n")
    assert served.traced == []


def test_silent_visitors_keep_nobody_out(served: Served) -> None:
    """Three times as many as there is room for connect and say nothing: who asks is answered at once."""
    for _ in range(CONNECTIONS * 3):
        served.dial()
    begun = time.monotonic()
    assert served.ask("/").status == 200
    assert time.monotonic() - begun < serving.PATIENCE / 2
    assert len(served.page._visitors) <= CONNECTIONS


def test_one_who_does_not_take_his_answer_is_let_go(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """And keeps nobody waiting meanwhile."""
    monkeypatch.setattr(serving, "PATIENCE", 0.5)
    slow = served.dial()
    slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
    slow.sendall(b"GET /page.js HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
    assert served.ask("/").status == 200
    until(lambda: not served.page._visitors)


# -- what it is made of --------------------------------------------------------------------------------------------


class Elements(HTMLParser):
    """Every element of the page, with its attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.found:
            self.texts.append((self.found[-1][0], data))


def elements(text: str = HTML) -> Elements:
    parser = Elements()
    parser.feed(text)
    return parser


def test_it_loads_nothing_from_elsewhere() -> None:
    """No address of another server in any of the files, but for the namespace of SVG."""
    for name, text in {"index.html": HTML, "page.css": CSS, **SCRIPTS}.items():
        urls = set(re.findall(r"(?:https?:)?//[\w.-]+\.\w+[^\s\"'`)]*", text)) - {"http://www.w3.org/2000/svg"}
        assert urls == set(), name
    for tag, attributes in elements().found:
        for name in ("src", "href"):
            assert (attributes.get(name) or "/").startswith(("/", "#")), (tag, attributes)


def test_it_holds_with_its_own_policy() -> None:
    """No script and no style stands in the HTML, no handler in an attribute; the scripts make no markup of texts."""
    for tag, attributes in elements().found:
        assert not [name for name in attributes if name.startswith("on") or name == "style"], (tag, attributes)
    assert [text.strip() for tag, text in elements().texts if tag in ("script", "style") and text.strip()] == []
    for name, text in SCRIPTS.items():
        for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "Function(", ".style"):
            assert word not in text, f"{word} in {name}"


def test_the_scripts_find_what_they_look_for() -> None:
    """Each id that they name is in the HTML, or made by them; each file that they import is served."""
    ids = {attributes["id"] for _, attributes in elements().found if "id" in attributes}
    for name, text in SCRIPTS.items():
        asked = set(re.findall(r"\$\(\"([\w-]+)\"\)", text))
        assert asked <= ids, f"{name}: {asked - ids}"
        assert set(re.findall(r"from \"([^\"]+)\"", text)) <= {path.decode() for path in paging._FILES}


def test_the_plugin_s_image_has_every_file(tmp_path: Path) -> None:
    """What is served is packed with the program: a page that works from a checkout works in the managed plugin."""
    (tmp_path / "usr/bin").mkdir(parents=True)
    wheels.add_own(tmp_path)
    packed = tmp_path / wheels.PACKAGES / "myoverlay/operate/web"
    for name, _ in paging._FILES.values():
        assert (packed / name).read_bytes() == (FOLDER / name).read_bytes()


def test_it_asks_for_what_is_there(served: Served) -> None:
    """Each path of data in the scripts is answered."""
    paths = set(re.findall(r"/data/\w+", "".join(SCRIPTS.values())))
    assert paths == {"/data/host", "/data/endpoints", "/data/matrix", "/data/drawing", "/data/trace"}
    for path in paths - {"/data/trace"}:
        assert served.ask(f"{path}?overlay=web").status == 200


def test_it_can_be_used_by_keyboard_and_by_ear() -> None:
    """A language, a title, a way past the head; tables with headings, inputs with labels, regions with names."""
    found = elements().found
    tags = [tag for tag, _ in found]
    assert dict(found)["html"] == {"lang": "en"}
    assert {"title", "main", "nav", "header", "h1", "noscript"} <= set(tags)
    assert ("a", {"class": "skip", "href": "#main"}) in found
    labelled = {attributes.get("for") for tag, attributes in found if tag == "label"}
    inside = re.findall(r"<label>[^<]*<select id=\"([\w-]+)\"", HTML)
    fields = {attributes["id"] for tag, attributes in found if tag in ("input", "select")}
    assert fields <= labelled | set(inside)
    for tag, attributes in found:
        if attributes.get("role") == "region":
            assert attributes.get("aria-label"), tag
            assert attributes.get("tabindex") == "0", "what scrolls is reached by keyboard"
        if tag == "th":
            assert attributes.get("scope") in ("col", "row")


def _luminance(color: str) -> float:
    parts = [int(color[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_texts_can_be_read_in_light_and_dark(scheme: int) -> None:
    """Each text has a contrast of 4.5 or more against each ground that it stands on (WCAG AA)."""
    blocks = re.findall(r":root \{([^}]*)\}", CSS)
    assert len(blocks) == 2
    colors = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", blocks[scheme]))
    pairs = [(text, ground) for text in ("text", "soft", "link") for ground in ("back", "panel")]
    pairs += [("good", "good-back"), ("warn", "warn-back"), ("bad", "bad-back"), ("text", "bad-back"), ("back", "mark"),
              ("text", "warn-back"), ("bad", "panel")]  # fmt: skip
    for text, ground in pairs:
        light, dark = sorted((_luminance(colors[text]), _luminance(colors[ground])), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5, f"{text} on {ground}"
