"""`python -m myoverlay.names DESCRIPTOR ADDRESS`: started by the daemon, with its end of the pair of sockets."""

from __future__ import annotations

import signal
import socket
import sys
from types import ModuleType


def main() -> None:
    """Until the daemon ends. What a terminal or an init system tells the daemon's group is the daemon's business."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    # dnspython asks it for optional packages, all for what is not done here; that would load 2.4 MB of modules.
    sys.modules.setdefault("importlib.metadata", ModuleType("importlib.metadata"))
    from myoverlay.names.server import Server

    with socket.socket(fileno=int(sys.argv[1])) as control:
        Server(control, sys.argv[2]).run()


if __name__ == "__main__":
    main()
