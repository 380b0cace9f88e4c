"""What keeps secrets out of texts that leave this host: the log, and what is handed on with a bug report."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

#: What stands in place of a secret.
REMOVED = "[removed]"
#: Shorter ones would be found in every other word; no token is.
_LEAST = 6
#: Words that a secret follows, whoever wrote them: headers, assignments, and a URL's user with its password. Quotes may
#: stand behind backslashes: a text may be inside another one's JSON. Nothing runs on without a bound from each place of
#: a text, or a hostile one would take minutes.
_TELLTALE = re.compile(
    r"""(?ix)
    ( (?: authorization | token | secret | passw(?:or)?d | api_?key | private_?key )
      \\{0,8} ["']? \s{0,8} [:=] \s{0,8} \\{0,8} ["']? (?: (?:bearer|basic) \s+ )?
    | :// [^\s/:@]{0,100} :
    )
    ( [^\s"',;&@\]}\\]+ )
    """
)
_PEM = re.compile(r"-----BEGIN [^-]{0,40}PRIVATE KEY-----.*?(?:-----END [^-]{0,40}PRIVATE KEY-----|\Z)", re.S)


class Veil:
    """Hides the secrets it is told, and the token in `file` as it was each time that it was looked at.

    From any thread: what is known only grows, by values that are put in whole.
    """

    def __init__(self, secrets: Iterable[str] = (), file: Path | None = None) -> None:
        self._secrets = {secret for secret in secrets if len(secret) >= _LEAST}
        self._file = file
        self._stamp: tuple[int, int, int] | None = None

    def __call__(self, text: str) -> str:
        """The text without them."""
        self._look()
        for secret in sorted(self._secrets, key=len, reverse=True):
            if secret in text:
                text = text.replace(secret, REMOVED)
        return text

    def thoroughly(self, text: str) -> str:
        """The text also without what looks like somebody else's secret: for what a stranger is to read."""
        return _TELLTALE.sub(_hidden, _PEM.sub(REMOVED, self(text)))

    def _look(self) -> None:
        if self._file is None:
            return
        try:
            status = self._file.stat()
            stamp = (status.st_mtime_ns, status.st_ino, status.st_size)
            if stamp == self._stamp:
                return
            token = self._file.read_text("ascii").strip()
        except (OSError, ValueError):  # no token can be read, so none is known that could get out
            return
        self._stamp = stamp
        if len(token) >= _LEAST:
            self._secrets.add(token)


def _hidden(found: re.Match[str]) -> str:
    # `://user:password@` is one only where the `@` follows; a port is none.
    if found[1].startswith("://") and not found.string.startswith("@", found.end()):
        return found[0]
    return found[1] + REMOVED
