"""The journal once more, in the directory that the managed plugin shares with the host.

The journal's own directory goes with `docker plugin rm`; this one lies in memory and goes with a reboot. A plugin that
is installed again under running containers finds here who the host is, and what Docker was promised.
"""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import NamedTuple

from myoverlay.host.loop import Loop
from myoverlay.tally import Tally

log = logging.getLogger(__name__)

#: How often it is seen to that the copy is whole, seconds.
ROUND = 5.0


class Stamp(NamedTuple):
    """Whose journal it is, and how often it was opened: of two of one host the greater count is the newer."""

    host: str
    runs: int


def stamp_of(db: sqlite3.Connection) -> Stamp | None:
    """None where the journal belongs to nobody yet. Raises sqlite3.DatabaseError for one that cannot be read."""
    if not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'meta'").fetchone():
        return None
    meta = dict(db.execute("SELECT key, value FROM meta WHERE key IN ('host', 'runs')").fetchall())
    if "host" not in meta:
        return None
    return Stamp(meta["host"].decode(), int(meta.get("runs", b"0")))


class Mirror:
    """The copy. It is written without fsync, and its failures are nobody's but its own: logged, counted, mended.

    `in_use` tells whether overlays of this host stand in the kernel, so that forgetting them would hurt. All calls come
    under the journal's lock.
    """

    def __init__(self, directory: Path, tally: Tally, in_use: Callable[[], bool] = lambda: False) -> None:
        self.path = directory / "journal.db"
        self.in_use = in_use
        self._tally = tally
        self._db: sqlite3.Connection | None = None
        self._inode = 0
        #: Has its failure been told? Not again until it works.
        self._told = False

    def read(self) -> sqlite3.Connection | None:
        """Open what a former run left, if it left anything. Raises sqlite3.DatabaseError where that is damaged."""
        if not self.path.exists():
            return None
        db = sqlite3.connect(f"{self.path.absolute().as_uri()}?mode=rw", uri=True, isolation_level=None)
        try:
            (verdict,) = db.execute("PRAGMA quick_check(1)").fetchone()
            if verdict != "ok":
                raise sqlite3.DatabaseError(" ".join(verdict.split()))
        except BaseException:
            db.close()
            raise
        return db

    def renew(self, own: sqlite3.Connection) -> None:
        """Make it equal to the journal, in one step: whoever is killed here leaves the former copy or the new one."""
        try:
            self._renew(own)
        except (OSError, sqlite3.Error) as error:
            self._fail(error)
        else:
            self._told = False
            self._tally.add("mirror", "made")

    def _renew(self, own: sqlite3.Connection) -> None:
        self._close()
        try:
            self._db = self._open()
            own.backup(self._db)
        except sqlite3.DatabaseError:  # what lies there is no journal
            self.remove()
            self._db = self._open()
            own.backup(self._db)
        self._inode = self.path.stat().st_ino

    def _open(self) -> sqlite3.Connection:
        for folder in (self.path.parent.parent, self.path.parent):  # the mode is for the last one only
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        db = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
        try:
            # A write-ahead log without syncs: safe against the end of the process, which is all that memory can be.
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = OFF")
        except BaseException:
            db.close()
            raise
        return db

    def follow(self, write: Callable[[sqlite3.Connection], object]) -> None:
        """Do what was just done to the journal. Never raises: a copy that fails is taken away, for it would be old."""
        if self._db is None:
            return
        try:
            write(self._db)
        except sqlite3.Error as error:
            self._fail(error)

    def is_whole(self) -> bool:
        """Is it there and followed? Somebody may have emptied the directory."""
        with suppress(OSError):
            return self._db is not None and self.path.stat().st_ino == self._inode
        return False

    def _fail(self, error: Exception) -> None:
        self._tally.add("mirror", "failed")
        if not self._told:
            self._told = True
            log.error(
                "the copy of this host's state, %s, cannot be written (%s): until it can, do not `docker plugin rm`"
                " under running containers",
                self.path,
                error,
            )
        with suppress(OSError, sqlite3.Error):
            self.remove()

    def remove(self) -> None:
        """Take it away, with its directory where nothing else is in that. Raises OSError."""
        self._close()
        for path in (self.path, Path(f"{self.path}-wal"), Path(f"{self.path}-shm")):
            path.unlink(missing_ok=True)
        with suppress(OSError):
            self.path.parent.rmdir()

    def _close(self) -> None:
        db, self._db = self._db, None
        if db is not None:
            with closing(db):
                pass

    def close(self) -> None:
        """Let go of it; it stays."""
        with suppress(sqlite3.Error):
            self._close()


class MirrorKeeper(Loop):
    """Owns the thread `mirror`: `mend` makes a copy that broke, or was deleted, anew."""

    def __init__(self, mend: Callable[[], None], tally: Tally, pause: float = ROUND) -> None:
        super().__init__("mirror", tally)
        self._mend = mend
        self._pause = pause

    def round(self) -> None:
        if not self.stopping.wait(self._pause):
            self.step()

    def step(self) -> None:
        self._mend()
