"""What a root file system is made of is read from itself, and held against the lock."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from plugin import archive
from plugin.errors import BuildError
from plugin.parts import Part, parts

DIGEST = "0" * 64
LOCK = f"""# made by a command
click==8.5.1 \\
    --hash=sha256:{DIGEST}
py-consul[x]==1.8.0 ; python_version > '3' \\
    --hash=sha256:{DIGEST} \\
    --hash=sha256:{"1" * 64}
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root with two packages of Python and one of Debian."""
    share = tmp_path / "root/usr/share/myoverlay"
    share.mkdir(parents=True)
    (share / "packages.json").write_text(json.dumps({"libc6": "2.36-9"}))
    for name, version, more in (
        ("click", "8.5.1", "License-Expression: BSD-3-Clause\n"),
        ("py_consul", "1.8.0", "Classifier: License :: OSI Approved :: MIT License\n"),
    ):
        folder = tmp_path / f"root/usr/lib/python3/dist-packages/{name}-{version}.dist-info"
        folder.mkdir(parents=True)
        (folder / "METADATA").write_text(f"Metadata-Version: 2.4\nName: {name}\nVersion: {version}\n{more}\nText\n")
    (tmp_path / "lock").write_text(LOCK)
    return tmp_path / "root"


def test_all_parts_are_listed(root: Path) -> None:
    """Each with its version, licence, and the digests that the lock allows."""
    assert parts(root, root.parent / "lock") == [
        Part("deb", "libc6", "2.36-9"),
        Part("pypi", "click", "8.5.1", "BSD-3-Clause", (DIGEST,)),
        Part("pypi", "py-consul", "1.8.0", "MIT License", (DIGEST, "1" * 64)),
    ]


def test_what_is_not_in_the_lock_is_refused(root: Path) -> None:
    """A bill of a root that was built from something else would be false."""
    (root.parent / "lock").write_text(LOCK.replace("8.5.1", "8.5.2"))
    with pytest.raises(BuildError, match=r"click 8\.5\.1 is in .* and not in lock"):
        parts(root, root.parent / "lock")


def test_what_is_missing_is_refused(root: Path) -> None:
    """So would one of a root that lacks a package."""
    (root.parent / "lock").write_text(LOCK + f"flask==3.1.0 \\\n    --hash=sha256:{DIGEST}\n")
    with pytest.raises(BuildError, match=r"\('flask', '3\.1\.0'\) is in lock and not in"):
        parts(root, root.parent / "lock")


def test_another_folder_is_no_root(tmp_path: Path) -> None:
    """One sentence that says what to do."""
    with pytest.raises(BuildError, match=r"is no root file system of the plugin: .*: `make plugin` first"):
        parts(tmp_path)


def test_a_changed_byte_mode_time_or_name_shows(tmp_path: Path) -> None:
    """The digest is of everything that an engine sees, and of nothing else."""
    folder = tmp_path / "x"
    (folder / "d").mkdir(parents=True)
    (folder / "d/f").write_text("one")
    (folder / "l").symlink_to("d/f")

    def settled() -> str:
        for path in folder.rglob("*"):
            if path.name != "late":
                os.utime(path, (5, 5), follow_symlinks=False)
        return archive.digest(folder)

    def other_link() -> None:
        (folder / "l").unlink()
        (folder / "l").symlink_to("d")

    seen = {settled()}
    assert settled() in seen
    changes: tuple[Callable[[], object], ...] = (
        lambda: (folder / "d/f").write_text("two"),
        lambda: (folder / "d/f").chmod(0o755),
        lambda: (folder / "d/f").rename(folder / "d/late"),
        lambda: os.utime(folder / "d/late", (6, 6)),
        other_link,
    )
    for change in changes:
        change()
        seen.add(settled())
    assert len(seen) == 1 + len(changes)
