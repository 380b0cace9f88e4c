"""The store: a real Consul server, one node, whose data outlives stop and start."""

from __future__ import annotations

import base64
import json
import uuid
from typing import Any
from urllib.parse import quote

from lab import fetch
from lab.errors import LabError
from lab.host import Host
from lab.service import Service

#: The test process's own token where the server has ACLs on; the server knows it from its configuration.
MASTER = "8a0c7f0e-1d53-4f0b-9c0a-6b1f0e3d2c11"
#: What a host's token may without further thought: all keys and sessions.
BROAD = 'key_prefix "" { policy = "write" } session_prefix "" { policy = "write" }'


class Consul(Service):
    """`consul.address` is what a host uses; the methods are for the test process, which is on no host."""

    port = 8500

    def __init__(self, host: Host, acl: bool = False) -> None:
        super().__init__(host, fetch.STORE.root)
        self.acl = acl

    def command(self) -> list[str]:
        """One server that elects itself fast, speaks to nobody outside, and takes many connections of one address."""
        settings: dict[str, Any] = {
            "server": True,
            "bootstrap_expect": 1,
            "node_name": "store",
            "data_dir": str(self.host.folder / "data"),
            "bind_addr": self.host.address,
            "client_addr": self.host.address,
            "ports": {"dns": -1, "grpc": -1},
            "performance": {"raft_multiplier": 1},
            "limits": {"http_max_conns_per_client": 1000},
            "disable_update_check": True,
            "leave_on_terminate": False,
            "rejoin_after_leave": True,
        }
        if self.acl:
            settings["acl"] = {"enabled": True, "default_policy": "deny", "tokens": {"master": MASTER}}
        file = self.host.folder / "consul.json"
        file.write_text(json.dumps(settings, indent=1))
        return ["consul", "agent", f"-config-file={file}"]

    def ready(self) -> bool:
        """Whether there is a leader that reads; with ACLs on, one that knows our token."""
        status, body, _ = self.request("GET", "/v1/status/leader")
        if status != 200 or len(body) <= 4 or self.request("GET", "/v1/kv/?keys&separator=/")[0] not in (200, 404):
            return False
        # For a moment after the election it says of policies that its ACL system is in legacy mode.
        return not self.acl or self.request("GET", "/v1/acl/policies")[0] == 200

    def request(
        self, method: str, path: str, body: bytes | None = None, timeout: float = 10
    ) -> tuple[int, bytes, dict[str, str]]:
        """Ask it as one who may do everything."""
        return self.ask(method, path, body, timeout, {"X-Consul-Token": MASTER} if self.acl else None)

    def wipe(self) -> None:
        """Stop it, forget all data, start it: the emptied store."""
        self.stop()
        self.view.run(["rm", "-rf", str(self.host.folder / "data")])
        self.start()

    def get(self, prefix: str = "") -> dict[str, bytes]:
        """Every key below a prefix, with its value."""
        return {entry["Key"]: base64.b64decode(entry["Value"] or "") for entry in self.entries(prefix)}

    def entries(self, prefix: str = "") -> list[dict[str, str]]:
        """The same with all Consul says (Flags, Session, indexes); `Value` is base64."""
        status, body, _ = self.request("GET", f"/v1/kv/{quote(prefix)}?recurse")
        if status == 404:
            return []
        found: list[dict[str, str]] = json.loads(self._good(status, body, f"list {prefix}"))
        return found

    def keys(self, prefix: str = "") -> list[str]:
        """The names of the keys below a prefix."""
        status, body, _ = self.request("GET", f"/v1/kv/{quote(prefix)}?keys")
        found: list[str] = [] if status == 404 else json.loads(self._good(status, body, f"keys {prefix}"))
        return found

    def put(self, key: str, value: str | bytes) -> None:
        """Write a key as anybody could."""
        data = value.encode() if isinstance(value, str) else value
        status, body, _ = self.request("PUT", f"/v1/kv/{quote(key)}", data)
        self._good(status, body, f"put {key}")

    def delete(self, key: str, recurse: bool = False) -> None:
        """Delete a key, or all that begins with it."""
        status, body, _ = self.request("DELETE", f"/v1/kv/{quote(key)}{'?recurse' if recurse else ''}")
        self._good(status, body, f"delete {key}")

    # -- tokens, where `acl` is on ------------------------------------------------------------------------------------

    def new_token(self, rules: str = BROAD, secret: str = "") -> str:
        """A token that may what the rules say; with the `secret` of one that was revoked or wiped it serves again."""
        policy = json.dumps({"Name": f"lab-{uuid.uuid4().hex[:8]}", "Rules": rules}).encode()
        made = json.loads(self._good(*self.request("PUT", "/v1/acl/policy", policy)[:2], "make a policy"))
        wish = json.dumps({"Policies": [{"ID": made["ID"]}], "SecretID": secret}).encode()
        token: str = json.loads(self._good(*self.request("PUT", "/v1/acl/token", wish)[:2], "make a token"))["SecretID"]
        return token

    def revoke(self, token: str) -> None:
        """From now on the token is answered 403."""
        for one in json.loads(self._good(*self.request("GET", "/v1/acl/tokens")[:2], "list the tokens")):
            path = f"/v1/acl/token/{one['AccessorID']}"
            if json.loads(self._good(*self.request("GET", path)[:2], "read a token"))["SecretID"] == token:
                self._good(*self.request("DELETE", path)[:2], "revoke a token")
                return
        raise LabError("consul: there is no such token to revoke")

    # -- snapshots ----------------------------------------------------------------------------------------------------

    def snapshot(self) -> bytes:
        """All it holds: keys, sessions, tokens."""
        return self._good(*self.request("GET", "/v1/snapshot")[:2], "take a snapshot")

    def restore(self, snapshot: bytes) -> None:
        """Back to what it held then; it goes on running."""
        self._good(*self.request("PUT", "/v1/snapshot", snapshot)[:2], "restore a snapshot")

    @staticmethod
    def _good(status: int, body: bytes, what: str) -> bytes:
        if status != 200:
            raise LabError(f"consul, {what}: {status} {body.decode(errors='replace').strip()}")
        return body
