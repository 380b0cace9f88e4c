"""The resolver's process, as its keeper sees it: started in the host's namespace, asked whether it is there, killed.

A process and no thread, so that a thousand questions a second take nothing from Docker's calls; and so that one which
hangs can be ended: its sockets close with it, and whoever asks is refused at once instead of waiting four seconds.
"""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
from collections.abc import Callable

from myoverlay.kernel.netns import Namespace
from myoverlay.names import protocol
from myoverlay.names.protocol import Alter, Close, Listen, Order, Ping, Show
from myoverlay.values import Address

log = logging.getLogger(__name__)

#: How often it is asked, and how long it may take to answer: always, and while it starts. Seconds.
PING, PATIENCE, BEGINNING = 1.0, 2.5, 20.0
#: Seconds that it may take for each endpoint of a zone that it is shown, also on a busy machine (10 µs on an idle one):
#: one with 100,000 endpoints was killed again and again while it read them.
READING = 100e-6
#: Seconds that the end of a killed process is waited for.
_END = 2.0


class Answerer:
    """A running resolver. `send` may be called by any thread; everything else belongs to its keeper's."""

    def __init__(self, home: Namespace, own: Address, now: Callable[[], float]) -> None:
        """Start it. Raises OSError, or MyoverlayError where the namespace cannot be entered."""
        self._now = now
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.control.setblocking(False)
        self.started = now()
        self._pinged: float | None = None
        self._number = 0
        self.answered = False
        #: After which question it may be busy, and for how many seconds more.
        self._busy = (0, 0.0)
        try:
            with theirs:
                self._process = home.call(lambda: _spawn(theirs.fileno(), own))
        except BaseException:
            self.control.close()
            raise

    @property
    def pid(self) -> int:
        return self._process.pid

    def send(self, order: Order, descriptors: tuple[int, ...] = ()) -> bool:
        """False where it takes nothing now, or never again."""
        try:
            protocol.send(self.control, order, descriptors)
        except OSError:
            return False
        return True

    def listen(self, overlay: str, doors: tuple[socket.socket, socket.socket]) -> bool:
        """Hand over two sockets: where only it has them, they end with it."""
        return self.send(Listen(overlay), (doors[0].fileno(), doors[1].fileno()))

    def show(self, overlay: str, zone: int, size: int = 0) -> bool:
        """Hand over a zone of so many endpoints, in a file that stays the caller's: it may read it for a while."""
        self._will_read(size)
        return self.send(Show(overlay), (zone,))

    def alter(self, overlay: str, change: int, size: int = 0) -> bool:
        """Hand over what is otherwise in a zone, with so many endpoints, in a file that stays the caller's."""
        self._will_read(size)
        return self.send(Alter(overlay), (change,))

    def _will_read(self, size: int) -> None:
        self._busy = (self._number, self._busy[1] + size * READING)

    def drop(self, overlay: str) -> bool:
        return self.send(Close(overlay))

    def ping(self) -> float:
        """Ask, if that is due; returns when it is due, or when the answer is too late."""
        now = self._now()
        if self._pinged is None and now >= self.started + PING * self._number:
            self._number += 1
            self._pinged = now
            self.send(Ping(self._number))
        if self._pinged is not None:
            return self._pinged + self._patience
        return self.started + PING * self._number

    @property
    def _patience(self) -> float:
        return (PATIENCE if self.answered else BEGINNING) + self._busy[1]

    def hear(self) -> dict[str, int] | None:
        """Take the answers that have come, with what they count; None where it has ended."""
        counts: dict[str, int] = {}
        while True:
            try:
                pong = protocol.receive_pong(self.control)
            except BlockingIOError:
                return counts
            except OSError:
                return None
            if pong is None:
                return None
            if pong.number > self._busy[0]:  # asked after the last zone was handed over: it has read it
                self._busy = (pong.number, 0.0)
            if pong.number == self._number:
                self._pinged = None
                self.answered = True
                # After a long while nothing is made up for.
                self._number = max(self._number, int((self._now() - self.started) / PING))
            for outcome, count in pong.counts.items():
                counts[outcome] = counts.get(outcome, 0) + count

    @property
    def is_frozen(self) -> bool:
        """Has it not answered for too long? Only after `hear` has seen what has come."""
        return self._pinged is not None and self._now() - self._pinged > self._patience

    def end(self) -> None:
        """It ends by itself when its keeper's end is closed; if not at once, it is killed."""
        self.control.close()
        try:
            self._process.wait(_END)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        self.control.close()
        self._process.kill()
        try:
            self._process.wait(_END)
        except subprocess.TimeoutExpired:
            log.error("the resolver's process %d was killed and does not end", self.pid)


def _spawn(control: int, own: Address) -> subprocess.Popen[bytes]:
    """By the same interpreter in the same way, without the environment, which holds a token."""
    flags = ["-B"] if sys.flags.dont_write_bytecode else []
    environ: dict[str, str] = {}
    if sys.flags.isolated:
        flags.append("-I")
    else:
        environ["PYTHONPATH"] = os.pathsep.join(map(os.path.abspath, filter(None, sys.path)))
    command = [sys.executable, *flags, "-m", "myoverlay.names", str(control), own]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=(control,), env=environ, cwd="/")
