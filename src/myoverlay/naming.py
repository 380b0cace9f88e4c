"""The forms of words that people choose: containers' names, places in the store."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from typing import Annotated

import msgspec

#: Names of one endpoint: so many, of so many characters together. With 1,022 endpoints a host's list then has 330 kB,
#: and a write of it, in base64, stays below the 512 kB that Consul takes.
MAX_NAMES, MAX_TOGETHER = 8, 200
#: RFC 1035 section 2.3.4, without the last dot.
MAX_NAME, MAX_LABEL = 253, 63

#: No control characters, line ends, changes of direction or halves of characters: what is shown on terminals.
_SHOWN = r"\A[^\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ud800-\udfff\ufeff]*\Z"
MAX_SHOWN = 255
#: What a host says of itself, as its name: checked where it is read.
Shown = Annotated[str, msgspec.Meta(max_length=MAX_SHOWN, pattern=_SHOWN)]
_LABELS = re.compile(r"[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*")
_PREFIX = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*(?:/[A-Za-z0-9_][A-Za-z0-9._-]*)*")


def check_shown(text: str) -> str:
    """What others will take for a `Shown`. Raises ValueError."""
    if len(text) > MAX_SHOWN or not re.match(_SHOWN, text):
        raise ValueError(
            f"{text[:40]!r} is no name: up to {MAX_SHOWN} characters are, none of them a control character"
        )
    return text


def name_of(text: str) -> str | None:
    """The name as it is looked up, in lower case and without a last dot; None for what cannot be one."""
    if not text.isascii():
        return None  # lower case makes ASCII letters of some others
    name = text.lower().removesuffix(".")
    return name if len(name) <= MAX_NAME and _LABELS.fullmatch(name) else None


def clean(texts: Iterable[str]) -> tuple[str, ...]:
    """The names among the texts, each once, in order, as many as an endpoint may have."""
    names: dict[str, None] = {}
    left = MAX_TOGETHER
    for text in texts:
        name = name_of(text)
        if name is not None and name not in names and len(name) <= left and len(names) < MAX_NAMES:
            names[name] = None
            left -= len(name)
    return tuple(names)


def left_out(texts: Collection[str]) -> tuple[str, ...]:
    """The names among the texts that an endpoint has no room for."""
    kept = clean(texts)
    return tuple(dict.fromkeys(name for text in texts if (name := name_of(text)) is not None and name not in kept))


def check_prefix(text: str) -> str:
    """A place in the store: never empty (it would reach everybody's keys), no slash at either end."""
    if not _PREFIX.fullmatch(text) or len(text) > 200:
        raise ValueError(f"{text!r} is no place for records: words of A-Z a-z 0-9 . _ - joined by single slashes are")
    return text
