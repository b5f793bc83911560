"""The native half of httpx's sync streams: what it hands out, and how its call comes out."""

from __future__ import annotations

import gc
import sys
import weakref
from typing import TYPE_CHECKING, Any

import farcall
import pytest
from farcall import _farcall as native
from hooked import native_hook

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import Ledger

HEADERS = [(b"content-type", b"content-type", b"text/plain")]


class Base:
    """What a library wants its streams to derive from."""

    def __iter__(self) -> Iterator[bytes]:
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError


class Body(native.Body, Base):
    __slots__ = ()


class Stream:
    """What stands below."""

    def __init__(self, *chunks: bytes, error: BaseException | None = None) -> None:
        self.chunks = chunks
        self.error = error
        self.closed = 0
        self.left = 0

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from self.chunks
            if self.error is not None:
                raise self.error
        except GeneratorExit:
            self.left += 1
            raise

    def close(self) -> None:
        self.closed += 1


class Fields(dict[str, str]):
    """Headers as httpx has them."""

    @property
    def raw(self) -> list[tuple[bytes, bytes]]:
        return [(name.encode(), value.encode()) for name, value in self.items()]


def body_of(stream: Any, ledger: Ledger, headers: Any = None, path: str = "/a") -> Any:
    with farcall.customer(ledger.customer):
        call = native.begin(0, "GET", "https", "bodies.example", 443, path, farcall._scope.current.get())
    assert call is not None
    return call.respond(200, 0, stream, Fields() if headers is None else headers, Body)


def outcomes(ledger: Ledger) -> dict[str, int]:
    return {row["outcome"]: row["bytes_in"] for row in ledger.rows()}


def test_a_body_hands_out_what_came_and_its_call_ends_with_it(ledger: Ledger) -> None:
    stream = Stream(b"one", b"", b"three")
    body = body_of(stream, ledger)
    assert isinstance(body, Base)
    assert list(body) == [b"one", b"", b"three"]
    assert outcomes(ledger) == {"complete": 8}
    body.close()
    assert (stream.closed, outcomes(ledger)) == (1, {"complete": 8})


def test_an_iteration_that_is_left_counts_as_abandoned_and_leaves_the_one_below(ledger: Ledger) -> None:
    stream = Stream(b"one", b"two")
    body = body_of(stream, ledger)
    chunks = iter(body)
    assert next(chunks) == b"one"
    del chunks
    assert (stream.left, outcomes(ledger)) == (1, {"abandoned": 3})


def test_an_iteration_that_is_closed_hands_out_nothing_more(ledger: Ledger) -> None:
    stream = Stream(b"one", b"two")
    chunks: Any = iter(body_of(stream, ledger))
    assert next(chunks) == b"one"
    chunks.close()
    chunks.close()
    assert list(chunks) == []
    assert (stream.left, outcomes(ledger)) == (1, {"abandoned": 3})


@pytest.mark.parametrize(
    ("chunks", "read", "headers", "outcome"),
    [
        ((b"one", b"two"), 0, {}, "abandoned"),
        ((b"one", b"two"), 1, {}, "abandoned"),
        ((b"", b"two"), 0, {"content-length": "0"}, "complete"),
        ((b"data: 1\n\n", b"data: [DONE]\n\n", b""), 2, {}, "complete"),
    ],
    ids=["unread", "half read", "empty", "the end mark of an event stream"],
)
def test_a_body_that_is_closed_early_is_abandoned_unless_all_had_come(
    chunks: tuple[bytes, ...], read: int, headers: dict[str, str], outcome: str, ledger: Ledger
) -> None:
    stream = Stream(*chunks)
    body = body_of(stream, ledger, Fields(headers))
    going = iter(body)
    for _ in range(read):
        next(going)
    body.close()
    body.close()
    assert stream.closed == 2
    assert outcomes(ledger) == {outcome: sum(map(len, chunks[:read]))}


def test_an_error_of_the_stream_below_passes_through_and_fails_the_call(ledger: Ledger) -> None:
    error = ConnectionResetError(104, "reset")
    body = body_of(Stream(b"one", error=error), ledger)
    seen = []
    with pytest.raises(ConnectionResetError) as caught:
        seen.extend(body)
    assert caught.value is error
    assert [(row["status"], row["outcome"] == "complete") for row in ledger.rows()] == [(200, False)]


