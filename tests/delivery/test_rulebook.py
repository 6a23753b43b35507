"""The rules that a process goes by: read once, and again when the file changes."""

from __future__ import annotations

import logging
import os

import pytest
from children import in_fork
from helpers import PATIENCE, WRITE_CODE, run_python

from userlens_instrument import Client, RulesError, Settings
from userlens_instrument._delivery import rulebook
from userlens_instrument._delivery.diagnostics import voice
from userlens_instrument._delivery.rulebook import INTERVAL, Book, load, shared_book
from userlens_instrument.client import book_of_environment, track


ONE = '[[rule]]\nmessage = "A"\n'
TWO = ONE + '[[rule]]\nmessage = "B"\n'
WRONG = '[[rule]]\nmessage = "A"\nlevl = 3\nstop = 1\n'
NOW = 1_795_456_800.0


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "userlens.toml"
    path.write_text(ONE)
    return path


@pytest.fixture
def lines(caplog):
    caplog.set_level(logging.INFO, "userlens_instrument")

    def said():
        voice.drain(PATIENCE)
        return [record.getMessage() for record in caplog.records]

    return said


def settled(book):
    """Wait until the thread of the rules has done what it was given."""
    assert rulebook._errands.finish(PATIENCE)
    return len(book.rules)


def settings(**more):
    return Settings(write_code=WRITE_CODE, dry_run=True, **more)


def test_the_same_rules_are_read_once(file):
    """
    Whoever asks for the same rules has the same; other redaction, or reloading, is another thing.
    """
    one = shared_book(settings(rules=str(file)))

    assert one is shared_book(settings(rules=file))
    assert one is not shared_book(settings(rules=file, redact=("plan",)))
    assert one is not shared_book(settings(rules=file, rules_reload=True))
    assert shared_book(settings()) is None
    assert f"<Book of 1 rules from {file}>" == repr(one)


def test_a_wrong_setting_beside_rules_is_said_once(file, lines, monkeypatch):
    """
    It is no matter of rules: one line, whether rules or a client ask for the settings first.
    """
    monkeypatch.setenv("USERLENS_RULES", str(file))
    monkeypatch.setenv("USERLENS_MAX_WORKERS", "x")

    assert book_of_environment() is None
    track("u1", "By Hand")

    assert [
        (
            "no event is sent: max_workers (from USERLENS_MAX_WORKERS) is not a whole number; "
            "give digits only"
        )
    ] == [said for said in lines() if "max_workers" in said]


def test_wrong_rules_of_the_environment(file, lines, monkeypatch):
    """
    Who has no client yet is told in one line, and goes on without rules.
    """
    file.write_text('[[rule]]\nmesage = "x"\n')
    monkeypatch.setenv("USERLENS_RULES", str(file))

    assert book_of_environment() is None

    assert [
        (
            f"rules are ignored: {file}: line 2, rule 1: mesage is no key of a rule; "
            "did you mean message?"
        )
    ] == lines()


def test_rules_as_dicts():
    """
    A list of dicts, as dictConfig has it, is fixed when it is given: changing it later changes
    nothing.
    """
    given = [{"message": "A", "where": {"a": [1, 2]}}, {"message": "B"}]

    asked = settings(rules=given)
    given.clear()

    assert 2 == len(shared_book(asked).rules)
    assert shared_book(asked) is shared_book(
        settings(rules=[{"message": "A", "where": {"a": [1, 2]}}, {"message": "B"}])
    )
    assert not shared_book(settings(rules=[{"message": "A"}], rules_reload=True)).reloads
    assert "<Book of 2 rules from rules>" == repr(shared_book(asked))


def test_a_client_goes_by_the_rules_of_its_settings(file):
    """
    `Client.book` is what its lines go by; wrong rules are an error when it is made.
    """
    with Client(settings(rules=file)) as client:
        assert 1 == len(client.book.rules)
    with Client(settings()) as client:
        assert client.book is None
    file.write_text(WRONG)

    with pytest.raises(RulesError) as caught:
        Client(settings(rules=file, redact=("x",)))

    assert str(file) == caught.value.source
    assert 2 == len(caught.value.problems)
    assert caught.value.problems[0].startswith('line 3, rule 1 "A": levl is no key')
    more = " (and 1 more: userlens-instrument rules check shows them)"
    assert f"{file}: {caught.value.problems[0]}{more}" == str(caught.value)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: path, "there is no such file; give the path of a rules file"),
        (lambda path: path.mkdir(), "this is a directory; give the path of a file in it"),
        (lambda path: path.write_bytes(b"\xff\xfe[["), "this is not UTF-8; save it as UTF-8"),
        (lambda path: path.symlink_to(path), "this cannot be read ("),
        (lambda path: path.write_text("#" * 11_000_000), "this is too large for rules; look"),
        (os.mkfifo, "this cannot be read (a pipe, which may never end)"),
    ],
)
def test_what_cannot_be_read(tmp_path, make, said):
    """
    No file, no permission, no text: one line that says which, and what to do.
    """
    path = tmp_path / "rules"
    make(path)

    with pytest.raises(RulesError) as caught:
        load(str(path), ())

    assert str(caught.value).startswith(f"{path}: {said}")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_may_not_be_read(file):
    """
    A file without permission is said as such.
    """
    file.chmod(0)

    with pytest.raises(RulesError, match="this may not be read; let the user"):
        load(str(file), ())


