"""What the sender says to people, in one line each: what is wrong, and what to do about it."""

from __future__ import annotations

from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from userlens_instrument._core.outcome import Answer
    from userlens_instrument.settings import Settings


_CLOSED_LINES = {
    "unauthorized": (
        "Userlens refuses the write code (401); events are held and nothing is sent: correct "
        "USERLENS_WRITE_CODE, or configure(write_code=…), and restart"
    ),
    "redirect": (
        "Userlens' address answers with a redirect, which is not followed; events are held: "
        "check events_url and any proxy in between"
    ),
    "tls": (
        "the certificate behind events_url is not trusted; events are held: check the URL, "
        "the machine's CA certificates and any proxy in between"
    ),
}


def closed_line(reason: str, answer: Answer, held: int, settings: Settings) -> str:
    """
    Return why nothing is sent any more.

    Args:
        reason: As of `EndpointDown`.
        answer: What has shown it.
        held: How many events wait.
        settings: The sender's.
    """
    if reason in _CLOSED_LINES:
        return _CLOSED_LINES[reason]
    what = (
        f"takes no events at the moment (status {answer.status})"
        if answer.failure is None
        else f"cannot be reached ({answer.failure.value})"
    )
    return (
        f"Userlens {what}; {held} {'event is' if held == 1 else 'events are'} held, "
        f"at most {settings.max_queue_events}, and tried again"
    )


def problem_of(loss: str, answer: Answer) -> str:
    """Return why an event is lost, whose *loss* statistics count by that word."""
    what = f"status {answer.status}" if answer.failure is None else answer.failure.value
    if loss == "expired":
        return f"older than retry_for, or spool_max_age, and it failed again ({what})"
    if loss == "attempts_exhausted":
        return f"it failed max_attempts times while others were delivered ({what})"
    return f"Userlens refuses it ({what})"
