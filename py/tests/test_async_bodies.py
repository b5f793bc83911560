"""httpx's async streams, which are native: to who reads them they are what the library's own would be."""

from __future__ import annotations

import asyncio
import gc
from typing import TYPE_CHECKING, Any

import farcall
import httpx
import httpx2
import pytest
from hooked import httpx_streams

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from conftest import Ledger


@pytest.fixture(params=[httpx, httpx2], ids=lambda library: library.__name__)
def library(request: pytest.FixtureRequest, ledger: Ledger) -> Any:
    return request.param


class Slow:
    """An async stream of chunks, in whose middle one can leave."""

    def __init__(self, *chunks: bytes, error: BaseException | None = None) -> None:
        self.chunks, self.error = chunks, error
        self.closed = self.left = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            for chunk in self.chunks:
                await asyncio.sleep(0)
                yield chunk
            if self.error is not None:
                raise self.error
        except GeneratorExit:
            self.left += 1
            raise

    async def aclose(self) -> None:
        await asyncio.sleep(0)
        self.closed += 1


def body_of(library: Any, stream: Slow, ledger: Ledger) -> Any:
    with farcall.customer(ledger.customer):
        call = farcall._native.native.begin(
            2, "GET", "https", "awaited.example", 443, "/a", farcall._scope.current.get()
        )
    assert call is not None
    return call.respond(200, 0, stream, {}, httpx_streams(library).async_body)


def test_an_async_body_hands_out_what_came_and_its_call_ends_with_it(library: Any, ledger: Ledger) -> None:
    stream = Slow(b"one", b"", b"three")
    body = body_of(library, stream, ledger)
    assert isinstance(body, library.AsyncByteStream)

    async def work() -> None:
        assert [chunk async for chunk in body] == [b"one", b"", b"three"]
        await body.aclose()

    asyncio.run(work())
    assert stream.closed == 1
    assert ledger.calls() == {(200, "complete"): 1}
    assert ledger.total("bytes_in") == 8


def test_an_error_of_an_async_stream_passes_through(library: Any, ledger: Ledger) -> None:
    error = ConnectionResetError(104, "reset")
    body = body_of(library, Slow(b"one", error=error), ledger)

    async def work() -> None:
        async for _ in body:
            pass

    with pytest.raises(ConnectionResetError) as caught:
        asyncio.run(work())
    assert caught.value is error
    assert ledger.calls() == {(200, "reset"): 1}


@pytest.mark.parametrize("how", ["aclose", "dropped", "loop ends"])
def test_an_async_iteration_that_is_left_leaves_the_one_below(library: Any, how: str, ledger: Ledger) -> None:
    stream = Slow(b"one", b"two")
    bodies = [body_of(library, stream, ledger)]

    async def work() -> None:
        chunks = aiter(bodies[0])
        assert await anext(chunks) == b"one"
        if how == "aclose":
            await chunks.aclose()
            with pytest.raises(StopAsyncIteration):
                await anext(chunks)
            await chunks.aclose()
        elif how == "dropped":
            del chunks
            for _ in range(5):
                await asyncio.sleep(0)
            assert stream.left == 1
        else:
            holding.append(chunks)

    holding: list[Any] = []
    asyncio.run(work())
    holding.clear()
    assert stream.left == 1
    bodies.clear()
    gc.collect()
    assert ledger.calls() == {(200, "abandoned"): 1}


def test_an_error_in_closing_an_async_body_passes_through_and_its_call_still_ends(library: Any, ledger: Ledger) -> None:
    class Stuck(Slow):
        async def aclose(self) -> None:
            raise OSError("stuck")

    body = body_of(library, Stuck(b"one"), ledger)

    async def work() -> None:
        await body.aclose()

    with pytest.raises(OSError, match="stuck"):
        asyncio.run(work())
    assert ledger.calls() == {(200, "abandoned"): 1}
