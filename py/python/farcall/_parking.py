"""Calls that a rule has parked: from an adapter into the outbox. What came of it, the next step tells."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any

from farcall._faults import fault

if TYPE_CHECKING:
    from collections.abc import Iterable

    from farcall._farcall import Call

# The kind of step, as the native half numbers it.
PARK = 6


def park(call: Call, method: str, url: str, headers: Iterable[tuple[Any, Any]], body: bytes | None) -> None:
    """Hands a request over to the outbox, and returns once it is on the disk or cannot be."""
    try:
        call.park(method, url, list(headers), body or b"")
    except Exception as error:
        fault("park", error)


async def park_async(call: Call, method: str, url: str, headers: Iterable[tuple[Any, Any]], body: bytes | None) -> None:
    """`park`, while other tasks go on."""
    if "trio" in sys.modules:
        sniffio = sys.modules.get("sniffio")
        if sniffio is not None and sniffio.current_async_library() == "trio":
            await sys.modules["trio"].to_thread.run_sync(park, call, method, url, headers, body)
            return
    await asyncio.to_thread(park, call, method, url, headers, body)


def park_request(call: Call, request: Any, content: bytes | None) -> None:
    """Hands a request of httpx or httpx2 over."""
    park(call, request.method, _url_of(request), request.headers.raw, content)


async def park_request_async(call: Call, request: Any, content: bytes | None) -> None:
    """`park_request`, while other tasks go on."""
    await park_async(call, request.method, _url_of(request), request.headers.raw, content)


def park_exchange(call: Call, pool: Any, method: str, url: str, headers: Any, content: bytes | None) -> None:
    """Hands an exchange of urllib3 over."""
    if url.startswith("/"):
        host = f"[{pool.host}]" if ":" in pool.host else pool.host
        port = "" if pool.port is None else f":{pool.port}"
        url = f"{pool.scheme}://{host}{port}{url}"
    park(call, method, url, [(_text(name), _text(value)) for name, value in (headers or {}).items()], content)


def _url_of(request: Any) -> str:
    url = request.url
    # The client has made a header of what stands there.
    return str(url.copy_with(userinfo=b"") if url.userinfo else url)


def _text(field: Any) -> str:
    return field.decode("latin-1") if isinstance(field, bytes) else str(field)
