"""`myoverlay report`: secrets are planted everywhere, and looked for in every file of the archive."""

from __future__ import annotations

import io
import json
import logging
import os
import stat
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner
from werkzeug.serving import make_server

from myoverlay.cli import report as command
from myoverlay.cli.logs import Lines
from myoverlay.cli.main import cli
from myoverlay.docker.app import create_app
from myoverlay.docker.driver import NetworkDriver
from myoverlay.docker.ipam import IpamDriver
from myoverlay.host.journal import Journal
from myoverlay.operate.exposition import Exposition
from myoverlay.operate.loglines import LogLines
from myoverlay.operate.report import Of, Report
from myoverlay.operate.status import Status
from myoverlay.operate.veil import Veil
from myoverlay.settings import load
from myoverlay.tally import Tally
from tests.pure.house.source import PACKAGE
from tests.pure.kit import endpoint, network
from tests.pure.sights import peer, sight

#: In the daemon's environment; in its token file; what strangers leave in texts; what the host's own commands say.
TOKEN, FILED, PASSWORD, BEARER, KEY = "t0ken-of-consul", "t0ken-of-a-file", "pa55word", "b3arer.abc", "MIIEpAIBAAKC"
SECRETS = (TOKEN, FILED, PASSWORD, BEARER, KEY)
EVIL = (
    f"x {TOKEN} {FILED} http://joe:{PASSWORD}@10.0.0.9:8500 db_password={PASSWORD} Authorization: Bearer {BEARER}"
    f' {{"SecretID": 1, "token": "{BEARER}"}} -----BEGIN EC PRIVATE KEY-----\\n{KEY}\\n-----END EC PRIVATE KEY-----'
)


class Plugin:
    """The plugin's application on a unix socket, with secrets in all that it tells."""

    def __init__(self, folder: Path) -> None:
        tally = Tally()
        token_file = folder / "token"
        token_file.write_text(f"{FILED}\n")
        settings = load(
            {
                "CONSUL_HTTP_TOKEN": TOKEN,
                "CONSUL_HTTP_TOKEN_FILE": str(token_file),
                "CONSUL_HTTP_ADDR": f"http://joe:{PASSWORD}@10.0.0.9:8500",
            }
        )
        self.journal = Journal(folder)
        self.journal.networks.put("n", network())
        self.journal.endpoints.put("e", endpoint("10.5.0.2", names=(EVIL,)))
        self.journal.session = "5e55-10n"
        self.log = LogLines(1 << 16, Lines(lambda text: text))
        logger = logging.Logger("myoverlay.test")
        logger.addHandler(self.log)
        logger.info("written: %s", EVIL)
        seen = sight(store={"answers": False, "failure": EVIL}, peers=(peer(EVIL),), barred=EVIL)
        lookout: Any = SimpleNamespace(look=lambda: seen)
        names: Any = SimpleNamespace(show=lambda call, deadline: {"names": [EVIL]})
        notes = [json.dumps({"said": EVIL}).encode()]
        self.of = Of(
            Status(lookout), Exposition(lookout, tally), names, self.journal, settings.shown(), self.log.kept,
            lambda: notes, Veil((settings.token,), token_file),
        )  # fmt: skip
        nobody: Any = SimpleNamespace()
        drivers = NetworkDriver(nobody, nobody, nobody), IpamDriver(nobody, nobody, nobody)
        self.server = make_server(
            f"unix://{folder}/plugin.sock", 0, create_app(*drivers, tally, Report(self.of).methods())
        )


