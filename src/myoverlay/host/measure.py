"""What packets of a given size come through between this host and others, asked with the heartbeat's own device."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Mapping
from typing import Protocol

from myoverlay.plan.measure import Measurement, Reach, hosts_of
from myoverlay.values import Address, HostId

#: A small question and one of full size.
_PACKETS = 2
_NONCE = 4


class Asking(Protocol):
    """What is needed of the prober."""

    def ask(self, targets: Mapping[HostId, Address], full: Mapping[HostId, bytes], size: int) -> set[HostId]: ...
    def measures(self, host: HostId) -> bool: ...


class Measures:
    """Measurements that are under way. `_lock` guards them and is held across no call.

    `run` is for any thread; everything else for the heartbeat's.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._running: dict[Measurement, threading.Event] = {}
        self._nonces: dict[bytes, tuple[Measurement, HostId]] = {}
        self._changed = False

    def run(
        self, targets: Mapping[HostId, Address], size: int, patience: float, wake: Callable[[], None]
    ) -> dict[HostId, Reach]:
        """Ask these hosts at these VTEPs by packets of `size` bytes, for at most `patience` seconds."""
        now, done = self._now(), threading.Event()
        one = Measurement(targets, size, now, now + patience)
        with self._lock:
            self._running[one] = done
            self._changed = True
        wake()
        done.wait(patience)
        with self._lock:
            self._running.pop(one, None)
            self._nonces = {nonce: asked for nonce, asked in self._nonces.items() if asked[0] is not one}
            self._changed = True
            return one.results()

    def changed(self) -> bool:
        """Are others measured than when this was asked last?"""
        with self._lock:
            changed, self._changed = self._changed, False
            return changed

    def targets(self) -> dict[HostId, Address]:
        """Whose answers count."""
        with self._lock:
            return hosts_of(self._running)

    def turn(self, prober: Asking, may_send: Callable[[int], bool]) -> None:
        """Ask whoever is due, as far as packets may be sent."""
        with self._lock:
            due = [(one, host) for one in self._running for host in one.due(self._now())]
        for one, host in due:
            if not may_send(_PACKETS):
                return
            full = {host: secrets.token_bytes(_NONCE)} if prober.measures(host) else {}
            with self._lock:
                self._nonces |= dict.fromkeys(full.values(), (one, host))
            sent = bool(prober.ask({host: one.targets[host]}, full, one.size))
            with self._lock:
                one.tried(host, sent, self._now())

    def heard(self, host: HostId, nonce: bytes | None) -> bool:
        """An answer; was it to a question of ours?"""
        with self._lock:
            if nonce is None:
                measured = [one.heard(host) for one in self._running]  # each of them is told
                return any(measured)
            asked = self._nonces.get(nonce)
            return asked is not None and asked[1] == host and asked[0].carried(host)

    def wait(self) -> float:
        """Seconds until `turn` has something to do. Ends those that are over."""
        with self._lock:
            now = self._now()
            for one, done in self._running.items():
                if one.is_over(now):
                    done.set()
            return min((one.wait(now) for one, done in self._running.items() if not done.is_set()), default=60.0)
