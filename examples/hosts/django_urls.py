"""The one page of a Django site."""

from __future__ import annotations

import logging

from billing import pay
from django.http import HttpRequest, HttpResponse
from django.urls import path


log = logging.getLogger("site")


def pay_invoice(_: HttpRequest, invoice: str, user: str) -> HttpResponse:
    """Take the money."""
    pay(invoice, user)
    return HttpResponse("paid\n")


urlpatterns = [path("pay/<invoice>/<user>", pay_invoice)]
