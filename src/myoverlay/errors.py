"""Failures, by whose fault they are. One sentence each: what was wrong, what is allowed; `status` is its HTTP status.

A class exists only where somebody decides on it.
"""

from __future__ import annotations


class MyoverlayError(Exception):
    """Anything this project says no with. Its text is shown to a person as it is."""

    status = 500


class Refused(MyoverlayError):
    """The caller's fault: the same call can never succeed."""

    status = 400


class Clash(Refused):
    """Somebody else has it: an address, a VNI, a pool, a name. The text names the holder."""

    status = 409


class Unreadable(Clash):
    """A key is in the way that is not what it should be. The text names the key and says what is wrong with it."""


class Unknown(Refused):
    """What the call is about does not exist here."""

    status = 404


class Unavailable(MyoverlayError):
    """The store cannot be asked just now. Nothing may be concluded from it."""

    status = 503


class Denied(Unavailable):
    """The store answers, and does not allow it to this host's token."""


class Late(MyoverlayError):
    """A deadline passed before the work was done."""

    status = 504


class KernelRefused(MyoverlayError):
    """The kernel said no to something that the plan holds possible."""

    def __init__(self, attempt: str, code: int, reason: str) -> None:
        super().__init__(f"{attempt}: {reason}")
        self.code = code
