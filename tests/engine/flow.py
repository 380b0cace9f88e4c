"""A steady flow of numbered datagrams in both directions between two containers, counted where they arrive.

Run as a program it is one end: `python flow.py PORT PEER RATE` sends and receives until `stop` comes in, then receives
until `end`, and says as JSON how many it sent and which numbers it received.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
from types import TracebackType
from typing import Any, Self

PORT = 7000
#: When nothing came for so many seconds after the last was sent, what is still under way is lost.
_LATEST = 0.5


def _end(port: int, peer: str, rate: float) -> None:
    """One end; its container's namespace is this process's."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("", port))
    got: set[int] = set()
    sent = 0
    sending = threading.Event()

    def receive() -> None:
        while True:
            got.add(int.from_bytes(sock.recv(64), "big"))

    def send() -> None:
        nonlocal sent
        began = time.monotonic()
        while not sending.is_set():
            sock.sendto(sent.to_bytes(8, "big"), (peer, port))
            sent += 1
            sending.wait(max(0.0, began + sent / rate - time.monotonic()))

    threading.Thread(target=receive, daemon=True).start()
    sender = threading.Thread(target=send, daemon=True)
    sender.start()
    for line in sys.stdin:
        if line.strip() == "count":
            print(len(got), flush=True)
            continue
        if line.strip() == "end":
            break
        sending.set()
        sender.join()
        print(sent, flush=True)
    print(json.dumps(sorted(got)), flush=True)


class _End:
    def __init__(self, host: Any, container: str, peer: str, rate: float) -> None:
        pid = host.container_pid(container, of_machine=False)
        argv = ["nsenter", f"--net=/proc/{pid}/ns/net", sys.executable, __file__, str(PORT), peer, str(rate)]
        self.name = f"{container} on {host.name}"
        self._process = host.popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def tell(self, word: str) -> str:
        self._process.stdin.write(word + "\n")
        self._process.stdin.flush()
        return str(self._process.stdout.readline())

    def close(self) -> None:
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.terminate()
        self._process.wait(10)


class Flow:
    """`with Flow(host, container, address, other host, its container, its address) as flow: …`, then `flow.lost`.

    What happens inside the block happens to a flow that runs in both directions at its beginning.
    """

    def __init__(self, here: Any, one: str, near: str, there: Any, other: str, far: str, rate: float = 100) -> None:
        self._ends = [_End(here, one, far, rate), _End(there, other, near, rate)]
        self.sent: dict[str, int] = {}
        #: Numbers that did not arrive, by the end that should have received them.
        self.lost: dict[str, list[int]] = {}

    def __enter__(self) -> Self:
        until = time.monotonic() + 10
        while not all(int(end.tell("count")) >= 3 for end in self._ends):
            if time.monotonic() > until:
                self._close()
                raise AssertionError("the flow does not begin")
            time.sleep(0.02)
        self._before = [int(end.tell("count")) for end in self._ends]
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        try:
            if error is None:
                self._count()
        finally:
            self._close()

    def _count(self) -> None:
        sent = [int(end.tell("stop")) for end in self._ends]
        self._settle()
        for end, count in zip(self._ends, reversed(sent), strict=True):
            got = set(json.loads(end.tell("end")))
            # The first may have gone before the other end was there.
            first = min(got)
            self.sent[end.name] = count - first
            self.lost[end.name] = [number for number in range(first, count) if number not in got]

    def _settle(self) -> None:
        """Wait until nothing has come for a while: the receivers may have waited for a processor."""
        until, came = time.monotonic() + 10, list[int]()
        while time.monotonic() < until:
            now = [int(end.tell("count")) for end in self._ends]
            if now == came:
                return
            came = now
            time.sleep(_LATEST)

    def _close(self) -> None:
        for end in self._ends:
            end.close()

    @property
    def total(self) -> int:
        """How many were lost."""
        return sum(map(len, self.lost.values()))


if __name__ == "__main__":
    _end(int(sys.argv[1]), sys.argv[2], float(sys.argv[3]))
