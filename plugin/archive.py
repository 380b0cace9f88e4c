"""A folder as one tar, in one order: what its digest is of."""

from __future__ import annotations

import hashlib
import tarfile
from pathlib import Path
from typing import IO, cast


class _Digest:
    """Takes a stream and keeps nothing but its digest."""

    def __init__(self) -> None:
        self.sha256 = hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.sha256.update(data)
        return len(data)


def digest(folder: Path) -> str:
    """SHA-256 of it as a tar (pax): members by the bytes of their names, owner 0:0 without names,
    modes and whole seconds of times as they are. Two folders have the same exactly if an engine can tell no difference.
    """
    stream = _Digest()
    with tarfile.open(fileobj=cast("IO[bytes]", stream), mode="w|", format=tarfile.PAX_FORMAT) as tar:
        for path in sorted(folder.rglob("*"), key=lambda path: str(path.relative_to(folder)).encode()):
            member = tar.gettarinfo(path, str(path.relative_to(folder)))
            member.uid = member.gid = 0
            member.uname = member.gname = ""
            member.mtime = int(member.mtime)
            if member.isreg():
                with path.open("rb") as content:
                    tar.addfile(member, content)
            else:
                tar.addfile(member)
    return stream.sha256.hexdigest()
