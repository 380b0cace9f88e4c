"""The Debian part: which packages are downloaded, and which of their files are taken.

Nothing is installed and no maintainer script runs. Copyright files come along for every package that anything was
taken from.
"""

from __future__ import annotations

import fnmatch
import io
import json
import shutil
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path

from plugin import elf
from plugin.errors import BuildError

SUITE = "bookworm"
PYTHON = "usr/bin/python3.11"
STDLIB = "usr/lib/python3.11"

PACKAGES = (
    "python3.11-minimal", "libpython3.11-stdlib", "libgcc-s1", "ca-certificates", "nftables", "busybox-static",
    "iproute2",
)  # fmt: skip

PROGRAMS = (PYTHON, "usr/sbin/nft", "usr/bin/busybox", "usr/bin/ip", "usr/sbin/bridge")
"""The last two for whoever looks for a fault (`exec`, `report`). `ss` and `tcpdump` would bring 7 MB of libraries."""

ASKED_FOR_AT_RUN_TIME = ("libgcc_s.so.1",)
"""glibc opens it by name when a thread ends by pthread_exit, as Python's do when the interpreter goes away."""

APPLETS = ("sh", "cat", "ls", "ps", "kill", "nsenter", "ping", "uname", "wget")
"""Names of busybox that other programs might call; its shell knows all the others without a link."""

DROPPED_MODULES = (
    "__phello__", "_aix_support.py", "_bootsubprocess.py", "_osx_support.py", "antigravity.py", "cgi.py", "cgitb.py",
    "chunk.py", "curses", "dbm", "doctest.py", "ensurepip", "idlelib", "imaplib.py", "lib2to3", "mailbox.py",
    "mailcap.py", "msilib", "nntplib.py", "poplib.py", "pydoc.py", "pydoc_data", "sndhdr.py", "sunau.py",
    "telnetlib.py", "test", "this.py", "tkinter", "turtle.py", "turtledemo", "venv", "wave.py", "xdrlib.py", "xmlrpc",
    "aifc.py", "imghdr.py", "nturl2path.py", "rlcompleter.py", "EXTERNALLY-MANAGED", "sitecustomize.py", "LICENSE.txt",
)  # fmt: skip
"""What neither a server nor a person who debugs one asks for."""

DROPPED_EXTENSIONS = (
    "_codecs_*", "_ctypes_test.*", "_curses*", "_dbm.*", "_gdbm.*", "_test*", "_tkinter.*", "_xx*", "audioop.*",
    "nis.*", "ossaudiodev.*", "readline.*", "xxlimited*",
)  # fmt: skip
"""Extension modules without which several libraries are not needed (database, terminal, NIS, Kerberos)."""


@dataclass(frozen=True)
class Package:
    """A downloaded package and the files it holds, as names in a merged-/usr root."""

    name: str
    version: str
    files: frozenset[str]


def download(cache: Path, refresh: bool) -> tuple[Path, list[Package]]:
    """The packages with all they depend on, unpacked over each other; and what each of them holds.

    What was downloaded before is used again; with `refresh` the suite is looked at first, which is how security
    updates come in.
    """
    # Imported here: a build from a finished base needs no laboratory.
    from lab import apt
    from lab.errors import LabError

    whole = cache / "unpacked"
    try:
        suite = apt.Suite(SUITE, cache)
        if refresh:
            suite.update()
        packages = suite.download(PACKAGES)
        shutil.rmtree(whole, ignore_errors=True)
        whole.mkdir(parents=True)
        apt.unpack(packages, whole)
    except LabError as error:
        raise BuildError(str(error)) from error
    return whole, [Package(package.name, package.version, _files(package.file)) for package in packages]


