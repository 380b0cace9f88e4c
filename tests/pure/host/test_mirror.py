"""The journal's copy: whoever loses the journal finds everything there, and nobody ever waits or fails for it."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from myoverlay.errors import Refused
from myoverlay.host.journal import FORM, Form, Journal, lease_key
from myoverlay.host.mirror import Mirror, MirrorKeeper
from myoverlay.tally import Tally
from myoverlay.values import Address, LocalLease, PoolUse
from tests.pure.kit import SUBNET, definition, endpoint, network, until

LEASE = LocalLease(subnet=SUBNET, address=Address("10.5.0.3"), use="endpoint", at=1.5)
USE = PoolUse(pool="10.5.0.0-24", subnet=SUBNET, written=True, at=1.5)
ROOT = Path(__file__).parents[3]


class Place:
    """Where a host keeps its journal and the copy; `pinned` says that overlays stand in its kernel."""

    def __init__(self, folder: Path) -> None:
        self.own, self.copy = folder / "own", folder / "run" / "state"
        self.pinned = True
        self.tally = Tally()

    def open(self, form: Form = FORM) -> Journal:
        return Journal(self.own, mirror=Mirror(self.copy, self.tally, lambda: self.pinned), form=form)

    def lose(self) -> None:
        """`docker plugin rm`."""
        shutil.rmtree(self.own)

    def rows(self, folder: Path) -> dict[str, list[tuple[str, bytes]]]:
        """All that lies in a journal's tables."""
        with closing(sqlite3.connect(folder / "journal.db")) as db:
            names = [name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            return {name: db.execute(f"SELECT * FROM {name} ORDER BY key").fetchall() for name in names}

    def same(self) -> bool:
        return self.rows(self.own) == self.rows(self.copy)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def _fill(journal: Journal) -> None:
    journal.host_id()
    journal.networks.put("n1", network())
    journal.endpoints.put("e1", endpoint("10.5.0.3"))
    journal.uses.put(USE.pool, USE)
    journal.leases.put(lease_key(LEASE), LEASE)
    journal.leaving.put("demo", definition())
    journal.session = "s1"


def test_each_write_is_in_the_copy_when_it_returns(place: Place) -> None:
    """Puts, drops, changes, the host's id and its session: the tables are equal after every single one."""
    with closing(place.open()) as journal:
        for act in (
            journal.host_id,
            lambda: journal.endpoints.put("e1", endpoint("10.5.0.3")),
            lambda: journal.endpoints.change("e1", lambda old: endpoint("10.5.0.4")),
            lambda: journal.endpoints.drop("e1"),
            journal.new_host_id,
        ):
            before = place.rows(place.copy)
            act()
            assert place.same()
            assert place.rows(place.copy) != before


def test_a_plugin_installed_again_finds_everything(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    """With its own directory gone, host id, session, networks, endpoints, pools and leases come from the copy."""
    one = place.open()
    _fill(one)
    host = one.host_id()
    one.close()
    place.lose()
    two = place.open()
    assert two.host_id() == host
    assert two.session == "s1"
    assert two.networks.all() == (network(),)
    assert two.endpoints.get("e1") == endpoint("10.5.0.3")
    assert two.uses.all() == (USE,)
    assert two.leases.get("10.5.0.0-24/10.5.0.3") == LEASE
    assert two.leaving.get("demo") == definition()
    assert "was taken from its copy" in caplog.text
    two.endpoints.put("e2", endpoint("10.5.0.4"))
    assert place.same()
    two.close()


def test_the_copy_is_good_after_kill_9(place: Place) -> None:
    """A writer killed at any time, never to come back: the copy holds each value whose write returned."""
    script = (
        "import sys; from tests.pure.host.test_mirror import *\n"
        "journal = Place(Path(sys.argv[1])).open(); journal.host_id()\n"
        "for n in range(100000):\n"
        "    journal.endpoints.put(f'e{n}', endpoint('10.5.0.3', generation=n)); print(n, flush=True)\n"
    )
    with _python(script, place) as writer:
        assert writer.stdout is not None
        last = next(int(line) for line in writer.stdout if int(line) >= 50)
        writer.send_signal(signal.SIGKILL)
        last = max([last, *map(int, writer.stdout.read().split()[:-1])])
        assert writer.wait(10) == -signal.SIGKILL
    place.lose()
    with closing(place.open()) as journal:
        assert {one.generation for one in journal.endpoints.all()} >= set(range(last + 1))


class Deadly(sqlite3.Connection):
    """Its backup kills the process after so many pages."""

    pages = 0

    def backup(self, target: sqlite3.Connection, **_: object) -> None:  # type: ignore[override]
        def kill(_status: int, left: int, total: int) -> None:
            if total - left >= self.pages:
                os.kill(os.getpid(), signal.SIGKILL)

        super().backup(target, pages=1, progress=kill)


class DeadlyMirror(Mirror):
    def read(self) -> sqlite3.Connection | None:
        return sqlite3.connect(self.path, isolation_level=None, factory=Deadly)

    def renew(self, own: sqlite3.Connection) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("pages", [1, 3, 7, 1000])
def test_killed_while_it_is_taken_over(place: Place, pages: int) -> None:
    """Killed after the first page, in the middle, or when all but the new copy is done: the next run has everything."""
    with closing(place.open()) as one:
        _fill(one)
        for number in range(200):
            one.endpoints.put(f"e{number}", endpoint("10.5.0.3", generation=number))
    before = place.rows(place.copy)
    place.lose()
    script = (
        "import sys; from tests.pure.host.test_mirror import *\n"
        f"place = Place(Path(sys.argv[1])); Deadly.pages = {pages}\n"
        "Journal(place.own, mirror=DeadlyMirror(place.copy, Tally()))\n"
    )
    with _python(script, place) as killed:
        assert killed.wait(20) == -signal.SIGKILL
    assert place.rows(place.copy) == before
    with closing(place.open()) as two:
        assert len(two.endpoints.all()) == 200
        assert {name: rows for name, rows in place.rows(place.own).items() if name != "meta"} == {
            name: rows for name, rows in before.items() if name != "meta"
        }
        assert two.session == "s1"


def _python(script: str, place: Place) -> subprocess.Popen[str]:
    environ = os.environ | {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"}
    argv = [sys.executable, "-c", script, str(place.own.parent)]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, env=environ, text=True)


def test_own_state_wins_and_the_copy_is_made_anew(place: Place) -> None:
    """A copy that fell behind, or that belongs to another host, is replaced by what the disk holds."""
    with closing(place.open()) as one:
        _fill(one)
        old = shutil.copytree(place.copy, place.copy.with_name("old"))
        one.endpoints.put("e2", endpoint("10.5.0.4"))
    shutil.rmtree(place.copy)
    shutil.copytree(old, place.copy)
    with closing(place.open()) as two:
        assert two.endpoints.get("e2") == endpoint("10.5.0.4")
        assert place.same()
        host = two.host_id()
    with closing(Journal(place.own.with_name("other"), mirror=Mirror(place.copy, Tally()))) as other:
        assert other.host_id() == host
        assert other.new_host_id() != host
    with closing(place.open()) as three:
        assert three.host_id() == host
        assert place.same()


def test_a_copy_that_went_on_since_is_taken(place: Place) -> None:
    """Another installation, with a directory of its own, served the host in between: the first one does not go back."""
    with closing(place.open()) as one:
        _fill(one)
    with closing(Journal(place.own.with_name("other"), mirror=Mirror(place.copy, place.tally))) as other:
        other.endpoints.put("e2", endpoint("10.5.0.4"))
        other.endpoints.drop("e1")
    with closing(place.open()) as again:
        assert again.endpoints.all() == (endpoint("10.5.0.4"),)
        assert place.same()


@pytest.mark.parametrize("what", ["rubbish", "a page"])
def test_a_damaged_copy_is_never_taken_for_an_empty_one(
    place: Place, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    """With overlays standing and nothing else to go by it is refused in one sentence, and left as it is."""
    with closing(place.open()) as one:
        _fill(one)
    whole = (place.copy / "journal.db").read_bytes()
    spoilt = b"rubbish" * 1000 if what == "rubbish" else whole[:4096] + b"\xff" * 4096 + whole[8192:]
    (place.copy / "journal.db").write_bytes(spoilt)
    place.lose()
    with pytest.raises(Refused, match=r"the only copy of its state, .*db, cannot be read .*remove it to begin"):
        place.open()
    assert (place.copy / "journal.db").read_bytes() == spoilt
    place.pinned = False
    with closing(place.open()) as two:
        assert two.networks.all() == ()
        two.host_id()
        assert place.same()
    assert "cannot be read" in caplog.text


def test_a_damaged_copy_of_what_is_on_disk_is_made_anew(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing is lost then, and it is said once."""
    with closing(place.open()) as one:
        _fill(one)
    (place.copy / "journal.db").write_bytes(b"rubbish" * 1000)
    with closing(place.open()) as two:
        assert two.networks.all() == (network(),)
        assert place.same()
    assert caplog.text.count("cannot be read") == 1


def test_an_emptied_directory_is_a_person_s_word(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    """Neither journal nor copy while overlays stand: a new host, and a warning that says so."""
    with closing(place.open()) as one:
        host = one.host_id()
        assert "overlays stand here that neither" in caplog.text
    place.lose()
    shutil.rmtree(place.copy)
    with closing(place.open()) as two:
        assert two.host_id() != host


def test_a_copy_of_a_newer_version_is_refused(place: Place) -> None:
    """After `rm` of N+1 and `install` of N: one sentence, nothing changed; the newer one takes it over."""
    newer = Form(schema=FORM.schema + 1, reader=FORM.schema + 1)
    with closing(place.open(newer)) as one:
        _fill(one)
    before = (place.copy / "journal.db").read_bytes()
    place.lose()
    with pytest.raises(Refused, match=r"run/state/journal.db was written by a newer version \(schema"):
        place.open()
    assert (place.copy / "journal.db").read_bytes() == before
    with closing(place.open(newer)) as two:
        assert two.networks.all() == (network(),)


def test_a_copy_that_fails_fails_nobody(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    """Writes go on, it is said once and counted, what is old is taken away; when it can be it is made anew."""
    with closing(place.open()) as journal:
        journal.host_id()
        spoil = sqlite3.connect(place.copy / "journal.db")
        spoil.execute("DROP TABLE endpoints")
        spoil.commit()
        spoil.close()
        for number in range(3):
            journal.endpoints.put(f"e{number}", endpoint("10.5.0.3"))
        assert len(journal.endpoints.all()) == 3
        assert not place.copy.exists(), "an old copy would be taken for the truth"
        place.copy.write_text("in the way")
        journal.mend()
        journal.mend()
        journal.endpoints.put("e4", endpoint("10.5.0.4"))
        assert caplog.text.count("do not `docker plugin rm`") == 1
        assert place.tally.get("mirror", "failed") == 3
        place.copy.unlink()
        journal.mend()
        assert place.same()
        assert place.tally.get("mirror", "made") == 2


def test_the_keeper_makes_a_deleted_copy_anew(place: Place) -> None:
    """Somebody empties the directory: the next round of the keeper fills it, and a whole copy is let be."""
    with closing(place.open()) as journal:
        _fill(journal)
        rounds: list[None] = []
        keeper = MirrorKeeper(lambda: rounds.append(journal.mend()), place.tally, pause=0.001)  # type: ignore[func-returns-value]
        shutil.rmtree(place.copy)
        keeper.start()
        until(lambda: len(rounds) > 3)
        keeper.stop(5)
        assert place.same()
        assert place.tally.get("mirror", "made") == 2


def test_the_copy_is_the_owner_s_alone(place: Place) -> None:
    """0600 in 0700 under any umask."""
    old = os.umask(0)
    try:
        with closing(place.open()) as journal:
            _fill(journal)
            files = list(place.copy.iterdir())
            assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
            assert stat.S_IMODE(place.copy.stat().st_mode) == 0o700
    finally:
        os.umask(old)


def test_a_host_that_leaves_leaves_no_copy(place: Place) -> None:
    """It is gone with its directory, later writes bring none back, and the journal's own host stays who it is."""
    with closing(place.open()) as one:
        assert one.is_idle()
        host = one.host_id()
        one.remove_mirror()
        assert not place.copy.exists()
        one.endpoints.put("e1", endpoint("10.5.0.3"))
        one.mend()
        assert not place.copy.exists()
        assert not one.is_idle()
    with closing(place.open()) as two:
        assert two.host_id() == host
