"""The streams of httpx: a response's, which settles its call, and a request's, which is counted as it goes.

httpx accepts only streams that derive from its own base classes, so they are made for each library anew.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from farcall._native import native

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator


class Streams:
    """The four stream classes for one library."""

    def __init__(self, base: Any, async_base: Any) -> None:
        # Not in Python: with their frames these streams would cost more than all the rest of a call.
        class Body(native.Body, base):  # type: ignore[misc]
            __slots__ = ()

        class AsyncBody(native.AsyncBody, async_base):  # type: ignore[misc]
            __slots__ = ()

        class Upload(_Upload, base):  # type: ignore[misc]
            __slots__ = ()

            def __iter__(self) -> Iterator[bytes]:
                for chunk in self._stream:
                    self._count += len(chunk)
                    yield chunk

            def close(self) -> None:
                self._stream.close()

        class AsyncUpload(_Upload, async_base):  # type: ignore[misc]
            __slots__ = ()

            async def __aiter__(self) -> AsyncIterator[bytes]:
                chunks = self._stream.__aiter__()
                try:
                    async for chunk in chunks:
                        self._count += len(chunk)
                        yield chunk
                finally:
                    await _close(chunks)

            async def aclose(self) -> None:
                await self._stream.aclose()

        #: What `Call.respond` and `Call.stream` make an instance of.
        self.body: type[native.Body] = Body
        self.async_body: type[native.AsyncBody] = AsyncBody
        self.upload: Callable[[Any], _Upload] = Upload
        self.async_upload: Callable[[Any], _Upload] = AsyncUpload


async def _close(chunks: Any) -> None:
    # An abandoned async generator closes what it iterates only when it is told to.
    close = getattr(chunks, "aclose", None)
    if close is not None:
        await close()


class _Upload:
    """A request's stream, in the place of the application's own while it is sent."""

    __slots__ = ("_count", "_request", "_stream")

    def __init__(self, request: Any) -> None:
        self._stream = request.stream
        self._request = request
        self._count = 0
        request.stream = self

    def give_back(self) -> int:
        """Puts the application's own stream back, and returns the bytes that went out."""
        if self._request.stream is self:
            self._request.stream = self._stream
        return self._count
