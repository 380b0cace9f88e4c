"""`python -m myoverlay.names DESCRIPTOR ADDRESS`: started by the daemon, with its end of the pair of sockets."""

from __future__ import annotations

import signal
import socket
import sys

from myoverlay.names.server import Server


def main() -> None:
    """Until the daemon ends. What a terminal or an init system tells the daemon's group is the daemon's business."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    with socket.socket(fileno=int(sys.argv[1])) as control:
        Server(control, sys.argv[2]).run()


if __name__ == "__main__":
    main()
