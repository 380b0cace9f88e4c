"""Runs Python on a kernel that has no nf_tables, as far as that process can tell: its netlink family is not there.

`python without_nft.py WORDS…` is `python WORDS…` whose socket(AF_NETLINK, …, NETLINK_NETFILTER) the kernel answers with
EPROTONOSUPPORT, as one without CONFIG_NETFILTER_NETLINK does: by a seccomp filter, which children inherit.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
import sys

PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 22, 2
_NETFILTER = 12
_SOCKET = {"x86_64": 41, "aarch64": 198, "riscv64": 198}
#: struct seccomp_data: the call's number at 0, its arguments of 8 bytes from 16 on. All of these machines are
#: little endian, so that the low word comes first.
_CALL, _FAMILY, _PROTOCOL = 0, 16, 32
_LOAD, _JUMP_EQUAL, _RETURN = 0x20, 0x15, 0x06
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000


class _Program(ctypes.Structure):
    _fields_ = [("count", ctypes.c_ushort), ("filter", ctypes.c_char_p)]


def _filter() -> bytes:
    steps: list[tuple[int, int, int, int]] = []
    wanted = ((_CALL, _SOCKET[os.uname().machine]), (_FAMILY, socket.AF_NETLINK), (_PROTOCOL, _NETFILTER))
    for place, (offset, value) in enumerate(wanted):
        steps += [(_LOAD, 0, 0, offset), (_JUMP_EQUAL, 0, 2 * (len(wanted) - place) - 1, value)]
    steps += [(_RETURN, 0, 0, _ERRNO | errno.EPROTONOSUPPORT), (_RETURN, 0, 0, _ALLOW)]
    return b"".join(struct.pack("HBBI", *step) for step in steps)


def main() -> None:
    code, libc = _filter(), ctypes.CDLL(None, use_errno=True)
    program = _Program(len(code) // 8, code)
    if libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "setting a seccomp filter")
    os.execv(sys.executable, [sys.executable, *sys.argv[1:]])


if __name__ == "__main__":
    main()
