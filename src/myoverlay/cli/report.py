"""`myoverlay report`: one archive with what a bug report needs, and no secret."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import click

from myoverlay.cli.ask import ask
from myoverlay.cli.words import Places, say, warn
from myoverlay.errors import MyoverlayError, Refused

#: Seconds that a command of the host may take, bytes of its answer, and how many run at once.
PATIENCE, LONG, AT_ONCE = 5.0, 1 << 20, 4
#: Bytes of the whole archive before it is packed.
LIMIT = 64 << 20
#: Overlay namespaces that are looked into.
NAMESPACES = 50

_HOST: Mapping[str, tuple[str, ...]] = {
    "uname": ("uname", "-a"),
    "address": ("ip", "-d", "-s", "address"),
    "route": ("ip", "-d", "route", "show", "table", "all"),
    "rule": ("ip", "rule"),
    "sockets": ("ss", "-anu"),
    "nft": ("nft", "list", "ruleset"),
    "namespaces": ("ls", "-l", "/run/docker/plugins", "/run/docker/plugins/myoverlay/netns"),
    "docker-version": ("docker", "version"),
    "docker-info": ("docker", "info"),
    "docker-plugins": ("docker", "plugin", "ls"),
    "docker-networks": ("docker", "network", "ls"),
}
_INSIDE: Mapping[str, tuple[str, ...]] = {
    "address": ("ip", "-d", "-s", "address"),
    "neighbour": ("ip", "neighbour"),
    "fdb": ("bridge", "fdb"),
}
_INDEX = """\
myoverlay report of {host}, {at} UTC

daemon/    what the plugin says: versions, settings, status, names, metrics, its journal, threads, log, flight recorder
host/      what commands of the host say
overlays/  the same inside the overlay namespaces

Removed: the token of Consul and whatever looks like a token, a password or a private key. Names and addresses of hosts
and containers are in it: look through it before you hand it on.
{missing}"""


class _File(NamedTuple):
    name: str
    text: str


@click.command("report")
@click.argument("file", default="", metavar="[FILE]")
@click.pass_context
def report_command(ctx: click.Context, file: str) -> None:
    """Collect what a bug report needs into one archive, FILE (`-`: standard output).

    Status, metrics, settings, log, flight recorder and journal of the plugin; addresses, routes, rules and tables of
    the host and of the overlays. Tokens, passwords and keys are removed; names and addresses stay, so look through it
    before you hand it on. Where the plugin does not answer it is made of the rest.

    \b
    Examples:
      myoverlay report
      myoverlay report - > report.tar.gz
    """
    import socket
    import time

    now = time.time()
    at = time.gmtime(now)
    host = socket.gethostname()
    path = file or f"myoverlay-report-{host}-{time.strftime('%Y%m%d-%H%M%S', at)}.tar.gz"
    if path == "-" and sys.stdout.isatty():
        raise Refused("an archive is nothing for a terminal: send it elsewhere, as in `myoverlay report - > FILE`")
    files, missing = _collected(Places.of(ctx).plugin)
    shown = "".join(f"\nMissing: {sentence}" for sentence in missing)
    index = _INDEX.format(host=host, at=time.strftime("%Y-%m-%d %H:%M:%S", at), missing=shown)
    packed = _packed([_File("index.txt", index + "\n"), *files], now)
    for sentence in missing:
        warn(sentence)
    if path == "-":
        sys.stdout.buffer.write(packed)
        return
    _write(Path(path), packed)
    say(f"{path}: {len(files) + 1} files, {len(packed) / 1024:.0f} kB; look through it before you hand it on")


def _collected(pins: Path) -> tuple[list[_File], list[str]]:
    """The files, and what could not be had, each in a sentence."""
    from concurrent.futures import ThreadPoolExecutor

    from myoverlay.cli.logs import veil_of
    from myoverlay.settings import load

    veil, missing = veil_of(load(os.environ)), []
    files = []
    try:
        said = ask("Control.Report")["files"]
        files += [_File(f"daemon/{name}", text) for name, text in said.items()]
    except MyoverlayError as error:
        missing.append(f"what the plugin itself says: {error}")
    commands = dict(_commands(pins))
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for name, (text, trouble) in zip(commands, pool.map(_run, commands.values()), strict=True):
            files.append(_File(name, veil.thoroughly(text)))
            if trouble:
                missing.append(veil.thoroughly(trouble))
    return files, missing


def _commands(pins: Path) -> Iterator[tuple[str, tuple[str, ...]]]:
    for name, command in _HOST.items():
        yield f"host/{name}.txt", command
    import shutil

    names = sorted(path.name for path in pins.iterdir())[:NAMESPACES] if pins.is_dir() else []
    for overlay in names:
        for name, command in _INSIDE.items():
            # By its path: busybox's nsenter, in a managed plugin, takes its own `ip` for the name alone.
            program = shutil.which(command[0]) or command[0]
            yield f"overlays/{overlay}/{name}.txt", ("nsenter", f"--net={pins / overlay}", program, *command[1:])


def _run(command: tuple[str, ...]) -> tuple[str, str]:
    """What a command says, both streams; and a sentence where it could not be asked."""
    import subprocess

    line = " ".join(command)
    try:
        done = subprocess.run(command, capture_output=True, timeout=PATIENCE, check=False, stdin=subprocess.DEVNULL)
    except FileNotFoundError:
        return f"$ {line}\n", f"`{line}`: there is no {command[0]} here"
    except subprocess.TimeoutExpired:
        return f"$ {line}\n", f"`{line}` did not end within {PATIENCE:g} s"
    except OSError as error:
        return f"$ {line}\n", f"`{line}`: {error.strerror}"
    said = (done.stdout + done.stderr)[:LONG].decode("utf-8", "replace")
    return f"$ {line}\n{said}[exit code {done.returncode}]\n", ""


def _packed(files: list[_File], at: float) -> bytes:
    import io
    import tarfile

    left, packed = LIMIT, io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for file in files:
            raw = file.text.encode("utf-8", "replace")[:left]
            left -= len(raw)
            member = tarfile.TarInfo(f"myoverlay-report/{file.name}")
            member.size, member.mtime, member.mode = len(raw), int(at), 0o600
            archive.addfile(member, io.BytesIO(raw))
    return packed.getvalue()


def _write(path: Path, packed: bytes) -> None:
    """For its owner alone. Raises Refused where something is there already, or the place cannot be written."""
    try:
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
            out.write(packed)
    except FileExistsError:
        raise Refused(f"{path} is there already: give another name") from None
    except OSError as error:
        raise Refused(f"{path} cannot be written: {error.strerror}") from None
