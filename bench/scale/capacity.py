"""What this machine's Consul carries of what watchers ask, before its queue grows.

Open loop: so many rounds a second are due whether the ones before were answered or not. A round is what one change
costs one watcher: the rings, then one host's list. They are asked by processes that do nothing else, on the same
machine: what they take is not left for Consul, so that a Consul of its own carries more.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from bench.scale.site import OVERLAY, PREFIX, Site
from lab import places
from lab.consul import Consul
from lab.host import environment

#: Rounds a second, each tried for so long; carried where of all rounds 99 % end within LATE of when they were due.
RATES, SECONDS, LATE = (50, 100, 200, 400, 600, 800, 1000, 1200, 1600, 2000, 2800, 4000, 5600, 8000), 6.0, 0.25
_PROCESSES, _CONNECTIONS = 2, 24


def measure(consul: Consul, short: bool, say: Callable[[str], None]) -> dict[str, Any]:
    """Higher and higher rates, until one is not carried."""
    consul.wipe()
    site = Site(consul.address, 8 if short else 100, 100)
    try:
        site.appear(index=False)
        for _ in range(1 if short else 4):
            for one in site.hosts:
                one.change(site.definition)  # rings are as full as they get
        key = f"{PREFIX}/hosts/{site.hosts[0].id}/overlays/{OVERLAY}"
        rows: list[dict[str, Any]] = []
        for rate in (20,) if short else RATES:
            row = _asked(consul, key, rate, 2.0 if short else SECONDS)
            rows.append(row)
            say(f"  Consul, {rate} rounds a second: p50 {row['p50_ms']:.1f} ms, p99 {row['p99_ms']:.1f} ms after due")
            if not row["carried"]:
                break
    finally:
        site.close()
    return {"rows": rows, "rounds_per_s": max((row["rate"] for row in rows if row["carried"]), default=0)}


def _asked(consul: Consul, key: str, rate: float, seconds: float) -> dict[str, Any]:
    argv = [sys.executable, "-m", "bench.scale.capacity", consul.address, key, str(rate / _PROCESSES), str(seconds)]
    askers = [
        consul.host.spawn_in(
            ("net",),
            argv,
            env=environment({"PYTHONPATH": f"{places.REPOSITORY}/src:{places.REPOSITORY}"}),
            cwd=str(places.REPOSITORY),
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(_PROCESSES)
    ]
    late: list[float] = []
    received = 0
    for asker in askers:
        told = json.loads(asker.communicate(timeout=seconds * 6 + 60)[0])
        late += told["late"]
        received += told["received"]
    late.sort()
    p99 = late[int(0.99 * len(late))]
    return {
        "rate": rate,
        "p50_ms": 1000 * late[len(late) // 2],
        "p99_ms": 1000 * p99,
        "bytes_per_round": received / len(late),
        "carried": p99 <= LATE,
    }


class _Asker(threading.Thread):
    """One connection: its share of the rounds, each when it is due."""

    def __init__(self, place: tuple[str, int], key: str, times: list[float]) -> None:
        super().__init__()
        self._place, self._times = place, times
        self.late: list[float] = []
        self.received = 0
        body = json.dumps([{"KV": {"Verb": "get", "Key": key}}]).encode()
        rings = f"{PREFIX}/overlays/{OVERLAY}/changes/"
        head = f"Host: {place[0]}\r\nContent-Length: {{}}\r\n\r\n"
        self._requests = (
            f"GET /v1/kv/{rings}?recurse HTTP/1.1\r\n{head.format(0)}".encode(),
            f"PUT /v1/txn HTTP/1.1\r\n{head.format(len(body))}".encode() + body,
        )

    def run(self) -> None:
        with socket.create_connection(self._place, 10) as sock, sock.makefile("rb") as answers:
            for due in self._times:
                pause = due - time.monotonic()
                if pause > 0:
                    time.sleep(pause)  # the rate is what is measured at
                for request in self._requests:
                    sock.sendall(request)
                    self._read(answers)
                self.late.append(time.monotonic() - due)

    def _read(self, answers: Any) -> None:
        if b" 200 " not in answers.readline():
            raise SystemExit("Consul refused")
        length, chunked = 0, False
        while (line := answers.readline()) not in (b"\r\n", b""):
            name, _, value = line.partition(b":")
            length = int(value) if name.lower() == b"content-length" else length
            chunked = chunked or name.lower() == b"transfer-encoding"
        if not chunked:
            self.received += len(answers.read(length))
        while chunked:
            length = int(answers.readline(), 16)
            self.received += len(answers.read(length + 2))
            chunked = length > 0


def main(address: str, key: str, rate: str, seconds: str) -> None:
    host, _, port = address.rpartition(":")
    begun, count = time.monotonic() + 0.5, max(1, round(float(rate) * float(seconds)))
    times = [begun + number / float(rate) for number in range(count)]
    askers = [_Asker((host, int(port)), key, times[at::_CONNECTIONS]) for at in range(_CONNECTIONS)]
    for asker in askers:
        asker.start()
    for asker in askers:
        asker.join()
    late = [each for asker in askers for each in asker.late]
    print(json.dumps({"late": late, "received": sum(asker.received for asker in askers)}))


if __name__ == "__main__":
    main(*sys.argv[1:])
