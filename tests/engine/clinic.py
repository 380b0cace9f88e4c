"""Hosts for `myoverlay doctor`: two with real engines of both ages, a third without one, on a Consul with ACLs."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Collection, Iterable
from typing import Any

from lab import places
from lab.lab import HostSpec, Lab
from lab.plugin_process import PluginProcess
from tests.engine.conftest import BOTH, eventually

NAME = "doctor"
SECOND = "/run/docker/plugins/second.sock"
TOKEN = "/run/consul.token"
#: A laboratory's own words are no settings of the plugin: empty means not given.
QUIET = {"MYOVERLAY_LAB_HOME": "", "MYOVERLAY_LAB_ARCHIVE": ""}
#: All keys and sessions: each host's token has these, one policy each, so that a test can add to it.
ALL = ('key_prefix "" { policy = "write" }', 'session_prefix "" { policy = "write" }')


class Patient:
    """One host with its plugin as a process, and what `doctor` says there."""

    def __init__(self, clinic: Clinic, name: str, **settings: str) -> None:
        self.clinic = clinic
        self.name = name
        self.host = clinic.lab.hosts[name]
        self.settings = {
            "CONSUL_HTTP_ADDR": clinic.lab.consul.url,
            "CONSUL_HTTP_TOKEN_FILE": TOKEN,
            "MYOVERLAY_HOST_NAME": name,
            **settings,
            **QUIET,
        }
        self.plugin = PluginProcess(self.host, self.settings)

    def give(self, token: str) -> None:
        """From now on this is the host's token."""
        self.host.run(["sh", "-c", f"umask 077; cat > {TOKEN}.new && mv {TOKEN}.new {TOKEN}"], input=token)

    def recover(self) -> None:
        """What a test that failed left: the plugin away, or with other settings."""
        if self.plugin.settings != self.settings or self.complete("counters").returncode != 0:
            self.restart()

    def restart(self, **settings: str) -> None:
        """Stop the plugin and start it with other settings; "" takes one out."""
        self.plugin.stop()
        self.plugin.settings = self.settings | settings
        self.plugin.start()

    def complete(self, *words: str) -> subprocess.CompletedProcess[str]:
        """`myoverlay …` on this host, with the plugin's settings."""
        environment = {"PYTHONPATH": str(places.REPOSITORY / "src"), **self.plugin.settings}
        return self.host.complete([sys.executable, "-m", "myoverlay", *words], env=environment)

    def timed(self, *words: str) -> tuple[subprocess.CompletedProcess[str], float]:
        """The same, and how many seconds it took."""
        began = time.monotonic()
        done = self.complete(*words)
        return done, time.monotonic() - began

    def sh(self, command: str) -> str:
        """A command as it is printed, in a shell of this host; `myoverlay` is ours, `docker` the engine's."""
        if command.startswith("docker "):
            return str(self.host.docker(*command.split()[1:]))
        environment = {"PYTHONPATH": str(places.REPOSITORY / "src"), **self.plugin.settings}
        ours = f'myoverlay() {{ "{sys.executable}" -m myoverlay "$@"; }}\n'
        return self.host.run(["bash", "-c", ours + command], env=environment)

    def look(self, *words: str) -> dict[str, dict[str, Any]]:
        """All findings by the check's name; the exit code says whether something is bad, and it ends in time."""
        done, took = self.timed("doctor", "--json", *words)
        assert took < 20, f"doctor took {took:.1f} s"
        told = json.loads(done.stdout)
        bad = [one for one in told["findings"] if one["level"] == "bad"]
        assert told["bad"] == len(bad)
        assert done.returncode == (1 if bad else 0), done.stderr
        return {one["check"]: one for one in told["findings"]}

    def wrong(self) -> dict[str, str]:
        """What is not ok, and what was seen."""
        return {name: one["saw"] for name, one in self.look().items() if one["level"] != "ok"}

    def sick(self, check: str, explained: Collection[str] = (), level: str = "bad", within: float = 20) -> Any:
        """See this check red, and no other but those that the same fault explains. Its finding."""
        allowed = {check, *explained, *self.clinic.unseen(self)}
        found: dict[str, dict[str, Any]] = {}
        deadline = time.monotonic() + within
        while True:  # a plugin that has just started is not announced at once, nor is its resolver there
            found = self.look()
            others = {name: one["saw"] for name, one in found.items() if one["level"] != "ok" and name not in allowed}
            if found[check]["level"] == level and not others:
                break
            assert time.monotonic() < deadline, f"{check} is {found[check]} on {self.name}, beside it {others}"
        assert found[check]["remedy"]
        assert found[check]["means"]
        return found[check]

    def well(self, within: float = 30) -> None:
        """See all checks green again."""
        unseen = self.clinic.unseen(self)
        last: dict[str, str] = {}

        def green() -> bool:
            last.clear()
            last.update({name: saw for name, saw in self.wrong().items() if name not in unseen})
            return not last

        deadline = time.monotonic() + within
        while not green():
            assert time.monotonic() < deadline, f"{self.name} is not well after {within:g} s: {last}"


