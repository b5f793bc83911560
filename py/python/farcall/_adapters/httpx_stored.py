"""An answer that no vendor sent now, as a response of httpx."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


def maker(module: Any) -> Callable[[int, list[tuple[bytes, bytes]], bytes], Any]:
    """What makes a response, unread, of a status, pairs of headers and a body as it was on the wire."""

    def make(status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> Any:
        extensions = {"http_version": b"HTTP/1.1"}
        return module.Response(status, headers=headers, stream=module.ByteStream(body), extensions=extensions)

    return make
