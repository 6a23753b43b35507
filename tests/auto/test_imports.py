"""Imports that are waited for: the module, and whoever imports it, sees nothing of that."""

from __future__ import annotations

import importlib
import importlib.util
import logging
import sys
import zipfile
from importlib.machinery import ModuleSpec, PathFinder

import pytest

from userlens_instrument import auto
from userlens_instrument._auto.imports import Watcher


NAME = "awaited_module"


@pytest.fixture
def hooked():
    """Return what the hook was called with: each module, and its value then."""
    return []


@pytest.fixture
def watcher(monkeypatch, tmp_path, hooked):
    """Return a watcher for a module in a folder on the path; all as before at the end."""
    made = Watcher({NAME: lambda module: hooked.append((module, module.value))})
    monkeypatch.setattr(sys, "meta_path", [made, *sys.meta_path])
    monkeypatch.syspath_prepend(str(tmp_path))
    yield made
    sys.modules.pop(NAME, None)


TEXT = "seen = (type(__spec__.loader).__name__, type(__loader__).__name__)\nvalue = 7\n"


@pytest.fixture
def module_file(tmp_path):
    path = tmp_path / f"{NAME}.py"
    path.write_text(TEXT, "utf-8")
    return path


@pytest.mark.usefixtures("watcher", "module_file")
def test_the_hook_is_called_when_the_module_is_there(hooked):
    """After it was executed, before whoever imports it goes on; each time that it is executed."""
    module = importlib.import_module(NAME)
    assert [(module, 7)] == hooked

    importlib.reload(module)
    assert [(module, 7)] * 2 == hooked


@pytest.mark.usefixtures("watcher", "module_file")
def test_the_module_sees_its_own_loader():
    """While it is executed, and afterwards."""
    module = importlib.import_module(NAME)

    assert ("SourceFileLoader", "SourceFileLoader") == module.seen
    assert "SourceFileLoader" == type(module.__spec__.loader).__name__
    assert "SourceFileLoader" == type(module.__loader__).__name__


@pytest.mark.usefixtures("watcher")
def test_who_only_looks_finds_what_is_there(module_file, hooked):
    """`importlib.util.find_spec` imports nothing, and its loader can do what the real one can."""
    spec = importlib.util.find_spec(NAME)

    assert str(module_file) == spec.origin
    assert TEXT == spec.loader.get_source(NAME)
    assert [] == hooked


@pytest.mark.usefixtures("watcher")
def test_a_module_that_is_not_there_is_not_there(hooked):
    """The error is the usual one."""
    with pytest.raises(ModuleNotFoundError, match=NAME):
        importlib.import_module(NAME)
    assert [] == hooked


@pytest.mark.usefixtures("watcher")
def test_a_module_that_fails_fails(module_file, hooked):
    """And is executed again at the next try."""
    module_file.write_text("1 / 0", "utf-8")
    with pytest.raises(ZeroDivisionError):
        importlib.import_module(NAME)
    assert [] == hooked
    assert NAME not in sys.modules

    module_file.write_text("value = 1  # longer than before", "utf-8")
    importlib.invalidate_caches()
    assert 1 == importlib.import_module(NAME).value


@pytest.mark.usefixtures("watcher")
def test_a_module_in_an_archive(tmp_path, monkeypatch, hooked):
    """Its loader is the archive's, which is shared by all modules in it."""
    with zipfile.ZipFile(tmp_path / "archive.zip", "w") as archive:
        archive.writestr(f"{NAME}.py", TEXT)
    monkeypatch.syspath_prepend(str(tmp_path / "archive.zip"))
    module = importlib.import_module(NAME)

    assert ("zipimporter", "zipimporter") == module.seen
    assert [(module, 7)] == hooked


class Asking:
    """A finder of our kind: it asks all finders in turn, and lends a loader, too."""

    def __init__(self):
        self.asking = False
        self.wrapped = []

    def find_spec(self, name, path=None, target=None):
        if name != NAME or self.asking:
            return None
        self.asking = True
        try:
            spec = importlib.util.find_spec(name)
        finally:
            self.asking = False
        self.wrapped.append(spec.loader)
        return spec


@pytest.mark.usefixtures("module_file")
@pytest.mark.parametrize("is_first", [True, False])
def test_another_watcher_gets_along_with_ours(watcher, hooked, is_first):
    """wrapt, which many instrumentations use, asks all finders from within; the hook runs once."""
    other = Asking()
    sys.meta_path.insert(0 if is_first else 1, other)
    module = importlib.import_module(NAME)

    assert 1 == len(other.wrapped)
    assert [(module, 7)] == hooked


@pytest.mark.usefixtures("module_file")
def test_a_finder_of_an_old_kind_is_passed_over(watcher, hooked):
    """Before Python 3.12, one may have another method."""
    sys.meta_path.insert(1, object())
    assert PathFinder.find_spec(NAME).origin == watcher.find_spec(NAME).origin
    sys.meta_path.pop(1)

    assert [] == hooked


def test_a_loader_of_an_old_kind_is_left_alone(watcher):
    """One that loads by itself, and executes nothing."""
    loader = object()

    class Old:
        @staticmethod
        def find_spec(name, path=None, target=None):
            return ModuleSpec(name, loader)

    sys.meta_path.insert(1, Old)

    assert watcher.find_spec(NAME).loader is loader


def test_a_module_without_a_spec_is_executed(watcher, module_file, hooked):
    """As old tools make them."""
    spec = watcher.find_spec(NAME)
    module = importlib.util.module_from_spec(spec)
    module.__spec__ = None
    module.__loader__ = None
    with pytest.raises(AttributeError):
        spec.loader.exec_module(module)  # this one wants a spec itself

    assert [] == hooked


def test_logging_that_is_imported_later_is_watched(monkeypatch):
    """As in most programs: the wrapper is there before it."""
    auto.install()
    monkeypatch.delitem(sys.modules, "logging")
    try:
        again = importlib.import_module("logging")
        assert again is not logging
        assert "filter" in vars(again.Logger)
    finally:
        auto.uninstall()
    assert "filter" not in vars(again.Logger)
    assert "filter" not in vars(logging.Logger)


def test_a_hook_that_fails_does_not_fail_the_import(monkeypatch, diagnostics_lines):
    """It is the application's import; a line says what is amiss."""
    monkeypatch.setattr(auto.gate, "watch_forks", None)
    try:
        auto.install()
    finally:
        auto.uninstall()

    assert "logging is not as it is known" in diagnostics_lines.get(timeout=5)[1]
    assert "filter" not in vars(logging.Logger)
