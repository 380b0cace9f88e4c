"""`python3 -m plugin build`, `lock`, `sbom` and `audit`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from plugin import audit, build, locks, places, sbom
from plugin.errors import BuildError


def main() -> None:
    """Do what the command line says; a refusal is one sentence and status 1."""
    asked = _parser().parse_args()
    try:
        if asked.verb == "lock":
            locks.write_locks(asked.upgrade)
            return
        if asked.verb == "audit":
            sys.exit(audit.audit())
        print(sbom.write(asked.plugin, asked.target) if asked.verb == "sbom" else build.build(_order(asked)))
    except BuildError as error:
        sys.exit(f"plugin: {error}")


def _order(asked: argparse.Namespace) -> build.Order:
    places_asked = (asked.target.absolute(), asked.cache.absolute(), asked.pip_python.absolute())
    return build.Order(*places_asked, asked.stamp, asked.refresh)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python3 -m plugin", description="The managed plugin.")
    verbs = parser.add_subparsers(dest="verb", required=True)
    make = verbs.add_parser("build", help="make the folder that `docker plugin create NAME FOLDER` takes")
    make.add_argument("--target", type=Path, default=places.TARGET, help="the folder, made anew")
    make.add_argument("--cache", type=Path, default=places.CACHE, help="downloads, and the base of all builds")
    make.add_argument("--pip-python", type=Path, default=places.PIP_PYTHON, help="a Python (3.9 or later) that has pip")
    make.add_argument("--stamp", default="", help="text to put in: an engine takes identical plugins only once")
    make.add_argument("--refresh", action="store_true", help="look for newer Debian packages")
    lock = verbs.add_parser("lock", help="write requirements*.lock from pyproject.toml")
    lock.add_argument("--upgrade", action="store_true", help="take newer versions though the pinned ones still fit")
    bill = verbs.add_parser("sbom", help="write what a built plugin is made of (CycloneDX)")
    bill.add_argument("--plugin", type=Path, default=places.TARGET, help="the folder that was built")
    bill.add_argument("--target", type=Path, default=places.TARGET.with_suffix(".cdx.json"), help="the file")
    verbs.add_parser("audit", help="known vulnerabilities of what the lock files pin; 2: it could not be asked")
    return parser


if __name__ == "__main__":
    main()
