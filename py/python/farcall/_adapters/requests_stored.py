"""An answer that no vendor sent now, as a response of requests."""

from __future__ import annotations

import http.cookiejar
import threading
from datetime import timedelta
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
    new_response, fields_of = _empty(module), module.structures.CaseInsensitiveDict
    build = module.adapters.HTTPAdapter.build_response
    of_headers = module.utils.get_encoding_from_headers
    new = object.__new__
    # What is filled in here, and not made by a constructor, is what that would fill in.
    is_known = list(vars(fields_of({"a": "b"})).items()) == [("_store", {"a": ("a", "b")})]

    @lru_cache(256)
    def encoding_of(kind: str) -> Any:
        return of_headers({"content-type": kind})

    def make(status: int, headers: list[tuple[str, str]], body: bytes, adapter: Any, request: Any, stream: bool) -> Any:
        # Names come in lower case.
        store = {pair[0]: pair for pair in headers}
        plain = is_known and len(store) == len(headers)
        if stream or not plain or not _SPECIAL.isdisjoint(store) or type(adapter).build_response is not build:
            return adapter.build_response(request, raw_of(status, headers, body, _UNREAD))
        fields = new(fields_of)
        fields._store = store
        kind = store.get("content-type")
        response = new_response()
        response.__dict__.update(
            status_code=status,
            headers=fields,
            encoding=None if kind is None else encoding_of(kind[1]),
            reason=responses.get(status),
            url=request.url,
            request=request,
            connection=adapter,
            raw=raw_later((status, headers, body, _UNREAD)),
            _content=body,
            _content_consumed=True,
        )
        return response

    return make


def _empty(module: Any) -> Callable[[], Any]:
    """What makes a response of which nothing is known yet, as its constructor does, but for the headers.

    Most of what the constructor does is a jar for cookies, and that jar's policy.
    """
    kind: Any = module.Response
    jar_kind = module.cookies.RequestsCookieJar
    state = dict(vars(kind()))
    jar = state.pop("cookies", None)
    new, lock_of = object.__new__, threading.RLock
    try:
        policy = jar._policy
        policy_state, policy_kind = vars(policy), type(policy)
        plain = (
            type(jar) is jar_kind
            and vars(jar).keys() == {"_policy", "_cookies_lock", "_cookies"}
            and policy_kind is http.cookiejar.DefaultCookiePolicy
            and all(isinstance(value, _UNCHANGING) for value in policy_state.values())
            and all(isinstance(value, _UNCHANGING) or name in _FRESH for name, value in state.items())
            and state.keys() >= _FRESH
        )
    except (AttributeError, TypeError):
        plain = False
    if not plain:
        return kind  # type: ignore[no-any-return]

    def empty() -> Any:
        own_policy = new(policy_kind)
        own_policy.__dict__ = policy_state.copy()
        own = new(jar_kind)
        own.__dict__ = {"_policy": own_policy, "_cookies_lock": lock_of(), "_cookies": {}}
        response = new(kind)
        response.__dict__ = made = state.copy()
        made["cookies"] = own
        made["history"] = []
        return response

    return empty


#: What may be the same object in all responses, and what is put in its place for each.
_UNCHANGING = (type(None), bool, int, str, tuple, timedelta)
_FRESH = {"headers", "history"}


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
