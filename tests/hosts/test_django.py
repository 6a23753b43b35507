"""Django for real: its ``LOGGING``, as the README has it, its request lines, and its console."""

from __future__ import annotations

from collections import defaultdict

import pytest
from children import run_file
from schema import assert_valid


pytest.importorskip("django")

# What is compared is the console with and without our handler; nothing else differs.
APP = """
import logging
import sys

import django
from django.conf import settings
from django.http import HttpResponse
from django.urls import path

HANDLERS = sys.argv[1].split(",")

log = logging.getLogger("app")

def signup(request, plan):
    log.info("Signed Up", extra={"userlens_event": True, "user_id": 42, "plan": plan})
    log.info("Rendered %s", request.path)
    return HttpResponse("welcome")

def missing(request):
    logging.getLogger("django.request").warning(
        "Link Followed: %s",
        request.path,
        extra={
            "status_code": 404,
            "request": request,
            "userlens_event": "Dead Link Followed",
            "user_id": "u_7",
            "referrer": "mail",
        },
    )
    return HttpResponse("no such page", status=404)

urlpatterns = [path("signup/<plan>", signup), path("missing", missing)]

settings.configure(
    ROOT_URLCONF=__name__,
    ALLOWED_HOSTS=["testserver"],
    SECRET_KEY="for the tests",
    LOGGING={
        "version": 1,
        "disable_existing_loggers": False,
        "handlers": {
            "console": {"class": "logging.StreamHandler"},
            "userlens": {"class": "userlens_instrument.UserlensHandler"},
        },
        "root": {"level": "INFO", "handlers": HANDLERS},
    },
)
django.setup()

from django.test import Client

client = Client()
print(client.get("/signup/trial").content, client.get("/missing").status_code)
log.debug("Below The Level", extra={"userlens_event": True, "user_id": 42})
try:
    raise ValueError("no card")
except ValueError:
    log.exception("Payment Failed", extra={"userlens_event": True, "user_id": 42, "amount": 9.5})
log.info(
    "Plan Changed",
    extra={"userlens_event": ["track", {"type": "identify", "traits": {"plan": "pro"}}],
           "user_id": 42, "to_plan": "pro"},
)
"""


def track(user, event, properties):
    return {
        "type": "track",
        "userId": user,
        "source": "userlens-restapi",
        "event": event,
        "properties": properties,
    }


EXPECTED = {
    "42": [
        track("42", "Signed Up", {"plan": "trial"}),
        track("42", "Payment Failed", {"amount": 9.5}),
        track("42", "Plan Changed", {"to_plan": "pro"}),
        {
            "type": "identify",
            "userId": "42",
            "source": "userlens-restapi",
            "traits": {"plan": "pro"},
        },
    ],
    "u_7": [track("u_7", "Dead Link Followed", {"referrer": "mail"})],
}


def test_django_delivers_tagged_lines_and_its_console_stays_as_it_was(server, tmp_path):
    """
    Exactly the tagged lines above the level arrive, by the end of the exit, a user's in order.

    What Django puts beside its own lines (``request``, ``status_code``) is no
    property, and its own line for a 404 is no event. Both streams and the exit
    status are what they are without our handler.
    """
    path = tmp_path / "site.py"
    path.write_text(APP)
    without = run_file(path, "console", url=server.url)
    assert server.events == []
    plain = (0, "b'welcome' 404\n", without.stderr)
    assert plain == (without.returncode, without.stdout, without.stderr)
    assert "Link Followed: /missing\nNot Found: /missing\nPayment Failed\n" in without.stderr

    process = run_file(path, "console,userlens", url=server.url)
    assert plain == (process.returncode, process.stdout, process.stderr)
    found = defaultdict(list)
    for body in server.events:
        assert_valid(body)
        body.pop("timestamp", None)
        found[body["userId"]].append(body)
    assert EXPECTED == found
