"""Stands in for OpenTelemetry's `BaseInstrumentor` where that is not installed."""

from __future__ import annotations

from typing import Any


class BaseInstrumentor:
    """As much of it as whoever calls an instrumentor sees: there is one, and it is on or off."""

    _instance: Any = None
    _is_instrumented_by_opentelemetry = False

    def __new__(cls) -> Any:
        """Return the one that there is."""
        if cls._instance is None:
            cls._instance = object.__new__(cls)
        return cls._instance

    @property
    def is_instrumented_by_opentelemetry(self) -> bool:
        """Whether it is on."""
        return self._is_instrumented_by_opentelemetry

    def instrument(self, **kwargs: Any) -> None:
        """Turn it on, unless it is."""
        kwargs.pop("skip_dep_check", None)
        if not self._is_instrumented_by_opentelemetry:
            self._instrument(**kwargs)
            self._is_instrumented_by_opentelemetry = True

    def uninstrument(self, **kwargs: Any) -> None:
        """Turn it off, unless it is."""
        if self._is_instrumented_by_opentelemetry:
            self._uninstrument(**kwargs)
            self._is_instrumented_by_opentelemetry = False

    def _instrument(self, **kwargs: Any) -> None:
        raise NotImplementedError

    def _uninstrument(self, **kwargs: Any) -> None:
        raise NotImplementedError
