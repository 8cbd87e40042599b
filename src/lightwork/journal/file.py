"""The file of a checkpoint: an SQLite database of one row for each item that has ended.

Guarantees:

* What `put` has returned from is in the file, whatever ends the process, and also if the machine
  loses its power: the database is in WAL mode with ``synchronous=FULL``, so each commit is
  followed by an fsync of the log (as far as the disk keeps its word).
* A commit that was cut off leaves the ones before it as they were.
* One run at a time: the file is locked for as long as it is open (``locking_mode=EXCLUSIVE``), by
  a lock that goes with the process, however that ends. While a run has it, not even reading by
  another process is possible.
* Only its owner may read or write it (0600), its log included.
* A row that does not fit its checksum, and a file that is none of ours, are errors. A damaged file
  is never changed, whatever else was asked for.

Limitations: on a network file system it is worth what its locks are worth. A file that is
written to by other programs meanwhile may be damaged, as any SQLite database.
"""

from __future__ import annotations

import contextlib
import os
import stat
import zlib
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import CheckpointChanged, CheckpointError

if TYPE_CHECKING:
    import sqlite3

__all__ = ["File", "Identity", "Row"]

_APPLICATION = 0x4C574A31  # "LWJ1", in the database's header
_SCHEMA = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE items (
    position INTEGER PRIMARY KEY,  -- of the item, from 0
    item BLOB NOT NULL,            -- digest of its content
    done INTEGER NOT NULL,         -- 1: `value` is the result; 0: the error, as JSON
    value NOT NULL,                -- pickled (BLOB) or JSON (TEXT)
    crc INTEGER NOT NULL
);
"""
_BUSY = 1.0
"""Seconds to wait for one who is just closing the file."""


class Row(NamedTuple):
    """An item that has ended."""

    position: int
    item: bytes
    done: int
    value: bytes | str

    def crc(self) -> int:
        """The checksum over all of it."""
        value = self.value if isinstance(self.value, bytes) else self.value.encode()
        return zlib.crc32(value, zlib.crc32(b"%d %d %b" % (self.position, self.done, self.item)))


class Identity(NamedTuple):
    """What a run must have in common with the one that it carries on."""

    python: str
    results: str
    function: str
    name: str  # of the function, for people; not compared
    seed: str


class File:
    """An open checkpoint. Its methods may be called from any thread, one at a time.

    Args:
        path: where it is, or will be.
        identity: what must fit.
        restart: forget what it has.

    Raises:
        CheckpointError: it cannot be opened, is in use, damaged, or none of ours.
        CheckpointChanged: `identity` does not fit.
    """

    def __init__(self, path: str, identity: Identity, *, restart: bool) -> None:
        import sqlite3

        self.path = path
        self._error = sqlite3.Error
        created = _create(path)
        with self._explained():
            self._db = sqlite3.connect(
                _uri(path), uri=True, timeout=_BUSY, isolation_level=None, check_same_thread=False
            )
        _open.append(self)
        try:
            with self._explained():
                self._set_up(identity, created, restart)
                last = self._db.execute("SELECT max(position) FROM items").fetchone()[0]
                self.end = 0 if last is None else last + 1
        except BaseException:
            self.close()
            raise

    def _set_up(self, identity: Identity, created: bool, restart: bool) -> None:
        run = self._db.execute
        run("PRAGMA locking_mode=EXCLUSIVE")
        empty = not run("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if not empty and run("PRAGMA application_id").fetchone()[0] != _APPLICATION:
            raise CheckpointError(
                f"{self.path!r} is an SQLite database, but no checkpoint of lightwork: it is left "
                "as it is; name another file"
            )
        if identity.results == "pickle" and not created:
            self._check_permissions()
        run("PRAGMA journal_mode=WAL")
        run("PRAGMA synchronous=FULL")
        run("BEGIN IMMEDIATE")  # the lock is ours from here on, until we close
        if empty:
            run(f"PRAGMA application_id={_APPLICATION}")
            for statement in _SCHEMA.split(";\n")[:2]:
                run(statement)
        elif restart:
            run("DELETE FROM items")
        else:
            self._compare(identity)
        run("DELETE FROM meta")
        self._db.executemany("INSERT INTO meta VALUES (?, ?)", identity._asdict().items())
        run("COMMIT")

    def _check_permissions(self) -> None:
        status = os.stat(self.path)
        if status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & 0o022:
            raise CheckpointError(
                f"{self.path!r} can be written to by others, and loading its pickled results "
                "would run what they wrote: make it yours alone (chmod 600), or remove it"
            )

    def _compare(self, identity: Identity) -> None:
        found = dict(self._db.execute("SELECT name, value FROM meta"))
        for name, text in (
            ("python", "was made by {was}, and this is {now}"),
            ("results", "holds results as {was}, and {now} is asked for"),
            ("function", "was made with another function, or the function has changed since"),
            ("seed", "was made with seed {was}, and this run has {now}"),
        ):
            was, now = found.get(name), getattr(identity, name)
            if was != now:
                why = text.format(was=was, now=now)
                if name == "function":
                    why += f" ({found.get('name')} then, {identity.name} now)"
                raise changed(self.path, why)

    # -- rows ------------------------------------------------------------------------------------

    def rows(self, start: int, most: int) -> list[Row]:
        """The first rows from position `start` on. Raises CheckpointError."""
        with self._explained():
            found = self._db.execute(
                "SELECT position, item, done, value, crc FROM items WHERE position >= ? "
                "ORDER BY position LIMIT ?",
                (start, most),
            ).fetchall()
        rows = []
        for position, item, done, value, crc in found:
            row = Row(position, item, done, value)
            if not isinstance(item, bytes) or not isinstance(value, (bytes, str)):
                raise damaged(self.path, f"the row of item {position} is of the wrong types")
            if row.crc() != crc:
                raise damaged(self.path, f"the row of item {position} does not fit its checksum")
            rows.append(row)
        return rows

    def put(self, rows: Iterable[Row]) -> None:
        """Store rows, all or none. When it returns they are on the disk. Raises CheckpointError."""
        run = self._db.execute
        with self._explained():
            run("BEGIN")
            try:
                self._db.executemany(
                    "INSERT OR REPLACE INTO items VALUES (?, ?, ?, ?, ?)",
                    ((*row, row.crc()) for row in rows),
                )
                run("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    with contextlib.suppress(self._error):
                        run("ROLLBACK")
                raise

    def counts(self) -> tuple[int, int]:
        """How many items are done, and how many have failed."""
        with self._explained():
            found = dict(self._db.execute("SELECT done, count(*) FROM items GROUP BY done"))
        return found.get(1, 0), found.get(0, 0)

    def close(self) -> None:
        """Let go of it; its log is taken in. May be called again."""
        if self in _open:
            _open.remove(self)
            with contextlib.suppress(self._error):
                self._db.close()

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except self._error as error:
            raise _explain(self.path, error) from error


def changed(path: str, why: str) -> CheckpointChanged:
    """The error for a checkpoint that is of something else."""
    return CheckpointChanged(
        f"the checkpoint {path!r} {why}. It is left as it is; restart=True (--restart) empties it"
    )


def damaged(path: str, what: str) -> CheckpointError:
    """The error for a file that cannot be trusted."""
    return CheckpointError(
        f"the checkpoint {path!r} is damaged: {what}. It is left as it is; move it away to "
        "begin anew"
    )


def _explain(path: str, error: Exception) -> CheckpointError:
    name = getattr(error, "sqlite_errorname", "") or ""
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return CheckpointError(
            f"the checkpoint {path!r} is in use by another run: one at a time may have it"
        )
    if name.startswith(("SQLITE_NOTADB", "SQLITE_CORRUPT")):
        return damaged(path, str(error))
    if name.startswith(("SQLITE_FULL", "SQLITE_IOERR")):
        return CheckpointError(
            f"the checkpoint {path!r} cannot be written: {error}; what was finished before is kept"
        )
    return CheckpointError(f"the checkpoint {path!r} cannot be used: {error}")


def _create(path: str) -> bool:
    """Make an empty file that is its owner's alone; False if there is one already.

    It is not opened if it is there: closing it again would drop the locks of whoever in this very
    process has it open (fcntl(2)).
    """
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        if not os.path.isfile(path):
            raise CheckpointError(f"the checkpoint {path!r} is no file") from None
        return False
    except OSError as error:
        raise CheckpointError(
            f"the checkpoint {path!r} cannot be made: {error.strerror}"
        ) from error
    return True


def _uri(path: str) -> str:
    """The file as SQLite is to open it; never made by it, for that would be with other rights."""
    from urllib.parse import quote

    return f"file:{quote(os.fsencode(os.path.abspath(path)))}?mode=rw"


# -- forks ---------------------------------------------------------------------------------------

_open: list[File] = []
_leaked: list[Any] = []


def _after_fork_in_child() -> None:
    """The parent's databases must not be touched here, not even closed: that would take in, and
    remove, the log of a file that the parent is writing. So they are never freed."""
    import ctypes

    for file in _open:
        database: sqlite3.Connection = file._db
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(database))
        _leaked.append(database)
    _open.clear()


os.register_at_fork(after_in_child=_after_fork_in_child)