def test_a_byte_order_mark(file):
    """
    What some editors put at the beginning of UTF-8 is no part of the rules.
    """
    file.write_bytes(b"\xef\xbb\xbf" + ONE.encode())

    assert 1 == len(load(str(file), ()))


# ---------------------------------------------------------------- when the file changes


def test_a_change_is_taken_after_ten_seconds_at_most(file, lines):
    """
    A look at most every ten seconds of the records' own time; what has changed is taken, and said.
    """
    book = Book(str(file), (), reloads=True)
    book.look(NOW)
    file.write_text(TWO)

    book.look(NOW + INTERVAL - 0.001)
    assert 1 == settled(book)
    book.look(NOW + INTERVAL)

    assert 2 == settled(book)
    assert [f"2 rules read again from {file}"] == lines()


def test_a_bad_new_version_keeps_the_old_one(file, lines):
    """
    What is wrong with it is said once, with line and fix, and the rules stay; a later good one is
    taken.
    """
    book = Book(str(file), (), reloads=True)
    book.look(NOW)
    file.write_text(WRONG)

    for number in range(1, 4):
        book.look(NOW + number * INTERVAL)
        assert 1 == settled(book)
    file.write_text(TWO)
    book.look(NOW + 4 * INTERVAL)

    assert 2 == settled(book)
    first, second = lines()
    assert first.startswith(f'the rules stay as they were: {file}: line 3, rule 1 "A": levl')
    assert f"2 rules read again from {file}" == second


def test_a_file_that_goes_away_keeps_the_rules(file, lines):
    """
    A file that is being replaced is gone for a moment: nothing is lost, and its return is noticed.
    """
    book = Book(str(file), (), reloads=True)
    book.look(NOW)
    file.unlink()
    book.look(NOW + INTERVAL)
    assert 1 == settled(book)

    file.write_text(TWO)
    book.look(NOW + 2 * INTERVAL)

    assert 2 == settled(book)
    assert "there is no such file" in lines()[0]


def test_a_file_without_rules_keeps_the_old_ones(file, lines):
    """
    An editor may leave it empty for a moment; rules that would go for that moment lose events.
    """
    book = Book(str(file), (), reloads=True)
    book.look(NOW)
    file.write_text("")
    book.look(NOW + INTERVAL)

    assert 1 == settled(book)
    assert [f"the rules stay as they were: {file} has none"] == lines()


def test_a_file_that_stays_is_not_read_again(file, monkeypatch):
    """
    A look is a look at the file's state; it is read when that has changed.
    """
    book = Book(str(file), (), reloads=True)
    book.look(NOW)
    monkeypatch.setattr(rulebook, "load", lambda *args: pytest.fail("it was read"))
    before = book.rules

    book.look(NOW + INTERVAL)

    settled(book)
    assert before is book.rules


def test_a_clock_that_is_set_back(file):
    """
    After the clock is set back by an hour, a change is still found within one interval.
    """
    book = Book(str(file), (), reloads=True)
    book.look(NOW)
    book.look(NOW + INTERVAL)
    file.write_text(TWO)

    book.look(NOW - 3_600)

    assert 2 == settled(book)


def test_a_running_program_takes_new_rules(tmp_path, server):
    """
    For real: rules_reload=true, a file that changes, and the next lines go by it.
    """
    path = tmp_path / "userlens.toml"
    path.write_text(ONE)
    done = run_python(
        """
import logging, os, pathlib
import userlens_instrument as userlens
from userlens_instrument._delivery import rulebook

rulebook.INTERVAL = 0.0
logging.basicConfig(level=logging.INFO, handlers=[userlens.UserlensHandler()])
log = logging.getLogger("app")

def lines():
    for text in "AB":
        log.info(text, extra={"user_id": "u1"})

lines()
path = pathlib.Path(os.environ["USERLENS_RULES"])
path.write_text(path.read_text() + "[[rule]]\\nmessage = 'B'\\n")
book, = rulebook.books.values()
for _ in range(100_000):
    log.info("Something else")
    if len(book.rules) == 2:
        break
lines()
""",
        server.url,
        USERLENS_RULES=str(path),
        USERLENS_RULES_RELOAD="true",
    )

    assert (0, "") == (
        done.returncode,
        done.stderr.replace(f"2 rules read again from {path}\n", ""),
    )
    assert ["A", "A", "B"] == [body["event"] for body in server.events]


def test_a_child_starts_afresh(file):
    """
    After a fork the thread of the parent is not there; the child reads again by itself.
    """
    book = Book(str(file), (), reloads=True)
    book.look(NOW)
    file.write_text(TWO)

    def work():
        book.look(NOW + INTERVAL)
        assert 2 == settled(book)

    in_fork(work)
    # What the child has called, here: the thread that was to look is not waited for.
    rulebook.forget_inherited()
    book.look(NOW + INTERVAL)
    assert 2 == settled(book)
