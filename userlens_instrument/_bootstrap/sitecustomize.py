# ruff: noqa: INP001 - a folder for PYTHONPATH, not a package
"""
What every Python runs at its start whose PYTHONPATH `userlens-instrument run` has put this into.

Any Python: one of another environment, which has no `userlens_instrument`, or an
old one. So the syntax is plain, nothing here prints, and nothing is left behind:
`sys.path` and ``sys.modules["sitecustomize"]`` are as they would be without this
file. PYTHONPATH stays, for the processes that this one starts.
"""

import os
import sys


here = os.path.dirname(__file__)  # noqa: PTH120 - pathlib would have to be imported
sys.path[:] = [entry for entry in sys.path if entry != here]
sys.modules.pop("sitecustomize", None)
try:
    # The application's own, or its environment's. If there is none, or it
    # fails, that is the end of this one, too: `site` takes it from here, and
    # does and says what it always would.
    import sitecustomize  # type: ignore[import-not-found]  # noqa: F401 - it is run, not used
finally:
    path = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    if here in path[1:]:
        # Another launcher has put itself first. Its sitecustomize would hide
        # this one in the processes to come; this one runs it.
        path.remove(here)
        os.environ["PYTHONPATH"] = os.pathsep.join([here] + path)  # noqa: RUF005 - see the docstring
    try:
        from userlens_instrument import auto

        auto.install()
    except ImportError:
        # Said once, of the program that was asked for; not of every child of its.
        if os.environ.get("_USERLENS_INSTRUMENT_RUN") == str(os.getpid()) and sys.stderr:
            sys.stderr.write(
                "userlens-instrument run: nothing will be captured: userlens_instrument is not "
                "installed for " + sys.executable + "\n"
            )
    except Exception:  # noqa: S110 - there is nobody to tell
        pass
