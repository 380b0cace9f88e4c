"""What a person is told of names, by the daemon and by the command."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner

from myoverlay.cli import names as command
from myoverlay.cli.main import cli
from myoverlay.operate.control import Nothing
from myoverlay.operate.names import Names
from myoverlay.store.typed import Held
from myoverlay.values import Address, HostList
from tests.pure.kit import BOB, DEMO, EVE, endpoint, record

RESOLVER = {"address": "169.254.77.53", "process": 7, "overlays": ["demo"], "host": True, "troubles": []}


def test_all_names_are_listed_with_their_hosts() -> None:
    """Those of this host and of the others; a host whose name is not known is shown by its id."""
    lists = {
        host: Held(HostList(host=host, overlay=DEMO, vtep=Address("192.0.2.1"), records=(record(address),)), 1)
        for host, address in ((BOB, "10.5.0.3"), (EVE, "10.5.0.4"))
    }
    local = SimpleNamespace(
        network=SimpleNamespace(overlay=DEMO),
        view=SimpleNamespace(lists=lists),
        endpoints=lambda: [endpoint("10.5.0.2", names=("web", "www"))],
    )
    overlays: Any = SimpleNamespace(all=lambda: (local,))
    peers: Any = SimpleNamespace(known=SimpleNamespace(names={BOB: "bob"}))
    answer = Names("ann", overlays, peers, None, None).show(Nothing(), 0.0)
    assert (answer["resolver"], answer["docker"], answer["catalogue"]) == (None, None, None)
    assert [(row["address"], row["host"], row["names"]) for row in answer["names"]] == [
        ("10.5.0.2", "ann", ["web", "www"]),
        ("10.5.0.3", "bob", []),
        ("10.5.0.4", EVE.short, []),
    ]


@pytest.mark.parametrize(
    ("resolver", "docker", "sentences"),
    [
        (None, None, ["names are not answered: MYOVERLAY_NAMES is off"]),
        (
            RESOLVER,
            {"socket": "/run/docker.sock", "followed": True, "trouble": ""},
            [
                "names are answered at 169.254.77.53 in 1 overlay and on the host itself",
                "Docker is heard at /run/docker.sock",
            ],
        ),
        (
            RESOLVER | {"process": None, "host": False, "troubles": ["port 53 is taken"]},
            {"socket": "/run/docker.sock", "followed": False, "trouble": "it is away"},
            [
                "names are not answered just now at 169.254.77.53 in 1 overlay",
                "port 53 is taken",
                "Docker is not heard: it is away",
            ],
        ),
        (
            RESOLVER,
            None,
            ["Docker is not heard (MYOVERLAY_DOCKER_SOCKET): no aliases, and no names at all before Engine 29"],
        ),
    ],
    ids=["off", "well", "in trouble", "no socket"],
)
def test_the_command_says_how_it_stands(
    monkeypatch: pytest.MonkeyPatch, resolver: Any, docker: Any, sentences: list[str]
) -> None:
    """A table of names, then sentences: who answers, what stands in the way, whether Docker is heard."""
    rows = [{"overlay": "demo", "address": "10.5.0.2", "host": "ann", "names": ["web", "www"]}]
    answer = {"resolver": resolver, "docker": docker, "catalogue": None, "names": rows}
    monkeypatch.setattr(command, "ask", lambda method: answer)
    done = CliRunner().invoke(cli, ["names"])
    assert done.exit_code == 0, done.output
    lines = done.output.splitlines()
    assert lines[0].split() == ["OVERLAY", "ADDRESS", "HOST", "NAMES"]
    assert lines[1].split() == ["demo", "10.5.0.2", "ann", "web,", "www"]
    assert [line for line in lines[2:] if line in sentences] == sentences


@pytest.mark.parametrize(
    ("catalogue", "sentences"),
    [
        ({"registered": 1, "refused": [], "trouble": ""}, ["1 name of this host in Consul's catalogue"]),
        (
            {"registered": 2, "refused": ["db: Permission denied"], "trouble": ""},
            ["2 names of this host in Consul's catalogue", "not in Consul's catalogue: db: Permission denied"],
        ),
        (
            {"registered": 2, "refused": [], "trouble": "Consul does not answer"},
            ["Consul's catalogue is not as it should be: Consul does not answer"],
        ),
    ],
    ids=["well", "refused", "in trouble"],
)
def test_the_command_says_what_consul_knows(
    monkeypatch: pytest.MonkeyPatch, catalogue: Any, sentences: list[str]
) -> None:
    """How many names are registered, and what stands in the way; also where the plugin itself answers none."""
    answer = {"resolver": None, "docker": None, "catalogue": catalogue, "names": []}
    monkeypatch.setattr(command, "ask", lambda method: answer)
    done = CliRunner().invoke(cli, ["names"])
    assert done.exit_code == 0, done.output
    assert done.output.splitlines()[-len(sentences) :] == sentences
