"""What the tests of integrations leave behind: no handler of somebody else's on a logger."""

from __future__ import annotations

import logging

import pytest


@pytest.fixture(autouse=True)
def no_handlers_left():
    yield
    for logger in list(logging.root.manager.loggerDict.values()):
        if isinstance(logger, logging.Logger) and logger.name.partition(".")[0] in (
            "otel",
            "django",
        ):
            logger.handlers.clear()
