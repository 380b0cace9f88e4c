"""A laboratory: hosts on a switch, perhaps a store and a registry; up and down as a whole."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import Any

from lab import cgroups, images, places, preflight
from lab.consul import Consul
from lab.engine import EngineHost
from lab.errors import LabError
from lab.host import Host
from lab.network import FIRST_HOST, REGISTRY, STORE, Switch, Underlay
from lab.processes import Known
from lab.registry import Registry
from lab.service import Service


@dataclass(frozen=True)
class HostSpec:
    """What a host shall be: `engine` is `old`, `new` or None for a bare host."""

    name: str
    engine: str | None = "new"
    live_restore: bool = False
    extra: tuple[str, ...] = ()
    images: tuple[str, ...] = (images.BASE,)

    @classmethod
    def recalled(cls, noted: dict[str, Any]) -> HostSpec:
        """A specification from a laboratory's note."""
        lists = {"extra": tuple(noted["extra"]), "images": tuple(noted["images"])}
        return cls(**{**noted, **lists})


class Lab:
    """`with Lab("test", [HostSpec("h1", engine="old"), …]) as lab:`; leaving the block takes everything down."""

    def __init__(
        self,
        name: str,
        hosts: Sequence[HostSpec] = (),
        *,
        consul: bool = True,
        acl: bool = False,
        registry: bool = False,
        underlay: Underlay | None = None,
    ) -> None:
        for each in (name, *(spec.name for spec in hosts)):
            if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,11}", each) or each in ("switch", "consul", "registry"):
                raise LabError(f"{each!r} cannot be a name here: up to 12 lower case letters, digits, dashes")
        self.name = name
        self.specs = {spec.name: spec for spec in hosts}
        self.underlay = underlay or Underlay()
        self._lock = threading.Lock()
        self.creator = Known.now(os.getpid())
        self.switch = Switch(Host(name, "switch"), self.underlay)
        self._numbers = {spec.name: number for number, spec in enumerate(hosts, FIRST_HOST)}
        self.registry = Registry(self._service_host("registry", REGISTRY)) if registry else None
        self.consul_server = Consul(self._service_host("consul", STORE), acl) if consul else None
        self.hosts = {spec.name: self._make(spec) for spec in hosts}

    def _service_host(self, name: str, number: int) -> Host:
        self._numbers[name] = number
        return Host(self.name, name, self.underlay.address(number))

    def _make(self, spec: HostSpec) -> EngineHost:
        return EngineHost(
            self.name,
            spec.name,
            self.underlay.address(self._numbers[spec.name]),
            spec.engine,
            live_restore=spec.live_restore,
            registry=self.registry.address if self.registry else "",
            extra=spec.extra,
        )

    @property
    def consul(self) -> Consul:
        """The store."""
        if self.consul_server is None:
            raise LabError(f"laboratory {self.name} was made without Consul")
        return self.consul_server

    def _services(self) -> list[Service]:
        return [service for service in (self.consul_server, self.registry) if service is not None]

    def _everyone(self) -> list[Host]:
        return [self.switch.host, *(service.host for service in self._services()), *self.hosts.values()]

    # -- up and down --------------------------------------------------------------------------------------------------

    def __enter__(self) -> Lab:
        self.up()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        left = self.down()
        if left and error is None:
            raise LabError(f"laboratory {self.name} could not remove {', '.join(left)}")

    def up(self) -> None:
        """Start everything side by side; whatever goes wrong, or is interrupted, leaves nothing behind."""
        preflight.demand()
        with self._claim():
            try:
                self._up()
            except BaseException:
                self.down()
                raise

    def _up(self) -> None:
        self._save()
        self.switch.host.start(self._save)
        self.switch.build()
        work: list[Callable[[], None]] = [
            *(lambda service=service: self._start_service(service) for service in self._services()),
            *(lambda host=host: self._start_host(host) for host in self.hosts.values()),
        ]
        pool = ThreadPoolExecutor(max(1, len(work)))
        try:
            for step in as_completed([pool.submit(each) for each in work]):
                step.result()
        except BaseException:
            self._end_all()
            raise
        finally:
            pool.shutdown(cancel_futures=True)
        self._save()

    def _start_service(self, service: Service) -> None:
        service.host.start(self._save)
        self.switch.plug(service.host, self._numbers[service.host.name])
        service.start()

    def _start_host(self, host: EngineHost, engine: bool = True) -> None:
        host.start(self._save)
        self.switch.plug(host, self._numbers[host.name])
        if host.age and engine:
            host.start_engine()
            self._save()
            for image in self.specs[host.name].images:
                host.load_image(image)

    def reboot(self, name: str, start_engine: bool = True) -> None:
        """Take the power from a host and give it back: same disk and address, everything else new."""
        host = self.hosts[name]
        host.power_off()
        self.switch.unplug(name)
        host.start(self._save)
        self.switch.plug(host, self._numbers[name])
        if host.age and start_engine:
            host.start_engine()
        self._save()

    def down(self) -> list[str]:
        """End all processes and remove all traces below `.lab/`; may be called at any time and again.

        Names what could not be removed; that list is empty unless somebody else holds on to something.
        """
        with _uninterrupted():
            self._end_all()
            left = self._remove_groups()
            shutil.rmtree(places.HOSTS / self.name, ignore_errors=True)
            shutil.rmtree(places.RUN / self.name, ignore_errors=True)
        return left

    def _end_all(self) -> None:
        everyone = self._everyone()
        for host in everyone:
            host.refuse()
        for host in everyone:
            if host.first is not None:
                host.first.kill()
        for host in everyone:
            with contextlib.suppress(LabError):
                host.power_off()

    def _remove_groups(self) -> list[str]:
        deadline = time.monotonic() + 10
        while True:
            for pid in cgroups.members(self.name):
                Known.now(pid).kill()
            left = cgroups.remove(self.name)
            if not left or time.monotonic() > deadline:
                return left
            time.sleep(0.02)

    # -- the note for other processes ---------------------------------------------------------------------------------

    @contextmanager
    def _claim(self) -> Iterator[None]:
        """Only one process builds a laboratory of a name; what a dead one left is cleared first."""
        places.RUN.mkdir(parents=True, exist_ok=True)
        with (places.RUN / f".{self.name}.lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise LabError(f"laboratory {self.name} is being started by another process") from None
            if places.state_file(self.name).exists() or (places.HOSTS / self.name).exists():
                before = attach(self.name)
                if any(host.alive for host in before._everyone()):
                    raise LabError(f"laboratory {self.name} is up; `python3 -m lab down --name {self.name}` ends it")
                before.down()
            yield

    def _save(self) -> None:
        """Write down what there is, so that `down` in another process finds it."""
        with self._lock:
            state = {
                "creator": asdict(self.creator),
                "specs": [asdict(spec) for spec in self.specs.values()],
                "consul": self.consul_server is not None,
                "acl": self.consul_server is not None and self.consul_server.acl,
                "registry": self.registry is not None,
                "underlay": asdict(self.underlay),
                "first": {host.name: asdict(host.first) for host in self._everyone() if host.first},
                "views": {host.name: host.holder for host in self.hosts.values()},
                "services": {each.host.name: [each.view.holder, _noted(each.daemon)] for each in self._services()},
            }
            file = places.state_file(self.name)
            file.parent.mkdir(parents=True, exist_ok=True)
            unfinished = file.with_suffix(".unfinished")
            unfinished.write_text(json.dumps(state, indent=1))
            unfinished.rename(file)

    def _recall(self, state: dict[str, Any]) -> None:
        self.creator = Known(**state["creator"])
        for host in self._everyone():
            if host.name in state["first"]:
                host.first = Known(**state["first"][host.name])
        for name, holder in state["views"].items():
            self.hosts[name].holder = holder
        for service in self._services():
            service.view.holder, daemon = state["services"].get(service.host.name, (0, None))
            service.daemon = Known(**daemon) if daemon else None

    def in_use(self) -> bool:
        """Whether another process that made this laboratory still runs, and so probably works with it."""
        return self.creator.pid != os.getpid() and self.creator.alive()

    def dump(self) -> str:
        """What a failed test wants to know about all hosts."""
        return "\n".join(host.dump() for host in self.hosts.values())


def _noted(process: Known | None) -> dict[str, int] | None:
    return asdict(process) if process else None


def attach(name: str) -> Lab:
    """The laboratory of that name, started by whichever process."""
    try:
        state = json.loads(places.state_file(name).read_text())
    except FileNotFoundError:
        return Lab(name, consul=False)
    specs = [HostSpec.recalled(spec) for spec in state["specs"]]
    lab = Lab(
        name,
        specs,
        consul=state["consul"],
        acl=state.get("acl", False),
        registry=state["registry"],
        underlay=Underlay(**state["underlay"]),
    )
    lab._recall(state)
    return lab


def names() -> list[str]:
    """Laboratories that are up, or whose remains lie below `.lab/`."""
    found = {file.parent.name for file in places.RUN.glob("*/state.json")}
    found |= {folder.name for folder in places.HOSTS.glob("*") if folder.is_dir()}
    return sorted(found)


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """A second Ctrl-C shall not stop the tidying."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