def _files(package: Path) -> frozenset[str]:
    command = ["dpkg-deb", "--fsys-tarfile", str(package)]
    content = subprocess.run(command, capture_output=True, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        names = [entry.name.removeprefix("./") for entry in tar if not entry.isdir()]
    return frozenset(name if name.startswith(("usr/", "etc/", "var/")) else f"usr/{name}" for name in names)


class Picker:
    """Takes files of the unpacked packages over into a root file system."""

    def __init__(self, whole: Path, root: Path) -> None:
        self.whole = whole
        self.root = root
        self.multiarch = self._multiarch()
        self._taken: set[str] = set()

    def _multiarch(self) -> str:
        loaders = sorted(self.whole.glob("usr/lib/*-linux-gnu*/libc.so.6"))
        if len(loaders) != 1:
            raise BuildError(f"{len(loaders)} C libraries among the packages, not one")
        return loaders[0].parent.name

    def take(self, name: str, as_name: str = "") -> None:
        """Copy one file, following links."""
        target = self.root / (as_name or name)
        target.parent.mkdir(parents=True, exist_ok=True)
        source = self._resolved(name)
        self._taken.add(str(source.relative_to(self.whole)))
        shutil.copy2(source, target)

    def _resolved(self, name: str) -> Path:
        """A file of the packages; absolute links count from their root."""
        path = self.whole / name
        while path.is_symlink():
            link = path.readlink()
            path = self.whole / str(link).lstrip("/") if link.is_absolute() else path.parent / link
        if not path.is_file():
            raise BuildError(f"the packages hold no file {name}")
        return path

    def folders(self) -> None:
        """A merged-/usr tree with the places an engine mounts on."""
        for name in ("bin", "sbin", "lib", "lib64"):
            (self.root / "usr" / name).mkdir(parents=True)
            (self.root / name).symlink_to(f"usr/{name}")
        for name in ("data", "dev", "etc", "host/plugins", "proc", "root", "run/docker/plugins", "sys", "tmp", "var"):
            (self.root / name).mkdir(parents=True)
        (self.root / "var/run").symlink_to("/run")

    def programs(self) -> None:
        """The interpreter, `nft`, and busybox with a few names."""
        for name in PROGRAMS:
            self.take(name)
        for applet in APPLETS:
            (self.root / "usr/bin" / applet).symlink_to("busybox")
        (self.root / "usr/bin/python3").symlink_to(Path(PYTHON).name)

    def stdlib(self) -> None:
        """The standard library, without what is never asked for."""

        for file in sorted((self.whole / STDLIB).rglob("*")):
            name = file.relative_to(self.whole / STDLIB)
            if file.is_file() and not _dropped(name):
                self.take(f"{STDLIB}/{name}")

    def libraries(self) -> None:
        """Every library that anything in the root is linked with, under the name it is asked for."""
        for name in ASKED_FOR_AT_RUN_TIME:
            self._library(name)
        waiting = [file for file in self.root.rglob("*") if file.is_file() and not file.is_symlink()]
        while waiting:
            file = waiting.pop()
            if elf.is_elf(file):
                linked = elf.read(file)
                if linked.interpreter:
                    self._loader(linked.interpreter)
                waiting += [found for name in linked.needed if (found := self._library(name))]

    def _library(self, name: str) -> Path | None:
        place = f"usr/lib/{self.multiarch}/{name}"
        if (self.root / place).exists() or next(self.root.glob(f"usr/lib*/{name}"), None):
            return None
        self.take(place)
        return self.root / place

    def _loader(self, path: str) -> None:
        """The loader lies among the libraries, its well-known path is a link."""
        self._library(Path(path).name)
        link = self.root / "usr" / path.lstrip("/")
        if not link.exists() and not link.is_symlink():
            link.symlink_to(f"/usr/lib/{self.multiarch}/{link.name}")

    def certificates(self) -> None:
        """One bundle of all certificate authorities, as update-ca-certificates makes it."""
        authorities = sorted(self.whole.glob("usr/share/ca-certificates/*/*.crt"))
        target = self.root / "etc/ssl/certs/ca-certificates.crt"
        target.parent.mkdir(parents=True)
        target.write_bytes(b"".join(file.read_bytes().rstrip(b"\n") + b"\n" for file in authorities))
        (self.root / "usr/lib/ssl").mkdir()
        (self.root / "usr/lib/ssl/cert.pem").symlink_to("/etc/ssl/certs/ca-certificates.crt")
        (self.root / "usr/lib/ssl/certs").symlink_to("/etc/ssl/certs")

    def settings(self) -> None:
        """The few files below /etc that the C library looks at; the engine mounts over the last two."""
        etc = self.root / "etc"
        (etc / "passwd").write_text("root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n")
        (etc / "group").write_text("root:x:0:\nnogroup:x:65534:\n")
        (etc / "nsswitch.conf").write_text("passwd: files\ngroup: files\nhosts: files dns\n")
        for name in ("hosts", "resolv.conf"):
            (etc / name).touch()

    def origins(self, packages: list[Package]) -> None:
        """The licence and the version of every package that something was taken from."""
        used = [package for package in packages if package.files & self._taken]
        for package in used:
            self._copyright(package.name)
        versions = {package.name: package.version for package in used}
        target = self.root / "usr/share/myoverlay/packages.json"
        target.parent.mkdir(parents=True)
        target.write_text(json.dumps(versions, indent=1, sort_keys=True) + "\n")

    def _copyright(self, package: str) -> None:
        folder = self.whole / "usr/share/doc" / package
        while folder.is_symlink():  # packages of one source share it
            folder = folder.parent / folder.readlink()
        self.take(f"usr/share/doc/{folder.name}/copyright", f"usr/share/doc/{package}/copyright")


def _dropped(name: Path) -> bool:
    if name.parts[0] == "lib-dynload":
        return any(fnmatch.fnmatch(name.name, kind) for kind in DROPPED_EXTENSIONS)
    return name.parts[0] in DROPPED_MODULES
