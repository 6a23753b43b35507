"""The JSON Schema that ships with the inspector, and what the contract says beyond it."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files

import jsonschema


# Which keys a body may have, in the contract's order.
KEYS = {
    "track": ["type", "userId", "source", "event", "properties", "timestamp"],
    "identify": ["type", "userId", "source", "traits"],
    "group": ["type", "groupId", "userId", "source", "traits"],
}


@cache
def validator(name="event"):
    text = files("userlens_instrument.inspector").joinpath(f"{name}.schema.json").read_text("utf-8")
    schema = json.loads(text)
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def assert_valid(body):
    """Assert that *body* is valid, has no key beyond the contract's, and has them in order."""
    validator().validate(body)
    keys = KEYS[body["type"]]
    assert list(body) == [key for key in keys if key in body]
