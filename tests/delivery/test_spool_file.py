"""The spool's file: rows in and out, for any number of processes, whatever becomes of the file."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
import stat
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from userlens_instrument._core.encode import TrackPayload
from userlens_instrument._core.stored import MARK, from_row, to_columns
from userlens_instrument._delivery import spool as spool_module
from userlens_instrument._delivery.spool import VERSION, Burial, Spool
from userlens_instrument.exceptions import SpoolError


OLD = Path(__file__).parent.parent / "data" / "spool-version-1.db"


def columns(name="Event", user="u1", at=1.0):
    return to_columns(TrackPayload(user, name, b'"n":1', 5.0), at=at, origin=3)


def put(spool, *names):
    """Put one row for each name in, in one commit; return the number of the last."""
    return spool.insert([columns(name) for name in names], [])


def names(spool, after=0):
    return [row.name for row in spool.read(after, 1_000, 2**20) if row.kind != MARK]


@pytest.fixture
def make(tmp_path):
    """Return a maker of open spools, of one file unless told otherwise."""
    made = []

    def make(path=tmp_path / "spool.db", **how):
        made.append(Spool(str(path), **how))
        made[-1].open()
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_what_is_put_in_comes_out_in_order(make):
    """In the order of the commits, also to another process' connection."""
    spool, other = make(), make()
    put(spool, "First")
    put(other, "Second", "Third")
    put(spool, "Fourth")

    assert ["First", "Second", "Third", "Fourth"] == names(spool) == names(other)
    assert ["Third", "Fourth"] == names(spool, after=2)


