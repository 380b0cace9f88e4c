"""The bill of materials of a built plugin, as CycloneDX 1.6 in JSON, checked against its schema.

By cyclonedx-python-lib, of a lock and an environment of its own (`make sbom`). The same plugin has the same bill: its
number comes from the plugin's digest, its time is that of the plugin's files.
"""

from __future__ import annotations

import platform
import tomllib
import uuid
from datetime import UTC, datetime
from pathlib import Path

from plugin import archive, build, debian, places
from plugin.errors import BuildError
from plugin.parts import Part, parts

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def write(plugin: Path, target: Path) -> str:
    """Write the bill of the plugin in this folder; what it holds, in a sentence. Raises BuildError."""
    try:
        from cyclonedx.output.json import JsonV1Dot6
        from cyclonedx.schema import SchemaVersion
        from cyclonedx.validation.json import JsonStrictValidator
    except ImportError as error:
        raise BuildError(f"{error.name} is not here: `make sbom` has an environment with it") from None
    found = parts(plugin / "rootfs")
    text = JsonV1Dot6(_bom(found, archive.digest(plugin))).output_as_string(indent=1)
    wrong = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    if wrong is not None:
        raise BuildError(f"the bill of materials does not fit its schema: {wrong}")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text + "\n")
    of_debian = sum(part.kind == "deb" for part in found)
    counted = f"{of_debian} packages of Debian, {len(found) - of_debian} of Python"
    return f"{target}: {counted}; it fits the schema of CycloneDX 1.6"


def _bom(found: list[Part], digest: str):  # type: ignore[no-untyped-def]
    """`found` and the plugin itself, which they are part of."""
    from cyclonedx.model import HashAlgorithm, HashType
    from cyclonedx.model.bom import Bom
    from cyclonedx.model.component import Component, ComponentType
    from cyclonedx.model.license import DisjunctiveLicense

    project = tomllib.loads((places.REPOSITORY / "pyproject.toml").read_text())["project"]
    own = Component(
        name=f"{project['name']}-plugin",
        type=ComponentType.CONTAINER,
        bom_ref=f"{project['name']}-plugin",
        description=project["description"],
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=digest)],
    )
    bom = Bom(serial_number=uuid.uuid5(uuid.NAMESPACE_OID, digest))
    bom.metadata.component = own
    bom.metadata.timestamp = datetime.fromtimestamp(build.moment(), UTC)
    components = [
        Component(
            name=part.name,
            version=part.version,
            type=ComponentType.LIBRARY,
            bom_ref=f"{part.kind}:{part.name}",
            purl=_purl(part),
            licenses=[DisjunctiveLicense(name=part.licence)] if part.licence else None,
            # A wheel for this architecture is one of the lock's files; with one file alone it is known which.
            hashes=[HashType(alg=HashAlgorithm.SHA_256, content=one) for one in part.digests if len(part.digests) == 1],
        )
        for part in found
    ]
    for component in components:
        bom.components.add(component)
    bom.register_dependency(own, components)
    return bom


def _purl(part: Part):  # type: ignore[no-untyped-def]
    from packageurl import PackageURL

    if part.kind == "pypi":
        return PackageURL("pypi", None, part.name, part.version)
    machine = _ARCHITECTURES.get(platform.machine(), platform.machine())
    return PackageURL("deb", "debian", part.name, part.version, {"arch": machine, "distro": debian.SUITE})
