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
import json as _json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from farcall._native import native
from farcall._scope import current

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

HeaderValue: TypeAlias = "str | bytes | Env | File"

__all__ = ["Answer", "Env", "File", "OutboxError", "Receipt", "answer", "item", "put", "put_async", "wait"]

OutboxError = native.OutboxError


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
class Receipt:
    """A call that is on the disk: its number, and the idempotency key that its attempts carry."""

    id: int
    idempotency_key: str


@dataclass(frozen=True)
class Answer:
    """What the vendor answered; `cut` where the body was longer than what is kept."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes
    cut: bool


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
) -> Receipt:
    """Takes a call for delivery, and returns once it is on the disk. `farcall.install()` comes first.

    `json` is sent as the body, with its content type; `customer` is that of the scope unless given; calls of one
    `order_key` are delivered in the order of their puts; `max_age` (3 days), `timeout` of one attempt (30) and
    `delay` of the first are in seconds.

    Raises OutboxError where the call was not taken: it is not on the disk, or nobody knows.
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
        "max_age_ms": _millis(max_age),
        "max_attempts": max_attempts,
        "timeout_ms": _millis(timeout),
        "delay_ms": _millis(delay),
    }
    content = body.encode() if isinstance(body, str) else body or b""
    return Receipt(**_json.loads(native.outbox_put(_json.dumps(parcel), content)))


async def put_async(method: str, url: str, **options: Any) -> Receipt:
    """`put` for async programs: other tasks go on while the disk is written."""
    return await asyncio.to_thread(put, method, url, **options)


def item(number: int) -> dict[str, Any]:
    """A call (`Receipt.id`) as `farcall outbox ls --json` shows it. Delivered ones are forgotten after a day."""
    stands: dict[str, Any] = _json.loads(native.outbox_item(number))
    return stands


def wait(number: int, timeout: float) -> dict[str, Any]:
    """A call as it stands once it was delivered or given up, or after `timeout` seconds."""
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


def _header(value: HeaderValue) -> Any:
    if isinstance(value, Env):
        return {"env": value.name, "prefix": value.prefix, "suffix": value.suffix}
    if isinstance(value, File):
        path = os.path.abspath(value.path)
        return {"file": path, "prefix": value.prefix, "suffix": value.suffix}
    return value.decode("latin-1") if isinstance(value, bytes) else value


def _millis(seconds: float | None) -> int | None:
    return None if seconds is None else max(0, round(seconds * 1000))
