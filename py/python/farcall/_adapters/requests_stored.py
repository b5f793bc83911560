"""An answer that no vendor sent now, as a response of requests."""

from __future__ import annotations

from collections import OrderedDict
from functools import lru_cache
from http.client import responses
from typing import TYPE_CHECKING, Any

from farcall._adapters import urllib3_stored

if TYPE_CHECKING:
    from collections.abc import Callable

_UNREAD = {"preload_content": False, "decode_content": False}
#: What makes a body, or the cookies of a response, more than what is there already.
_SPECIAL = frozenset({"content-encoding", "set-cookie"})


def maker(module: Any, below: Any) -> Callable[..., Any]:
    """What makes a response of a status, pairs of headers and a body as it was on the wire; `below` is its urllib3."""
    raw_of = urllib3_stored.maker(below)
    raw_later = _later(below.HTTPResponse, raw_of)
    new_response, fields_of = module.Response, module.structures.CaseInsensitiveDict
    build = module.adapters.HTTPAdapter.build_response
    of_headers = module.utils.get_encoding_from_headers

    @lru_cache(256)
    def encoding_of(kind: str) -> Any:
        return of_headers({"content-type": kind})

    def make(status: int, headers: list[tuple[str, str]], body: bytes, adapter: Any, request: Any, stream: bool) -> Any:
        store: OrderedDict[str, tuple[str, str]] = OrderedDict()
        for pair in headers:
            name = pair[0]
            store[name] = pair if name not in store else (name, f"{store[name][1]}, {pair[1]}")
        if stream or not _SPECIAL.isdisjoint(store) or type(adapter).build_response is not build:
            return adapter.build_response(request, raw_of(status, headers, body, _UNREAD))
        response = new_response()
        response.status_code = status
        response.headers = fields = fields_of()
        fields._store = store
        kind = store.get("content-type")
        response.encoding = None if kind is None else encoding_of(kind[1])
        response.reason = responses.get(status)
        response.url = request.url
        response.request = request
        response.connection = adapter
        response.raw = raw_later((status, headers, body, _UNREAD))
        response._content = body
        response._content_consumed = True
        return response

    return make


def _later(kind: Any, raw_of: Callable[..., Any]) -> Callable[[tuple[Any, ...]], Any]:
    """What makes a response of urllib3 that is read to its end, and is one only when somebody looks at it."""

    class HTTPResponse(kind):  # type: ignore[misc]
        closed = True
        _original_response = None

        def __init__(self, parts: tuple[Any, ...]) -> None:
            self.__dict__["_farcall_parts"] = parts

        def release_conn(self) -> None:
            """There is none."""

        def __getattr__(self, name: str) -> Any:
            parts = self.__dict__.pop("_farcall_parts", None)
            if parts is None:
                raise AttributeError(name)
            made = raw_of(*parts)
            made.read()
            self.__dict__.update(made.__dict__)
            self.__class__ = kind
            return getattr(self, name)

    HTTPResponse.__module__, HTTPResponse.__qualname__ = kind.__module__, kind.__qualname__
    return HTTPResponse
