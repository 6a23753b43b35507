"""Reads docs/hosts: the snippets of each page, and what is typed, by way."""

from __future__ import annotations

import re
import shlex
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path


ROOT = Path(__file__).parent.parent
PAGES = ROOT / "docs" / "hosts"
PROGRAMS = ROOT / "examples" / "hosts"

CODE, DICT_CONFIG, WRAPPER = WAYS = ("code", "dictConfig", "wrapper")
RUN = "userlens-instrument run "

# A comment that says what the snippet below it is for, and the snippet.
_SNIPPET = re.compile(
    r"^<!-- (?P<way>\w+): (?P<file>[\w.]+)(?:, below `(?P<line>[^\n]+)`)? -->\n"
    r"```\w+\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


@dataclass
class Way:
    """
    What a page says of one way.

    `files` are written as they are; of `insertions` each is (file, line, text),
    and the text comes below the line. `variables` are exported, `commands` run.
    """

    files: dict[str, str] = field(default_factory=dict)
    insertions: list[tuple[str, str, str]] = field(default_factory=list)
    variables: dict[str, str] = field(default_factory=dict)
    commands: list[list[str]] = field(default_factory=list)

    def apply(self, folder):
        """Edit the programs in *folder* as the page says."""
        for name, text in self.files.items():
            (folder / name).write_text(text, "utf-8")
        for name, line, text in self.insertions:
            path = folder / name
            path.write_text(insert(path.read_text("utf-8"), line, text), "utf-8")


def insert(program, line, text):
    """Return *program* with *text* below its line *line*, which is there once."""
    lines = program.splitlines(keepends=True)
    (place,) = (number for number, each in enumerate(lines, 1) if each.strip() == line)
    return "".join([*lines[:place], text, *lines[place:]])


def read_page(name):
    """Return the `Way` of each way that the page *name* has."""
    ways = defaultdict(Way)
    for found in _SNIPPET.finditer((PAGES / f"{name}.md").read_text("utf-8")):
        way, text = ways[found["way"]], found["text"]
        if found["file"] == "run":
            for typed in text.splitlines():
                assert typed.startswith("$ "), f"{name}: {typed}"
                words = shlex.split(typed[2:])
                if words[0] == "export":
                    variable, _, value = words[1].partition("=")
                    way.variables[variable] = value
                else:
                    way.commands.append(words)
        elif found["line"]:
            way.insertions.append((found["file"], found["line"], text))
        else:
            way.files[found["file"]] = text
    return dict(ways)


def unwrapped(words):
    """Return the command that is run under the wrapper, or as it is."""
    return words[words.index("--") + 1 :] if words[:2] == RUN.split() else words
