"""Calls that a rule has parked: from an adapter into the outbox. What came of it, the next step tells."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any

from farcall._adapters import detours
from farcall._faults import fault

if TYPE_CHECKING:
    from farcall._farcall import Call

# The kind of step, as the native half numbers it.
PARK = 6


def park_request(call: Call, transport: Any, request: Any, content: bytes | None) -> None:
    """Hands a request of httpx or httpx2 over to the outbox, and returns once it is on the disk or cannot be."""
    try:
        detour = detours.of_transport(transport, request)
        if detour is None:
            call.park(request.method, _url_of(request), request.headers.raw, content or b"")
        else:
            call.not_parked(detour)
    except Exception as error:
        fault("park", error)


async def park_request_async(call: Call, transport: Any, request: Any, content: bytes | None) -> None:
    """`park_request`, while other tasks go on."""
    if "trio" in sys.modules:
        sniffio = sys.modules.get("sniffio")
        if sniffio is not None and sniffio.current_async_library() == "trio":
            await sys.modules["trio"].to_thread.run_sync(park_request, call, transport, request, content)
            return
    await asyncio.to_thread(park_request, call, transport, request, content)


def park_exchange(
    call: Call, pool: Any, kinds: tuple[type, type], method: str, url: str, headers: Any, content: bytes | None
) -> None:
    """Hands an exchange of urllib3 over, as `park_request` does."""
    try:
        detour = detours.of_pool(pool, kinds)
        if detour is not None:
            call.not_parked(detour)
            return
        if url.startswith("/"):
            host = f"[{pool.host}]" if ":" in pool.host else pool.host
            port = "" if pool.port is None else f":{pool.port}"
            url = f"{pool.scheme}://{host}{port}{url}"
        pairs = [(_text(name), _text(value)) for name, value in (headers or {}).items()]
        call.park(method, url, pairs, content or b"")
    except Exception as error:
        fault("park", error)


def _url_of(request: Any) -> str:
    url = request.url
    # The client has made a header of what stands there.
    return str(url.copy_with(userinfo=b"") if url.userinfo else url)


def _text(field: Any) -> str:
    return field.decode("latin-1") if isinstance(field, bytes) else str(field)
