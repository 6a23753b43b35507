"""Jobs for RQ: docs/hosts/rq.md."""

from __future__ import annotations

import logging

from billing import pay


__all__ = ["pay"]

logging.basicConfig(level=logging.INFO)
