"""What `make chaos-proof` takes out of the code, and the rows that must notice."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Fault(NamedTuple):
    """One replacement: in which file below src, of which text, by what; and row name to what the row must say then."""

    name: str
    meaning: str
    file: str
    old: str
    new: str
    rows: Mapping[str, str]


FAULTS = (
    Fault(
        "no-reconciler",
        "the kernel is never compared with what is wanted",
        "myoverlay/host/reconcile.py",
        "            self.compare()\n",
        "            pass\n",
        {"half-rows": "both tables of h1 are as before: not within"},
    ),
    Fault(
        "no-adoption",
        "a restarted plugin opens a session of its own in place of renewing the last run's",
        "myoverlay/host/alive.py",
        "if old is not None and self._presence.store.renew_session(old):",
        "if False:",
        {"kill": "the session of h1 is kept"},
    ),
    Fault(
        "no-grace",
        "a dead host's rows go at once",
        "myoverlay/host/peers.py",
        "        self._grace = grace\n",
        "        self._grace = 0.0\n",
        {"unplugged": "h1's row of a container of h2"},
    ),
    Fault(
        "no-lease-grace",
        "a dead host's addresses are free at once",
        "myoverlay/host/peers.py",
        "        self._lease_grace = lease_grace\n",
        "        self._lease_grace = 0.0\n",
        {"power": "an address of h4 on h3 before the lease grace: given"},
    ),
)
