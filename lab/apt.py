"""Packages of another suite, without touching the machine's apt.

The mirror and the keyring come from the machine's own apt sources; the configuration, the lists and the downloaded
packages lie below `.lab/cache`. apt itself checks signatures and hashes. Nothing is installed: packages are unpacked.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from lab.errors import LabError

SOURCES = Path("/etc/apt")
_KEPT_SETTINGS = re.compile(r"Acquire::(http|https|Check-|Retries|ForceIPv|Queue-Mode|Max-|Languages\b)", re.I)


@dataclass(frozen=True)
class Source:
    """One enabled `deb` entry of the machine."""

    uri: str
    suites: tuple[str, ...]
    components: tuple[str, ...]
    signed_by: str = ""


def machine_codename() -> str:
    """The machine's own suite, such as `bookworm`."""
    return _os_release().get("VERSION_CODENAME", "")


def _os_release() -> dict[str, str]:
    pairs: dict[str, str] = {}
    for line in Path("/etc/os-release").read_text().splitlines():
        name, separator, value = line.partition("=")
        if separator:
            pairs[name] = "".join(shlex.split(value))
    return pairs


def machine_sources(folder: Path = SOURCES) -> list[Source]:
    """Every enabled binary entry, from one-line files and from deb822 files."""
    files = [folder / "sources.list", *sorted((folder / "sources.list.d").glob("*"))]
    found: list[Source] = []
    for file in files:
        if file.suffix == ".list" and file.is_file():
            found += _one_line(file.read_text())
        elif file.suffix == ".sources" and file.is_file():
            found += _deb822(file.read_text())
    return found


def _one_line(text: str) -> Iterator[Source]:
    for raw in text.splitlines():
        match = re.match(r"deb\s+(?:\[(?P<options>[^\]]*)\]\s+)?(?P<rest>\S.*)", raw.split("#", 1)[0].strip())
        if match is None:
            continue
        options = dict(pair.split("=", 1) for pair in (match["options"] or "").split() if "=" in pair)
        uri, suite, *components = match["rest"].split()
        yield Source(uri, (suite,), tuple(components), options.get("signed-by", ""))


def _deb822(text: str) -> Iterator[Source]:
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    for stanza in re.split(r"\n\s*\n", "\n".join(lines)):
        fields: dict[str, str] = {}
        name = ""
        for line in stanza.splitlines():
            if line[:1] in " \t":
                fields[name] += "\n" + line.strip()
            elif ":" in line:
                name, _, value = line.partition(":")
                name = name.strip().lower()
                fields[name] = value.strip()
        if "deb" not in fields.get("types", "").split() or fields.get("enabled", "yes").lower() in ("no", "false", "0"):
            continue
        suites, components = tuple(fields.get("suites", "").split()), tuple(fields.get("components", "").split())
        for uri in fields.get("uris", "").split():
            yield Source(uri, suites, components, fields.get("signed-by", ""))


def base_source() -> Source:
    """The entry the machine's own suite comes from."""
    codename = machine_codename()
    for source in machine_sources():
        if {codename, "stable", "testing", "unstable", "sid"} & set(source.suites) and "main" in source.components:
            return source
    raise LabError(f"no apt source of this machine carries its own suite {codename!r} with component main")


def archive_uri() -> str:
    """Where the distribution keeps suites that left the mirrors: `archive.` before its own domain."""
    chosen = os.environ.get("MYOVERLAY_LAB_ARCHIVE")
    if chosen:
        return chosen
    domain = re.sub(r"^https?://(www\.)?([^/]+).*$", r"\2", _os_release().get("HOME_URL", ""))
    return f"http://archive.{domain}/{_os_release().get('ID', '')}"


def machine_settings() -> list[str]:
    """The machine's own answers to how apt downloads (proxy, retries, expiry of frozen mirrors), to be used as well."""
    dump = subprocess.run(["apt-config", "dump"], capture_output=True, text=True, check=True).stdout
    return [line for line in dump.splitlines() if _KEPT_SETTINGS.match(line)]


@dataclass(frozen=True)
class Package:
    """A downloaded package."""

    name: str
    version: str
    file: Path


