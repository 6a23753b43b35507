"""
What is measured: ours and the baselines; the peers are in `peers`.

Nothing of ours or of any peer is imported before a subject is started, so that
each process pays for its own subject alone.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, fields
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    from collections.abc import Callable


EVENT = "Plan Upgraded"
USERS = tuple(f"user_{number:04}" for number in range(100))
_MANY = len(USERS)

# Longest that a delivery of ours may take, in seconds.
_PATIENCE = 15.0

#: Which figures a subject has a part in.
CALLS, DELIVERY, SLOW_SERVER = "calls", "delivery", "slow server"


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """
    A subject that has been set up.

    Attributes:
        call: Makes event number *n*, as an application would.
        flush: Returns once what was made is delivered, or the client gives up.
    """

    call: Callable[[int], object]
    flush: Callable[[], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """
    Something that is measured.

    Attributes:
        name: What ``--only`` and the JSON call it.
        title: What the tables call it.
        distribution: What has to be installed.
        start: Sets it up to deliver to the base URL that it is given.
        floor: Returns the same call with nothing behind it.
        measures: Which figures it has a part in.
        ours: Whether it is this package.
        quiet: Whether no event comes of a call: it must deliver none.
        patches: Whether it changes what the floor goes through, once it is set up.
        calls: Single calls in a burst.
        events: Events of a delivery.
        import_script: What an application imports.
        start_script: The same, and what sets it up; ``{url}`` stands for the base URL.
    """

    name: str
    title: str
    distribution: str
    start: Callable[[str], Running]
    floor: Callable[[], Callable[[int], object]]
    measures: frozenset[str]
    ours: bool = False
    quiet: bool = False
    patches: bool = False
    calls: int = 5_000
    events: int = 2_000
    import_script: str = ""
    start_script: str = ""


def properties() -> dict[str, Any]:
    """Return six flat properties, made anew as a call does."""
    return {
        "from_plan": "free",
        "to_plan": "pro",
        "seats": 12,
        "amount": 49.5,
        "trial": False,
        "source_page": "pricing",
    }


# ---------------------------------------------------------------- calls with nothing behind them


def nothing(user_id: str, event: str, values: dict[str, Any]) -> None:
    """Take what a ``track()`` takes, and do nothing."""


def function_floor() -> Callable[[int], object]:
    """Return a call of a function that does nothing."""
    return lambda n: nothing(USERS[n % _MANY], EVENT, properties())


class _Sunk:
    """The logger at the end of structlog's chain: prints nothing."""

    def info(self, text: str) -> None:
        """Do nothing."""


def _rendered(_logger: object, _method: str, _event_dict: object) -> str:
    """Stand in for a renderer, which every chain ends with, at no cost of its own."""
    return ""


def hand_on(_logger: object, _method: str, event_dict: dict[str, Any]) -> dict[str, Any]:
    """Be a processor that does nothing."""
    return event_dict


def structlog_call(processor: object, *, tagged: bool) -> Callable[[int], object]:
    """Return a structlog call whose chain is *processor* and a renderer that does nothing."""
    structlog = import_module("structlog")
    log = structlog.wrap_logger(
        _Sunk(),
        processors=[processor, _rendered],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        context_class=dict,
    ).bind()
    if tagged:
        return lambda n: log.info(
            EVENT,
            user_id=USERS[n % _MANY],
            userlens_event=True,
            from_plan="free",
            to_plan="pro",
            seats=12,
            amount=49.5,
            trial=False,
            source_page="pricing",
        )
    return lambda n: log.info(
        EVENT,
        user_id=USERS[n % _MANY],
        from_plan="free",
        to_plan="pro",
        seats=12,
        amount=49.5,
        trial=False,
        source_page="pricing",
    )


def stdlib_call(handler: logging.Handler, *, tagged: bool) -> Callable[[int], object]:
    """Return a logging call whose one handler is *handler*."""
    # A logger of its own for each, outside of the tree: none inherits a handler.
    log = logging.Logger("shop.billing", logging.INFO)  # noqa: LOG001 - see above
    log.addHandler(handler)
    if tagged:
        return lambda n: log.info(
            EVENT,
            extra={
                "user_id": USERS[n % _MANY],
                "userlens_event": True,
                "from_plan": "free",
                "to_plan": "pro",
                "seats": 12,
                "amount": 49.5,
                "trial": False,
                "source_page": "pricing",
            },
        )
    return lambda n: log.info(
        EVENT,
        extra={
            "user_id": USERS[n % _MANY],
            "from_plan": "free",
            "to_plan": "pro",
            "seats": 12,
            "amount": 49.5,
            "trial": False,
            "source_page": "pricing",
        },
    )


def structlog_floor(*, tagged: bool) -> Callable[[int], object]:
    """Return the structlog call with a processor that does nothing."""
    return structlog_call(hand_on, tagged=tagged)


def stdlib_floor(*, tagged: bool = False) -> Callable[[int], object]:
    """Return the logging call with logging's own handler that does nothing."""
    return stdlib_call(logging.NullHandler(), tagged=tagged)


# ---------------------------------------------------------------- ours


def has_batch() -> bool:
    """Return whether this version of the package knows batch delivery."""
    try:
        settings = import_module("userlens_instrument").Settings
    except ImportError:  # not installed, like any peer
        return False
    return any(item.name == "delivery" for item in fields(settings))


def our_client(url: str, **settings: Any) -> Any:
    """Return the default client of this process, delivering to *url*."""
    # More than any burst: what the buffer turned away would be cheap, and wrong.
    settings.setdefault("max_queue_events", 100_000)
    if settings.get("delivery") == "event" and not has_batch():
        del settings["delivery"]  # the only one that there is
    package = import_module("userlens_instrument")
    return package.configure(write_code="benchmark", events_url=url, raw_url=url, **settings)


