"""The policy of a host's token, as it is printed and as it ships; that Consul takes it: tests/engine/store."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from lab.places import REPOSITORY
from myoverlay.cli.host import host
from myoverlay.store.policy import SHARED, rules, text
from tests.pure.kit import ANN, BOB

SHIPPED = REPOSITORY / "examples/consul/host.hcl"


def test_the_template_is_what_the_code_says() -> None:
    """`examples/consul/host.hcl`, with HOST_ID where a host's id goes."""
    assert SHIPPED.read_text() == text("myoverlay", "HOST_ID")


def test_nothing_is_writable_but_ones_own_and_what_is_shared() -> None:
    """No rule gives the other hosts' keys, or all below our prefix; no reason is missing."""
    written = {rule.split('"')[1] for rule, why in rules("p", ANN) if why and '"write"' in rule}
    assert written == {f"p/alive/{ANN}", f"p/hosts/{ANN}/", "", *(f"p/{name}" for name in SHARED)}
    assert all(why for _, why in rules("p", ANN, ["demo-1"], "node-7", catalogue=True))
    assert 'session_prefix ""' not in text("p", ANN, agent="node-7")
    with pytest.raises(ValueError, match="is no place"):
        text("p", ANN, records=["/"])


def test_the_command_prints_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """By id no plugin is asked; prefix and catalogue are the settings'. What is no id is refused."""
    monkeypatch.setenv("MYOVERLAY_PREFIX", "ours")
    monkeypatch.setenv("MYOVERLAY_CATALOGUE", "on")
    monkeypatch.setenv("CONSUL_HTTP_ADDR", "192.0.2.100")
    said = CliRunner().invoke(host, ["policy", "--id", BOB, "--records", "demo-1", "--agent", "node-7"])
    assert said.output == text("ours", BOB, ["demo-1"], "node-7", catalogue=True)
    refused = CliRunner().invoke(host, ["policy", "--id", "bob"])
    assert "is no host id: 32 hex digits are" in str(refused.exception or refused.output)
