"""
The demo's service: a web application as anybody would write it, to be copied.

What makes events of log lines is a processor, a handler, and a tag on the
lines that tell of the product. The lines are logged as ever.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import structlog
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

import userlens_instrument as userlens


if TYPE_CHECKING:
    from typing import TextIO

    from starlette.types import ASGIApp, Receive, Scope, Send


log = structlog.get_logger()
team_log = logging.getLogger("shop.team")
jobs_log = logging.getLogger("shop.jobs")

# Stands for the table of sessions.
SESSIONS = {f"session-of-{user}": user for user in ("ada", "bob", "cyd")}


def configure_logging(client: userlens.Client, stream: TextIO) -> None:
    """Set up structlog and logging: ordinary, but for one processor and one handler."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            userlens.UserlensProcessor(client),
            structlog.processors.add_log_level,
            structlog.processors.LogfmtRenderer(
                key_order=["level", "event", "user_id", "request_id"], drop_missing=True
            ),
        ],
        logger_factory=structlog.WriteLoggerFactory(stream),
    )
    console = logging.StreamHandler(stream)
    console.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(
        level=logging.INFO, handlers=[console, userlens.UserlensHandler(client=client)]
    )


class SignedInUser:
    """Middleware: whatever is logged during a request knows the request and its user."""

    def __init__(self, app: ASGIApp) -> None:
        """Wrap *app*."""
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Bind them, and go on."""
        request = Request(scope)
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=request.headers["x-request-id"])
        user = SESSIONS.get(request.cookies.get("session", ""))
        if user is not None:
            structlog.contextvars.bind_contextvars(user_id=user)
        await self.app(scope, receive, send)


async def sign_up(request: Request) -> Response:
    """Create an account: nobody is signed in yet, so the lines name the user."""
    form = await request.json()
    account = log.bind(user_id=form["id"])
    account.info("Account Created", userlens_event="identify", name=form["name"], plan="free")
    account.info("Company Joined", userlens_event="group", group_id=form["company"], seats=5)
    return JSONResponse({"id": form["id"]}, status_code=201)


async def save_profile(request: Request) -> Response:
    """Save a form; and, as it happens, log all of it."""
    form = await request.json()
    log.info("Profile Saved", userlens_event=True, **form)
    return JSONResponse({"saved": True})


async def list_reports(request: Request) -> Response:  # noqa: ARG001 - the framework's
    """Log a line that nobody but the developers cares about."""
    log.info("reports listed", number=3)
    return JSONResponse(["revenue", "churn", "usage"])


async def change_plan(request: Request) -> Response:
    """Take the order for another plan."""
    plan = (await request.json())["plan"]
    log.info(
        "Subscription Upgraded",
        userlens_event=["track", {"type": "identify", "traits": {"plan": plan}}],
        from_plan="free",
        to_plan=plan,
    )
    return JSONResponse({"plan": plan})


async def invite(request: Request) -> Response:
    """Invite somebody; logged with the standard library."""
    form = await request.json()
    team_log.info(
        "invitation mailed to %s",
        form["email"],
        extra={"userlens_event": "Teammate Invited", "role": form["role"]},
    )
    return JSONResponse({"invited": True}, status_code=201)


async def export(request: Request) -> Response:
    """Answer at once, and leave the work to a background job."""
    job = BackgroundTask(export_report, request.path_params["report"])
    return JSONResponse({"status": "started"}, status_code=202, background=job)


def export_report(report: str) -> None:
    """Export *report*, on a worker thread; the user is still known there."""
    rows = 1200
    jobs_log.info(
        "exported %d rows of %s",
        rows,
        report,
        extra={"userlens_event": "Report Exported", "report": report, "rows": rows},
    )


async def pricing(request: Request) -> Response:  # noqa: ARG001 - the framework's
    """Show the prices, to visitors too: a tagged line that may have no user."""
    team_log.info("Pricing Viewed", extra={"userlens_event": True})
    return JSONResponse({"pro": 40})


app = Starlette(
    routes=[
        Route("/signup", sign_up, methods=["POST"]),
        Route("/profile", save_profile, methods=["POST"]),
        Route("/reports", list_reports),
        Route("/reports/{report}/export", export, methods=["POST"]),
        Route("/subscription", change_plan, methods=["POST"]),
        Route("/team/invitations", invite, methods=["POST"]),
        Route("/pricing", pricing),
    ],
    middleware=[Middleware(SignedInUser)],
)
