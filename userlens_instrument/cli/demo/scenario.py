"""
The demo's script: who asks the service for what, and what has to come of it.

Written out by hand and not computed by the code under demonstration: what
arrives is compared with this.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


Body = dict[str, Any]

VISITOR = "visitor"


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """
    A line that the service has to log.

    Attributes:
        logged: Parts of its text, which no other line has all of.
        events: The bodies that it has to become, in order, less their timestamps.
        remark: Why there are none.
    """

    logged: tuple[str, ...]
    events: tuple[Body, ...] = ()
    remark: str = ""

    def is_in(self, text: str) -> bool:
        """Return whether *text* is this line."""
        return all(part in text for part in self.logged)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """
    One request to the service.

    Attributes:
        who: Whose browser makes it.
        signed_in: Whether it carries a session.
        method: ``GET`` or ``POST``.
        path: Where to.
        form: What is sent, as JSON.
        status: The answer that it has to get.
        request_id: What the load balancer in front would have put on it.
        lines: What has to be logged, in order.
    """

    who: str
    signed_in: bool = True
    method: str = "POST"
    path: str
    form: dict[str, str] | None = None
    status: int
    request_id: str
    lines: tuple[Line, ...]


def _body(kind: str, user: str, **more: object) -> Body:
    return {"type": kind, "userId": user, "source": "userlens-restapi", **more}


def _track(user: str, event: str, **properties: object) -> Body:
    return _body("track", user, event=event, properties=properties)


def _sign_up(user: str, name: str, company: str) -> Step:
    return Step(
        who=user,
        signed_in=False,
        path="/signup",
        form={"id": user, "name": name, "company": company},
        status=201,
        request_id=f"{user}-1",
        lines=(
            Line(
                logged=("Account Created", f"user_id={user}"),
                events=(_body("identify", user, traits={"name": name, "plan": "free"}),),
            ),
            Line(
                logged=("Company Joined", f"user_id={user}"),
                events=(_body("group", user, groupId=company, traits={"seats": 5}),),
            ),
        ),
    )


def _upgrade(user: str, number: int) -> Step:
    request_id = f"{user}-{number}"
    return Step(
        who=user,
        path="/subscription",
        form={"plan": "pro"},
        status=200,
        request_id=request_id,
        lines=(
            Line(
                logged=("Subscription Upgraded", f"user_id={user}"),
                events=(
                    _track(
                        user,
                        "Subscription Upgraded",
                        request_id=request_id,
                        from_plan="free",
                        to_plan="pro",
                    ),
                    _body("identify", user, traits={"plan": "pro"}),
                ),
            ),
        ),
    )


def _invite(user: str, number: int, email: str, role: str) -> Step:
    return Step(
        who=user,
        path="/team/invitations",
        form={"email": email, "role": role},
        status=201,
        request_id=f"{user}-{number}",
        lines=(
            Line(
                logged=(f"invitation mailed to {email}",),
                events=(_track(user, "Teammate Invited", role=role),),
            ),
        ),
    )


def _export(user: str, number: int, report: str) -> Step:
    return Step(
        who=user,
        path=f"/reports/{report}/export",
        status=202,
        request_id=f"{user}-{number}",
        lines=(
            Line(
                logged=(f"rows of {report}",),
                events=(_track(user, "Report Exported", report=report, rows=1200),),
            ),
        ),
    )


#: While all is well.
FIRST_ACT: tuple[Step, ...] = (
    _sign_up("ada", "Ada", "acme"),
    Step(
        who="ada",
        method="GET",
        path="/reports",
        status=200,
        request_id="ada-2",
        lines=(Line(logged=("reports listed",), remark="not tagged: stays a log line"),),
    ),
    Step(
        who="bob",
        path="/profile",
        form={"city": "Oslo", "password": "hunter2"},
        status=200,
        request_id="bob-1",
        lines=(
            Line(
                logged=("Profile Saved",),
                events=(
                    _track(
                        "bob",
                        "Profile Saved",
                        request_id="bob-1",
                        city="Oslo",
                        password="[redacted]",  # noqa: S106 - what has to be in its place
                    ),
                ),
            ),
        ),
    ),
    _invite("bob", 2, "eve@acme.test", "admin"),
    Step(
        who=VISITOR,
        signed_in=False,
        method="GET",
        path="/pricing",
        status=200,
        request_id="visitor-1",
        lines=(
            Line(logged=("Pricing Viewed",), remark="tagged, but nobody's: counted as invalid"),
        ),
    ),
)

#: While Userlens is in trouble.
SECOND_ACT: tuple[Step, ...] = (
    _upgrade("ada", 3),
    _export("ada", 4, "revenue"),
    _invite("bob", 3, "joe@acme.test", "viewer"),
    _export("bob", 4, "churn"),
    _sign_up("cyd", "Cyd", "initech"),
    _upgrade("cyd", 2),
)

STEPS = FIRST_ACT + SECOND_ACT

#: How many requests Userlens answers with 503 during the second act.
FAULTS = 2
RETRY_AFTER = 1

#: Tagged lines that are no events, by reason.
INVALID = {"missing_user_id": 1}

#: Lines of diagnostics: a tagged line without a user, Userlens gone, Userlens back.
DIAGNOSTICS = 3


def people() -> list[str]:
    """Return everybody in the script, in order of appearance."""
    return list(dict.fromkeys(step.who for step in STEPS))


def lines_of(who: str) -> list[Line]:
    """Return what has to be logged on behalf of *who*, in order."""
    return [line for step in STEPS if step.who == who for line in step.lines]


def events_of(who: str) -> list[Body]:
    """Return what has to arrive of *who*, in order."""
    return [body for line in lines_of(who) for body in line.events]
