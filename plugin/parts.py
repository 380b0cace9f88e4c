"""What a built root file system is made of, read from itself: Debian's packages, Python's, and ours."""

from __future__ import annotations

import json
import re
from email.parser import HeaderParser
from pathlib import Path
from typing import NamedTuple

from plugin import places, wheels
from plugin.errors import BuildError

DEBIAN = "usr/share/myoverlay/packages.json"


class Part(NamedTuple):
    """A package: of Debian (`deb`) or Python (`pypi`). `licence`: as stated there; `digests`: of the lock."""

    kind: str
    name: str
    version: str
    licence: str = ""
    digests: tuple[str, ...] = ()


def parts(root: Path, lock: Path = places.LOCK) -> list[Part]:
    """All of them, sorted. BuildError where the root is none of ours, or holds other Python packages than the lock."""
    try:
        debian = json.loads((root / DEBIAN).read_text())
    except OSError as error:
        raise BuildError(
            f"{root} is no root file system of the plugin: {error.strerror}: `make plugin` first"
        ) from None
    pins = _pins(lock.read_text())
    found = [Part("deb", name, version) for name, version in debian.items()]
    for metadata in sorted((root / wheels.PACKAGES).glob("*.dist-info/METADATA")):
        said = HeaderParser().parsestr(metadata.read_text(encoding="utf-8"))
        name, version = re.sub(r"[-_.]+", "-", said["Name"]).lower(), said["Version"]
        if (name, version) not in pins:
            raise BuildError(f"{name} {version} is in {root} and not in {lock.name}: `make plugin` again")
        stated = [
            line.rpartition(" :: ")[2] for line in said.get_all("Classifier", ()) if line.startswith("License ::")
        ]
        licence = said["License-Expression"] or said["License"] or " AND ".join(stated)
        found.append(Part("pypi", name, version, " ".join(licence.split())[:100], pins[name, version]))
    absent = pins.keys() - {(part.name, part.version) for part in found}
    if absent:
        raise BuildError(f"{sorted(absent)[0]} is in {lock.name} and not in {root}: `make plugin` again")
    return sorted(found)


def _pins(text: str) -> dict[tuple[str, str], tuple[str, ...]]:
    """Each pin of a lock file with its SHA-256 digests."""
    found = {}
    for pin in re.split(r"^(?=[a-z0-9])", text, flags=re.M)[1:]:
        head = re.match(r"([a-z0-9._-]+)(?:\[[^\]]*\])?==([^\s\\;]+)", pin)
        if head is not None:
            found[head[1], head[2]] = tuple(re.findall(r"--hash=sha256:([0-9a-f]{64})", pin))
    return found