@pytest.fixture
def plugin(tmp_path: Path) -> Iterator[Plugin]:
    plugin = Plugin(tmp_path)
    thread = threading.Thread(target=plugin.server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield plugin
    plugin.server.shutdown()
    thread.join(10)
    plugin.server.server_close()
    plugin.journal.close()


@pytest.fixture
def stage(tmp_path: Path) -> Path:
    """A folder with commands that stand in for the host's, and overlay namespaces by name."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("uname", "ip", "ss", "nft", "ls", "docker", "nsenter"):
        path = programs / name
        path.write_text(f"#!/bin/sh\necho {name} \"$@\"\ncat <<'EOF'\n{EVIL}\nEOF\n")
        path.chmod(0o755)
    (tmp_path / "run" / "netns").mkdir(parents=True)
    (tmp_path / "run" / "netns" / "web").touch()
    return tmp_path


def environ(folder: Path, **more: str) -> dict[str, str]:
    own = {
        "PATH": f"{folder}/bin:/usr/bin:/bin", "PYTHONPATH": str(PACKAGE.parent), "MYOVERLAY_RUN": f"{folder}/run",
        "MYOVERLAY_SOCKETS": f"{folder}/plugin.sock", "CONSUL_HTTP_TOKEN": TOKEN,
        "CONSUL_HTTP_TOKEN_FILE": f"{folder}/token",
    }  # fmt: skip
    return own | more


def run(folder: Path, *words: str) -> Any:
    return CliRunner().invoke(cli, ["report", *words], env=environ(folder))


def unpacked(raw: bytes) -> dict[str, str]:
    with tarfile.open(fileobj=io.BytesIO(raw)) as archive:
        found = {}
        for member in archive.getmembers():
            file = archive.extractfile(member)
            assert file is not None
            found[member.name] = file.read().decode()
        return found


def test_no_secret_is_in_the_archive(stage: Path, plugin: Plugin) -> None:
    """None of the planted ones, in no file; each file is there, and what surrounds the secrets too."""
    done = run(stage, str(stage / "out.tar.gz"))
    assert done.exit_code == 0, done.output
    files = unpacked((stage / "out.tar.gz").read_bytes())
    for name, text in files.items():
        for secret in SECRETS:
            assert secret not in text, name
    daemon = {name.removeprefix("myoverlay-report/daemon/") for name in files if "/daemon/" in name}
    assert daemon == {
        "versions.json", "settings.json", "status.json", "names.json", "metrics.txt", "journal.json", "threads.txt",
        "log.txt", "recorder.jsonl",
    }  # fmt: skip
    of = {name.removeprefix("myoverlay-report/"): text for name, text in files.items()}
    told = (
        "daemon/log.txt",
        "daemon/status.json",
        "daemon/names.json",
        "daemon/recorder.jsonl",
        "host/docker-info.txt",
    )
    assert all("[removed]" in of[name] and "10.0.0.9:8500" in of[name] for name in told)
    assert json.loads(of["daemon/settings.json"])["CONSUL_HTTP_TOKEN"] == "[removed]"
    assert json.loads(of["daemon/journal.json"])["endpoints"][0]["address"] == "10.5.0.2"
    assert "5e55-10n" not in of["daemon/journal.json"]
    assert "collect" in of["daemon/threads.txt"]
    assert "nsenter --net=" in of["overlays/web/fdb.txt"]
    assert "look through it before you hand it on" in of["index.txt"].replace("\n", " ")


@pytest.mark.parametrize("secret", SECRETS)
def test_the_search_would_find_each(stage: Path, plugin: Plugin, monkeypatch: pytest.MonkeyPatch, secret: str) -> None:
    """Without the veil each of the planted secrets is in the archive: what the test above looks for can be found."""
    monkeypatch.setattr(Veil, "thoroughly", lambda _veil, text: text)
    assert run(stage, str(stage / "out.tar.gz")).exit_code == 0
    found = {name for name, text in unpacked((stage / "out.tar.gz").read_bytes()).items() if secret in text}
    assert {f"myoverlay-report/{name}" for name in ("daemon/log.txt", "daemon/status.json", "host/nft.txt")} <= found


def test_it_is_its_owners_alone_and_overwrites_nothing(stage: Path, plugin: Plugin) -> None:
    """Mode 0600; a file that is there stays as it is, in one sentence."""
    path = stage / "out.tar.gz"
    before = os.umask(0)
    try:
        assert run(stage, str(path)).exit_code == 0
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    first = path.read_bytes()
    again = run(stage, str(path))
    assert again.exit_code == 1
    assert "is there already" in again.output
    assert path.read_bytes() == first
    nowhere = run(stage, f"{stage}/no/folder.tar.gz")
    assert "cannot be written: No such file or directory" in nowhere.output


def test_without_the_plugin_the_rest_is_collected(stage: Path) -> None:
    """What is missing is said on standard error and in the index; commands that are not there are named too."""
    (stage / "bin" / "nft").unlink()
    done = subprocess.run(
        [sys.executable, "-m", "myoverlay", "report", "-"], env=environ(stage, PATH=f"{stage}/bin"), capture_output=True
    )
    assert done.returncode == 0, done.stderr
    files = unpacked(done.stdout)
    said = done.stderr.decode()
    assert "what the plugin itself says: no plugin answers on" in said
    assert "`nft list ruleset`: there is no nft here" in said
    assert "Missing: `nft list ruleset`" in files["myoverlay-report/index.txt"]
    assert "docker info" in files["myoverlay-report/host/docker-info.txt"]
    assert not [name for name in files if "/daemon/" in name]


def test_a_command_that_hangs_is_left(stage: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`docker info` on an engine that hangs costs its time-out, and is named."""
    monkeypatch.setattr(command, "PATIENCE", 0.2)
    (stage / "bin" / "docker").write_text("#!/bin/sh\nexec sleep 60\n")
    done = run(stage, str(stage / "out.tar.gz"))
    assert done.exit_code == 0
    assert "`docker info` did not end within 0.2 s" in done.output


def test_a_part_that_fails_keeps_no_other_from_being_told(plugin: Plugin) -> None:
    """A report is asked for where something is broken: the traceback stands in the place of the part."""
    names: Any = SimpleNamespace(show=lambda call, deadline: 1 / 0)
    files = Report(plugin.of._replace(names=names)).collect(None, 0.0)["files"]  # type: ignore[arg-type]
    assert "ZeroDivisionError" in files["names.json"]
    assert "written" in files["log.txt"]
