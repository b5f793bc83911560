"""Calls that must not be lost: kept on the disk when `put` returns, and delivered until the vendor took them.

receipt = farcall.outbox.put(
    "POST",
    "https://api.stripe.com/v1/refunds",
    headers={"authorization": farcall.outbox.Env("STRIPE_KEY", prefix="Bearer ")},
    body="charge=ch_1",
    order_key="acme",
)

What is promised, and what is not: docs/outbox.md.
"""

from __future__ import annotations

import asyncio
import inspect
import json as _json
import math
import os
import re
import threading
import time
from dataclasses import dataclass
from functools import partial
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, TypeAlias

from farcall._native import native
from farcall._scope import current

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator, Iterable, Iterator, Mapping

HeaderValue: TypeAlias = "str | bytes | Env | File | Callback"

__all__ = [
    "Answer",
    "Callback",
    "Env",
    "File",
    "OutboxError",
    "OutboxUnavailableError",
    "Receipt",
    "answer",
    "credential",
    "item",
    "parked",
    "put",
    "put_async",
    "wait",
]

OutboxError = native.OutboxError
OutboxUnavailableError = native.OutboxUnavailableError
# Where others find them: an error may be pickled.
OutboxError.__module__ = OutboxUnavailableError.__module__ = __name__

_PARKED = re.compile(r"parked; id=(-?\d+)")


@dataclass(frozen=True)
class Env:
    """A header's value that is looked up in an environment variable at each delivery."""

    name: str
    prefix: str = ""
    suffix: str = ""


@dataclass(frozen=True)
class File:
    """A header's value that is read from a file at each delivery, without the white space at its end."""

    path: str | os.PathLike[str]
    prefix: str = ""
    suffix: str = ""


@dataclass(frozen=True)
class Callback:
    """A header's value that a function of the program has: asked at each delivery, by a process that knows it.

    `credential` registers the function. A call has one such name at most, in as many headers as it likes.
    """

    name: str
    prefix: str = ""
    suffix: str = ""


@dataclass(frozen=True)
class Receipt:
    """A call that is on the disk: its number, and the idempotency key that its attempts carry."""

    id: int
    idempotency_key: str

    def result(self, timeout: float | None = None) -> Answer:
        """What the vendor answered, once it took the call; waits for that.

        Raises TimeoutError after `timeout` seconds, and OutboxError where the call was given up. An outbox that cannot
        be asked now (OutboxUnavailableError) is asked again.
        """
        if timeout is not None:
            _number("timeout", timeout)
        until = None if timeout is None else time.monotonic() + timeout
        for pause in _pauses():
            found, why = _look(self.id)
            if found is not None:
                return found
            left = pause if until is None else until - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"call {self.id} of the outbox is not delivered yet") from why
            time.sleep(min(pause, left))
        raise AssertionError  # there is always another pause

    async def _wait(self) -> Answer:
        for pause in _pauses():
            found, _ = await asyncio.to_thread(_look, self.id)
            if found is not None:
                return found
            await asyncio.sleep(pause)
        raise AssertionError  # as above

    def __await__(self) -> Generator[Any, None, Answer]:
        """`await receipt` is `receipt.result()` for async programs."""
        return self._wait().__await__()

    def on_done(self, told: Callable[[Receipt], object]) -> None:
        """Calls `told` with this receipt, on a thread of its own, once the call was delivered or given up.

        Then `result` returns at once. Not called where the process ends before.
        """
        threading.Thread(target=self._tell, args=(told,), name="farcall-done", daemon=True).start()

    def _tell(self, told: Callable[[Receipt], object]) -> None:
        for pause in _pauses():
            try:
                done = item(self.id)["state"] != "pending"
            except OutboxUnavailableError:
                done = False
            except OutboxError:
                # Forgotten since, or not to be read ever: `result` says which.
                done = True
            if done:
                told(self)
                return
            time.sleep(pause)


