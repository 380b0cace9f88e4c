"""A real image registry, for `docker plugin push` and `docker plugin install`."""

from __future__ import annotations

from lab import fetch
from lab.host import Host
from lab.service import Service


class Registry(Service):
    """Every engine of the laboratory takes `registry.address` without TLS."""

    port = 5000

    def __init__(self, host: Host) -> None:
        super().__init__(host, fetch.OLD.root)

    def command(self) -> list[str]:
        """A registry that keeps its blobs on its host's disk and allows deletes."""
        file = self.host.folder / "registry.yml"
        file.write_text(
            "version: 0.1\n"
            "log: {level: warn}\n"
            f"storage: {{filesystem: {{rootdirectory: {self.host.folder / 'data'}}}, delete: {{enabled: true}}}}\n"
            f"http: {{addr: '{self.address}'}}\n"
        )
        return ["docker-registry", "serve", str(file)]

    def ready(self) -> bool:
        """Whether the registry's own protocol is spoken."""
        return self.request("GET", "/v2/")[0] == 200
