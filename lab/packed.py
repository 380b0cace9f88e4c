"""Images out of Debian packages: a root of what a program needs and nothing else, as `docker load` reads it."""

from __future__ import annotations

import hashlib
import json
import tarfile
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lab import apt, images, places

#: What a container never reads.
_LEFT_OUT = ("usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/info", "usr/share/lintian")
_FORM = 1
"""Counted up when `_layer` changes, so that older images are made anew."""


@dataclass(frozen=True)
class Packed:
    """An image: packages with all they depend on, files beside them, what it runs. No maintainer script is run."""

    image: str
    packages: tuple[str, ...]
    command: tuple[str, ...]
    files: Mapping[str, Path] = field(default_factory=dict)
    folders: tuple[str, ...] = ()
    stop_signal: str = "SIGTERM"

    def build(self, folder: Path) -> Path:
        """Write the image's tar into a folder, once per recipe; then no network is needed."""
        target = folder / f"{self.image.replace('/', '-')}.tar"
        stamp = target.with_suffix(".stamp")
        if target.exists() and stamp.exists() and stamp.read_text() == self._digest():
            return target
        folder.mkdir(parents=True, exist_ok=True)
        packages = apt.Suite(apt.machine_codename(), places.CACHE).download(self.packages)
        unfinished = target.with_suffix(".unfinished")
        with tempfile.TemporaryDirectory(dir=folder) as root, tempfile.NamedTemporaryFile(dir=folder) as layer:
            apt.unpack(packages, Path(root))
            self._layer(Path(root), Path(layer.name))
            images.write_archive(unfinished, self.image, Path(layer.name).read_bytes(), self.command, self.stop_signal)
        unfinished.rename(target)
        stamp.write_text(self._digest())
        return target

    def _digest(self) -> str:
        files = {name: hashlib.sha256(file.read_bytes()).hexdigest() for name, file in self.files.items()}
        recipe = [_FORM, self.image, self.packages, self.command, self.stop_signal, files, self.folders]
        return hashlib.sha256(json.dumps([*recipe, apt.machine_codename()]).encode()).hexdigest()

    def _layer(self, root: Path, target: Path) -> None:
        """Everything as root's; with the users' table and the shell that maintainer scripts would have made."""
        for name in (*self.folders, "tmp", "run", "proc", "sys", "dev", "root", "etc"):
            (root / name).mkdir(parents=True, exist_ok=True)
        (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n")
        (root / "etc/group").write_text("root:x:0:\nnogroup:x:65534:\n")
        if not (root / "usr/bin/sh").exists():
            (root / "usr/bin/sh").symlink_to("busybox")
        for name, file in self.files.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(file.read_bytes())
        with tarfile.open(target, "w") as tar:
            for entry in sorted(root.iterdir()):
                tar.add(entry, entry.name, filter=_as_root)


def _as_root(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    if entry.name.startswith(_LEFT_OUT):
        return None
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    return entry