def our_processor(client: Any, *, tagged: bool = True) -> Callable[[int], object]:
    """Return the structlog call with our processor."""
    processor = import_module("userlens_instrument").UserlensProcessor(client)
    return structlog_call(processor, tagged=tagged)


def our_handler(client: Any, *, tagged: bool = True) -> Callable[[int], object]:
    """Return the logging call with our handler."""
    handler = import_module("userlens_instrument").UserlensHandler(client=client)
    return stdlib_call(handler, tagged=tagged)


def _structlog(url: str, *, tagged: bool = True, delivery: str = "event") -> Running:
    client = our_client(url, delivery=delivery)
    return Running(
        call=our_processor(client, tagged=tagged), flush=partial(client.flush, _PATIENCE)
    )


def _stdlib(url: str, *, tagged: bool) -> Running:
    client = our_client(url, delivery="event")
    return Running(call=our_handler(client, tagged=tagged), flush=partial(client.flush, _PATIENCE))


def _track(url: str) -> Running:
    client = our_client(url, delivery="event")
    track = import_module("userlens_instrument").track
    return Running(
        call=lambda n: track(USERS[n % _MANY], EVENT, properties()),
        flush=partial(client.flush, _PATIENCE),
    )


_OURS = "userlens-instrument"

OURS = (
    Subject(
        name="structlog",
        title="ours: structlog, tagged",
        distribution=_OURS,
        start=_structlog,
        floor=partial(structlog_floor, tagged=True),
        measures=frozenset({CALLS}),
        ours=True,
    ),
    Subject(
        name="stdlib",
        title="ours: stdlib, tagged",
        distribution=_OURS,
        start=partial(_stdlib, tagged=True),
        floor=partial(stdlib_floor, tagged=True),
        measures=frozenset({CALLS}),
        ours=True,
    ),
    Subject(
        name="structlog-untagged",
        title="ours: structlog, not tagged",
        distribution=_OURS,
        start=partial(_structlog, tagged=False),
        floor=partial(structlog_floor, tagged=False),
        measures=frozenset({CALLS}),
        ours=True,
        quiet=True,
    ),
    Subject(
        name="stdlib-untagged",
        title="ours: stdlib, not tagged",
        distribution=_OURS,
        start=partial(_stdlib, tagged=False),
        floor=partial(stdlib_floor, tagged=False),
        measures=frozenset({CALLS}),
        ours=True,
        quiet=True,
    ),
    Subject(
        name="track",
        title="ours: track()",
        distribution=_OURS,
        start=_track,
        floor=function_floor,
        measures=frozenset({CALLS}),
        ours=True,
    ),
    Subject(
        name="event",
        title="ours: delivery=event",
        distribution=_OURS,
        start=_structlog,
        floor=partial(structlog_floor, tagged=True),
        measures=frozenset({DELIVERY}),
        ours=True,
    ),
    Subject(
        name="batch",
        title="ours: delivery=batch",
        distribution=_OURS,
        start=partial(_structlog, delivery="batch"),
        floor=partial(structlog_floor, tagged=True),
        measures=frozenset({DELIVERY}),
        ours=True,
        # So cheap that fewer would measure the clock.
        events=10_000,
    ),
    Subject(
        name="event-100ms",
        title="ours: delivery=event",
        distribution=_OURS,
        start=_structlog,
        floor=partial(structlog_floor, tagged=True),
        measures=frozenset({SLOW_SERVER}),
        ours=True,
        events=240,
    ),
    Subject(
        name="batch-100ms",
        title="ours: delivery=batch",
        distribution=_OURS,
        start=partial(_structlog, delivery="batch"),
        floor=partial(structlog_floor, tagged=True),
        measures=frozenset({SLOW_SERVER}),
        ours=True,
        events=20_000,
    ),
)

#: Those of ours that only a version with batch delivery can do.
NEED_BATCH = frozenset({"batch", "batch-100ms"})


# ---------------------------------------------------------------- the least that a request costs


def _body(n: int) -> bytes:
    event = {
        "type": "track",
        "userId": USERS[n % _MANY],
        "source": "userlens-restapi",
        "event": EVENT,
        "properties": properties(),
        "timestamp": "2026-11-23T12:00:00.000Z",
    }
    return json.dumps(event).encode()


_HEADERS = {"Content-Type": "application/json", "Authorization": "Basic YmVuY2htYXJrOg=="}


def _pool(url: str) -> Running:
    pool = import_module("urllib3").PoolManager()
    return Running(
        call=lambda n: pool.request("POST", f"{url}/event", body=_body(n), headers=_HEADERS),
        flush=lambda: None,
    )


def _connection(url: str) -> Running:
    host, _, port = url.removeprefix("http://").partition(":")
    connection = import_module("urllib3.connection").HTTPConnection(host, int(port))

    def call(n: int) -> None:
        connection.request("POST", "/event", body=_body(n), headers=_HEADERS)
        _ = connection.getresponse().data

    return Running(call=call, flush=lambda: None)


BASELINES = (
    Subject(
        name="urllib3-pool",
        title="urllib3.PoolManager().request",
        distribution="urllib3",
        start=_pool,
        floor=function_floor,
        measures=frozenset({DELIVERY}),
        events=1_000,
    ),
    Subject(
        name="urllib3-connection",
        title="urllib3 HTTPConnection",
        distribution="urllib3",
        start=_connection,
        floor=function_floor,
        measures=frozenset({DELIVERY}),
        events=1_000,
    ),
)
