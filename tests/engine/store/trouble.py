"""Whole hosts on a real Consul, each behind a fault proxy of its own, in one process: everything can be looked into."""

from __future__ import annotations

import json
import os
import socket
import struct
import threading
import urllib.error
import urllib.request
import uuid
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lab import faults
from lab.fault_proxy import FaultProxy, listen
from myoverlay.kernel.rtnetlink import HEADER
from myoverlay.store.consul import ConsulStore
from tests.engine.store.test_consul import Agent
from tests.kernel.host.hosts import Container, Host, Hosts
from tests.kernel.host.tools import until

MASTER = str(uuid.uuid4())
RTM_DELNEIGH, RTMGRP_NEIGH = 29, 4
SO_RCVBUFFORCE = 33


class Guarded(Agent):
    """A Consul with ACLs that knows one token of the test's own, and gives out and takes back others."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, acl={"enabled": True, "default_policy": "deny", "tokens": {"master": MASTER}})

    def begin(self) -> Guarded:
        self.start()
        store = ConsulStore(self.address, token=MASTER)
        self.wait_ready(store)
        store.close()
        until(self._has_policies, 10, "the new ACL system")
        return self

    def _has_policies(self) -> bool:
        """For a moment after the election it says that its ACL system is in legacy mode."""
        try:
            self.ask("GET", "acl/policies")
        except urllib.error.HTTPError:
            return False
        return True

    def new_token(self, secret: str | None = None) -> str:
        """A broad token; one with the `secret` of a revoked one is the same again."""
        rules = 'key_prefix "" { policy = "write" } session_prefix "" { policy = "write" }'
        policy = self._put("acl/policy", {"Name": uuid.uuid4().hex, "Rules": rules})
        wish = {"Policies": [{"ID": policy["ID"]}], "SecretID": secret or ""}
        token: str = self._put("acl/token", wish)["SecretID"]
        return token

    def revoke(self, token: str) -> None:
        for one in json.loads(self.ask("GET", "acl/tokens")):
            if json.loads(self.ask("GET", f"acl/token/{one['AccessorID']}"))["SecretID"] == token:
                self.ask("DELETE", f"acl/token/{one['AccessorID']}")

    def dial(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.ports["http"]), 3)

    def clear(self) -> None:
        """No key and no session."""
        for session in json.loads(self.ask("GET", "session/list")):
            self.ask("PUT", f"session/destroy/{session['ID']}")
        self.ask("DELETE", "kv/?recurse")

    def _put(self, path: str, wish: dict[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.ask("PUT", path, json.dumps(wish).encode()))
        return found

    def ask(self, method: str, path: str, body: bytes | None = None) -> bytes:
        url = f"http://{self.address}/v1/{path}"
        request = urllib.request.Request(url, body, {"X-Consul-Token": MASTER}, method=method)
        with urllib.request.urlopen(request, timeout=10) as answer:
            said: bytes = answer.read()
            return said


class _Door(ConsulStore):
    """One host's store. The next daemon of the host opens another."""

    def reopened(self) -> _Door:
        return _Door(self.address, token=self._token.read())


class TroubledHosts(Hosts):
    """The laboratory of whole hosts on a real Consul; `proxies[host.name]` stands before one host's Consul."""

    def __init__(self, folder: Path, agent: Guarded) -> None:
        self.agent = agent
        self.token = agent.new_token()
        self.proxies: dict[str, FaultProxy] = {}
        super().__init__(folder, ConsulStore(agent.address, token=MASTER))

    def view_for(self, host: Host) -> _Door:
        self.proxies[host.name] = FaultProxy(listen("127.0.0.1"), self.agent.dial)
        return _Door(self.proxies[host.name].address, token=self.token)

    def set(self, fault: faults.Fault, *hosts: Host) -> None:
        """The fault holds for these hosts, or for all."""
        for host in hosts or self._hosts:
            self.proxies[host.name].set(fault)

    def close(self) -> None:
        try:
            super().close()
        finally:
            for proxy in self.proxies.values():
                proxy.stop()


def threads() -> Counter[str]:
    """The daemons' threads, by name."""
    names = Counter(thread.name for thread in threading.enumerate())
    return Counter({name: count for name, count in names.items() if not name.startswith(("asyncio", "Thread"))})


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def bugs(host: Host) -> dict[str, int]:
    """Rounds of its threads that failed for a reason nobody foresaw."""
    return {label: count for (name, label), count in host.daemon.tally.all().items() if name == "bugs"}


def failures(host: Host) -> int:
    """Rounds of its threads that the store failed."""
    counts = host.daemon.tally.all().items()
    return sum(count for (name, label), count in counts if name == "loop_failures" or label == "failed")


@contextmanager
def withdrawals(host: Host, living: Callable[[], Collection[Container]]) -> Iterator[Callable[[], int]]:
    """How many rows of the living the kernel of a host's overlay was told to forget since."""
    with (
        host.overlay() as ns,
        ns.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as sock,
    ):
        sock.bind((0, RTMGRP_NEIGH))
        sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 8 << 20)
        sock.setblocking(False)
        index = ns.call(lambda: socket.if_nametoindex("vxlan1"))
        seen = 0

        def count() -> int:
            nonlocal seen
            while True:
                try:
                    raw = sock.recv(1 << 16)
                except BlockingIOError:
                    return seen
                _, kind, _, _, _ = HEADER.unpack_from(raw)
                (where,) = struct.unpack_from("=i", raw, HEADER.size + 4)
                theirs = any(container.mac.packed in raw for container in living())
                seen += kind == RTM_DELNEIGH and where == index and theirs

        yield count


def settled(host: Host, reserve: int = 7) -> bool:
    """Is the host announced, its reserve filled, and everything told?"""
    leases = host.daemon.journal.leases.all()
    return (
        host.daemon.liveness.announced.is_set()
        and sum(lease.use == "reserve" for lease in leases) >= reserve
        and not any(lease.promised or lease.use == "releasing" for lease in leases)
    )


def wait_settled(*hosts: Host, reserve: int = 7) -> None:
    for host in hosts:
        until(lambda host=host: settled(host, reserve), 20, f"settling of {host.name}")
