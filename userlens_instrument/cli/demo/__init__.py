"""
``userlens-instrument demo``: a small service, real requests, and what Userlens got.

Everything runs on this machine and ends by itself: no account, no network.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    import argparse

    from userlens_instrument.inspector import Store


# Two columns of log lines and JSON want some room; no terminal asks for less.
_WIDTH = 112
_NARROWEST, _WIDEST = 80, 132


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """
    Add this command's options: there are none.

    Args:
        parser: The parser of the command.
    """
    parser.epilog = "Exit code 0 if every event arrived once and in order, 1 if not."


def run(args: argparse.Namespace, *, store: Store | None = None) -> int:  # noqa: ARG001 - no options
    """
    Tell the story, and check that it came out as it should.

    Args:
        args: What `add_arguments` asked for.
        store: What the local Userlens keeps events in; a test puts faults into it.

    Returns:
        The exit code: 0 if every event arrived once and in order, 1 if not.

    Raises:
        MissingExtraError: If the extra ``inspector`` is not installed.
    """
    # The first of them says which extra is missing, if so.
    from userlens_instrument.inspector import Store as EmptyStore  # noqa: I001, PLC0415
    from userlens_instrument.cli.demo import report  # noqa: PLC0415 - heavy, and an extra
    from userlens_instrument.cli.demo.play import play  # noqa: PLC0415 - as above
    from userlens_instrument.cli.demo.verdict import find_problems  # noqa: PLC0415 - as above

    width = shutil.get_terminal_size((_WIDTH, 24)).columns
    page = report.Page(min(max(width, _NARROWEST), _WIDEST))
    evidence = play(page, EmptyStore() if store is None else store)
    problems = find_problems(evidence)
    report.show(page, evidence, problems)
    return 1 if problems else 0
