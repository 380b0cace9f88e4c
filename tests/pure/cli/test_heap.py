"""The heap of the C library: one for all threads, and what lies free in it is given back."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

GLIBC = pytest.mark.skipif(
    "CS_GNU_LIBC_VERSION" not in os.confstr_names, reason="malloc_info and malloc_trim are glibc's"
)

ARENAS = """
import ctypes, os, threading
from myoverlay.cli.heap import in_one_arena
{first}
libc, kept, all_there = ctypes.CDLL(None), [], threading.Barrier(5)
def work():
    kept.append(bytes(5000))
    all_there.wait(10)
for _ in range(4):
    threading.Thread(target=work).start()
all_there.wait(10)
libc.fdopen.restype = ctypes.c_void_p
out = ctypes.c_void_p(libc.fdopen(os.dup(1), b"w"))
libc.malloc_info(0, out)
libc.fclose(out)
"""


@GLIBC
def test_all_threads_allocate_from_one_heap() -> None:
    """Without it each of them has its own, which keeps what is freed there."""

    def arenas(first: str) -> int:
        code = [sys.executable, "-c", ARENAS.format(first=first)]
        done = subprocess.run(code, capture_output=True, text=True, timeout=20, check=True)
        return done.stdout.count("<heap nr=")

    assert arenas("") > 1
    assert arenas("in_one_arena()") == 1


FALLOW = """
import ctypes
from myoverlay.cli.heap import give_back
kept = [ctypes.create_string_buffer(3000) for _ in range(10000)]
del kept[:-1]
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096
before = resident()
{act}
print(before - resident())
"""


@GLIBC
def test_what_lies_free_is_given_back() -> None:
    """30 MB below a piece that is in use: they stay with the process until they are asked for."""

    def given(act: str) -> int:
        code = [sys.executable, "-c", FALLOW.format(act=act)]
        return int(subprocess.run(code, capture_output=True, text=True, timeout=20, check=True).stdout)

    assert given("pass") < 1_000_000
    assert given("give_back()") > 20_000_000
