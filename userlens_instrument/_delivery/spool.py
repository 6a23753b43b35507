"""
The one door to SQLite: payloads and dead letters that outlive the process.

One file for a host, in WAL mode: any number of processes put rows in, and one
at a time, the holder of a lock that dies with it, takes them out. A row has a
number, in the order of the commits, that no later row ever has again.

Nothing here decides; `Inlet` and `Outlet` do. Every method may raise
`SpoolError`, and nothing else.
"""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import contextmanager, suppress
from hashlib import blake2b
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote

from userlens_instrument._core.stored import MARK, Row, checksum, from_row
from userlens_instrument.exceptions import SpoolError


try:
    import fcntl
except ImportError:  # pragma: no cover - Windows, where the setting is refused
    fcntl = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from userlens_instrument._core.stored import Columns


# Marks a file as ours: "ULSP". A database of another program is left alone.
_APPLICATION = 0x554C5350

_ROW = (
    "id INTEGER PRIMARY KEY, kind TEXT, user TEXT, name TEXT, data BLOB,"
    " moment REAL, at REAL, origin INTEGER, checksum INTEGER"
)

# What each version of the schema adds to the one before; a file's version is
# the number of entries it has been through.
_MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        "CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID",
        # No AUTOINCREMENT: it writes a second page with each row, and trebles
        # what a log call pays (13 to 40 µs, measured). A MARK keeps the
        # numbers growing instead.
        f"CREATE TABLE queue ({_ROW})",
    ),
    (f"CREATE TABLE dead ({_ROW}, reason TEXT, status INTEGER, excerpt TEXT, died REAL)",),
)
VERSION = len(_MIGRATIONS)

# Bytes of a page. What a commit writes is pages: with SQLite's 4 KiB an event
# is three times as much disk traffic, and no faster.
_PAGE = 1_024
# Seconds that SQLite waits for another process' commit; the bound of a log call.
PATIENCE = 0.05
# Seconds between two tries: some commits of another process.
_PAUSE = 0.000_2
# Seconds that opening waits for another process that opens, and SQLite for
# whoever recovers the file after a crash.
OPENING = 2.0
# Bytes beyond the bound that a burst may write before the drainer has made room.
_BURST = 4 * 2**20
# Past this the -wal file is cut when it starts over, in bytes.
_WAL_LIMIT = 4 * 2**20

# What each of SQLite's files begins with.
_MAGIC = b"SQLite format 3\0"
_WAL = "WAL"
_COLUMNS = "kind, user, name, data, moment, at, origin, checksum"
_INSERT = f"INSERT INTO queue ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
_INSERT_NUMBERED = f"INSERT INTO queue (id, {_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
_SELECT = f"SELECT id, {_COLUMNS} FROM queue"
_IN_ORDER = "ORDER BY id LIMIT ?"
_MARK = (MARK, "", "", b"", None, 0.0, 0, 0)

# Parts of SQLite's messages, and what they mean. Its numbers are to be had from
# Python 3.11 on only.
_MEANINGS = (
    ("locked", "locked"),
    ("full", "full"),
    ("readonly", "denied"),
    ("unable to open", "denied"),
    ("permission", "denied"),
    ("malformed", "damaged"),
    ("not a database", "damaged"),
    ("no such table", "damaged"),
    ("no such column", "damaged"),
    ("unsupported file format", "damaged"),
)


class DeadLetter(NamedTuple):
    """
    A payload that was set aside, and why.

    Attributes:
        row: What it is.
        reason: The word that statistics count by.
        status: Of the last answer, if there was one.
        excerpt: The beginning of that answer.
        died: When it was set aside, in seconds since the epoch.
    """

    row: Row
    reason: str
    status: int | None
    excerpt: str
    died: float


class Burial(NamedTuple):
    """
    A payload to be set aside.

    Attributes:
        row_id: The number of its row; 0 if it is in memory alone.
        columns: What it is, if it has no row.
        reason: As of `DeadLetter`.
        status: As of `DeadLetter`.
        excerpt: As of `DeadLetter`.
        died: As of `DeadLetter`.
    """

    row_id: int
    columns: Columns | None
    reason: str
    status: int | None
    excerpt: str
    died: float


