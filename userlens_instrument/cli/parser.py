"""The parser of a command line; apart, because a command line that is plain does without it."""

from __future__ import annotations

import argparse
from typing import NoReturn

from userlens_instrument.cli.terminal import one_line


class Parser(argparse.ArgumentParser):
    """Says in one line what is wrong with the command line."""

    def error(self, message: str) -> NoReturn:
        """End the program with exit code 2."""
        self.exit(2, f"{self.prog}: {one_line(message)}; see {self.prog} --help\n")
