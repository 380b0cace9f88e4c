"""Tap devices: a port of the bridge whose other end is a process's file, a VM's network card as a rule.

Netlink cannot make them. Sources: Documentation/networking/tuntap.rst, drivers/net/tun.c, linux/if_tun.h.
"""

from __future__ import annotations

import fcntl
import os
import struct

DEVICE = "/dev/net/tun"
TUNSETIFF, TUNSETPERSIST = 0x400454CA, 0x400454CB
#: A tap without the four bytes of packet information, which is what every VM monitor asks for.
IFF_TAP, IFF_NO_PI = 0x0002, 0x1000


def create(name: str) -> None:
    """Make a tap in the calling thread's namespace that stays when nobody holds it. Raises OSError."""
    fd = hold(name)
    try:
        fcntl.ioctl(fd, TUNSETPERSIST, 1)
    finally:
        os.close(fd)


def hold(name: str) -> int:
    """An fd that reads and writes the tap's frames, as a VM monitor has it. The namespace is that of the open(2)."""
    fd = os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", os.fsencode(name), IFF_TAP | IFF_NO_PI))
    except BaseException:
        os.close(fd)
        raise
    return fd
