"""
A local Userlens: the endpoints, the answers, and what arrived.

It validates every body against the JSON Schemas beside this file, keeps the newest events in
memory, and fails on request. The tests and the demo deliver to it; so can any service on this
machine. It never forwards anything.

Needs the extra ``inspector`` (jsonschema, Starlette, uvicorn).
"""

from userlens_instrument.exceptions import MissingExtraError


# Only the foreign libraries are imported inside the try: an ImportError out of a module of ours
# is a defect, and must not be taken for a missing extra.
try:
    import jsonschema as _jsonschema  # noqa: F401 -- asks whether it is there
    import starlette as _starlette  # noqa: F401 -- asks whether it is there
    import uvicorn as _uvicorn  # noqa: F401 -- asks whether it is there
except ImportError:
    raise MissingExtraError("inspector") from None

from userlens_instrument.inspector.app import create_app
from userlens_instrument.inspector.faults import Fault
from userlens_instrument.inspector.record import Recorder
from userlens_instrument.inspector.server import InspectorServer
from userlens_instrument.inspector.store import Entry, Stats, Store
from userlens_instrument.inspector.validate import Verdict, validate_event, validate_raw


__all__ = [
    "Entry",
    "Fault",
    "InspectorServer",
    "Recorder",
    "Stats",
    "Store",
    "Verdict",
    "create_app",
    "validate_event",
    "validate_raw",
]