def test_an_error_in_closing_passes_through_and_the_call_still_ends(ledger: Ledger) -> None:
    class Stuck(Stream):
        def close(self) -> None:
            raise OSError("stuck")

    with pytest.raises(OSError, match="stuck"):
        body_of(Stuck(b"one"), ledger).close()
    assert outcomes(ledger) == {"abandoned": 0}


def test_a_body_that_is_let_go_of_counts_as_abandoned(ledger: Ledger) -> None:
    body_of(Stream(b"one"), ledger)
    assert outcomes(ledger) == {"abandoned": 0}


def test_a_body_in_a_cycle_is_collected(ledger: Ledger) -> None:
    class Watched(Stream):
        """One that can be watched, and holds what holds it."""

        body: Any = None

    stream = Watched(b"one", b"two")
    stream.body = body_of(stream, ledger)
    chunks = iter(stream.body)
    next(chunks)
    stream.chunks = (chunks,)  # type: ignore[assignment]
    gone = weakref.ref(stream)
    del stream, chunks
    gc.collect()
    assert gone() is None
    assert outcomes(ledger) == {"abandoned": 3}


def test_a_response_without_a_body_keeps_its_own_stream(ledger: Ledger) -> None:
    stream = Stream()
    with farcall.customer(ledger.customer):
        call = native.begin(0, "HEAD", "https", "bodies.example", 443, "/a", farcall._scope.current.get())
    assert call is not None
    assert call.respond(200, 0, stream, Fields(), Body) is stream
    assert outcomes(ledger) == {"complete": 0}


@pytest.mark.parametrize("kind", [native.Call, Base, object(), None])
def test_a_class_that_does_not_derive_from_body_is_refused(kind: Any, ledger: Ledger) -> None:
    call: Any = native.begin(0, "GET", "https", "bodies.example", 443, "/a", None)
    with pytest.raises(TypeError, match="derives from Body"):
        call.respond(200, 0, Stream(), Fields(), kind)
    call.end(0)


def test_a_body_that_was_never_filled_in_is_harmless() -> None:
    made: Any
    try:
        made = Body()
    except TypeError:  # as it should be
        return
    with pytest.raises(RuntimeError):
        iter(made)
    made.close()


def test_bodies_leave_no_reference_behind(ledger: Ledger) -> None:
    stream, headers = Stream(b"one"), Fields()
    headers._list = HEADERS  # type: ignore[attr-defined]
    counted = [stream, headers, HEADERS, HEADERS[0], Body, native.Body, stream.chunks[0]]
    gc.collect()
    before = [sys.getrefcount(one) for one in counted]
    for _ in range(2_000):
        call = native.begin(0, "GET", "https", "bodies.example", 443, "/a", None)
        assert call is not None
        body = call.respond(200, 0, stream, headers, Body)
        assert list(body) == [b"one"]
        body.close()
    del call, body
    gc.collect()
    assert all(abs(then - sys.getrefcount(one)) < 100 for then, one in zip(before, counted, strict=True))


def test_exchanges_within_one_another_keep_their_connections_apart(ledger: Ledger) -> None:
    class Pool:
        scheme, host, port = "https", "bodies.example", 443

    class Response:
        def __init__(self) -> None:
            self.status, self.headers = 200, Fields()

    seen: dict[str, Any] = {}

    def make(name: str, within: Any) -> Any:
        def original(_pool: Any, conn: Any, *_: Any, **__: Any) -> Response:
            seen[name] = native.under_way(conn)
            if within is not None:
                within(Pool(), "inner", "GET", "/inner", body=None, preload_content=False)
            assert native.under_way(conn) is seen[name]
            return Response()

        return native_hook("exchange", 0, original, lambda *_, **__: None, lambda: None, None)

    outer, inner = make("outer", make("inner", None)), "inner"
    response = outer(Pool(), "outer", "GET", "/outer", body=b"", preload_content=False)
    assert seen["outer"] is response._farcall_call
    assert seen["inner"] is not seen["outer"]
    assert native.under_way("outer") is None
    assert native.under_way(inner) is None
