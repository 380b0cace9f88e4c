"""The one image every host starts with, `lab/base`: busybox, iperf3 with its libraries, nothing from a registry."""

from __future__ import annotations

import hashlib
import io
import json
import re
import subprocess
import tarfile
from collections.abc import Sequence
from pathlib import Path

from lab import places
from lab.errors import LabError

BASE = "lab/base"


def tar_of(image: str) -> Path:
    """The file an image is loaded from."""
    file = places.IMAGES / f"{image.replace('/', '-')}.tar"
    if not file.exists():
        raise LabError(f"no image {image}: {file.name} is not below .lab/images (run `python3 -m lab fetch`)")
    return file


def build_base(root: Path) -> None:
    """Write the tar of `lab/base` from an unpacked root, once per content of that root."""
    busybox, iperf = root / "usr/bin/busybox", root / "usr/bin/iperf3"
    mark = hashlib.sha256(busybox.read_bytes() + iperf.read_bytes() + Path(__file__).read_bytes()).hexdigest()
    target, stamp = places.IMAGES / "lab-base.tar", places.STAMPS / "image-base"
    if target.exists() and stamp.exists() and stamp.read_text() == mark:
        return
    places.IMAGES.mkdir(parents=True, exist_ok=True)
    places.STAMPS.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_suffix(".unfinished")
    write_archive(unfinished, BASE, _base_layer(root))
    unfinished.rename(target)
    stamp.write_text(mark)


def _base_layer(root: Path) -> bytes:
    busybox, iperf = root / "usr/bin/busybox", root / "usr/bin/iperf3"
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        _add_file(tar, "bin/busybox", busybox.read_bytes())
        for applet in _applets(busybox):
            if applet != "busybox":
                _add_link(tar, f"bin/{applet}", "busybox")
        _add_file(tar, "usr/bin/iperf3", iperf.read_bytes())
        for name, library in _libraries(root, iperf).items():
            _add_file(tar, name.lstrip("/"), library.read_bytes())
        _add_text(tar, "etc/passwd", "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n")
        _add_text(tar, "etc/group", "root:x:0:\nnogroup:x:65534:\n")
        for folder in ("tmp", "root", "proc", "sys", "dev", "run", "www"):
            _add_folder(tar, folder)
    return content.getvalue()


def write_archive(
    file: Path,
    image: str,
    layer: bytes,
    command: Sequence[str] = ("sleep", "2147483647"),
    stop_signal: str = "SIGKILL",
) -> None:
    """What `docker load` reads. The stop signal is SIGKILL: a process 1 that ignores SIGTERM costs ten seconds."""
    machine = subprocess.run(
        ["dpkg", "--print-architecture"], capture_output=True, text=True, check=True
    ).stdout.strip()
    settings = {
        "architecture": machine,
        "os": "linux",
        "created": "1970-01-01T00:00:00Z",
        "config": {
            "Cmd": list(command),
            "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
            "StopSignal": stop_signal,
        },
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
    }
    configuration = json.dumps(settings).encode()
    name = f"{hashlib.sha256(configuration).hexdigest()}.json"
    manifest = [{"Config": name, "RepoTags": [f"{image}:latest"], "Layers": ["layer.tar"]}]
    with tarfile.open(file, "w") as tar:
        _add_file(tar, "layer.tar", layer, 0o644)
        _add_file(tar, name, configuration, 0o644)
        _add_text(tar, "manifest.json", json.dumps(manifest))


def _applets(busybox: Path) -> list[str]:
    return subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True).stdout.split()


def _libraries(root: Path, program: Path) -> dict[str, Path]:
    """What a program is linked with, at the paths its loader looks at, as that root's own loader lists it."""
    loader = next(file for folder in ("lib64", "lib") for file in (root / folder).glob("ld-linux*"))
    command = ["chroot", str(root), f"/{loader.relative_to(root)}", "--list", f"/{program.relative_to(root)}"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    names = re.findall(r"(?:=> )?(/\S+) \(0x", listed)
    return {name: (root / name.lstrip("/")).resolve() for name in names}


def _entry(name: str, mode: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.mode = mode
    return entry


def _add_file(tar: tarfile.TarFile, name: str, content: bytes, mode: int = 0o755) -> None:
    entry = _entry(name, mode)
    entry.size = len(content)
    tar.addfile(entry, io.BytesIO(content))


def _add_text(tar: tarfile.TarFile, name: str, content: str) -> None:
    _add_file(tar, name, content.encode(), 0o644)


def _add_link(tar: tarfile.TarFile, name: str, target: str) -> None:
    entry = _entry(name, 0o777)
    entry.type, entry.linkname = tarfile.SYMTYPE, target
    tar.addfile(entry)


def _add_folder(tar: tarfile.TarFile, name: str) -> None:
    entry = _entry(name, 0o1777 if name == "tmp" else 0o755)
    entry.type = tarfile.DIRTYPE
    tar.addfile(entry)
