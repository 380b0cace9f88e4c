"""The sockets that Docker dials: bound over a dead one, refused beside a live one, taken away by who bound them."""

from __future__ import annotations

import socket
import stat
from pathlib import Path

import pytest

from myoverlay.cli.serve import bind
from myoverlay.errors import Clash


def test_a_door_goes_with_who_made_it(tmp_path: Path) -> None:
    """The file is root's alone, and gone after `remove`; removing twice is once."""
    path = tmp_path / "plugins" / "x.sock"
    door = bind(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    door.remove()
    door.remove()
    assert not path.exists()
    door.listener.close()


def test_a_door_that_another_run_made_since_is_left_alone(tmp_path: Path) -> None:
    """An old run that ends late does not cut the new one off."""
    path = tmp_path / "x.sock"
    old = bind(path)
    old.listener.close()  # dead, its file still there
    new = bind(path)
    old.remove()
    with socket.socket(socket.AF_UNIX) as probe:
        assert probe.connect_ex(str(path)) == 0
    with pytest.raises(Clash, match="another plugin answers"):
        bind(path)
    new.remove()
    assert not path.exists()
    new.listener.close()
