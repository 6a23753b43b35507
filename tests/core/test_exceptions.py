"""What this package raises."""

from __future__ import annotations

import copy
import pickle

import pytest

from userlens_instrument.exceptions import (
    InvalidEventError,
    MissingExtraError,
    RulesError,
    SettingsError,
    SpoolError,
    UserlensError,
)


ERRORS = [
    (
        SettingsError("max_workers", "is out of range", "give 1 to 256"),
        "max_workers is out of range; give 1 to 256",
    ),
    (
        SettingsError("debug", "is neither", "give true or false", "USERLENS_DEBUG"),
        "debug (from USERLENS_DEBUG) is neither; give true or false",
    ),
    (
        InvalidEventError("missing_user_id", "there is no user id", "log it as user_id=…"),
        "there is no user id; log it as user_id=…",
    ),
    (
        MissingExtraError("inspector"),
        "this needs the 'inspector' extra: pip install 'userlens-instrument[inspector]'",
    ),
    (
        SpoolError("/var/spool/x.db", "full", "there is no room"),
        "the spool /var/spool/x.db: there is no room",
    ),
    (
        RulesError("/etc/userlens.toml", ("line 3: a; b",)),
        "/etc/userlens.toml: line 3: a; b",
    ),
    (
        RulesError("rules", ("a; b", "c; d", "e; f")),
        "rules: a; b (and 2 more: userlens-instrument rules check shows them)",
    ),
]


@pytest.mark.parametrize(("error", "text"), ERRORS)
def test_text(error, text):
    """
    An error says in one line what is wrong and what to do.
    """
    assert text == str(error)


@pytest.mark.parametrize("error", [error for error, _ in ERRORS])
def test_one_root(error):
    """
    Every error is a UserlensError, so that one except clause is enough.
    """
    assert isinstance(error, UserlensError)


@pytest.mark.parametrize(
    "again",
    [copy.copy, copy.deepcopy]
    + [lambda e, n=n: pickle.loads(pickle.dumps(e, n)) for n in range(pickle.HIGHEST_PROTOCOL + 1)],
)
@pytest.mark.parametrize("error", [error for error, _ in ERRORS])
def test_pickle(error, again):
    """
    An error survives a process pool with its text and its facts.
    """
    copied = again(error)

    assert (type(error), str(error), vars(error)) == (type(copied), str(copied), vars(copied))
