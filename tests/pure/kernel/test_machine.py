"""What files of /proc say: mounts that are shared, file systems."""

from __future__ import annotations

from pathlib import Path

import pytest

from myoverlay.kernel.machine import is_shared, owner_only, release, room

MOUNTS = """\
22 1 0:20 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 22 0:25 / /run rw,nosuid shared:5 - tmpfs tmpfs rw
31 30 0:25 /docker/plugins /host/plugins rw master:5 - tmpfs tmpfs rw
40 22 0:31 / /a\\040b rw - tmpfs tmpfs rw
41 22 0:32 / /twice rw shared:9 - tmpfs tmpfs rw
42 41 0:33 / /twice rw - tmpfs tmpfs rw
"""


def test_this_machine_tells_its_own() -> None:
    """The kernel's release begins with a number."""
    assert release()[0].isdigit()


@pytest.mark.parametrize(
    ("path", "shared"),
    [
        ("/run/docker/plugins/myoverlay", True),
        ("/host/plugins/myoverlay", False),
        ("/a b/netns", False),
        ("/a bc", True),
        ("/twice/x", False),
        ("/", True),
    ],
)
def test_the_nearest_mount_says_whether_it_is_shared(path: str, shared: bool) -> None:
    """The one whose point is the longest above the path, of two on one point the later; `master:` is not `shared:`."""
    assert is_shared(Path(path), MOUNTS) is shared


def test_room_is_that_of_the_nearest_directory(tmp_path: Path) -> None:
    """A state directory that is not there yet will be on its parent's file system; /proc has no room at all."""
    assert room(tmp_path / "not" / "yet").total == room(tmp_path).total > 0
    assert room(tmp_path).free > 0
    assert room(Path("/proc")).free == 0


def test_permissions_are_told(tmp_path: Path) -> None:
    """The mode's last four digits."""
    (tmp_path / "token").touch()
    (tmp_path / "token").chmod(0o640)
    assert owner_only(tmp_path / "token") == 0o640
