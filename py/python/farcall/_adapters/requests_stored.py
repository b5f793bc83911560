"""An answer that no vendor sent now, as a response of requests."""

from __future__ import annotations

import http.cookiejar
from datetime import timedelta
from functools import lru_cache
from http.client import responses
from typing import TYPE_CHECKING, Any, NamedTuple

from farcall._adapters import urllib3_stored

if TYPE_CHECKING:
    from collections.abc import Callable

_UNREAD = {"preload_content": False, "decode_content": False}


def maker(below: Any) -> Callable[..., Any]:
    """What makes a response of a status, pairs of headers and a body as it was on the wire; `below` is its urllib3."""
    raw_of = urllib3_stored.maker(below)

    def make(status: int, headers: list[tuple[str, str]], body: bytes, adapter: Any, request: Any) -> Any:
        return adapter.build_response(request, raw_of(status, headers, body, _UNREAD))

    return make


class Shape(NamedTuple):
    """What the native half makes a response of that is read already.

    What it fills in, and no constructor makes, is what that would fill in.
    """

    kind: Any
    #: The attributes that are the same of all.
    common: dict[str, Any]
    headers: Any
    cookies: Any
    raw: Any
    #: The options that `raw` is made with.
    options: dict[str, bool]
    encoding_of: Callable[[str], Any]
    reasons: dict[int, str]


def shape(module: Any, below: Any) -> Shape | None:
    """The shape of a response of requests; None where it is not known well enough."""
    kind, fields_kind = module.Response, module.structures.CaseInsensitiveDict
    of_headers = module.utils.get_encoding_from_headers
    try:
        state = dict(vars(kind()))
        jar = state.pop("cookies")
        known = (
            type(jar) is module.cookies.RequestsCookieJar
            and vars(jar).keys() == _JAR
            and type(jar._policy) is http.cookiejar.DefaultCookiePolicy
            and all(isinstance(value, _UNCHANGING) or name in _FRESH for name, value in state.items())
            and state.keys() >= _FRESH
            and list(vars(fields_kind({"a": "b"})).items()) == [("_store", {"a": ("a", "b")})]
        )
    except (AttributeError, KeyError, TypeError):
        known = False
    if not known:
        return None

    @lru_cache(256)
    def encoding_of(media: str) -> Any:
        return of_headers({"content-type": media})

    common = {name: value for name, value in state.items() if name not in _FRESH}
    raw = _later(below.HTTPResponse, urllib3_stored.maker(below))
    return Shape(kind, common, fields_kind, _jar_later(type(jar)), raw, _UNREAD, encoding_of, responses)


#: What may be the same object in all responses, and what is put in its place for each.
_UNCHANGING = (type(None), bool, int, str, tuple, timedelta)
_FRESH = {"headers", "history"}
#: What a jar for cookies has.
_JAR = {"_policy", "_cookies_lock", "_cookies"}


def _jar_later(kind: Any) -> Any:
    """A jar for the cookies of a response, which nearly nobody looks into, and is one only when somebody does."""

    class RequestsCookieJar(kind):  # type: ignore[misc]
        def __getattr__(self, name: str) -> Any:
            if name not in _JAR:
                raise AttributeError(name)
            for own, value in vars(kind()).items():
                # Two threads may look at once.
                self.__dict__.setdefault(own, value)
            self.__class__ = kind
            return getattr(self, name)

        def __reduce_ex__(self, protocol: Any) -> Any:
            self._cookies  # noqa: B018 - from now on it is one
            return self.__reduce_ex__(protocol)

    return _like(RequestsCookieJar, kind)


def _later(kind: Any, raw_of: Callable[..., Any]) -> Any:
    """A response of urllib3 that is read to its end, and is one only when somebody looks at it."""

    class HTTPResponse(kind):  # type: ignore[misc]
        closed = True
        _original_response = None

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

    return _like(HTTPResponse, kind)


def _like(made: Any, kind: Any) -> Any:
    made.__module__, made.__qualname__ = kind.__module__, kind.__qualname__
    return made