def commands(finding: dict[str, Any]) -> list[str]:
    """What stands between back quotes in the remedy."""
    return re.findall(r"`([^`]+)`", finding["remedy"])


class Clinic:
    """The laboratory, three hosts, and the overlay `web` with a container on each of the first two."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.consul = lab.consul
        docker = {"MYOVERLAY_DOCKER_SOCKET": "/run/docker.sock"}
        self.h1 = Patient(self, "h1", **docker)
        self.h2 = Patient(self, "h2", **docker)
        two = f"/run/docker/plugins/myoverlay.sock,{SECOND}"
        self.h3 = Patient(self, "h3", MYOVERLAY_SOCKETS=two, MYOVERLAY_EGRESS="docker")  # it has no docker0
        self.patients = (self.h1, self.h2, self.h3)

    @staticmethod
    def laboratory() -> Lab:
        return Lab(NAME, [HostSpec("h1", "old"), HostSpec("h2", "new"), HostSpec("h3", None)], consul=True, acl=True)

    def begin(self) -> None:
        for one in self.patients:
            one.give(self.token(ALL))
            one.plugin.start()
        eventually("all are there", lambda: len(self.consul.keys("myoverlay/alive/")) == 3, 20)
        for one in self.patients[:2]:
            one.host.docker("network", "create", *BOTH, "--subnet", "10.5.0.0/24", "-o", "overlay=web", "web")
            one.host.docker("run", "-d", "--name", "app", "--network", "web", "lab/base")
        for one in self.patients:
            one.well()

    def end(self) -> None:
        for one in self.patients[:2]:
            one.host.docker("rm", "-f", "app", check=False)
            one.host.docker("network", "rm", "web", check=False)
        for one in self.patients:
            one.plugin.stop()

    def unseen(self, patient: Patient) -> set[str]:
        """What cannot be looked at there: an engine, of a host without one."""
        return set() if patient.host.age else {"engine"}

    def token(self, rules: Iterable[str]) -> str:
        """A token with a policy of its own for each of the rules."""
        made = []
        for rule in rules:
            name = f"rule-{time.monotonic_ns()}"
            body = json.dumps({"Name": name, "Rules": rule}).encode()
            status, answer, _ = self.consul.request("PUT", "/v1/acl/policy", body)
            assert status == 200, answer
            made.append({"ID": json.loads(answer)["ID"]})
        status, answer, _ = self.consul.request("PUT", "/v1/acl/token", json.dumps({"Policies": made}).encode())
        assert status == 200, answer
        return str(json.loads(answer)["SecretID"])

    def dump(self) -> str:
        words = [f"=== {one.name} plugin\n{one.plugin.words()[-4000:]}" for one in self.patients]
        return "\n".join([self.lab.dump(), *words])
