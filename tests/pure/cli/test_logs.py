"""The log's lines: as text and as JSON, one for each event, and never a secret."""

from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
import time
from pathlib import Path

import pytest

from myoverlay.cli.logs import Lines, Objects, veil_of
from myoverlay.operate.veil import REMOVED, Veil
from myoverlay.settings import load
from tests.pure.house.source import PACKAGE

TOKEN = "b1gs3cr3t-0000-4444"


class Log:
    """A logger of its own, with the formatter that a test asks for."""

    def __init__(self, form: logging.Formatter) -> None:
        self.stream = io.StringIO()
        handler = logging.StreamHandler(self.stream)
        handler.setFormatter(form)
        self.logger = logging.Logger("myoverlay.test")
        self.logger.addHandler(handler)

    @property
    def lines(self) -> list[str]:
        return self.stream.getvalue().splitlines()


@pytest.fixture
def json_log() -> Log:
    return Log(Objects(Veil([TOKEN])))


def test_a_json_line_is_one_object(json_log: Log) -> None:
    """Time, level, thread and message always; a call's fields beside them; a traceback inside the same line."""
    json_log.logger.info("Join %s", "x\ny", extra={"fields": {"method": "Join", "ms": 1.5}})
    try:
        raise ZeroDivisionError("by zero")
    except ZeroDivisionError:
        json_log.logger.exception("a bug")
    one, two = map(json.loads, json_log.lines)
    assert one.pop("time").endswith("Z")
    assert one == {
        "level": "info", "thread": "MainThread", "logger": "myoverlay.test", "message": "Join x\ny", "method": "Join",
        "ms": 1.5,
    }  # fmt: skip
    assert two["level"] == "error"
    assert "ZeroDivisionError: by zero" in two["trace"]


def test_a_text_line_is_one_line() -> None:
    """What a stranger puts into a name begins no line of its own; a traceback still has its lines."""
    log = Log(Lines(Veil()))
    log.logger.warning("host %s", "x\n2026-01-01 00:00:00,000 ERROR forged\x1b[2J")
    assert len(log.lines) == 1
    assert "\\x0a2026-01-01" in log.lines[0]
    assert "\x1b" not in log.stream.getvalue()
    try:
        raise ZeroDivisionError("by zero")
    except ZeroDivisionError:
        log.logger.exception("a bug")
    assert log.lines[-1] == "ZeroDivisionError: by zero"


@pytest.mark.parametrize("form", [Lines, Objects])
def test_no_token_is_in_a_line(form: type[Lines] | type[Objects]) -> None:
    """Neither in the message, nor in a field, nor in a traceback."""
    log = Log(form(Veil([TOKEN])))
    log.logger.info("sent %s", TOKEN, extra={"fields": {"outcome": f"x {TOKEN}"}})
    try:
        raise ValueError(f"header {TOKEN} is bad")
    except ValueError:
        log.logger.exception("oh")
    assert TOKEN not in log.stream.getvalue()
    assert log.stream.getvalue().count(REMOVED) >= 2


def test_the_token_of_a_file_is_hidden_when_it_changes(tmp_path: Path) -> None:
    """The new one from the next line on, the old one for ever; a file that is not there harms nothing."""
    path = tmp_path / "token"
    veil = veil_of(load({"CONSUL_HTTP_TOKEN_FILE": str(path)}))
    assert veil("x secret-one") == "x secret-one"
    path.write_text("secret-one\n")
    assert veil("x secret-one") == f"x {REMOVED}"
    path.write_text("secret-number-two\n")
    assert veil("secret-one secret-number-two") == f"{REMOVED} {REMOVED}"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("X-Consul-Token: abc-def", f"X-Consul-Token: {REMOVED}"),
        ("Authorization: Bearer abc.def", f"Authorization: Bearer {REMOVED}"),
        ("CONSUL_HTTP_TOKEN=abc-def next", f"CONSUL_HTTP_TOKEN={REMOVED} next"),
        ('{"token": "abc", "x": 1}', f'{{"token": "{REMOVED}", "x": 1}}'),
        ('"x {\\"token\\": \\"abc\\"}"', f'"x {{\\"token\\": \\"{REMOVED}\\"}}"'),
        ("db_password=hunter2", f"db_password={REMOVED}"),
        ("http://user:pa55@10.0.0.1:8500/v1", f"http://user:{REMOVED}@10.0.0.1:8500/v1"),
        ("http://10.0.0.1:8500/v1", "http://10.0.0.1:8500/v1"),
        ("tokens of the bucket", "tokens of the bucket"),
        ("a -----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY----- b", f"a {REMOVED} b"),
    ],
)
def test_what_looks_like_a_secret_is_hidden_from_strangers(text: str, shown: str) -> None:
    """Headers, assignments, a URL's password and private keys, whoever they belong to; addresses and ports stay."""
    assert Veil().thoroughly(text) == shown


@pytest.mark.parametrize("piece", ["a.", "a", "token", "token ", "://", "://a", "-----BEGIN ", "x=y:", "\\\\", " "])
def test_no_text_takes_long(piece: str) -> None:
    """A hostile text is looked through as quickly as any other: 400 kB of it within a second."""
    begun = time.process_time()
    Veil(["s3cr3t-one"]).thoroughly(piece * (400_000 // len(piece)))
    assert time.process_time() - begun < 1.0


def test_serve_logs_as_the_settings_say() -> None:
    """With MYOVERLAY_LOG_FORMAT=json both streams hold objects: what is serious goes to standard error."""
    code = """
import logging
from myoverlay.cli.logs import begin_log
from myoverlay.settings import load
begin_log(load({"MYOVERLAY_LOG_FORMAT": "json", "CONSUL_HTTP_TOKEN": "b1gs3cr3t"}))
logging.getLogger("myoverlay.x").info("well b1gs3cr3t")
logging.getLogger("myoverlay.x").debug("unheard")
logging.getLogger("myoverlay.x").error("'http://joe:pa55@c:8500' is no address")
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(PACKAGE.parent)},
        capture_output=True,
        text=True,
        check=True,
    )
    (out,), (err,) = (map(json.loads, text.splitlines()) for text in (done.stdout, done.stderr))
    assert (out["message"], out["level"]) == (f"well {REMOVED}", "info")
    assert (err["message"], err["level"]) == (f"'http://joe:{REMOVED}@c:8500' is no address", "error")
