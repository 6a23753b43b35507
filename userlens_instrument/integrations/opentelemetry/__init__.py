"""
OpenTelemetry: its log records become events, its launcher starts us, its metrics tell of us.

Each name is loaded when it is first used: the entry point needs none of the SDK.
"""

from __future__ import annotations


TYPE_CHECKING = False  # without the weight of typing, as in the package itself
if TYPE_CHECKING:
    from userlens_instrument.integrations.opentelemetry.instrumentor import (
        UserlensInstrumentor as UserlensInstrumentor,
    )
    from userlens_instrument.integrations.opentelemetry.logs import (
        UserlensLogRecordProcessor as UserlensLogRecordProcessor,
    )
    from userlens_instrument.integrations.opentelemetry.metrics import (
        instrument_metrics as instrument_metrics,
    )

__all__ = ["UserlensInstrumentor", "UserlensLogRecordProcessor", "instrument_metrics"]

_HOMES = {
    "UserlensInstrumentor": "instrumentor",
    "UserlensLogRecordProcessor": "logs",
    "instrument_metrics": "metrics",
}


def __getattr__(name: str) -> object:
    """Load a public name when it is first used (PEP 562)."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415 - part of loading late

    value = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value
