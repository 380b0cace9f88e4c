"""The log of `serve`: where lines go, as text or as JSON, and what is kept out of each of them."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from myoverlay.operate.loglines import LogLines
from myoverlay.operate.veil import Veil

if TYPE_CHECKING:
    from myoverlay.settings import Settings

_WORDS = "%(asctime)s %(levelname)s %(threadName)s %(message)s"


class Lines(logging.Formatter):
    """One line of text for each event; a traceback follows it. No secret, no control character of a stranger's."""

    def __init__(self, veil: Callable[[str], str]) -> None:
        super().__init__(_WORDS)
        self._veil = veil

    def formatMessage(self, record: logging.LogRecord) -> str:
        return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in super().formatMessage(record))

    def format(self, record: logging.LogRecord) -> str:
        return self._veil(super().format(record))


class Objects(logging.Formatter):
    """One JSON object a line: time (UTC), level, thread, logger, message; a Docker call's fields; a traceback."""

    def __init__(self, veil: Callable[[str], str]) -> None:
        super().__init__()
        self._veil = veil

    def format(self, record: logging.LogRecord) -> str:
        at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        said: dict[str, Any] = {
            "time": f"{at}.{int(record.msecs):03}Z",
            "level": record.levelname.lower(),
            "thread": record.threadName,
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            said["trace"] = self.formatException(record.exc_info)
        return json.dumps(
            {name: self._veil(value) if isinstance(value, str) else value for name, value in said.items()}
        )


def begin_log(settings: Settings) -> LogLines:
    """Have everything written as the settings say: what is serious to standard error, the rest to output.

    Returns what keeps the last lines, as text.
    """
    # Thoroughly: a sentence may show what somebody wrote into a setting, as a URL with a password.
    veil = veil_of(settings).thoroughly
    form = Objects(veil) if settings.log_format == "json" else Lines(veil)
    # dockerd notes a plugin's standard error at its own level "error", standard output at "info".
    common, serious = logging.StreamHandler(sys.stdout), logging.StreamHandler(sys.stderr)
    common.addFilter(lambda record: record.levelno < logging.WARNING)
    serious.setLevel(logging.WARNING)
    for handler in (common, serious):
        handler.setFormatter(form)
    kept = LogLines(settings.log_kept * 1024, Lines(veil))
    logging.basicConfig(level="WARNING", handlers=[common, serious, kept])
    logging.getLogger("myoverlay").setLevel(settings.log_level.upper())
    logging.captureWarnings(True)
    return kept


def veil_of(settings: Settings) -> Veil:
    """What hides the secrets of these settings."""
    return Veil((settings.token,), Path(settings.token_file) if settings.token_file else None)
