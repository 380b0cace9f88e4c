"""The C library's heap, of which a process that runs for months should not keep more than it needs.

glibc only: another libc has neither function, and is left as it is.
"""

from __future__ import annotations

import contextlib
import ctypes

#: How often a daemon gives back what lies free, seconds.
EVERY = 60.0
#: M_ARENA_MAX of glibc's malloc.h.
_ARENA_MAX = -8


def in_one_arena() -> None:
    """Have all threads that begin later allocate from one heap (mallopt(3)).

    glibc gives a thread an arena of its own, which keeps what was freed there; and only one runs at a time in Python.
    """
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).mallopt(_ARENA_MAX, 1)


def give_back() -> None:
    """Give the pages that lie free in the heap back to the kernel (malloc_trim(3)): some milliseconds for 50 MB.

    Left alone, it gives back only what lies free at the heap's very end.
    """
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
