"""Debian's Chromium on a host of a laboratory: its own root, the host's network.

What drives it starts a program with its own arguments and two pipes; so this is a program, which enters the host's
network and the browser's root and becomes the browser. Its root is read-only, what it writes lies in memory or in /tmp.
"""

from __future__ import annotations

import shlex
from pathlib import Path

from lab import fetch
from lab.host import Host

_ENTER = """#!/bin/sh
exec nsenter --net={netns} unshare --mount --propagation private sh -ec '
root={root}
mount --bind "$root" "$root"
mount -o remount,bind,ro "$root"
for place in proc sys dev tmp; do mount --rbind "/$place" "$root/$place"; done
for place in run root var/cache var/lib; do mount -t tmpfs tmpfs "$root/$place"; done
exec chroot "$root" /usr/bin/env -i HOME=/root PATH=/usr/sbin:/usr/bin LC_ALL=C.UTF-8 \\
    /usr/lib/chromium/chromium "$@"' chromium "$@"
"""


def launcher(host: Host, folder: Path) -> Path:
    """A program, written into `folder`, that is Chromium on that host."""
    program = folder / f"chromium-{host.name}"
    root = shlex.quote(str(fetch.browser()))
    program.write_text(_ENTER.format(netns=host.netns, root=root))
    program.chmod(0o755)
    return program
