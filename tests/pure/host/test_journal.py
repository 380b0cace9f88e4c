"""The journal: what is written is there after any end of the process, and nobody else reads it."""

from __future__ import annotations

import os
import signal
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from myoverlay.errors import MyoverlayError, Refused
from myoverlay.host.journal import FORM, SERIALS, Form, Journal, lease_key
from myoverlay.values import Address, HostId, LocalLease, PoolUse
from tests.pure.kit import SUBNET, definition, endpoint, network, together

LEASE = LocalLease(subnet=SUBNET, address=Address("10.5.0.3"), use="endpoint", at=1.5)
USE = PoolUse(pool="10.5.0.0-24", subnet=SUBNET, written=True, at=1.5)


def test_all_shelves_survive_a_reopen(tmp_path: Path) -> None:
    """Whatever was put is there again, equal, after the journal was closed and opened."""
    one = Journal(tmp_path)
    one.networks.put("n1", network())
    one.endpoints.put("e1", endpoint("10.5.0.3"))
    one.uses.put(USE.pool, USE)
    one.leases.put(lease_key(LEASE), LEASE)
    one.leaving.put("demo", definition())
    one.session = "s1"
    one.close()
    two = Journal(tmp_path)
    assert two.networks.all() == (network(),)
    assert two.endpoints.get("e1") == endpoint("10.5.0.3")
    assert two.uses.all() == (USE,)
    assert two.leases.get("10.5.0.0-24/10.5.0.3") == LEASE
    assert two.leaving.get("demo") == definition()
    assert two.session == "s1"
    two.close()


def test_what_is_dropped_or_replaced_stays_so(tmp_path: Path) -> None:
    """A reopened journal holds the last of each key, and nothing that was taken out."""
    one = Journal(tmp_path)
    one.endpoints.put("e1", endpoint("10.5.0.3"))
    one.endpoints.put("e1", endpoint("10.5.0.4"))
    one.endpoints.put("e2", endpoint("10.5.0.5"))
    assert one.endpoints.drop("e2") == endpoint("10.5.0.5")
    assert one.endpoints.drop("e2") is None
    one.close()
    two = Journal(tmp_path)
    assert two.endpoints.all() == (endpoint("10.5.0.4"),)
    assert two.endpoints.get("e2") is None
    two.close()


def test_change_is_one_step(tmp_path: Path) -> None:
    """Many threads that each count one up lose no step, on disk either; None takes the value out."""
    journal = Journal(tmp_path)
    journal.endpoints.put("e1", endpoint("10.5.0.3", generation=0))

    def count() -> None:
        journal.endpoints.change("e1", lambda old: msgspec.structs.replace(old, generation=old.generation + 1))  # type: ignore[type-var, union-attr]

    assert together(*[count] * 16) == [None] * 16
    assert journal.endpoints.change("e2", lambda old: old) is None
    journal.close()
    again = Journal(tmp_path)
    assert again.endpoints.all() == (endpoint("10.5.0.3", generation=16),)
    assert again.endpoints.change("e1", lambda _: None) is None
    assert again.endpoints.all() == ()
    again.close()


