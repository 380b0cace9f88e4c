"""`myoverlay host …` as a person reads it."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from myoverlay.cli import host

LEFT = "this host has left: it was on a, b"
STAYS = (
    "containers still use the namespaces of b: each goes with `docker network rm` while the plugin is enabled, else"
    " with the next reboot"
)


@pytest.mark.parametrize(("kept", "lines"), [([], [LEFT]), (["b"], [LEFT, STAYS])])
def test_leaving_says_what_stays(monkeypatch: pytest.MonkeyPatch, kept: list[str], lines: list[str]) -> None:
    """Where containers keep a namespace, one sentence names it and how it goes."""
    monkeypatch.setattr(host, "ask", lambda *_, **__: {"overlays": ["a", "b"], "endpoints": 1, "kept": kept})
    done = CliRunner().invoke(host.host, ["leave", "--force"])
    assert done.exit_code == 0
    assert done.output.splitlines() == lines
