"""
A program's own module in the place of one that we need.

We load libraries late, when the folder of the program's script stands first on
the path. A `regex.py` in there, be it an exercise, would be run by a log call.
This looks where an import statement would, and runs nothing.
"""

from __future__ import annotations

import sys
from importlib.machinery import PathFinder


def shadow_of(name: str) -> str | None:
    """
    Return where a module is that hides the library *name*; None if none does.

    Args:
        name: A library that is a package, as all are that this one needs: a single
            file of that name is another.
    """
    module = sys.modules.get(name)
    if module is not None:
        return None if hasattr(module, "__path__") else str(getattr(module, "__file__", name))
    spec = PathFinder.find_spec(name)
    if spec is None or spec.submodule_search_locations is not None:
        return None
    return str(spec.origin)