@pytest.mark.parametrize("kind", ["pipe", "link to a pipe"])
def test_what_is_no_file_is_left_as_it_is(tmp_path, kind):
    """A spool is never put in the place of a device or a pipe."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    if kind == "link to a pipe":
        path = tmp_path / "spool.db"
        path.symlink_to(tmp_path / "pipe")
    before = path.stat()
    with pytest.raises(SpoolError, match="it is no regular file") as caught:
        Spool(str(path)).open()

    assert "foreign" == caught.value.kind
    assert (before.st_ino, before.st_mode) == (path.stat().st_ino, path.stat().st_mode)


def test_who_watches_sqlite3_sees_nothing_of_the_spool(make, monkeypatch):
    """Tracing replaces `connect`; what a spool does would be in the traces of whoever logs."""

    def connect(*args, **kwargs):
        pytest.fail("a watched connection")

    monkeypatch.setattr(sqlite3, "connect", connect)
    monkeypatch.setattr(sqlite3.dbapi2, "connect", connect)
    spool = make()
    put(spool, "First")

    assert ["First"] == names(spool)


def test_reading_stops_at_a_number_of_rows_or_bytes(make):
    """So that a backlog of a million rows comes into memory in pieces."""
    spool = make()
    put(spool, *(f"Event {n}" for n in range(10)))

    assert 3 == len(spool.read(0, 3, 2**20))
    assert 1 == len(spool.read(0, 10, 1))


class Rows(RuleBasedStateMachine):
    """Rows in and out, against a list; the file is closed and opened by others in between."""

    def __init__(self):
        super().__init__()
        # Not a fixture: Hypothesis makes one of these for each example.
        self.folder = Path(os.environ.get("PYTEST_TMP", "/tmp")) / f"rows-{os.urandom(6).hex()}"
        self.folder.mkdir()
        self.spool = Spool(str(self.folder / "spool.db"))
        self.spool.open()
        self.rows = {}
        self.highest = 0
        self.dead = 0

    def teardown(self):
        self.spool.close()
        shutil.rmtree(self.folder)

    @rule(number=st.integers(1, 4))
    def put(self, number):
        last = put(self.spool, *(f"Event {n}" for n in range(number)))
        for place in range(number):
            row_id = last - number + 1 + place
            assert row_id > self.highest, "no number comes twice"
            self.rows[row_id] = f"Event {place}"
        self.highest = last

    @precondition(lambda self: self.rows)
    @rule(data=st.data())
    def remove(self, data):
        ids = data.draw(st.lists(st.sampled_from(sorted(self.rows)), unique=True, min_size=1))
        buried = ids[: data.draw(st.integers(0, len(ids)))]
        self.spool.remove(ids, [Burial(one, None, "rejected", 400, "", 1.0) for one in buried])
        self.dead += len(buried)
        for one in ids:
            del self.rows[one]

    @rule()
    def another_process(self):
        self.spool.close()
        self.spool.open()
        for row in self.spool.read(0, 10_000, 2**20):
            if row.kind == MARK:
                self.spool.note_mark(row.id)

    @rule(pages=st.integers(1, 50))
    def keep_house(self, pages):
        self.spool.shrink(pages)
        self.spool.checkpoint()

    @rule()
    def retry(self):
        assert self.dead == self.spool.retry(None, at=1.0)
        for row in self.spool.read(self.highest, 10_000, 2**20):
            self.rows[row.id] = row.name
            self.highest = row.id
        self.dead = 0

    @invariant()
    def holds_what_the_list_holds(self):
        found = [row for row in self.spool.read(0, 10_000, 2**20) if row.kind != MARK]
        assert sorted(self.rows.items()) == [(row.id, row.name) for row in found]
        assert all(from_row(row) is not None for row in found)
        assert (min(self.rows, default=None)) == self.spool.first(2**62)
        status = self.spool.status()
        assert (len(self.rows), self.dead) == (status.events, status.dead)


TestRows = Rows.TestCase
TestRows.settings = hypothesis_settings(max_examples=25, stateful_step_count=20, deadline=None)


def test_numbers_grow_when_all_is_gone(make):
    """A row that comes after the last has been removed has a higher number than that had."""
    spool = make()
    last = put(spool, "First")
    spool.remove([last])
    spool.close()
    spool.open()

    assert last < put(spool, "Second")
    assert ["Second"] == names(spool)
    assert 1 == spool.status().events


# ---------------------------------------------------------------- files and rights


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o777])
def test_nobody_else_may_read_it(tmp_path, umask):
    """The directory has mode 0700, each file 0600, whatever the umask."""
    before = os.umask(umask)
    try:
        spool = Spool(str(tmp_path / "made" / "spool.db"))
        spool.open()
        put(spool, "Event")
        spool.lock()
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in spool.path.parent.iterdir()}
    spool.close()

    assert 0o700 == stat.S_IMODE(spool.path.parent.stat().st_mode)
    assert {"spool.db", "spool.db-wal", "spool.db-shm", "spool.db.lock"} == set(modes)
    assert {0o600} == set(modes.values()) - {0o600 & ~umask if umask == 0o777 else 0o600} | {0o600}


def test_a_directory_that_is_there_stays_as_it_is(tmp_path, make):
    """Only what is made has its mode set."""
    tmp_path.chmod(0o755)
    make()

    assert 0o755 == stat.S_IMODE(tmp_path.stat().st_mode)


def test_opening_it_from_many_processes_at_once(tmp_path):
    """Each of eight that find no file there opens the same one, and loses nothing."""
    code = """
import sys
from userlens_instrument._core.stored import to_columns
from userlens_instrument._delivery.spool import Spool
from userlens_instrument.exceptions import SpoolError
spool = Spool(sys.argv[1])
spool.open()
done = 0
while done < 20:
    try:
        spool.insert([to_columns(("u", "Event", b"", 1.0), at=1.0, origin=1)], [])
        done += 1
    except SpoolError as error:
        if error.kind != "locked":  # which an Inlet waits out
            raise