@dataclass(frozen=True)
class Answer:
    """What the vendor answered; `cut` where the body was longer than what is kept."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes
    cut: bool


def parked(response: Any) -> Receipt | None:
    """The receipt of a call that a rule has parked (`[[outbox]]`), from its response; None where it was not."""
    found = _PARKED.fullmatch(str(response.headers.get("farcall-outbox", "")))
    if found is None:
        return None
    number = int(found[1])
    return Receipt(number, item(number)["idempotency_key"])


def put(
    method: str,
    url: str,
    *,
    headers: Mapping[str, HeaderValue] | Iterable[tuple[str, HeaderValue]] = (),
    body: str | bytes | None = None,
    json: Any = None,
    customer: str | None = None,
    order_key: str | None = None,
    idempotency_key: str | None = None,
    idempotency_header: str | None = None,
    max_age: float | None = None,
    max_attempts: int | None = None,
    timeout: float | None = None,
    delay: float | None = None,
    on_done: Callable[[Receipt], object] | None = None,
) -> Receipt:
    """Takes a call for delivery, and returns once it is on the disk. `farcall.install()` comes first.

    `json` is sent as the body, with its content type; `customer` is that of the scope unless given; calls of one
    `order_key` are delivered in the order of their puts; `max_age` (3 days), `timeout` of one attempt (30) and
    `delay` of the first are in seconds; `on_done` is called as by `Receipt.on_done`; `post` is sent as `POST`.

    Raises OutboxError where the call was not taken: it is not on the disk, or nobody knows; TypeError or ValueError,
    with the parameter's name, for a number or a body that cannot be meant.
    """
    listed = [(name, _header(value)) for name, value in (headers.items() if hasattr(headers, "items") else headers)]
    if json is not None:
        if body is not None:
            raise TypeError("a call has a body or json, not both")
        body = _json.dumps(json)
        if not any(name.lower() == "content-type" for name, _ in listed):
            listed.append(("content-type", "application/json"))
    scope = current.get()
    if customer is None and scope is not None:
        customer = scope.customer
    parcel = {
        "method": method,
        "url": url,
        "headers": listed,
        "customer": customer,
        "order_key": order_key,
        "idempotency_key": idempotency_key,
        "idempotency_header": idempotency_header,
        "max_age_ms": _millis("max_age", max_age),
        "max_attempts": _attempts("max_attempts", max_attempts),
        "timeout_ms": _millis("timeout", timeout),
        "delay_ms": _millis("delay", delay),
    }
    receipt = Receipt(**_json.loads(native.outbox_put(_json.dumps(parcel), _content(body))))
    if on_done is not None:
        receipt.on_done(on_done)
    return receipt


async def put_async(method: str, url: str, **options: Any) -> Receipt:
    """`put` for async programs: other tasks go on while the disk is written."""
    return await asyncio.to_thread(put, method, url, **options)


def credential(name: str, function: Callable[[], str | Awaitable[str]]) -> None:
    """Registers the function that has the credential of this name, for `Callback(name)`.

    `farcall.install()` comes first. It is called at each delivery, on a thread of its own, and has 10 seconds; an async
    one has an event loop of its own. What raises, returns no text, or is late is a failed attempt; of an exception its
    type alone is told.
    Another function of the name takes its place. From then on this process delivers calls of its service that take the
    credential, whoever put them.
    """
    if not isinstance(name, str):
        raise TypeError(f"the name of a credential is a str, not {type(name).__name__}")
    if not callable(function):
        raise TypeError(f"the credential {name!r} comes from a function, not from {type(function).__name__}")
    native.outbox_credential(name, partial(_ask, function))


def _ask(function: Callable[[], str | Awaitable[str]], asked: Any) -> None:
    threading.Thread(target=_give, args=(function, asked), name="farcall-credential", daemon=True).start()


def _give(function: Callable[[], str | Awaitable[str]], asked: Any) -> None:
    try:
        value: object = function()
        if inspect.isawaitable(value):
            value = asyncio.run(_awaited(value))
        if isinstance(value, str):
            asked.give(value, None)
        else:
            asked.give(None, f" (it returned {type(value).__name__}, and no str)")
    except BaseException as error:
        # Whatever it is, the delivery has to hear of it.
        asked.give(None, f" ({type(error).__name__})")


async def _awaited(value: Awaitable[Any]) -> Any:
    return await value


def item(number: int) -> dict[str, Any]:
    """A call (`Receipt.id`) as `farcall outbox ls --json` shows it. Delivered ones are forgotten after a day."""
    stands: dict[str, Any] = _json.loads(native.outbox_item(number))
    return stands


def wait(number: int, timeout: float) -> dict[str, Any]:
    """A call as it stands once it was delivered or given up, or after `timeout` seconds.

    Raises OutboxUnavailableError where the outbox cannot be asked when the time is up.
    """
    _number("timeout", timeout)
    stands: dict[str, Any] = _json.loads(native.outbox_wait(number, timeout))
    return stands


def answer(number: int) -> Answer | None:
    """What the vendor answered to a call that was delivered; None while it was not."""
    found = native.outbox_answer(number)
    if found is None:
        return None
    head, body = found
    said = _json.loads(head)
    return Answer(said["status"], [(name, value) for name, value in said["headers"]], body, said["cut"])


def _result(number: int) -> Answer | None:
    """The answer to a call that was delivered; None while it waits."""
    stands = item(number)
    if stands["state"] == "dead":
        raise OutboxError(f"call {number} of the outbox was given up: {stands['error']}")
    if stands["state"] != "delivered":
        return None
    found = answer(number)
    if found is None:
        raise OutboxError(f"call {number} of the outbox was delivered, and its answer could not be kept")
    return found


def _look(number: int) -> tuple[Answer | None, Exception | None]:
    """The answer to a call that was delivered; else why it cannot be looked at now, where it cannot."""
    try:
        return _result(number), None
    except OutboxUnavailableError as error:
        return None, error


def _pauses() -> Iterator[float]:
    """How long to wait between two looks: longer and longer."""
    pause = 0.02
    while True:
        yield pause
        pause = min(pause * 1.5, 1.0)


def _header(value: HeaderValue) -> Any:
    if isinstance(value, Env):
        return {"env": value.name, "prefix": value.prefix, "suffix": value.suffix}
    if isinstance(value, File):
        path = os.path.abspath(value.path)
        return {"file": path, "prefix": value.prefix, "suffix": value.suffix}
    if isinstance(value, Callback):
        return {"callback": value.name, "prefix": value.prefix, "suffix": value.suffix}
    return value.decode("latin-1") if isinstance(value, bytes) else value


def _content(body: object) -> bytes:
    if body is None:
        return b""
    if isinstance(body, str):
        return body.encode()
    if isinstance(body, bytes | bytearray | memoryview):
        return bytes(body)
    raise TypeError(f"body is str or bytes, not {type(body).__name__}; what is sent as JSON is given as json=")


def _number(option: str, value: float) -> None:
    """Refuses what cannot be meant: an error that names the option beats one that does not, or the default."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{option} is a number, not {type(value).__name__}")
    if math.isnan(value):
        raise ValueError(f"{option} is not a number, but nan")


def _millis(option: str, seconds: float | None) -> int | None:
    if seconds is None:
        return None
    _number(option, seconds)
    if not 0 <= seconds < math.inf:
        raise ValueError(f"{option} is a number of seconds, 0 at least, not {seconds}")
    return round(seconds * 1000)


def _attempts(option: str, many: int | None) -> int | None:
    if many is not None:
        if isinstance(many, bool) or not isinstance(many, Integral):
            raise TypeError(f"{option} is a whole number, not {type(many).__name__}")
        if many < 1:
            raise ValueError(f"{option} is 1 at least, not {many}")
    return None if many is None else int(many)