def test_a_change_that_fails_changes_nothing(tmp_path: Path) -> None:
    """An exception of the one who changes leaves the value, and the journal can be used on."""
    journal = Journal(tmp_path)
    journal.uses.put("p", USE)
    with pytest.raises(ZeroDivisionError):
        journal.uses.change("p", lambda _: 1 // 0)  # type: ignore[arg-type, return-value]
    assert journal.uses.get("p") == USE
    journal.uses.put("q", USE)
    journal.close()


def test_a_newer_journal_is_not_touched(tmp_path: Path) -> None:
    """After a downgrade the older version refuses, in a sentence that names the file, and changes nothing."""
    Journal(tmp_path).close()
    path = tmp_path / "journal.db"
    db = sqlite3.connect(path)
    db.execute(f"PRAGMA user_version = {FORM.schema + 1}")
    db.execute(f"INSERT OR REPLACE INTO meta VALUES ('reader', '{FORM.schema + 1}')")
    db.commit()
    db.close()
    before = path.read_bytes()
    with pytest.raises(Refused, match=f"{path} was written by a newer version .schema {FORM.schema + 1}"):
        Journal(tmp_path)
    assert path.read_bytes() == before


def test_the_journal_is_the_owners_alone(tmp_path: Path) -> None:
    """Files are 0600 and the directory 0700 under any umask: they tell who runs here."""
    old = os.umask(0)
    try:
        journal = Journal(tmp_path / "state")
        journal.uses.put("p", USE)
        files = list((tmp_path / "state").iterdir())
    finally:
        os.umask(old)
    assert len(files) >= 2, "the write-ahead log should be there too"
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    assert stat.S_IMODE((tmp_path / "state").stat().st_mode) == 0o700
    journal.close()


def test_the_host_id_is_made_once(tmp_path: Path) -> None:
    """A host stays who it is over restarts, and two hosts are never the same."""
    one = Journal(tmp_path / "a")
    host = one.host_id()
    assert one.host_id() == host
    one.close()
    again, other = Journal(tmp_path / "a"), Journal(tmp_path / "b")
    assert again.host_id() == host
    assert isinstance(again.host_id(), HostId)
    assert other.host_id() != host
    again.close()
    other.close()


def test_a_clone_becomes_another_host(tmp_path: Path) -> None:
    """A new id replaces the old one for good, and the session of the machine that was cloned is not taken over."""
    one = Journal(tmp_path)
    old = one.host_id()
    one.session = "s1"
    new = one.new_host_id()
    one.close()
    again = Journal(tmp_path)
    assert again.host_id() == new != old
    assert again.session is None
    again.close()


WRITER = """
import sys
from pathlib import Path
from myoverlay.host.journal import Journal
from tests.pure.kit import endpoint
journal = Journal(Path(sys.argv[1]))
for number in range(1_000_000):
    journal.endpoints.put(f"e{number}", endpoint("10.5.0.3", generation=number))
    if number:
        journal.endpoints.drop(f"e{number - 1}") if number % 3 == 0 else None
    print(number, flush=True)
"""


def test_what_was_put_survives_kill_9(tmp_path: Path) -> None:
    """A process that is killed in the middle of many writes leaves a journal with every value whose write returned."""
    root = Path(__file__).parents[3]
    environ = os.environ | {"PYTHONPATH": f"{root / 'src'}:{root}"}
    arguments = [sys.executable, "-c", WRITER, str(tmp_path)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, env=environ, text=True) as writer:
        assert writer.stdout is not None
        for line in writer.stdout:
            if int(line) >= 100:
                break
        writer.send_signal(signal.SIGKILL)
        rest = writer.stdout.read().split()
        assert writer.wait(10) == -signal.SIGKILL
    last = int(rest[-1]) if rest and rest[-1].isdecimal() else int(line)
    journal = Journal(tmp_path)
    kept = {one.generation for one in journal.endpoints.all()}
    wanted = {number for number in range(last + 1) if (number + 1) % 3}
    # The write after the last that was told of may have been done or not.
    assert wanted <= kept | {last}
    assert kept <= wanted | {last, last + 1}
    journal.endpoints.put("after", endpoint("10.5.0.4"))
    journal.close()


NEWER = Form(schema=FORM.schema + 1, reader=FORM.schema, tables=(*FORM.tables, "dreams"))


def test_what_a_newer_version_added_is_left_alone(tmp_path: Path) -> None:
    """N+1 wrote rows with another field, and a table of its own: N reads and writes on, N+1 finds its table again."""
    newer = Journal(tmp_path, form=NEWER)
    newer.uses.put("p", USE)
    newer.write("INSERT INTO dreams VALUES ('d', 'x')")
    newer.write("UPDATE uses SET value = replace(value, '{', '{\"mood\":\"calm\",')")
    newer.close()
    older = Journal(tmp_path)
    assert older.uses.get("p") == USE
    older.endpoints.put("e1", endpoint("10.5.0.3"))
    older.close()
    again = Journal(tmp_path, form=NEWER)
    assert again.execute("SELECT key, value FROM dreams") == [("d", "x")]
    assert again.execute("PRAGMA user_version") == [(NEWER.schema,)]
    assert again.endpoints.get("e1") == endpoint("10.5.0.3")
    again.close()


def test_an_older_journal_is_brought_up_in_one_step(tmp_path: Path) -> None:
    """All steps that are missing, in order; one that fails leaves the journal as it was, for the older version too."""
    one = Journal(tmp_path)
    one.uses.put("p", USE)
    one.close()
    up = FORM.schema
    good = {up + 1: ("CREATE TABLE x (key, value)",), up + 2: ("INSERT INTO x SELECT key, value FROM uses",)}
    bad = good | {up + 3: ("INSERT INTO nowhere VALUES (1)",)}
    with pytest.raises(Refused, match="no such table: nowhere"):
        Journal(tmp_path, form=Form(schema=up + 3, reader=up + 3, steps=bad))
    old = Journal(tmp_path)
    assert old.uses.get("p") == USE
    assert old.execute("SELECT name, '' FROM sqlite_master WHERE name = 'x'") == []
    old.close()
    new = Journal(tmp_path, form=Form(schema=up + 2, reader=up + 1, steps=good))
    assert [key for key, _ in new.execute("SELECT key, value FROM x")] == ["p"]
    new.close()
    with pytest.raises(Refused, match=f"schema {up + 2}; this one knows {up}.: use that version"):
        Journal(tmp_path)


def test_serials_rise_for_ever(tmp_path: Path) -> None:
    """Every number is higher than any before it, over restarts and over the block that is set aside at once."""
    given = []
    for _ in range(3):
        journal = Journal(tmp_path)
        given += [journal.next_serial(above) for above in (0, 0, 7, 7, given[-1] if given else 9, SERIALS + 3, 5)]
        journal.close()
    assert given == sorted(set(given))
    assert given[:5] == [1, 2, 8, 9, 10]
    assert given[5] == SERIALS + 4


def test_a_row_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """To go on without it would take down what it stands for: refused, with table and key, and left as it is."""
    one = Journal(tmp_path)
    one.endpoints.put("e1", endpoint("10.5.0.3"))
    one.write("UPDATE endpoints SET value = '{}'")
    one.close()
    with pytest.raises(Refused, match="endpoints e1 cannot be read"):
        Journal(tmp_path)


def test_a_damaged_journal_is_refused_in_a_sentence(tmp_path: Path) -> None:
    """No traceback: the file's name and what is wrong."""
    (tmp_path / "journal.db").write_bytes(b"rubbish" * 1000)
    with pytest.raises(Refused, match=r"journal.db cannot be opened: file is not a database"):
        Journal(tmp_path)


def test_a_full_disk_refuses_the_write_and_changes_nothing(tmp_path: Path) -> None:
    """The value is neither in memory nor on disk, the sentence names the file, and later writes succeed."""
    journal = Journal(tmp_path)
    journal.execute("PRAGMA max_page_count = 12")

    def fill() -> None:
        for number in range(1000):
            journal.endpoints.put(f"e{number}", endpoint("10.5.0.3"))

    with pytest.raises(MyoverlayError, match=r"journal.db cannot be written: database or disk is full"):
        fill()
    kept = len(journal.endpoints.all())
    journal.execute("PRAGMA max_page_count = 10000")
    journal.endpoints.put("after", endpoint("10.5.0.4"))
    journal.close()
    again = Journal(tmp_path)
    assert len(again.endpoints.all()) == kept + 1
    again.close()


def test_a_log_torn_by_a_power_loss_keeps_a_whole_beginning(tmp_path: Path) -> None:
    """Wherever the log was cut or spoilt, what was written up to some moment is there, and more can be written."""
    whole = Journal(tmp_path / "whole")
    for number in range(8):
        whole.endpoints.put(f"e{number}", endpoint("10.5.0.3", generation=number))
    database, log = ((tmp_path / "whole" / f"journal.db{end}").read_bytes() for end in ("", "-wal"))
    whole.close()
    assert len(log) > 8 * 4096, "the log should hold all these writes"
    counts = []
    for place, cut in enumerate(range(0, len(log) + 1, len(log) // 24)):
        torn = tmp_path / str(place)
        torn.mkdir()
        (torn / "journal.db").write_bytes(database)
        (torn / "journal.db-wal").write_bytes(log[:cut] + os.urandom(len(log) - cut))
        journal = Journal(torn)
        kept = sorted(one.generation for one in journal.endpoints.all())
        assert kept == list(range(len(kept)))
        counts.append(len(kept))
        journal.endpoints.put("after", endpoint("10.5.0.4", generation=99))
        journal.close()
    assert counts == sorted(counts)
    assert counts[0] == 0
    assert counts[-1] >= 7


@pytest.mark.parametrize("spoil", [b"", b"no database at all, but somebody's letter" * 200])
def test_a_journal_that_is_none_is_left_as_it_is(tmp_path: Path, spoil: bytes) -> None:
    """A file that was overwritten or lost its head is named and refused, and not a byte of it is changed."""
    one = Journal(tmp_path)
    one.uses.put("p", USE)
    one.close()
    path = tmp_path / "journal.db"
    path.write_bytes(spoil or path.read_bytes()[4096:])
    before = path.read_bytes()
    with pytest.raises(Refused, match=str(path)):
        Journal(tmp_path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["journal.db"]
