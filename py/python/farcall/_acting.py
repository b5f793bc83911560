"""Calls for which rules decide: what the engine answers, and what becomes of it in every adapter.

An adapter asks `step` what to do and does it, in a loop, until the application gets a response or an error. Where the
engine itself fails, the call goes out once, as it is.
"""

from __future__ import annotations

import asyncio
import sys
import time
from typing import TYPE_CHECKING, Any

from farcall import _errors
from farcall._faults import fault
from farcall._native import native

if TYPE_CHECKING:
    from collections.abc import Callable

    from farcall._farcall import Call

# The kinds of steps, as the native half numbers them.
SETTLED, SEND, WAIT, REFUSE, RESPOND, FAIL = range(6)
#: What makes an answer that has come one that the application does not get.
INSTEAD = frozenset({SEND, WAIT, REFUSE, RESPOND, FAIL})
#: What is kept is still good; the answer has no body.
NOT_MODIFIED = 304
#: How much of an answer that nobody gets is read, in bytes, and for how long, in seconds: more than this, or waiting
#: longer, costs more than a new connection.
MOST_DRAINED = 16 << 10
DRAINING = 0.05
# What a step to send tells: seconds until it is given up, its number, seconds until a second attempt is due, and
# whether a copy is wanted.
PATIENCE, NUMBER, HEDGE, SHADOW = 5, 7, 8, 9

begin_deciding = native.begin_deciding
caches = native.caches
decides = native.decides


class Refused(Exception):  # noqa: N818 - what happened, as the reports say it
    """A rule says that this call is not to be made; nothing was sent.

    What is raised is also an error of the client library: of `httpx.TransportError`, `urllib3.exceptions.HTTPError`
    or `requests.ConnectionError`, so that code which expects the network to fail expects this.
    """

    #: The concept: `policy`, `rollout`, `budget`, `quota`, `concurrency`, `breaker`, `deadline`.
    by: str = ""
    #: The rule's name, or its kind and line (`budget@12`).
    rule: str = ""
    #: What the rule's owner says; may be empty.
    reason: str = ""
    #: When the same call would pass, in seconds since 1970; None where waiting does not help or nobody can tell.
    until: float | None = None
    #: The same, in seconds from the refusal.
    retry_after: float | None = None

    def told(self, step: tuple[Any, ...]) -> Refused:
        """Takes over what the engine said."""
        _, _, self.by, self.rule, self.reason, self.until, self.retry_after = step
        return self

    def like(self, other: Refused) -> Refused:
        """Takes over what another says."""
        self.by, self.rule, self.reason = other.by, other.rule, other.reason
        self.until, self.retry_after = other.until, other.retry_after
        return self

    def __reduce__(self) -> Any:
        """Goes to other processes, which need not have called `install()`, as what it is here."""
        base = vars(type(self)).get(_BASE)
        if base is None:
            return super().__reduce__()
        # By the client's own class, which others can import.
        return _refusal, (base, self.args), vars(self)


_BASE = "_farcall_base"

_kinds: dict[type[Exception], type[Refused]] = {}


def refused_as(base: type[Exception]) -> Any:
    """What a refusal is for a client that has errors of this class: one class for each, and both an error of theirs."""
    known = _kinds.get(base)
    if known is None:
        described = {"__doc__": Refused.__doc__, _BASE: base}
        known = _kinds.setdefault(base, type(f"Refused{base.__name__}", (Refused, base), described))
    return known


def _refusal(base: type[Exception], args: tuple[Any, ...]) -> Any:
    return refused_as(base)(*args)


def step(call: Call, sent: bool) -> tuple[Any, ...]:
    """What to do next; where the engine fails, what a call without rules would do."""
    try:
        return call.step()
    except Exception as error:
        fault("step", error)
        return (SETTLED,) if sent else (SEND, None, None, [], None, None, None, 1, None, False)


def hold(call: Call, on: bool) -> None:
    """The call waits for the hook that is to carry it, or no longer does."""
    try:
        call.hold(on)
    except Exception as error:
        fault("hold", error)


def answered(call: Call, response: Any, status: int, headers_of: Callable[[Any], Any], sent: int) -> None:
    """The head of a response arrived."""
    try:
        call.sent(sent)
        call.answer(status, headers_of(response))
    except Exception as error:
        fault("answer", error)


def failed(call: Call, error: BaseException, sent: int) -> None:
    """The attempt ended in `error`, before a response began."""
    try:
        # A handshake that was cut off looks like any connection that was.
        kind = _errors.TLS if call.take_insecure() else _errors.classify(error)
        call.sent(0 if kind in _errors.UNSENT else sent)
        call.failed(kind)
    except Exception as ours:
        fault("failed", ours)


def end(call: Call) -> None:
    """The call is over, with an error."""
    try:
        call.end(0)
    except Exception as error:
        fault("end", error)


def opened(call: Call, status: int) -> bool:
    """Whether the response that the application gets has a body to watch."""
    try:
        return call.opened(status)
    except Exception as error:
        fault("opened", error)
        return False


def shown(call: Call, status: int, headers: Any) -> bool:
    """Shows headers that the engine wants of a call which rules let be; returns whether a body may follow."""
    call.answer(status, headers)
    return call.opened(status)


def wait(call: Call, seconds: float) -> None:
    """Waits for what the call waits for, holding nothing; where that is interrupted, nobody else waits for the call."""
    try:
        time.sleep(seconds)
    except BaseException:
        _abandon(call)
        raise


async def wait_async(call: Call, seconds: float) -> None:
    """The same, in whatever event loop runs."""
    try:
        await _sleep(seconds)
    except BaseException:
        _abandon(call)
        raise


def _abandon(call: Call) -> None:
    try:
        call.abandon()
    except Exception as error:
        fault("abandon", error)


def _sleep(seconds: float) -> Any:
    if "trio" in sys.modules:
        sniffio = sys.modules.get("sniffio")
        if sniffio is not None and sniffio.current_async_library() == "trio":
            return sys.modules["trio"].sleep(seconds)
    return asyncio.sleep(seconds)


def split_host(host: str) -> tuple[str, int | None]:
    """Host and port of `host` or `host:port`."""
    name, colon, port = host.rpartition(":")
    return (name, int(port)) if colon and port.isdecimal() else (host, None)
