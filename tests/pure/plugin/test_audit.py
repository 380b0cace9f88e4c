"""What `make audit` makes of pip-audit's words: found, ignored for a reason, or not asked at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from plugin import audit, places

BAD = {"name": "flask", "version": "1.0", "vulns": [{"id": "PYSEC-1", "fix_versions": ["1.1"], "description": "x"}]}
GOOD = {"name": "click", "version": "8.5.1", "vulns": []}
SKIPPED = {"name": "rich", "skip_reason": "not found"}


def printed(*dependencies: dict[str, Any]) -> tuple[str, str]:
    return json.dumps({"dependencies": dependencies, "fixes": []}), ""


def test_a_vulnerability_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """With the pin, the database's id and what mends it; and the status is 1."""
    monkeypatch.setattr(audit, "_asked", lambda lock: printed(GOOD, BAD))
    assert audit.audit([Path("a.lock")]) == 1
    assert "a.lock: flask 1.0 has PYSEC-1, mended in 1.1" in capsys.readouterr().out


def test_what_is_ignored_is_told_with_its_reason(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It does not fail, and is not hidden."""
    monkeypatch.setattr(audit, "_asked", lambda lock: printed(BAD))
    monkeypatch.setattr(audit, "IGNORED", {"PYSEC-1": "its server is not used"})
    assert audit.audit([Path("a.lock")]) == 0
    assert "ignored: its server is not used" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("out", "words"),
    [
        (("", "ERROR:pip_audit._cli: connection refused"), "connection refused"),
        (("", ""), "it said nothing"),
        (("[]", ""), "it said nothing"),
        (printed(GOOD, SKIPPED), "1 of 2 pins were not looked up, rich (not found) first"),
    ],
)
def test_who_could_not_ask_knows_nothing(
    out: tuple[str, str], words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One sentence and status 2: neither good nor bad."""
    monkeypatch.setattr(audit, "_asked", lambda lock: out)
    assert audit.audit([Path("a.lock")]) == 2
    told = capsys.readouterr().err.strip()
    assert told.startswith("audit: the database could not be asked, so nothing is known: a.lock")
    assert words in told
    assert "\n" not in told


def test_every_lock_is_audited() -> None:
    """And what is ignored has a reason."""
    assert set(audit.LOCKS) == set(places.REPOSITORY.glob("requirements*.lock"))
    assert all(len(reason) > 20 for reason in audit.IGNORED.values())
