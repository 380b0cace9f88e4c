"""Whole hosts on a real Consul with ACLs, default deny: each has a token of the policy that ships, and no more."""

from __future__ import annotations

import json
import os
import uuid
from pathlib import Path
from typing import Any

import msgspec

from lab.fault_proxy import FaultProxy, listen
from myoverlay.errors import Denied
from myoverlay.store import Delete, Entry, Lock, Put
from myoverlay.store.consul import ConsulStore
from myoverlay.store.policy import text
from myoverlay.store.pooled import MARK
from myoverlay.values import HostId, HostList, Record, decoder, encode
from tests.engine.store.trouble import Guarded, TroubledHosts
from tests.kernel.host.hosts import Container, Host
from tests.kernel.host.tools import until

PREFIX = "myoverlay"
OVERLAY = "10.5.0.0-24"


class Door(ConsulStore):
    """One host's store, whose token lies in a file. The next daemon of the host opens another."""

    def __init__(self, address: str, file: Path) -> None:
        super().__init__(address, token_file=file)
        self.file = file

    def reopened(self) -> Door:
        return Door(self.address, self.file)


class PolicedHosts(TroubledHosts):
    """The laboratory of whole hosts. A host begins without any token, and goes on when it is given one."""

    #: Arguments of the policy beside prefix and host, and the hosts' settings beside their own.
    wishes: dict[str, Any] = {}
    beside: dict[str, str] = {}

    def view_for(self, host: Host) -> Any:
        self.proxies[host.name] = FaultProxy(listen("127.0.0.1"), self.agent.dial)
        return Door(self.proxies[host.name].address, self.folder / f"{host.name}.token")

    def host(self, mtu: int = 1500, **environ: str | int) -> Host:
        settings = {f"MYOVERLAY_{name.upper()}": str(value) for name, value in environ.items()} | self.beside
        host = self.admit(lambda number: Host(self, number, mtu, settings))
        self.give(host, self.new_policy_token(host.daemon.records.me))
        until(host.daemon.liveness.announced.is_set, 20, f"{host.name} announced")
        return host

    def new_policy_token(self, host: str, **wishes: Any) -> str:
        rules = text(PREFIX, host, **(self.wishes | wishes))
        policy = self.agent._put("acl/policy", {"Name": uuid.uuid4().hex, "Rules": rules})
        token: str = self.agent._put("acl/token", {"Policies": [{"ID": policy["ID"]}]})["SecretID"]
        return token

    def give(self, host: Host, token: str) -> None:
        """As a person does it: a new file in the place of the old one, that nobody else can read."""
        file = self.folder / f"{host.name}.token"
        fresh = file.with_suffix(".new")
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as out:
            out.write(token)
        fresh.rename(file)

    def token_of(self, host: Host) -> str:
        return (self.folder / f"{host.name}.token").read_text()


class Thief:
    """Somebody with the token of host `own`, who is after container `x` of host `victim`; nothing but HTTP."""

    def __init__(self, store: ConsulStore, own: Host, victim: Host, x: Container) -> None:
        self.store = store
        self.own, self.victim, self.x = own, victim, x
        self.me: HostId = own.daemon.records.me
        self.them: HostId = victim.daemon.records.me

    def key(self, *parts: str) -> str:
        return "/".join((PREFIX, *parts))

    def of(self, *parts: str) -> str:
        return self.key("overlays", OVERLAY, *parts)

    def entry(self, key: str) -> Entry:
        found = self.store.get(key)
        assert found is not None, f"there is no {key}"
        return found

    def json(self, key: str) -> dict[str, Any]:
        value: dict[str, Any] = json.loads(self.entry(key).value)
        return value

    def put(self, key: str, value: Any, flags: int = 0) -> None:
        raw = (
            value
            if isinstance(value, bytes)
            else value.encode()
            if isinstance(value, str)
            else json.dumps(value).encode()
        )
        self.store.commit([Put(key, raw, flags)])

    def change(self, key: str, **fields: Any) -> None:
        self.put(key, self.json(key) | fields)

    def delete(self, key: str) -> None:
        self.store.commit([Delete(key, self.entry(key).index)])

    def take_lock(self, key: str) -> None:
        self.store.commit([Lock(key, b"{}", self.store.open_session("thief", 10))])

    def tell(self, **fields: Any) -> None:
        """Write the own list otherwise, and into the ring that it was."""
        key = self.key("hosts", self.me, "overlays", OVERLAY)
        old = decoder(HostList)(self.entry(key).value)
        new = msgspec.structs.replace(old, serial=old.serial + 1, **fields)
        self.put(key, encode(new))
        for name in self.store.keys(self.of("changes", "")).keys:
            ring = self.json(name)
            if self.me in ring.get("hosts", ()):
                self.change(name, last=ring["last"] + 1, hosts=[*ring["hosts"], self.me][-32:])

    def claim(self, *records: Record) -> None:
        """The own list says that these are here, beside what is."""
        key = self.key("hosts", self.me, "overlays", OVERLAY)
        old = decoder(HostList)(self.entry(key).value)
        self.tell(records=(*old.records, *records))

    def index(self, flags: int = MARK, mac: str = "", vtep: str = "") -> None:
        """The keys of the container's address and MAC say something else."""
        self.put(self.of("records", "arp", self.x.address), mac or self.x.mac, flags)
        self.put(self.of("records", "fib", mac or self.x.mac), vtep or self.own.vtep, flags)


def is_denied(act: Any) -> bool:
    try:
        act()
    except Denied:
        return True
    return False


def begin(folder: Path) -> Guarded:
    return Guarded(folder).begin()
