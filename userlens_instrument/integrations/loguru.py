"""
The loguru entrance: a sink that captures tagged lines, and those that a rule means.

.. code-block:: python

    from loguru import logger
    from userlens_instrument.integrations.loguru import sink

    logger.add(sink)
    logger.info("Plan Upgraded", userlens_event=True, user_id="u1", plan="pro")
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from userlens_instrument.client import call_site, default_client, unreadable
from userlens_instrument.exceptions import UserlensError
from userlens_instrument.handlers import TAG, UserlensHandler


if TYPE_CHECKING:
    from collections.abc import Callable

    from userlens_instrument.client import Client

__all__ = ["make_sink", "sink"]


def sink(message: Any) -> None:
    """
    Capture a line for the default client. For ``logger.add``; never raises an `Exception`.

    Args:
        message: What loguru hands to its sinks: the formatted line, with its record.

    .. versionadded:: 0.1.0
    """
    _default_way().take(message)


def make_sink(
    client: Client | None = None, *, tag: str = TAG, **settings: Any
) -> Callable[[Any], None]:
    """
    Return a sink with a client, a tag or settings of its own. For ``logger.add``.

    Args:
        client: Where to; by *settings*, or the default client, if absent.
        tag: Name of the field that tags a line.
        **settings: See `Settings`. With any, the sink has the client of this
            process for these settings, and not the default one.

    Raises:
        SettingsError: If a setting is unknown or wrong.
        RulesError: If the rules are wrong, or cannot be read.

    .. versionadded:: 0.1.0
    """
    return _Way(client=client, tag=tag, **settings).take


class _Way(UserlensHandler):
    """A handler that is attached nowhere: what a sink knows of clients, rules and records."""

    def take(self, message: Any) -> None:
        """Capture what is meant of *message*. Never raises an `Exception`."""
        try:
            self.take_loguru(message.record)
        except Exception as error:
            unreadable(self._client, error, call_site)


@cache
def _default_way() -> _Way:
    """Return what `sink` goes by, made at the first line: settings may come after the import."""
    try:
        return _Way()
    except UserlensError:
        # A log call does not raise: this says what is wrong with the environment.
        default_client()
        return _Way()
