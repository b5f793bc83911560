"""A signal's handler may raise anywhere, also within our few lines: what stops a program is never swallowed."""

from __future__ import annotations

import asyncio
import signal
import sys
from typing import Any

import farcall
import pytest
from farcall._adapters.httpx_streams import Streams
from farcall._native import native
from hooked import native_hook

#: What is no `Exception`.
STOPS = [KeyboardInterrupt, SystemExit, GeneratorExit, asyncio.CancelledError]


class TimeLimit(Exception):
    """As those of alarms are, and Celery's."""


def throw(error: BaseException) -> None:
    """A time limit is raised by the handler of a signal that comes right here."""
    if not isinstance(error, TimeLimit):
        raise error

    def handler(*_: object) -> None:
        raise error

    handler(signal.SIGALRM, sys._getframe())


class Base:
    """What a library wants its streams to derive from."""


BODY = Streams(Base, Base).body


class Raising:
    """Something of which one attribute cannot be read."""

    def __init__(self, error: BaseException, place: str, **others: Any) -> None:
        self.__dict__.update(others)
        self._error = error
        self._place = place

    def __getattr__(self, name: str) -> Any:
        if name == self._place:
            throw(self._error)
        raise AttributeError(name)


def begun() -> Any:
    call = native.begin(0, "GET", "https", "native.example", 443, "/a", None)
    assert call is not None
    return call


def unreached(*_: object, **__: object) -> Any:
    pytest.fail("this is not to be called")


def faults() -> int:
    return sum(one["count"] for one in farcall.status()["faults"].values())


@pytest.fixture(params=[*STOPS, TimeLimit, ValueError], ids=lambda kind: kind.__name__)
def error(request: pytest.FixtureRequest) -> BaseException:
    farcall.install()
    return request.param("raised by a handler")


def raises(error: BaseException, work: Any, *args: Any, **kwargs: Any) -> None:
    """It comes out where a handler raised it; any other is ours, and counted."""
    before = faults()
    if isinstance(error, ValueError):
        work(*args, **kwargs)
        assert faults() == before + 1
        return
    with pytest.raises(type(error)) as caught:
        work(*args, **kwargs)
    assert caught.value is error
    assert faults() == before


@pytest.mark.parametrize("place", ["scheme", "host", "port", "scope"])
def test_of_urllib3_before_an_exchange(error: BaseException, place: str) -> None:
    def scope() -> None:
        if place == "scope":
            throw(error)

    pool = Raising(error, place, **{name: value for name, value in URL.items() if name != place})
    original = (lambda *_, **__: None) if isinstance(error, ValueError) else unreached
    hook = native_hook("exchange", 0, original, unreached, scope, None)
    raises(error, hook, pool, object(), "GET", "/a", body=None, preload_content=False)


def test_of_urllib3_after_the_head(error: BaseException) -> None:
    response = Raising(error, "status")
    hook = native_hook("exchange", 0, lambda *_, **__: response, unreached, lambda: None, None)
    raises(error, hook, Pool, object(), "GET", "/a", body=None, preload_content=False)


def test_of_urllib3_after_a_read(error: BaseException) -> None:
    response = Raising(error, "_fp", _farcall_call=begun())
    hook = native_hook("read", 0, lambda *_: b"data", unreached, lambda: None, object)
    raises(error, hook, response, 10)


@pytest.mark.parametrize("place", ["url", "method"])
def test_of_httpx_before_an_exchange(error: BaseException, place: str) -> None:
    request = Raising(error, place, **{name: value for name, value in REQUEST.items() if name != place})
    original = (lambda *_: Answer) if isinstance(error, ValueError) else unreached
    hook = native_hook("request", 0, original, unreached, lambda: None, BODY)
    raises(error, hook, object(), request)


@pytest.mark.parametrize("place", ["status_code", "headers", "stream"])
def test_of_httpx_after_the_head(error: BaseException, place: str) -> None:
    parts = {"status_code": 200, "headers": {}, "stream": ()}
    del parts[place]
    response = Raising(error, place, **parts)
    hook = native_hook("request", 0, lambda *_: response, unreached, lambda: None, BODY)
    raises(error, hook, object(), Raising(error, "", **REQUEST))


def test_of_a_chunk(error: BaseException) -> None:
    class Chunk:
        def __iter__(self) -> Any:
            throw(error)

    body = begun().respond(200, 0, [Chunk()], {}, BODY)
    raises(error, list, body)


def test_of_a_body_that_is_closed(error: BaseException) -> None:
    class Stream:
        def close(self) -> None:
            pass

    headers = Raising(error, "get")
    raises(error, begun().respond(200, 0, Stream(), headers, BODY).close)


@pytest.mark.parametrize("stop", STOPS, ids=lambda kind: kind.__name__)
def test_while_a_call_is_told_of_an_exception(stop: type[BaseException], monkeypatch: pytest.MonkeyPatch) -> None:
    farcall.install()
    own, interrupt = ConnectionError("the application's own"), stop("raised by a handler")

    def classify(_: object) -> int:
        raise interrupt

    monkeypatch.setattr(farcall._errors, "classify", classify)

    def original(*_: object) -> None:
        raise own

    hook = native_hook("request", 0, original, unreached, lambda: None, BODY)
    with pytest.raises(stop) as caught:
        hook(object(), Raising(own, "", **REQUEST))
    assert caught.value is interrupt
    assert caught.value.__context__ is own


URL = {"scheme": "https", "host": "native.example", "port": 443}


class Pool:
    scheme, host, port = "https", "native.example", 443


class Uri(Pool):
    path = "/a"


class Url:
    _uri_reference = Uri


class Answer:
    """What httpx would hand out, without a body."""

    status_code, headers, stream = 204, (), ()


REQUEST: dict[str, Any] = {"url": Url, "method": "GET", "_content": b""}