@dataclass
class Suite:
    """One suite of the machine's distribution, with an apt of our own."""

    name: str
    cache: Path
    uri: str = ""
    _environment: dict[str, str] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        """Lists, packages and configuration of this suite."""
        return self.cache / "apt" / self.name

    def _configure(self) -> None:
        source = base_source()
        moved = self.folder / "moved-to"
        self.uri = self.uri or (moved.read_text() if moved.exists() else source.uri)
        for part in ("lists/partial", "archives/partial", "parts"):
            (self.folder / part).mkdir(parents=True, exist_ok=True)
        (self.folder / "status").touch()
        key = keyring(source, self.folder)
        option = f"[signed-by={key}] " if key else ""
        (self.folder / "sources.list").write_text(f"deb {option}{self.uri} {self.name} main\n")
        own = {
            "Dir::Etc::Main": "/dev/null",
            "Dir::Etc::Parts": str(self.folder / "parts"),
            "Dir::Etc::SourceList": str(self.folder / "sources.list"),
            "Dir::Etc::SourceParts": "/dev/null",
            "Dir::Etc::Preferences": "/dev/null",
            "Dir::Etc::PreferencesParts": "/dev/null",
            "Dir::State": str(self.folder),
            "Dir::State::status": str(self.folder / "status"),
            "Dir::Cache": str(self.folder),
            "Dir::Cache::archives": str(self.folder / "archives"),
            "Dir::Log": str(self.folder),
            "APT::Sandbox::User": "root",
            "APT::Install-Recommends": "false",
            "APT::Get::Assume-Yes": "true",
            "Acquire::Languages": "none",
        }
        text = machine_settings() + [f'{name} "{value}";' for name, value in own.items()]
        (self.folder / "apt.conf").write_text("\n".join(text) + "\n")
        self._environment = dict(os.environ, APT_CONFIG=str(self.folder / "apt.conf"), LC_ALL="C")

    def _apt(self, *arguments: str) -> str:
        if not self._environment:
            self._configure()
        self._await_other_apt()
        done = subprocess.run(
            ["apt-get", "-q", *arguments], env=self._environment, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise LabError(f"apt-get {arguments[0]} for suite {self.name}: {(done.stderr or done.stdout).strip()}")
        return done.stdout

    def _await_other_apt(self) -> None:
        """An apt-get whose parent was killed still holds its locks for a while; it would refuse us, we wait for it."""
        for part in ("lists", "archives"):
            with (self.folder / part / "lock").open("a") as lock:
                fcntl.lockf(lock, fcntl.LOCK_EX)

    def update(self) -> None:
        """Fetch the suite's lists; a suite that has left the mirror is looked for in the distribution's archive."""
        try:
            self._apt("update", "-o", "APT::Update::Error-Mode=any")
        except LabError as first:
            if self.uri == archive_uri():
                raise
            self.uri, self._environment = archive_uri(), {}
            try:
                self._apt("update", "-o", "APT::Update::Error-Mode=any")
                (self.folder / "moved-to").write_text(self.uri)
            except LabError as second:
                raise LabError(f"{first}; and in the archive: {second}") from second

    def has_lists(self) -> bool:
        """Whether lists are there from an earlier run; then no network is needed to choose packages."""
        return any((self.folder / "lists").glob("*_Packages*"))

    def download(self, packages: tuple[str, ...]) -> list[Package]:
        """The packages and all they depend on, as files; what was downloaded before is checked and kept."""
        if not self.has_lists():
            self.update()
        try:
            self._apt("install", "--download-only", *packages)
        except LabError:
            self.update()  # the lists are older than the mirror
            self._apt("install", "--download-only", *packages)
        chosen = re.findall(r"^Inst (\S+) \((\S+) .*\[(\w+)\]\)", self._apt("install", "--simulate", *packages), re.M)
        return [Package(name, version, self.file_of(name, version, machine)) for name, version, machine in chosen]

    def file_of(self, name: str, version: str, machine: str) -> Path:
        """Where apt keeps a downloaded package."""
        return self.folder / "archives" / f"{name}_{version.replace(':', '%3a')}_{machine}.deb"


def keyring(source: Source, folder: Path) -> str:
    """The keyring file a machine's entry names; an inline key is written to a file of ours; '' for apt's default."""
    if "BEGIN PGP" in source.signed_by:
        file = folder / "machine.asc"
        lines = source.signed_by.strip().splitlines()
        file.write_text("\n".join("" if line == "." else line for line in lines) + "\n")
        return str(file)
    paths = [word for word in re.split(r"[\s,]+", source.signed_by) if word.startswith("/")]
    return paths[0] if paths else ""


def unpack(packages: list[Package], root: Path) -> None:
    """Lay packages over a folder as a merged-/usr root; their maintainer scripts are not run."""
    for name in ("bin", "sbin", "lib", "lib64"):
        (root / "usr" / name).mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            (root / name).symlink_to(f"usr/{name}")
    for package in packages:
        content = subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(package.file)], stdout=subprocess.PIPE)
        done = subprocess.run(
            ["tar", "-x", "--keep-directory-symlink", "-C", str(root)],
            stdin=content.stdout,
            capture_output=True,
            text=True,
            check=False,
        )
        if content.stdout is not None:
            content.stdout.close()
        if content.wait() or done.returncode:
            raise LabError(f"cannot unpack {package.file.name}: {done.stderr.strip()}")


def installed(command: str) -> bool:
    """Whether the machine has a command."""
    return shutil.which(command, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin") is not None
