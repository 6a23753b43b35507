"""The file of accepted requests."""

import json
import os
import stat
import sys
from pathlib import Path

import pytest

from userlens_instrument.inspector import Recorder


LINE = {"received_at": "2026-01-31T12:00:00.000Z", "path": "/event", "body": {"a": "ä\n"}}
TEXT = '{"received_at":"2026-01-31T12:00:00.000Z","path":"/event","body":{"a":"ä\\n"}}\n'


@pytest.fixture
def complaints():
    """Return the list of what was complained about."""
    return []


@pytest.fixture
def record(tmp_path, complaints):
    """Return what opens a recorder; it is closed after the test."""
    opened = []

    def open_one(file):
        opened.append(Recorder(file, complain=complaints.append))
        return opened[-1]

    yield open_one
    for each in opened:
        each.close()


def test_one_line_each(tmp_path, record):
    """Each request is one line, and is in the file before the next one comes."""
    file = tmp_path / "events.jsonl"
    recorder = record(file)
    recorder.write(**LINE)
    first = file.read_text("utf-8")
    recorder.write(**LINE)

    assert (TEXT, TEXT + TEXT) == (first, file.read_text("utf-8"))


def test_appends(tmp_path, record):
    """What an earlier run recorded is kept."""
    file = tmp_path / "events.jsonl"
    file.write_text(TEXT, "utf-8")
    record(file).write(**LINE)

    assert TEXT + TEXT == file.read_text("utf-8")


def test_appends_after_a_line_that_was_cut_off(tmp_path, record):
    """A line that an earlier run could not finish does not spoil the next one."""
    file = tmp_path / "events.jsonl"
    file.write_text('{"received_', "utf-8")
    recorder = record(file)
    recorder.write(**LINE)
    recorder.write(**LINE)

    assert '{"received_\n' + TEXT + TEXT == file.read_text("utf-8")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such permissions")
def test_is_private(tmp_path, record):
    """Events are about people: only the owner can read the file."""
    file = tmp_path / "events.jsonl"
    record(file)

    assert 0o600 == stat.S_IMODE(file.stat().st_mode)


def test_unwritable(tmp_path, record):
    """A file that cannot be opened is an error at once."""
    with pytest.raises(OSError, match="directory"):
        record(tmp_path)


class Disk:
    """A file on a disk that takes so many bytes of each write; None is an error."""

    def __init__(self, file, *takes):
        """Wrap *file*; after *takes*, everything is taken."""
        self.file = file
        self.takes = list(takes)

    def write(self, line):
        """Take a part of *line*."""
        take = self.takes.pop(0) if self.takes else len(line)
        if take is None:
            raise OSError(28, "No space left on device")
        return self.file.write(line[:take])

    def close(self):
        """Close the file."""
        self.file.close()


def test_full_disk(tmp_path, record, complaints):
    """A disk that is full is said once, not once per request; when it is full again, again."""
    file = tmp_path / "events.jsonl"
    recorder = record(file)
    recorder._file = Disk(recorder._file, None, None, 1_000, None)
    for _ in range(4):
        recorder.write(**LINE)

    problem = f"cannot record to {os.fspath(file)!r}: No space left on device; going on without"
    assert [problem, problem] == complaints
    assert TEXT == file.read_text("utf-8")
    assert f"<Recorder file={os.fspath(file)!r} failing=True>" == repr(recorder)


def test_disk_that_fills_up(tmp_path, record, complaints):
    """A line that was written in part does not spoil the next one."""
    file = tmp_path / "events.jsonl"
    recorder = record(file)
    recorder._file = Disk(recorder._file, 10)
    recorder.write(**LINE)
    recorder.write(**LINE)

    torn, whole = file.read_text("utf-8").splitlines()
    assert (TEXT[:10], LINE) == (torn, json.loads(whole))
    assert 1 == len(complaints)


def test_device(record, complaints):
    """What is no ordinary file is written to as well; here the disk that is always full."""
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    record("/dev/full").write(**LINE)

    assert ["cannot record to '/dev/full': No space left on device; going on without"] == complaints
