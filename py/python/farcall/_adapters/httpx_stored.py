"""An answer that no vendor sent now, as a response of httpx."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    Make = Callable[[int, list[tuple[bytes, bytes]], bytes], Any]


def maker(module: Any) -> Make:
    """What makes a response, unread, of a status, pairs of headers and a body as it was on the wire."""

    def make(status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> Any:
        extensions = {"http_version": b"HTTP/1.1"}
        return module.Response(status, headers=headers, stream=module.ByteStream(body), extensions=extensions)

    return _faster(module, make) or make


def _faster(module: Any, make: Make) -> Make | None:
    """The same by filling in what the constructors would, which look at each header several times.

    None where they would fill in something else.
    """
    Response, Headers, ByteStream = module.Response, module.Headers, module.ByteStream  # noqa: N806
    new = object.__new__

    def fill(status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> Any:
        fields = new(Headers)
        # Names come in lower case.
        fields._list = [(name, name, value) for name, value in headers]
        fields._encoding = None
        stream = new(ByteStream)
        stream._stream = body
        response = new(Response)
        response.__dict__ = {
            "status_code": status,
            "headers": fields,
            "_request": None,
            "next_request": None,
            "extensions": {"http_version": b"HTTP/1.1"},
            "history": [],
            "is_closed": False,
            "is_stream_consumed": False,
            "default_encoding": "utf-8",
            "stream": stream,
            "_num_bytes_downloaded": 0,
        }
        return response

    sample = (200, [(b"a", b"b"), (b"c", b"d")], b"body")
    try:
        made, filled = make(*sample), fill(*sample)
        same = _all_of(made) == _all_of(filled)
    except Exception:
        return None
    return fill if same else None


def _all_of(response: Any) -> dict[str, Any]:
    parts = dict(vars(response))
    for name in ("headers", "stream"):
        parts[name] = (type(parts[name]), vars(parts[name]))
    return parts