class Status(NamedTuple):
    """
    What a spool holds, at one moment.

    Attributes:
        events: Events that wait.
        oldest: When the first of them was taken, in seconds since the epoch; None if there is none.
        newest: The same of the last.
        size: Bytes of the file in use.
        file_size: Bytes of the file and of its log.
        dead: Dead letters.
        version: Of the schema.
        drainer: Process id of who drains it; None if nobody does.
    """

    events: int
    oldest: float | None
    newest: float | None
    size: int
    file_size: int
    dead: int
    version: int
    drainer: int | None


def translate(error: Exception, path: object) -> SpoolError:
    """Return what *error*, of SQLite or of the system, means to a spool at *path*."""
    text = str(error).lower()
    if isinstance(error, OSError):
        kind = "full" if error.errno in (28, 122) else "denied"  # ENOSPC, EDQUOT
        problem = error.strerror or type(error).__name__
    else:
        kind = next((kind for part, kind in _MEANINGS if part in text), "failed")
        # SQLite's own words: none of them quotes a value of ours.
        problem = str(error).split("\n", 1)[0][:200] or type(error).__name__
    return SpoolError(str(path), kind, problem)


class Spool:
    """
    A spool file, as this process has it open.

    Not safe for threads: who calls it, holds a lock. Nothing of it goes through
    a fork: see `abandon`.

    Args:
        path: The file.
        sync: ``power`` for what a power cut must not lose; anything else for SIGKILL.
        max_bytes: Largest size of the file, in bytes; a commit that would pass it fails.
        destination: The write code that its events are for; None to take it as it is. What
            is stored of it is a fingerprint, which tells one from another and no more.

    Attributes:
        ids: What the ids of its events begin with, the same in every process: in the form of
            a random UUID.
        was_anothers: Whether it held events of another write code, and nobody used it.
    """

    def __init__(
        self,
        path: str,
        *,
        sync: str = "process",
        max_bytes: int = 2**30,
        destination: str | None = None,
    ) -> None:
        """Open nothing."""
        self._destination = destination
        self.ids = b""
        self.was_anothers = False
        self.path = Path(path).absolute()
        self._is_linked = os.path.islink(self.path)  # noqa: PTH114 - it does not raise
        if self._is_linked:
            # Its log and its lock stand beside the file itself, whoever came by which name.
            self.path = Path(os.path.realpath(self.path))
        self._synchronous = "FULL" if sync == "power" else "NORMAL"
        # The drainer makes room below the bound; this is for when there is none.
        self._most_pages = (max_bytes + max_bytes // 8 + _BURST) // _PAGE
        self._connection: sqlite3.Connection | None = None
        self._reading: sqlite3.Connection | None = None
        self._identity: tuple[int, int] | None = None
        self._lock_file: int | None = None
        self._execute: Any = self._not_open
        self._seen_version = 0
        self._mark: int | None = None

    def __repr__(self) -> str:
        """Show the path and whether it is open."""
        return f"<Spool {self.path} {'open' if self.is_open else 'closed'}>"

    # ------------------------------------------------------------ open and close

    @property
    def is_open(self) -> bool:
        """Whether it is open in this process."""
        return self._connection is not None

    def open(self, *, create: bool = True, patience: float | None = None) -> None:
        """
        Open the file.

        Args:
            create: Whether to make one, and its directory, where there is none.
            patience: Longest wait for another process, in seconds; `OPENING` if absent.
        """
        patience = OPENING if patience is None else patience
        with self._translated():
            if self._is_linked and (self.path.is_symlink() or not self.path.parent.is_dir()):
                # A disk that is not there, say: what is made in its place is lost to it.
                raise SpoolError(str(self.path), "failed", "it is a link that leads nowhere")
            if create and not self.path.parent.is_dir():
                _make_directory(self.path.parent)
            with self._alone(patience):
                if self.path.exists() and not (self.path.is_file() or self.path.is_dir()):
                    # Another file in its place would take a device from the whole system.
                    raise SpoolError(str(self.path), "foreign", "it is no regular file")
                if self._is_a_strangers():
                    raise SpoolError(str(self.path), "foreign", "it is a file, and no spool")
                if create and (not self.path.exists() or not self.path.stat().st_size):
                    # A log without its file would be taken for the new one's.
                    self._set_aside()
                    self._create(())
                self._connect(patience)

    def _is_a_strangers(self) -> bool:
        """
        Return whether the file has never been a spool: a path was given by mistake.

        One that was, whatever has become of it, has the lock's file beside it.
        """
        if self._lock_path.exists():
            return False
        try:
            with self.path.open("rb") as file:
                head = file.read(len(_MAGIC))
        except OSError:
            return False  # there is none, or SQLite says why it cannot be read
        return bool(head) and head != _MAGIC

    def _connect(self, patience: float) -> None:
        known = self.ids
        connection = self._to(self.path, patience)
        try:
            self._check(connection)
            connection.execute(f"PRAGMA max_page_count={self._most_pages}").fetchone()
            # Who waits is us, see `_patiently`.
            connection.execute("PRAGMA busy_timeout=0").fetchone()
            found = self.path.stat()
            self._check_not_barred((found.st_dev, found.st_ino))
            reading = self._to(self.path, PATIENCE)
        except BaseException:
            connection.close()
            raise
        self._connection, self._reading = connection, reading
        self._identity = (found.st_dev, found.st_ino)
        self._execute = connection.cursor().execute
        self._seen_version = self._data_version()
        salt = (self.get("salt") or "").encode()[:64]
        text = blake2b(b"ids", key=salt, digest_size=16).hexdigest()
        # Not its inode: that of a file that is gone is the next one's.
        self.ids = f"{text[:8]}-{text[8:12]}-4{text[12:15]}-8{text[15:18]}-".encode()
        if self.ids != known:
            self._mark = None
        if self._destination is not None:
            self._claim(self._destination)

    def _check_not_barred(self, identity: tuple[int, int]) -> None:
        if identity in _barred:
            problem = "this process was forked while another thread was at it"
            raise SpoolError(str(self.path), "failed", problem)

    def _claim(self, destination: str) -> None:
        """See that nobody's events go to somebody else's workspace."""
        mine = self._fingerprint(destination)
        found = self.get("destination")
        if found == mine:
            return
        if found is not None:
            if not self.lock():
                self.close()
                raise SpoolError(
                    str(self.path), "shared", "another process uses it, with another write code"
                )
            self.was_anothers = self.first(2**63 - 1) is not None
        self.put("destination", mine)

    def _fingerprint(self, destination: str) -> str:
        salt = self.get("salt") or ""
        return blake2b(destination.encode(), key=salt.encode()[:64], digest_size=8).hexdigest()

    def is_for(self, destination: str) -> bool:
        """Return whether its events are for that write code, as far as it is known."""
        return self.get("destination") in (None, self._fingerprint(destination))

    def _to(self, path: Path, timeout: float) -> sqlite3.Connection:
        connection = _open(
            f"file:{quote(os.fsencode(path))}?mode=rw",
            uri=True,
            timeout=timeout,
            isolation_level=None,
            check_same_thread=False,
        )
        try:
            for pragma in (
                f"synchronous={self._synchronous}",
                # Two checkpoints beside a commit are what the WAL-reset bug
                # takes (SQLite before 3.51.3): one process makes them, see `checkpoint`.
                "wal_autocheckpoint=0",
                f"journal_size_limit={_WAL_LIMIT}",
                # A file may be anybody's work.
                "trusted_schema=OFF",
                "cell_size_check=ON",
            ):
                connection.execute(f"PRAGMA {pragma}").fetchall()
        except BaseException:
            connection.close()
            raise
        return connection

    def _check(self, connection: sqlite3.Connection) -> None:
        """Check that the file is a spool, of a version that we know; bring it up to ours."""
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if application != _APPLICATION:
            (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
            if tables:
                raise SpoolError(str(self.path), "foreign", "it is another program's database")
            raise SpoolError(str(self.path), "damaged", "it is no spool")
        if version > VERSION:
            problem = f"a later version wrote it ({version}; this knows {VERSION})"
            raise SpoolError(str(self.path), "newer", problem)
        if version < VERSION:
            _migrate(connection)
        found = {sql for (sql,) in connection.execute("SELECT sql FROM sqlite_master") if sql}
        if found != {statement for step in _MIGRATIONS for statement in step}:
            raise SpoolError(str(self.path), "damaged", "its tables are not a spool's")

    def _create(self, rows: Iterable[Row]) -> None:
        """
        Make a file that holds *rows*, and put it into place at once, whole.

        The directory's lock must be held.
        """
        scratch = self.path.with_name(f"{self.path.name}.new-{os.urandom(6).hex()}")
        descriptor = os.open(scratch, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        try:
            os.fchmod(descriptor, 0o600)  # whatever the umask
            os.close(descriptor)
            connection = _open(scratch, isolation_level=None)
            try:
                for pragma in (f"page_size={_PAGE}", "auto_vacuum=INCREMENTAL"):
                    connection.execute(f"PRAGMA {pragma}").fetchall()
                (mode,) = connection.execute(f"PRAGMA journal_mode={_WAL}").fetchone()
                if mode != "wal":
                    problem = "its file system has no shared memory"
                    raise SpoolError(str(self.path), "failed", problem)
                connection.execute(f"PRAGMA application_id={_APPLICATION}")
                _migrate(connection)
                connection.execute("BEGIN")
                salt = os.urandom(16).hex()
                connection.execute("INSERT INTO meta VALUES ('salt', ?)", (salt,))
                connection.executemany(_INSERT_NUMBERED, rows)
                connection.execute("COMMIT")
            finally:
                connection.close()
            scratch.replace(self.path)
            _sync_directory(self.path.parent)
        finally:
            for suffix in ("", "-wal", "-shm"):
                with suppress(OSError):
                    scratch.with_name(scratch.name + suffix).unlink()

    @contextmanager
    def _alone(self, patience: float) -> Iterator[None]:
        """Be the only one on this host that opens, makes or replaces a spool in the directory."""
        directory = _Descriptor(os.open(self.path.parent, os.O_RDONLY | os.O_CLOEXEC))
        try:
            deadline = time.monotonic() + patience
            while not _try_lock(directory.number):
                if time.monotonic() > deadline:
                    raise SpoolError(str(self.path), "locked", "another process is opening it")
                time.sleep(0.002)  # flock has no timeout
            yield
        finally:
            directory.close()

    def close(self) -> None:
        """Let go of the file and of the lock."""
        connections = (self._reading, self._connection)
        self._connection = self._reading = self._identity = None
        self._execute = self._not_open
        for connection in connections:
            if connection is not None:
                with suppress(sqlite3.Error):
                    connection.close()
        self.unlock()

    def suspend(self) -> None:
        """
        Close the file, and keep the lock: a fork is to come.

        SQLite keeps books, for the whole process, of the locks that it has on a file, and a
        child inherits the books and not the locks: what it opened then would be locked by
        nobody, and whoever closes the file next would take the log away from under it.
        """
        connections = (self._reading, self._connection)
        self._connection = self._reading = None
        self._execute = self._not_open
        for connection in connections:
            if connection is not None:
                with suppress(sqlite3.Error):
                    connection.close()

    def abandon(self) -> None:
        """
        Let go in a forked child, without touching anything: it is all the parent's.

        If it could not be closed before the fork, there was somebody in the middle of it:
        then this process has to do without that file, see `suspend`.
        """
        if self._connection is not None:
            _inherited.append((self._reading, self._connection, self._execute))
            _barred.add(self._identity)
        self._connection = self._reading = self._identity = None
        self._execute = self._not_open
        descriptor, self._lock_file = self._lock_file, None
        if descriptor is not None:
            # A copy of the parent's: closing it gives nothing up, unlocking would.
            os.close(descriptor)

    def is_in_place(self) -> bool:
        """Return whether the file that is open is still the one at the path."""
        try:
            found = self.path.stat()
        except FileNotFoundError:
            return False
        except OSError:
            return True  # it cannot be told; what is open still is
        return (found.st_dev, found.st_ino) == self._identity

    def is_there(self) -> bool:
        """Return whether there is a file at the path."""
        with self._translated():
            try:
                self.path.stat()
            except FileNotFoundError:
                return False
        return True

    # ------------------------------------------------------------ the lock of who takes out

    @property
    def _lock_path(self) -> Path:
        return self.path.with_name(self.path.name + ".lock")

    def lock(self) -> bool:
        """Become the one that takes rows out, if nobody is; return whether we are."""
        if self._lock_file is not None:
            return True
        with self._translated():
            descriptor = os.open(self._lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            taken = False
            try:
                # The name may have come to be another file's meanwhile.
                taken = _try_lock(descriptor) and _is_same(descriptor, self._lock_path)
                if taken:
                    with suppress(OSError):  # for people only, see `Status`; the disk may be full
                        os.ftruncate(descriptor, 0)
                        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
            finally:
                if not taken:
                    os.close(descriptor)
        if taken:
            self._lock_file = descriptor
            self._seen_version = 0 if self._reading is None else self._data_version()
        return taken

    def holds_lock(self) -> bool:
        """Return whether the lock is ours, and still the one that others look at."""
        return self._lock_file is not None and _is_same(self._lock_file, self._lock_path)

    def unlock(self) -> None:
        """Let another take rows out."""
        descriptor, self._lock_file = self._lock_file, None
        if descriptor is not None:
            with suppress(OSError):
                os.ftruncate(descriptor, 0)
            os.close(descriptor)

    # ------------------------------------------------------------ rows in

    def insert(self, rows: Sequence[Columns], done: list[object]) -> int:
        """
        Put *rows* in, all or none, and return the number of the last.

        Args:
            rows: In their order.
            done: Gets an entry at the very commit: whatever raises between two
                steps of this, a signal handler for example, what is in there is true.
        """
        execute = self._execute
        try:
            if len(rows) == 1:
                self._patiently(lambda: done.extend(map(execute, (_INSERT,), rows)))
                last: int = done[-1].lastrowid  # type: ignore[attr-defined]  # the cursor
                return last
            connection = self._connection
            assert connection is not None  # noqa: S101 - it is open
            self._patiently(lambda: execute("BEGIN IMMEDIATE"))
            connection.executemany(_INSERT, rows)
            (last,) = execute("SELECT last_insert_rowid()").fetchone()
            done.extend(map(execute, ("COMMIT",)))
        except (sqlite3.Error, sqlite3.Warning, OSError) as error:
            raise translate(error, self.path) from None
        return last

    def roll_back(self) -> None:
        """End a transaction that something has interrupted, if there is one."""
        if self._connection is not None and self._connection.in_transaction:
            with self._translated():
                self._execute("ROLLBACK")

    # ------------------------------------------------------------ rows out

    def read(self, after: int, most: int, most_bytes: int) -> list[Row]:
        """
        Return the first rows whose numbers are higher than *after*.

        Args:
            after: A number.
            most: How many rows, at most.
            most_bytes: Where to stop, by the bytes of their data.
        """
        rows: list[Row] = []
        size = 0
        with self._translated():
            cursor = self._reader.execute(f"{_SELECT} WHERE id > ? {_IN_ORDER}", (after, most))
            try:
                for found in cursor:
                    rows.append(Row(*found))
                    size += weight(rows[-1])
                    if size > most_bytes:
                        break
            finally:
                cursor.close()  # an open read keeps the log from starting over
        return rows

    def remove(self, ids: Sequence[int], burials: Sequence[Burial] = ()) -> None:
        """
        Take rows out, some of them to the dead letters, all at once.

        Args:
            ids: Their numbers.
            burials: What becomes a dead letter.
        """
        gone = sorted(ids)
        with self._translated(), self._transaction() as execute:
            (top,) = execute("SELECT max(id) FROM queue").fetchone()
            for burial in burials:
                _bury(execute, burial)
            takes_top = bool(gone) and gone[-1] == top
            mark = self._mark
            if mark is not None and mark != top:
                # Later rows keep the numbers growing by now.
                gone.append(mark)
                mark = None
            for first, last in _ranges(gone):
                execute("DELETE FROM queue WHERE id BETWEEN ? AND ?", (first, last))
            if takes_top:
                execute(_INSERT_NUMBERED, (top, *_MARK))
                mark = top
        self._mark = mark

    def note_mark(self, row_id: int) -> None:
        """Take note of a `MARK` that was read: it goes once it is not the last row any more."""
        self._mark = row_id

    def first(self, up_to: int, *, after: int = 0, origin: int | None = None) -> int | None:
        """
        Return the lowest number of an event, or None.

        Args:
            up_to: The highest number that counts.
            after: The lowest number that counts is the next.
            origin: Whose events count, as of `Row`; None for everybody's.
        """
        whose = "" if origin is None else "AND origin = ?"
        values = (after, up_to, MARK) if origin is None else (after, up_to, MARK, origin)
        with self._translated():
            found = self._execute(
                f"SELECT id FROM queue WHERE id > ? AND id <= ? AND kind <> ? {whose}"
                " ORDER BY id LIMIT 1",
                values,
            ).fetchone()
        return None if found is None else int(found[0])

    def last(self) -> int:
        """Return the highest number so far; 0 for none."""
        with self._translated():
            (top,) = self._execute("SELECT max(id) FROM queue").fetchone()
        return int(top or 0)

    def has_changed(self) -> bool:
        """Return whether anybody has committed since this was last asked."""
        with self._translated():
            version = self._data_version()
        changed = version != self._seen_version
        self._seen_version = version
        return changed

    def _data_version(self) -> int:
        return int(self._reader.execute("PRAGMA data_version").fetchone()[0])

    # ------------------------------------------------------------ keeping house

    def used_bytes(self) -> int:
        """Return how many bytes of the file hold something."""
        with self._translated():
            (pages,) = self._execute("PRAGMA page_count").fetchone()
            (free,) = self._execute("PRAGMA freelist_count").fetchone()
            (size,) = self._execute("PRAGMA page_size").fetchone()
        return int((pages - free) * size)

    def wal_bytes(self) -> int:
        """Return the size of the log that commits go to first."""
        try:
            return self.path.with_name(self.path.name + "-wal").stat().st_size
        except OSError:
            return 0

    def shrink(self, pages: int) -> bool:
        """Give up to *pages* unused pages back to the disk; return whether there are more."""
        with self._translated():
            (free,) = self._execute("PRAGMA freelist_count").fetchone()
            if free and self._connection is not None:
                # A script is run to its end; execute() would stop at the first page.
                self._connection.executescript(f"PRAGMA incremental_vacuum({int(pages)})")
        return bool(free > pages)

    def checkpoint(self) -> None:
        """
        Move what commits have written from the log into the file. Keeps nobody waiting.

        Only the holder of the lock does this, and only after a commit that came
        later than the checkpoint before: then that commit cannot be lost to the
        WAL-reset bug, which takes a checkpoint with nothing to do.
        """
        with self._translated():
            self._reader.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    def trim_dead(self, most: int, before: float) -> int:
        """
        Drop the oldest dead letters, and return how many.

        Args:
            most: How many stay.
            before: None stays that died before then, in seconds since the epoch.
        """
        with self._translated(), self._transaction() as execute:
            gone = execute(
                "DELETE FROM dead WHERE died < ? OR id <="
                " (SELECT id FROM dead ORDER BY id DESC LIMIT 1 OFFSET ?)",
                (before, most),
            ).rowcount
        return int(gone)

    # ------------------------------------------------------------ what stands beside the rows

    def get(self, name: str) -> str | None:
        """Return what was `put` under *name*."""
        with self._translated():
            found = self._execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
        return None if found is None else str(found[0])

    def put(self, name: str, value: str) -> None:
        """Keep *value* under *name*."""
        with self._translated():
            self._execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, value))

    def status(self) -> Status:
        """Return what the file holds. Takes time in proportion to it."""
        with self._translated():
            events, oldest, newest = self._execute(
                "SELECT count(*), min(at), max(at) FROM queue WHERE kind <> ?", (MARK,)
            ).fetchone()
            (dead,) = self._execute("SELECT count(*) FROM dead").fetchone()
            (version,) = self._execute("PRAGMA user_version").fetchone()
            file_size = self.path.stat().st_size + self.wal_bytes()
        used = self.used_bytes()
        return Status(events, oldest, newest, used, file_size, dead, version, self.drainer())

    def drainer(self) -> int | None:
        """Return the process id of who holds the lock, if anybody does; 0 if it is not known."""
        try:
            descriptor = os.open(self._lock_path, os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            # Shared, so that two who look do not take each other for it.
            if self._lock_file is None and _try_lock(descriptor, fcntl.LOCK_SH):
                return None
            text = os.pread(descriptor, 32, 0)
            return int(text) if text.isdigit() else 0
        finally:
            os.close(descriptor)

    # ------------------------------------------------------------ dead letters

    def dead_letters(self, after: int = 0, most: int = 1_000) -> list[DeadLetter]:
        """Return the first dead letters whose numbers are higher than *after*."""
        with self._translated():
            found = self._execute(
                f"SELECT id, {_COLUMNS}, reason, status, excerpt, died FROM dead"
                " WHERE id > ? ORDER BY id LIMIT ?",
                (after, most),
            ).fetchall()
        return [DeadLetter(Row(*one[:9]), *one[9:]) for one in found]

    def dead_numbers(self) -> list[int]:
        """Return the numbers of all dead letters, the oldest first."""
        with self._translated():
            found = self._execute("SELECT id FROM dead ORDER BY id").fetchall()
        return [int(number) for (number,) in found]

    def dead_letter(self, number: int) -> DeadLetter | None:
        """Return the dead letter of that *number*, or None."""
        found = self.dead_letters(number - 1, 1)
        return found[0] if found and found[0].row.id == number else None

    def retry(self, numbers: Sequence[int] | None, *, at: float) -> int:
        """
        Have dead letters sent again, as the newest rows; return how many.

        Args:
            numbers: Which; None for all.
            at: Now, in seconds since the epoch: they are as old as new ones, or those that
                lay there for longer than a spool keeps its events would be dropped at once.
        """
        where, values = _where(numbers)
        moved = 0
        with self._translated(), self._transaction() as execute:
            found = execute(f"SELECT id, {_COLUMNS} FROM dead{where} ORDER BY id", values)
            rows = [Row(*one) for one in found.fetchall()]
            for row in rows:
                if from_row(row) is None:
                    continue  # not as it was written: it stays where it is
                # Nobody's: whoever takes it out now has not put it there.
                columns = (*row[1:6], at, 0, checksum(*row[1:6], at, 0))
                execute(_INSERT, columns)
                execute("DELETE FROM dead WHERE id = ?", (row.id,))
                moved += 1
        return moved

    def purge(self, numbers: Sequence[int] | None) -> int:
        """Delete dead letters for good; return how many. As of `retry`."""
        where, values = _where(numbers)
        with self._translated(), self._transaction() as execute:
            return int(execute(f"DELETE FROM dead{where}", values).rowcount)

    # ------------------------------------------------------------ when the file is beyond use

    def replace(self) -> tuple[str | None, int, int]:
        """
        Set the file aside, and put a new one in its place that holds what could be read.

        The lock must be ours. Opens the new one.

        Returns:
            Where the old one is now (None if there was none), how many rows came
            along, and how many numbers between them did not.
        """
        with self._translated(), self._alone(OPENING):
            reading, self._reading = self._reading, None
            connection, self._connection = self._connection, None
            self._identity, self._execute = None, self._not_open
            aside = self._set_aside()
            rows: list[Row] = []
            lost = 0
            try:
                source = self._to(aside, OPENING) if aside is not None else reading
                if source is not None:
                    rows, lost = _rescue(source)
                    source.close()
            except sqlite3.Error:
                pass  # beyond rescue
            for one in (reading, connection):
                if one is not None:
                    with suppress(sqlite3.Error):
                        one.close()
            self._create(rows)
            self._connect(OPENING)
        return None if aside is None else str(aside), len(rows), lost

    def _set_aside(self) -> Path | None:
        """Move the file and what belongs to it; return where to, None if there is no file."""
        there = self.path.exists()
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        names = (f"{self.path.name}.damaged-{stamp}-{number}" for number in count())
        aside = next(one for one in map(self.path.with_name, names) if not one.exists())
        # The three belong together: others may have them open still.
        for suffix in ("-wal", "-shm", ""):
            with suppress(FileNotFoundError):
                self.path.with_name(self.path.name + suffix).rename(
                    aside.with_name(aside.name + suffix)
                )
        return aside if there else None

    # ------------------------------------------------------------ below

    @staticmethod
    def _patiently(act: Callable[[], object]) -> None:
        """
        Do *act*, which takes SQLite's lock; try again for `PATIENCE` while another has it.

        SQLite's own way sleeps for longer and longer: between two processes that log as fast
        as they can, one of them would go without for seconds.
        """
        deadline = None
        while True:
            try:
                act()
            except sqlite3.OperationalError as error:  # noqa: PERF203 - to try again is the point
                now = time.monotonic()
                deadline = now + PATIENCE if deadline is None else deadline
                if "locked" not in str(error) or now > deadline:
                    raise
                time.sleep(_PAUSE)
            else:
                return

    def _not_open(self, *_: object) -> Any:
        """Stand in for what executes statements."""
        raise SpoolError(str(self.path), "failed", "it is not open")

    @property
    def _reader(self) -> sqlite3.Connection:
        if self._reading is None:
            raise SpoolError(str(self.path), "failed", "it is not open")
        return self._reading

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, sqlite3.Warning, OSError) as error:
            raise translate(error, self.path) from None

    @contextmanager
    def _transaction(self) -> Iterator[Any]:
        execute = self._execute
        self._patiently(lambda: execute("BEGIN IMMEDIATE"))
        try:
            yield execute
            execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):
                execute("ROLLBACK")
            raise


def weight(row: Row) -> int:
    """Return the size of *row* as of `Spool.read`, in bytes and characters."""
    # What is damaged may have anything there.
    return sum(len(part) for part in row if isinstance(part, (str, bytes)))


class _Descriptor:
    """A file descriptor that is closed, too, if a signal handler raises just before it would be."""

    number = -1

    def __init__(self, number: int) -> None:
        self.number = number

    def close(self) -> None:
        number, self.number = self.number, -1
        if number >= 0:
            os.close(number)

    __del__ = close


# Connections that a fork has copied: never used, never closed, never collected;
# and the files that they are of.
_inherited: list[object] = []
_barred: set[tuple[int, int] | None] = set()


def _bury(execute: Any, burial: Burial) -> None:
    verdict = (burial.reason, burial.status, burial.excerpt, burial.died)
    into = f"INSERT INTO dead ({_COLUMNS}, reason, status, excerpt, died)"
    if burial.columns is None:
        execute(
            f"{into} SELECT {_COLUMNS}, ?, ?, ?, ? FROM queue WHERE id = ?",
            (*verdict, burial.row_id),
        )
    else:
        execute(f"{into} VALUES ({', '.join('?' * 12)})", (*burial.columns, *verdict))


def _where(numbers: Sequence[int] | None) -> tuple[str, list[int]]:
    if numbers is None:
        return "", []
    return f" WHERE id IN ({', '.join('?' * len(numbers))})", list(numbers)


def _ranges(ids: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Yield the runs of numbers that follow each other, as first and last."""
    first = last = None
    for one in sorted(ids):
        if first is None or last is None:
            first = last = one
        elif one <= last + 1:
            last = one
        else:
            yield first, last
            first = last = one
    if first is not None and last is not None:
        yield first, last


# Not `sqlite3.connect`: OpenTelemetry replaces it, and then statements of ours are spans in the
# traces of whoever logs. What it makes is made here, by the same arguments.
_open = sqlite3.Connection


def _migrate(connection: sqlite3.Connection) -> None:
    """Bring the schema up to ours, from whatever version; once, whoever else tries."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        for step in _MIGRATIONS[version:]:
            for statement in step:
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version={VERSION}")
        connection.execute("COMMIT")
    except BaseException:
        with suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise


def _rescue(source: sqlite3.Connection) -> tuple[list[Row], int]:
    """
    Return what can be read of a damaged file, and how many numbers in between cannot.

    From both ends towards what is damaged: one page that is takes its own rows along, and no
    others. What does not add up stays behind.
    """
    rows: list[Row] = []
    backward: list[Row] = []
    if not _read_on(source, "ASC", rows):
        _read_on(source, "DESC", backward)
    both = rows + [row for row in backward[::-1] if not rows or row.id > rows[-1].id]
    return both, both[-1].id - both[0].id + 1 - len(both) if both else 0


def _read_on(source: sqlite3.Connection, order: str, found: list[Row]) -> bool:
    """Add what can be read in that *order* to *found*; return whether that is to the end."""
    try:
        for values in source.execute(f"{_SELECT} ORDER BY id {order}"):
            row = Row(*values)
            if _is_next(row, found, order):
                found.append(row)
    except sqlite3.Error:
        return False
    return True


def _is_next(row: Row, before: list[Row], order: str) -> bool:
    """Return whether *row* is as it was written, and stands where it belongs."""
    if row.kind != MARK and from_row(row) is None:
        return False
    return not before or (row.id > before[-1].id) == (order == "ASC")


def _try_lock(descriptor: int, kind: int | None = None) -> bool:
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_EX if kind is None else kind) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_same(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
    except OSError:
        return True  # it cannot be told; what is locked still is


def _make_directory(path: Path) -> None:
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.chmod(0o700)  # whatever the umask


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
