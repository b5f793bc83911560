"""An answer that no vendor sent now, as a response of requests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from farcall._adapters import urllib3_stored

if TYPE_CHECKING:
    from collections.abc import Callable

_UNREAD = {"preload_content": False, "decode_content": False}


def maker(module: Any, below: Any) -> Callable[..., Any]:
    """What makes a response of a status, pairs of headers and a body as it was on the wire; `below` is its urllib3."""
    raw = urllib3_stored.maker(below)

    def make(status: int, headers: list[tuple[str, str]], body: bytes, adapter: Any, request: Any, stream: bool) -> Any:
        return adapter.build_response(request, raw(status, headers, body, _UNREAD))

    return make
