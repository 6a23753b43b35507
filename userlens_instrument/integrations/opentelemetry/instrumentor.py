"""
What ``opentelemetry-instrument`` starts: all that a program logs, with no code of its own.

Nothing in here raises: an exception would stop the instrumentors after this one.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from userlens_instrument import auto
from userlens_instrument._auto.gate import say
from userlens_instrument.settings import Settings


if TYPE_CHECKING:
    from collections.abc import Collection

    # That one is not typed.
    from userlens_instrument.integrations.opentelemetry.stand_in import BaseInstrumentor
else:
    try:
        from opentelemetry.instrumentation.instrumentor import BaseInstrumentor
    except Exception:  # it is not installed, or not as it is known
        from userlens_instrument.integrations.opentelemetry.stand_in import BaseInstrumentor

__all__ = ["UserlensInstrumentor"]


class UserlensInstrumentor(BaseInstrumentor):
    """
    Takes what this process logs, and has OpenTelemetry's metrics tell what became of it.

    By the settings of the environment. As of every instrumentor there is one in a
    process. ``OTEL_PYTHON_DISABLED_INSTRUMENTATIONS=userlens`` turns it off.

    .. versionadded:: 0.1.0
    """

    _installed = False

    def instrumentation_dependencies(self) -> Collection[str]:
        """Return nothing: `logging` is always there, and structlog is waited for."""
        return ()

    def instrument(self, **kwargs: Any) -> None:
        """
        Take what this process logs from now on. Never raises an `Exception`.

        A wrong setting, or a wrong rule, is one line on standard error, and nothing is taken.

        Args:
            **kwargs: ``meter_provider``, whose metrics tell of it; and what
                `BaseInstrumentor` takes.
        """
        try:
            super().instrument(**kwargs)
        except Exception as error:
            # Not a log line: OpenTelemetry's own handler may be all that takes
            # those by now, and send them anywhere, or nowhere.
            with suppress(Exception):
                sys.stderr.write(f"userlens-instrument: nothing is captured: {error}\n")

    def uninstrument(self, **kwargs: Any) -> None:
        """Take nothing any more. Never raises an `Exception`."""
        try:
            super().uninstrument(**kwargs)
        except Exception as error:
            say(f"what is logged may still be captured: {error}")

    def _instrument(self, **kwargs: Any) -> None:
        settings = Settings.load({})
        if settings.rules is not None:
            # Late: who has no rules does not pay for them.
            from userlens_instrument._delivery.rulebook import shared_book  # noqa: PLC0415

            shared_book(settings)
        # `userlens-instrument run` may have done so: that one stays.
        self._installed = not auto.is_installed()
        auto.install()
        try:
            from userlens_instrument.integrations.opentelemetry.metrics import (  # noqa: PLC0415
                instrument_metrics,
            )

            instrument_metrics(kwargs.get("meter_provider"))
        except Exception as error:
            say(f"there are no metrics of what is captured: {error}")

    def _uninstrument(self, **kwargs: Any) -> None:  # noqa: ARG002 - OpenTelemetry's call
        from userlens_instrument.integrations.opentelemetry.metrics import (  # noqa: PLC0415
            uninstrument_metrics,
        )

        if self._installed:
            auto.uninstall()
        uninstrument_metrics()
