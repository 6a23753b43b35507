"""docs/hosts: what each page says can be done, without doing it; `test_matrix.py` does it."""

from __future__ import annotations

import ast
import configparser
import re
import shutil

import pytest
import yaml
from host_pages import PAGES, PROGRAMS, RUN, WAYS, WRAPPER, read_page

from userlens_instrument import UserlensHandler


NAMES = sorted(path.stem for path in PAGES.glob("*.md") if path.stem != "README")
CLASS = f"userlens_instrument.{UserlensHandler.__name__}"


@pytest.mark.parametrize("name", NAMES)
def test_page_has_the_three_ways(name):
    """Each with its commands; the wrapper's with the wrapper, and with no snippet."""
    ways = read_page(name)

    assert set(WAYS) == set(ways)
    assert all(way.commands for way in ways.values())
    assert RUN.split() == ways[WRAPPER].commands[0][:2]
    assert ({}, []) == (ways[WRAPPER].files, ways[WRAPPER].insertions)


@pytest.mark.parametrize("way", WAYS[:2])
@pytest.mark.parametrize("name", NAMES)
def test_snippets_fit_into_the_programs(tmp_path, name, way):
    """Each file is one that is there, each line to put code below is there once, and it parses."""
    folder = tmp_path / "hosts"
    shutil.copytree(PROGRAMS, folder)
    said = read_page(name)[way]
    said.apply(folder)
    edited = {*said.files, *(file for file, _, _ in said.insertions)}

    assert edited <= {path.name for path in PROGRAMS.iterdir()}
    text = "".join((folder / file).read_text("utf-8") for file in edited)
    assert text.count(UserlensHandler.__name__) + text.count("UserlensProcessor") == 1
    for file in edited:
        content = (folder / file).read_text("utf-8")
        if file.endswith(".py"):
            ast.parse(content)
        elif file.endswith(".yaml"):
            assert CLASS == yaml.safe_load(content)["handlers"]["userlens"]["class"]
        else:
            parser = configparser.RawConfigParser()
            parser.read_string(content)
            assert CLASS == parser["handler_userlens"]["class"]


@pytest.mark.parametrize("name", NAMES)
def test_two_lines_are_two(name):
    """Of code, as the title says."""
    snippets = [text for _, _, text in read_page(name)["code"].insertions]

    assert 2 == len([line for line in "".join(snippets).splitlines() if line])


def test_index_names_every_page_and_no_other():
    """And each page's links lead to files."""
    index = (PAGES / "README.md").read_text("utf-8")

    assert set(NAMES) == set(re.findall(r"\]\((\w+)\.md\)", index))
    for path in PAGES.glob("*.md"):
        for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text("utf-8")):
            assert (PAGES / link).exists(), (path.name, link)


def test_index_shows_the_rules_of_the_programs():
    """Those for lines of the standard library, word for word."""
    index = (PAGES / "README.md").read_text("utf-8")
    shown = re.search(r"<!-- rules -->\n```toml\n(.*?)```", index, re.DOTALL)[1]

    assert shown in (PROGRAMS / "userlens.toml").read_text("utf-8")
