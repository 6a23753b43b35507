"""Templates of a rule: where a value comes from."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from values import ANY_VALUES

from userlens_instrument._core.template import (
    MISSING,
    Template,
    TemplateError,
    make_path,
)


def fill(text, fields):
    def lookup(path):
        if path.whole in fields:
            return fields[path.whole]
        return path.inside(fields.get(path.first, MISSING))

    return Template(text).fill(lookup)


class Level(int):
    """A number that is called something else."""

    def __repr__(self):
        return "Level"


class Account:
    """Would answer anything, if it were asked."""

    plan = "pro"

    def __getattr__(self, name):
        raise AssertionError(name)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "plain"),
        ("{user}", 42),
        ("{flag}", False),
        ("u-{user}", "u-42"),
        ("{user}{flag}", "42False"),
        ("{account.plan}", "pro"),
        ("{account.owner.name}", "Ada"),
        ("{items.1.sku}", "b"),
        ("{{user}}", "{user}"),
        ("{{{user}}}", "{42}"),
        ("{dotted.name}", "whole"),
        ("", ""),
        ("on {day}", "on 2026-11-28"),
        ("level {level}", "level 3"),
        ("{price} of {id}", "1.5 of 00000000-0000-0000-0000-000000000001"),
    ],
)
def test_fill(text, expected):
    """
    A path alone is the value itself, of its own type; with anything beside it, it is text.
    """
    fields = {
        "user": 42,
        "flag": False,
        "account": {"plan": "pro", "owner": {"name": "Ada"}},
        "items": [{"sku": "a"}, {"sku": "b"}],
        "dotted.name": "whole",
        "dotted": {"name": "inside"},
        "day": date(2026, 11, 28),
        "level": Level(3),
        "price": 1.5,
        "id": UUID(int=1),
    }

    assert expected == fill(text, fields)


@pytest.mark.parametrize(
    "text",
    [
        "{absent}",
        "a {absent} b",
        "a {nothing} b",
        "{account.absent}",
        "{items.7}",
        "{items.-1}",
        "{items.a}",
        "{user.plan}",
        "{object.plan}",
        "of {object}",
        "of {account}",
        "of {items}",
        "of {huge}",
        "{text.0}",
    ],
)
def test_what_leads_nowhere_is_missing(text):
    """
    No field, no entry, nothing inside: missing, never half a text; of an object no attribute is
    read.
    """
    fields = {
        "user": 42,
        "account": {},
        "items": (1, 2),
        "nothing": None,
        "object": Account(),
        "text": "abc",
        "huge": 10**5_000,
    }

    assert MISSING is fill(text, fields)
    assert "MISSING" == repr(MISSING)


def test_a_path_alone_may_lead_to_none():
    """
    A field that is None is None: the property is there, and null.
    """
    assert fill("{nothing}", {"nothing": None}) is None


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{", "has a brace without its other half"),
        ("}", "has a brace without its other half"),
        ("{a", "has a brace without its other half"),
        ("{}", "has braces without a name"),
        ("{a[0]}", "has braces without a name"),
        ("{a!r}", "has a format after a name"),
        ("{a:>10}", "has a format after a name"),
        ("{a:{b}}", "has a format after a name"),
        ("{a..b}", "'a..b' is not a name"),
        ("{.a}", "'.a' is not a name"),
        ("{a.}", "'a.' is not a name"),
        ("{ a}", "' a' is not a name"),
        ("{" + ".".join("a" * 30) + "}", "a path is too long"),
    ],
)
def test_a_template_that_cannot_be_read(text, problem):
    """
    What is wrong is said, with a fix; nothing is guessed.
    """
    with pytest.raises(TemplateError) as caught:
        Template(text)

    assert problem == caught.value.problem
    assert caught.value.fix
    assert f"{problem}; {caught.value.fix}" == str(caught.value)


def test_paths_and_repr():
    """
    A template knows what it takes its values from, and shows its text.
    """
    template = Template("{a.b} of {c}")

    assert (make_path("a.b"), make_path("c")) == template.paths
    assert "Template('{a.b} of {c}')" == repr(template)


@given(st.text())
def test_any_text_is_a_template_or_an_error(text):
    """
    Any text is read or refused, by a `TemplateError` and nothing else.
    """
    try:
        template = Template(text)
    except TemplateError:
        return

    assert template.text == text


@given(st.text(alphabet=st.characters(blacklist_categories=["Cs"])))
def test_any_text_with_its_braces_doubled_is_itself(text):
    """
    A brace that is written twice is a brace.
    """
    assert text == fill(text.replace("{", "{{").replace("}", "}}"), {})


NAMES = st.text(alphabet=st.characters(blacklist_characters=".{}[]!: "), min_size=1).filter(
    lambda name: name == name.strip()
)


@given(st.lists(NAMES, min_size=1, max_size=8), ANY_VALUES)
def test_any_path_leads_to_the_very_value(names, value):
    """
    Whatever the names of the mappings on the way are, the value at the end is the one that was
    logged.
    """
    fields = value
    for name in reversed(names):
        fields = {name: fields}
    path = make_path(".".join(names))

    assert path.inside(fields[names[0]]) is value


@given(ANY_VALUES)
def test_nothing_is_inside_of_anything_but_mappings_and_lists(value):
    """
    Whatever is no mapping and no list has nothing inside, and is not asked.
    """
    expected = isinstance(value, (Mapping, list, tuple))

    assert expected or MISSING is make_path("a.b").inside(value)
