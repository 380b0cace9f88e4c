"""A Consul agent on a host, as most people run it: the plugin speaks to 127.0.0.1, the agent to the server."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import subprocess

from lab import fetch
from lab.consul import MASTER
from lab.engine import EngineHost
from lab.errors import LabError
from lab.lab import Lab
from lab.processes import wait_for

URL = "http://127.0.0.1:8500"


class Agent:
    """The agent of one host; what it knows outlives its end."""

    def __init__(self, lab: Lab, host: EngineHost) -> None:
        self._lab = lab
        self._host = host
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Start it and wait until it answers what the server says."""
        self.launch()
        wait_for(f"the Consul agent on {self._host.name}", 30, self.serves)

    def launch(self) -> None:
        """Start it; the server may be out of its reach."""
        folder = self._host.folder / "agent"
        folder.mkdir(exist_ok=True)
        acl = {"enabled": True, "default_policy": "deny", "token_ttl": "1s", "tokens": {"agent": MASTER}}
        settings = {
            "node_name": self._host.name,
            "data_dir": str(folder / "data"),
            "bind_addr": self._host.address,
            "client_addr": "127.0.0.1",
            "retry_join": [self._lab.consul.host.address],
            "retry_interval": "1s",
            "ports": {"dns": -1, "grpc": -1},
            "limits": {"http_max_conns_per_client": 1000},
            "disable_update_check": True,
            "leave_on_terminate": False,
            "rejoin_after_leave": True,
            "acl": acl,
        }
        file = folder / "agent.json"
        file.write_text(json.dumps(settings, indent=1))
        program = fetch.STORE.root / "usr/bin/consul"
        with (folder / "agent.log").open("ab") as log:
            self._process = self._host.popen(
                [str(program), "agent", f"-config-file={file}"], stdout=log, stderr=subprocess.STDOUT
            )

    def kill(self) -> None:
        """SIGKILL."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait(10)
            self._process = None

    def serves(self) -> bool:
        """Whether a question about keys is answered by the server through it."""
        if self._process is not None and self._process.poll() is not None:
            raise LabError(f"the Consul agent on {self._host.name} ended")
        try:
            return self._host.inside(self._asked)
        except (OSError, http.client.HTTPException):
            return False

    @staticmethod
    def _asked() -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", 8500, timeout=2)
        connection.sock = socket.create_connection(("127.0.0.1", 8500), 2)
        try:
            connection.request("GET", "/v1/kv/myoverlay/?keys&separator=/", headers={"X-Consul-Token": MASTER})
            return connection.getresponse().status in (200, 404)
        finally:
            connection.close()