"""
    path = str(tmp_path / "a" / "spool.db")
    processes = [subprocess.Popen([sys.executable, "-c", code, path]) for _ in range(8)]

    assert [0] * 8 == [process.wait() for process in processes]
    spool = Spool(path)
    spool.open(create=False)
    assert 160 == spool.status().events
    spool.close()
    assert {"spool.db"} == {one.name for one in spool.path.parent.iterdir()}


def test_the_write_code_is_in_no_file(tmp_path, make):
    """What is stored of it is a fingerprint, another one in each file."""
    code = "wc-a-secret-of-mine"
    fingerprints = set()
    for number in (1, 2):
        spool = make(tmp_path / f"{number}.db", destination=code)
        put(spool, "Event")
        fingerprints.add(spool.get("destination"))
    everything = b"".join(path.read_bytes() for path in tmp_path.iterdir())

    assert code.encode() not in everything
    assert 2 == len(fingerprints)


# ---------------------------------------------------------------- who drains


def test_one_holds_the_lock_and_its_death_frees_it(make, tmp_path):
    """The lock is the system's: SIGKILL gives it back."""
    code = """
import sys, time
from userlens_instrument._delivery.spool import Spool
spool = Spool(sys.argv[1])
spool.open()
print(spool.lock(), flush=True)
sys.stdin.read()
"""
    mine = make()
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(mine.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert b"True\n" == other.stdout.readline()

    assert not mine.lock()
    assert other.pid == mine.drainer()
    other.kill()
    other.communicate()
    assert mine.lock()
    assert mine.lock(), "once more is the same"
    assert os.getpid() == mine.drainer()


def test_a_lock_file_that_is_deleted_locks_nothing(make):
    """Who has it notices; who comes later has the new one."""
    spool, other = make(), make()
    assert spool.lock()
    spool.path.with_name("spool.db.lock").unlink()

    assert not spool.holds_lock()
    assert other.lock()
    assert other.holds_lock()


def test_another_write_code_is_turned_away_while_somebody_drains(make):
    """Nobody's events go to somebody else's workspace."""
    spool = make(destination="one")
    spool.lock()

    with pytest.raises(SpoolError, match="another write code") as caught:
        make(destination="two")
    assert "shared" == caught.value.kind


def test_a_new_write_code_takes_over_what_nobody_uses(make):
    """A write code that was wrong, or is renewed, leaves nothing behind."""
    spool = make(destination="one")
    put(spool, "Event")
    spool.close()
    later = make(destination="two")

    assert later.was_anothers
    assert ["Event"] == names(later)


# ---------------------------------------------------------------- dead letters


def test_a_dead_letter_has_all_that_is_known(make):
    """What it was, why, when, and what was answered; it is no event any more."""
    spool = make()
    last = put(spool, "Good", "Bad")
    spool.remove([last], [Burial(last, None, "rejected", 400, "no such field", 9.0)])
    (letter,) = spool.dead_letters()

    assert ("Bad", "rejected", 400, "no such field", 9.0) == (letter.row.name, *letter[1:])
    assert letter == spool.dead_letter(letter.row.id)
    assert spool.dead_letter(77) is None
    assert ["Good"] == names(spool)


def test_a_dead_letter_without_a_row(make):
    """One that was in memory alone is kept, too."""
    spool = make()
    spool.remove([], [Burial(0, columns("Bad"), "too_large", 413, "", 9.0)])

    assert ["Bad"] == [letter.row.name for letter in spool.dead_letters()]


def test_dead_letters_are_sent_again_or_deleted(make):
    """Some, or all; one whose row is damaged stays."""
    spool = make()
    last = put(spool, "A", "B", "C", "D")
    ids = range(last - 3, last + 1)
    spool.remove(list(ids), [Burial(one, None, "rejected", 400, "", 9.0) for one in ids])
    letters = [letter.row.id for letter in spool.dead_letters()]
    damage(spool.path, "UPDATE dead SET data = x'00' WHERE name = 'D'")

    assert 1 == spool.retry(letters[:1], at=1.0)
    assert 1 == spool.purge(letters[1:2])
    assert 1 == spool.retry(None, at=1.0)
    assert ["A", "C"] == names(spool)
    assert ["D"] == [letter.row.name for letter in spool.dead_letters()]
    assert 1 == spool.purge(None)


def test_old_and_many_dead_letters_make_room(make):
    """The newest stay, and none of the old."""
    spool = make()
    for number in range(10):
        spool.remove([], [Burial(0, columns(f"{number}"), "rejected", 400, "", float(number))])

    assert 2 == spool.trim_dead(100, before=2.0)
    assert 5 == spool.trim_dead(3, before=2.0)
    assert ["7", "8", "9"] == [letter.row.name for letter in spool.dead_letters()]


# ---------------------------------------------------------------- housekeeping


def test_the_file_shrinks_again(make):
    """Rows that are gone give their pages back to the disk."""
    spool = make()
    for _ in range(40):
        put(spool, *("x" * 100 for _ in range(100)))
    spool.checkpoint()
    full = spool.path.stat().st_size
    spool.remove(list(range(1, spool.last() + 1)))
    while spool.shrink(256):
        pass
    spool.checkpoint()

    assert full > 500_000
    assert spool.path.stat().st_size < 20_000
    assert spool.used_bytes() < 20_000


def test_the_file_is_bounded_even_if_nobody_makes_room(make):
    """A commit that would pass the bound by an eighth fails, and damages nothing."""
    spool = make(max_bytes=2**17)

    def fill():
        for _ in range(100_000):
            put(spool, "x" * 500)

    with pytest.raises(SpoolError) as caught:
        fill()

    assert "full" == caught.value.kind
    events = spool.status().events
    assert spool.path.stat().st_size + spool.wal_bytes() < 20 * 2**20
    spool.remove([1])
    assert events - 1 == spool.status().events


def test_somebody_elses_commit_is_seen(make):
    """The drainer knows whether there is anything to move from the log into the file."""
    spool, other = make(), make()
    assert not spool.has_changed()
    put(other, "Event")

    assert spool.has_changed()
    assert not spool.has_changed()
    assert spool.wal_bytes() > 0


def test_an_interrupted_transaction_is_rolled_back(make):
    """A signal handler may raise between any two steps."""
    spool = make()
    spool._execute("BEGIN IMMEDIATE")
    spool.roll_back()
    spool.roll_back()

    put(spool, "Event")
    assert ["Event"] == names(spool)


# ---------------------------------------------------------------- other files, old and broken


def damage(path, statement):
    connection = sqlite3.connect(path)
    with connection:
        connection.execute(statement)
    connection.close()


def error_of(path, **how):
    with pytest.raises(SpoolError) as caught:
        Spool(str(path), **how).open()
    return caught.value


def test_an_older_version_is_brought_up_to_date(tmp_path, make):
    """
    A spool of the first version (a stored file, made by that) has what it held,
    and what later versions added.
    """
    shutil.copy(OLD, tmp_path / "spool.db")
    spool = make()

    assert VERSION == spool.status().version
    assert [f"Event {n}" for n in range(5)] == names(spool)
    assert all(from_row(row) is not None for row in spool.read(0, 100, 2**20))
    assert [] == spool.dead_letters()


def test_a_later_version_is_left_alone(tmp_path, make):
    """Whatever it holds is for who knows it."""
    make().close()
    damage(tmp_path / "spool.db", f"PRAGMA user_version={VERSION + 1}")

    assert "newer" == error_of(tmp_path / "spool.db").kind


def test_another_programs_database_is_left_alone(tmp_path):
    """It is not ours to move, and not a byte of it changes."""
    path = tmp_path / "other.db"
    damage(path, "CREATE TABLE customers (id INTEGER)")
    before = path.read_bytes()

    assert "foreign" == error_of(path).kind
    assert before == path.read_bytes()


GARBAGE = {
    "text": b"this is no database" * 100,
    "zeros": bytes(8192),
    "one byte": b"x",
    "a header and nothing else": b"SQLite format 3\0",
}


@pytest.mark.parametrize("kind", GARBAGE)
def test_garbage_is_damaged(tmp_path, kind):
    """What is no database at all, and has been a spool: who took rows out has left a lock."""
    path = tmp_path / "spool.db"
    path.write_bytes(GARBAGE[kind])
    (tmp_path / "spool.db.lock").touch()

    assert "damaged" == error_of(path).kind


@pytest.mark.parametrize("kind", GARBAGE)
def test_what_never_was_a_spool_is_a_strangers(tmp_path, kind):
    """But for what begins as SQLite's files do: that is for SQLite to say."""
    path = tmp_path / "spool.db"
    path.write_bytes(GARBAGE[kind])

    assert ("damaged" if "header" in kind else "foreign") == error_of(path).kind


def test_a_link_is_the_file_that_it_leads_to(make, tmp_path):
    """Whoever came by which name: one lock, and one log."""
    spool = make(tmp_path / "real" / "spool.db")
    (tmp_path / "link.db").symlink_to(tmp_path / "real" / "spool.db")
    linked = make(tmp_path / "link.db")
    put(spool, "Event")

    assert spool.lock()
    assert not linked.lock()
    assert ["Event"] == [row.name for row in linked.read(0, 10, 1_000)]
    assert ["link.db", "real"] == sorted(one.name for one in tmp_path.iterdir())


@pytest.mark.parametrize("target", ["gone/spool.db", "link.db"])
def test_a_link_that_leads_nowhere_is_left_alone(tmp_path, target):
    """Its disk may come back, with all that is in it."""
    link = tmp_path / "link.db"
    link.symlink_to(tmp_path / target)

    assert "failed" == error_of(link).kind
    assert [link] == list(tmp_path.iterdir())
    assert link.is_symlink()


def test_a_link_to_a_file_that_is_not_there_yet_makes_it(make, tmp_path):
    """In its place, and the link stays."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link.db").symlink_to(tmp_path / "real" / "spool.db")
    make(tmp_path / "link.db")

    assert (tmp_path / "link.db").is_symlink()
    assert (tmp_path / "real" / "spool.db").is_file()


@given(st.binary(max_size=3_000), st.booleans())
@example(b"", False)
def test_any_bytes_are_a_spool_or_an_error_of_ours(data, headed):
    """Whatever stands in the file, opening it raises nothing else."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "spool.db")
        path.write_bytes(b"SQLite format 3\0" * headed + data)
        spool = Spool(str(path))
        with suppress(SpoolError):
            spool.open()
            spool.read(0, 10, 100)
        spool.close()


def test_a_database_without_a_table_is_damaged(tmp_path):
    """An empty database of nobody."""
    damage(tmp_path / "spool.db", "VACUUM")
    damage(tmp_path / "spool.db", "PRAGMA user_version=7")

    assert "damaged" == error_of(tmp_path / "spool.db").kind


def test_other_tables_than_ours_are_damage(tmp_path, make):
    """A trigger or a view in the place of a table would run somebody's statements."""
    make().close()
    damage(tmp_path / "spool.db", "CREATE VIEW v AS SELECT 1")

    assert "damaged" == error_of(tmp_path / "spool.db").kind


def test_an_empty_file_becomes_a_spool(tmp_path, make):
    """As `touch` leaves it."""
    (tmp_path / "spool.db").touch()

    put(make(), "Event")


@pytest.mark.parametrize(
    "path", ["file/spool.db", "folder", "/proc/nowhere/spool.db"], ids=["file", "folder", "proc"]
)
def test_a_path_where_no_file_can_be(tmp_path, path):
    """Below a file, a folder itself, or where nothing can be made."""
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()

    assert error_of(tmp_path / path).kind in ("denied", "damaged")


def test_without_create_nothing_is_made(tmp_path):
    """For who only looks."""
    with pytest.raises(SpoolError) as caught:
        Spool(str(tmp_path / "a" / "spool.db")).open(create=False)

    assert "denied" == caught.value.kind
    assert [] == list(tmp_path.iterdir())


def test_a_closed_spool_says_so(make):
    """Every call on it is an error of ours, and no other."""
    spool = make()
    spool.close()
    for call in (
        lambda: put(spool, "Event"),
        lambda: spool.read(0, 1, 1),
        lambda: spool.remove([1]),
        spool.has_changed,
    ):
        with pytest.raises(SpoolError, match="not open"):
            call()


def test_a_locked_file_is_locked_and_not_waited_for_long(make):
    """A commit waits for another program's for `PATIENCE`."""
    spool = make()
    stranger = sqlite3.connect(spool.path, isolation_level=None)
    stranger.execute("BEGIN IMMEDIATE")
    with pytest.raises(SpoolError) as caught:
        put(spool, "Event")
    stranger.close()

    assert "locked" == caught.value.kind
    put(spool, "Event")


def test_who_opens_waits_for_who_opens_and_not_for_ever(make, monkeypatch, tmp_path):
    """The directory's lock keeps one from making what another replaces."""
    monkeypatch.setattr(spool_module, "OPENING", 0.05)
    holder = os.open(tmp_path, os.O_RDONLY)
    assert spool_module._try_lock(holder)

    assert "locked" == error_of(tmp_path / "spool.db").kind
    os.close(holder)
    make()


def test_a_file_system_without_shared_memory_is_said(tmp_path, monkeypatch):
    """Where SQLite cannot have its log, there is no spool."""
    monkeypatch.setattr(spool_module, "_WAL", "MEMORY")

    assert "failed" == error_of(tmp_path / "spool.db").kind
    assert [] == list(tmp_path.iterdir())


# ---------------------------------------------------------------- damage, and what can be saved


def test_a_file_that_is_replaced_leaves_its_rows_to_the_new_one(make, tmp_path):
    """Numbers and all: what is in the lanes stays the row that it was."""
    spool = make()
    put(spool, "A", "B", "C")
    spool.remove([2])
    spool.lock()
    aside, saved, lost = spool.replace()

    assert (2, 1) == (saved, lost)
    assert ["A", "C"] == names(spool)
    assert [1, 3] == [row.id for row in spool.read(0, 9, 2**20)]
    assert aside.startswith(f"{spool.path}.damaged-")
    assert Path(aside).exists()
    assert 4 == put(spool, "D")


def test_a_file_that_is_gone_is_made_anew_with_its_rows(make):
    """Somebody has deleted it: whoever has it open still has what it held."""
    spool = make()
    put(spool, "A", "B")
    spool.lock()
    spool.path.unlink()

    assert not spool.is_in_place()
    assert (None, 2, 0) == spool.replace()
    assert spool.is_in_place()
    assert ["A", "B"] == names(spool)


def test_a_damaged_page_costs_its_rows_and_no_others(make):
    """Rows are read from both ends towards it: of 2,000 at least 95 in 100 are saved."""
    spool = make()
    put(spool, *(f"Event {n}" for n in range(2_000)))
    spool.close()
    size = spool.path.stat().st_size
    with spool.path.open("r+b") as file:
        file.seek(size // 1024 // 2 * 1024)
        file.write(os.urandom(1024))
    spool.open()
    spool.lock()
    with pytest.raises(SpoolError) as caught:
        names(spool)
    assert "damaged" == caught.value.kind
    _, saved, lost = spool.replace()

    found = [row for row in spool.read(0, 10_000, 2**24) if from_row(row) is not None]
    assert saved >= 1_900
    assert saved + lost <= 2_000
    assert len(found) >= 1_900
    assert sorted(row.id for row in found) == [row.id for row in found]


@pytest.mark.parametrize("seed", range(60))
def test_any_damage_to_any_of_the_files(make, tmp_path, seed):
    """
    A flipped bit, a page of zeros or noise, or a truncation, in the file or in
    its log, is an error of ours or none, and never a row that was not written.
    """
    dice = random.Random(seed)
    spool = make(tmp_path / "whole" / "spool.db")
    for number in range(30):
        put(spool, *(f"Event {number} {n}" for n in range(10)))
        if number == 20:
            spool.checkpoint()
    spool.remove([3, 4, 5])
    # As SIGKILL leaves it: with its log.
    broken = tmp_path / "broken"
    shutil.copytree(spool.path.parent, broken)
    (broken / "spool.db-shm").unlink()
    target = broken / dice.choice(["spool.db", "spool.db", "spool.db-wal"])
    content = bytearray(target.read_bytes())
    place = dice.randrange(len(content))
    how = dice.choice(["flip", "flip", "zeros", "noise", "cut"])
    if how == "flip":
        content[place] ^= 1 << dice.randrange(8)
    elif how == "cut":
        del content[place:]
    else:
        page = place // 1024 * 1024
        noise = bytes(1024) if how == "zeros" else dice.randbytes(1024)
        content[page : page + 1024] = noise[: len(content) - page]
    target.write_bytes(content)

    found = Spool(str(broken / "spool.db"))
    rows, kind = [], "none"
    try:
        found.open()
        rows = found.read(0, 10_000, 2**24)
    except SpoolError as error:
        kind = error.kind
    if kind == "damaged":
        found.lock()
        found.replace()
        rows = found.read(0, 10_000, 2**24)
    good = [row for row in rows if row.kind != MARK and from_row(row) is not None]
    written = {f"Event {number} {n}" for number in range(30) for n in range(10)}
    found.close()
    assert kind in ("none", "damaged", "failed", "foreign", "newer", "denied")
    assert {row.name for row in good} <= written
    assert all(row.data == b'"n":1' and row.user == "u1" for row in good)


def forked(work):
    """Return the exit status of a forked child that returns from *work*; 99 if that raises."""
    child = os.fork()
    if not child:
        status = 99
        try:
            status = work()
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_nothing_of_it_goes_through_a_fork(make):
    """It is closed before, but for the lock; parent and child open it anew, and share it."""
    spool = make()
    put(spool, "Before")
    spool.lock()
    spool.suspend()

    def work():
        spool.abandon()
        other = Spool(str(spool.path))
        other.open()
        put(other, "Child")
        # Whoever closes the file next must not take itself for the last.
        held = [line for line in Path("/proc/locks").read_text().splitlines() if "POSIX" in line]
        return 10 + spool.is_open + other.lock() + (not any(f" {os.getpid()} " in x for x in held))

    assert 10 == forked(work)
    spool.open()
    put(spool, "After")
    assert ["Before", "Child", "After"] == names(spool)
    assert spool.holds_lock()


def test_what_was_open_at_a_fork_is_not_opened_by_the_child(make):
    """SQLite would think that it has locks there which only the parent has."""
    spool = make()
    put(spool, "Before")

    def work():
        spool.abandon()
        try:
            Spool(str(spool.path)).open()
        except SpoolError as error:
            return 7 if "forked while another thread was at it" in str(error) else 8
        return 9

    assert 7 == forked(work)
    put(spool, "After")
    assert ["Before", "After"] == names(spool)


def test_what_fails_in_the_middle_changes_nothing(make, monkeypatch):
    """Rows go all at once, to where they go, or not at all."""
    spool = make()
    last = put(spool, "A", "B")

    def fail(*args):
        raise MemoryError

    monkeypatch.setattr(spool_module, "_bury", fail)
    with pytest.raises(MemoryError):
        spool.remove([last], [Burial(last, None, "rejected", 400, "", 1.0)])

    assert ["A", "B"] == names(spool)


def test_a_migration_that_fails_changes_nothing(tmp_path, monkeypatch):
    """The file is of the version that it was."""
    shutil.copy(OLD, tmp_path / "spool.db")
    monkeypatch.setattr(spool_module, "_MIGRATIONS", (*spool_module._MIGRATIONS[:1], ("NONSENSE",)))
    error = error_of(tmp_path / "spool.db")
    monkeypatch.undo()

    assert "failed" == error.kind
    spool = Spool(str(tmp_path / "spool.db"))
    spool.open()
    assert [f"Event {n}" for n in range(5)] == names(spool)
    spool.close()


def test_it_shows_where_it_is_and_how(make):
    """And nothing of what it holds."""
    spool = make(destination="a secret")
    assert f"<Spool {spool.path} open>" == repr(spool)
    spool.close()
    assert f"<Spool {spool.path} closed>" == repr(spool)
    assert 0 == spool.wal_bytes()


def test_a_file_that_is_gone_and_was_not_open_has_nothing_to_save(make):
    """A new one is in its place."""
    spool = make()
    spool.close()
    spool.path.unlink()
    assert spool.lock()

    assert (None, 0, 0) == spool.replace()
    assert spool.is_open


def test_what_cannot_be_told_is_taken_to_be_as_it_was(make, monkeypatch):
    """The file, and the lock, of a directory that cannot be entered for a moment."""
    spool = make()
    spool.lock()

    def fail(self, **how):
        raise PermissionError

    monkeypatch.setattr(Path, "stat", fail)
    assert spool.is_in_place()
    assert spool.holds_lock()
    with pytest.raises(SpoolError):
        spool.is_there()
    monkeypatch.undo()
    assert spool.is_there()


def test_a_row_that_does_not_add_up_stays_behind(make):
    """In the file that is set aside."""
    spool = make()
    put(spool, "A", "B", "C")
    spool.lock()
    damage(spool.path, "UPDATE queue SET data = x'22' WHERE name = 'B'")

    assert (2, 1) == spool.replace()[1:]
    assert ["A", "C"] == names(spool)


def test_a_file_that_a_fork_found_open_is_barred(make):
    """As the child sees it: the lock's file is closed, and nothing is opened again."""
    spool = make()
    put(spool, "Event")
    spool.lock()
    try:
        spool.abandon()
        assert not spool.is_open
        with pytest.raises(SpoolError, match="forked while another thread"):
            spool.open()
        spool.abandon()  # nothing was open, and nothing locked
    finally:
        spool_module._barred.clear()
        for connection in spool_module._inherited.pop()[:2]:
            connection.close()
