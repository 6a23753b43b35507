"""
Product events for Userlens out of the logs that your service already writes.

Importing this package starts no thread, imports neither urllib3 nor structlog,
and changes nothing about logging: each name is loaded when it is first used.
"""

from __future__ import annotations

from userlens_instrument._version import __version__ as __version__


# Not typing's own: its import would be most of what this one costs, and every
# program under `userlens-instrument run` pays for it.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from userlens_instrument._delivery.stats import Stats as Stats
    from userlens_instrument.client import Client as Client
    from userlens_instrument.client import configure as configure
    from userlens_instrument.client import flush as flush
    from userlens_instrument.client import group as group
    from userlens_instrument.client import identify as identify
    from userlens_instrument.client import shutdown as shutdown
    from userlens_instrument.client import stats as stats
    from userlens_instrument.client import track as track
    from userlens_instrument.diagnosis import diagnose as diagnose
    from userlens_instrument.events import Group as Group
    from userlens_instrument.events import Identify as Identify
    from userlens_instrument.events import Loss as Loss
    from userlens_instrument.events import Track as Track
    from userlens_instrument.exceptions import InvalidEventError as InvalidEventError
    from userlens_instrument.exceptions import MissingExtraError as MissingExtraError
    from userlens_instrument.exceptions import RulesError as RulesError
    from userlens_instrument.exceptions import SettingsError as SettingsError
    from userlens_instrument.exceptions import UserlensError as UserlensError
    from userlens_instrument.handlers import UserlensHandler as UserlensHandler
    from userlens_instrument.processors import UserlensProcessor as UserlensProcessor
    from userlens_instrument.settings import Settings as Settings

# Where each public name lives.
_HOMES = {
    "Client": "client",
    "Group": "events",
    "Identify": "events",
    "InvalidEventError": "exceptions",
    "Loss": "events",
    "MissingExtraError": "exceptions",
    "RulesError": "exceptions",
    "Settings": "settings",
    "SettingsError": "exceptions",
    "Stats": "_delivery.stats",
    "Track": "events",
    "UserlensError": "exceptions",
    "UserlensHandler": "handlers",
    "UserlensProcessor": "processors",
    "configure": "client",
    "diagnose": "diagnosis",
    "flush": "client",
    "group": "client",
    "identify": "client",
    "shutdown": "client",
    "stats": "client",
    "track": "client",
}

# Written out for the tools that read it without running it; a test compares.
__all__ = [
    "Client",
    "Group",
    "Identify",
    "InvalidEventError",
    "Loss",
    "MissingExtraError",
    "RulesError",
    "Settings",
    "SettingsError",
    "Stats",
    "Track",
    "UserlensError",
    "UserlensHandler",
    "UserlensProcessor",
    "__version__",
    "configure",
    "diagnose",
    "flush",
    "group",
    "identify",
    "shutdown",
    "stats",
    "track",
]


def __getattr__(name: str) -> object:
    """Load a public name when it is first used (PEP 562)."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415 - part of loading late

    value = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names, loaded or not."""
    return sorted(__all__)
