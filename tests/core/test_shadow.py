"""A program's own module of the name of a library that we need."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest

from userlens_instrument._core.shadow import shadow_of


LIBRARIES = ["orjson", "regex", "urllib3"]


@pytest.mark.parametrize("name", LIBRARIES)
@pytest.mark.parametrize("is_loaded", [True, False])
def test_the_libraries_themselves(name, is_loaded, monkeypatch):
    """
    Each is a package, before and after it has been loaded.
    """
    if is_loaded:
        pytest.importorskip(name)
    else:
        monkeypatch.delitem(sys.modules, name, raising=False)

    assert shadow_of(name) is None


def test_a_file_that_comes_first(tmp_path, monkeypatch):
    """
    It is named, and not run.
    """
    file = tmp_path / "regex.py"
    file.write_text("raise SystemExit")
    monkeypatch.delitem(sys.modules, "regex", raising=False)
    monkeypatch.syspath_prepend(tmp_path)

    assert str(file) == shadow_of("regex")
    assert "regex" not in sys.modules


def test_a_file_that_the_program_has_imported(monkeypatch):
    """
    Whoever has come first has the name.
    """
    module = ModuleType("regex")
    monkeypatch.setitem(sys.modules, "regex", module)
    assert "regex" == shadow_of("regex")

    module.__file__ = "/app/regex.py"
    assert "/app/regex.py" == shadow_of("regex")


def test_a_folder_is_no_module(tmp_path, monkeypatch):
    """
    Python looks on, behind a folder without an __init__.py; and there may be none at all.
    """
    (tmp_path / "regex").mkdir()
    monkeypatch.delitem(sys.modules, "regex", raising=False)
    monkeypatch.syspath_prepend(tmp_path)

    assert shadow_of("regex") is None
    assert shadow_of("no_such_library") is None
