"""Certificates as tests need them, good and bad: made by openssl, where the test says, and gone with it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import NamedTuple

_NEW = ("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
#: What a certificate is for.
CLIENT = "extendedKeyUsage=clientAuth"


def server(*names: str) -> str:
    """Names are `DNS:…` and `IP:…`."""
    return f"subjectAltName={','.join(names)}\nextendedKeyUsage=serverAuth,clientAuth"


class Pair(NamedTuple):
    """A certificate and its key."""

    cert: Path
    key: Path

    def copy_to(self, other: Pair) -> None:
        """Replace the files of another pair, one after the other, as a tool that renews certificates does."""
        for mine, theirs in zip(self, other, strict=True):
            fresh = theirs.with_suffix(".new")
            fresh.write_bytes(mine.read_bytes())
            fresh.rename(theirs)


class Authority:
    """Signs; `ca` is its own certificate."""

    def __init__(self, folder: Path, name: str = "ca") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.name = folder, name
        self.ca = folder / f"{name}.pem"
        (folder / "empty.cnf").write_text("[req]\ndistinguished_name = dn\n[dn]\n")
        own = ("-x509", "-days", "2", "-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=keyCertSign")
        self._openssl(*_NEW, *own, "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.pem")

    def sign(self, name: str, extensions: str, days: int = 2) -> Pair:
        """A new certificate; with `days` below 0 it expired when it was made."""
        (self.folder / f"{name}.ext").write_text(extensions)
        self._openssl(*_NEW, "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.csr")
        signer = ("-CA", f"{self.name}.pem", "-CAkey", f"{self.name}.key", "-CAcreateserial", "-days", str(days))
        self._openssl("x509", "-req", "-in", f"{name}.csr", *signer, "-extfile", f"{name}.ext", "-out", f"{name}.pem")
        return Pair(self.folder / f"{name}.pem", self.folder / f"{name}.key")

    def _openssl(self, *words: str) -> None:
        env = {**os.environ, "OPENSSL_CONF": str(self.folder / "empty.cnf")}
        subprocess.run(["openssl", *words], cwd=self.folder, check=True, capture_output=True, env=env)
