"""The store: a real Consul server, one node, whose data outlives stop and start."""

from __future__ import annotations

import base64
import json
from urllib.parse import quote

from lab import fetch
from lab.errors import LabError
from lab.host import Host
from lab.service import Service


class Consul(Service):
    """`consul.address` is what a host uses; the methods are for the test process, which is on no host."""

    port = 8500

    def __init__(self, host: Host) -> None:
        super().__init__(host, fetch.STORE.root)

    def command(self) -> list[str]:
        """One server that elects itself fast, speaks to nobody outside, and takes many connections of one address."""
        settings = {
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
        file = self.host.folder / "consul.json"
        file.write_text(json.dumps(settings, indent=1))
        return ["consul", "agent", f"-config-file={file}"]

    def ready(self) -> bool:
        """Whether there is a leader that writes."""
        status, body, _ = self.request("GET", "/v1/status/leader")
        return status == 200 and len(body) > 4 and self.request("GET", "/v1/kv/?keys&separator=/")[0] in (200, 404)

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

    @staticmethod
    def _good(status: int, body: bytes, what: str) -> bytes:
        if status != 200:
            raise LabError(f"consul, {what}: {status} {body.decode(errors='replace').strip()}")
        return body
