"""httpx and httpx2: the two transports that reach the network, sync and async.

Hooked is the method of the base class, so that mounted transports and subclasses count, and a subclass that calls
`super()` counts once for each exchange it makes. A redirect is followed above the transport: each hop is a call.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from farcall._faults import fault
from farcall._hook import BODILESS, Patches, begin, broke, fail, scope

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from types import ModuleType

    from farcall._farcall import Call

# The end mark of an event stream in OpenAI's dialect. Its SDKs close the response there, one read before HTTP
# would say that this was all: such a stream is complete, not abandoned.
_DONE = b"data: [DONE]"


def attach(module: ModuleType, number: int, patches: Patches) -> None:
    """Hooks `module`, which is httpx or a fork of it with the same names."""
    make = _Streams(module.SyncByteStream, module.AsyncByteStream)
    name = module.__name__
    patches.replace(module.HTTPTransport, "handle_request", lambda original: _sync_hook(original, name, number, make))
    patches.replace(
        module.AsyncHTTPTransport,
        "handle_async_request",
        lambda original: _async_hook(original, name, number, make),
    )


def _sync_hook(original: Any, name: str, number: int, make: _Streams) -> Callable[..., Any]:
    begin_place, fail_place, head_place = f"{name}.begin", f"{name}.fail", f"{name}.head"
    body_of, upload_of = make.sync_body, make.sync_upload

    def handle_request(self: Any, request: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            uri = request.url._uri_reference  # the public properties parse and encode anew at each read
            call = begin(number, request.method, uri.scheme, uri.host, uri.port, uri.path, scope())
        except Exception as error:
            fault(begin_place, error)
            call = None
        if call is None:
            return original(self, request, *args, **kwargs)
        content = request.__dict__.get("_content")
        sent = None if content is not None else upload_of(request)
        try:
            response = original(self, request, *args, **kwargs)
        except BaseException as error:
            fail(fail_place, call, error, len(content) if sent is None else sent.give_back())
            raise
        try:
            status = response.status_code
            call.head(status, len(content) if sent is None else sent.give_back())
            if status in BODILESS or request.method in _NO_BODY:
                call.end(0)
            else:
                response.stream = body_of(response, call)
        except Exception as error:
            fault(head_place, error)
        return response

    return handle_request


def _async_hook(original: Any, name: str, number: int, make: _Streams) -> Callable[..., Any]:
    begin_place, fail_place, head_place = f"{name}.begin", f"{name}.fail", f"{name}.head"
    body_of, upload_of = make.async_body, make.async_upload

    async def handle_async_request(self: Any, request: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            uri = request.url._uri_reference
            call = begin(number, request.method, uri.scheme, uri.host, uri.port, uri.path, scope())
        except Exception as error:
            fault(begin_place, error)
            call = None
        if call is None:
            return await original(self, request, *args, **kwargs)
        content = request.__dict__.get("_content")
        sent = None if content is not None else upload_of(request)
        try:
            response = await original(self, request, *args, **kwargs)
        except BaseException as error:
            fail(fail_place, call, error, len(content) if sent is None else sent.give_back())
            raise
        try:
            status = response.status_code
            call.head(status, len(content) if sent is None else sent.give_back())
            if status in BODILESS or request.method in _NO_BODY:
                call.end(0)
            else:
                response.stream = body_of(response, call)
        except Exception as error:
            fault(head_place, error)
        return response

    return handle_async_request


# CONNECT that succeeds turns the connection into a tunnel, whose bytes are not a body.
_NO_BODY = frozenset({"HEAD", "CONNECT"})


class _Streams:
    """The stream classes for one library: it accepts only streams that derive from its own."""

    def __init__(self, sync_base: Any, async_base: Any) -> None:
        class Body(_Body, sync_base):  # type: ignore[misc]
            __slots__ = ()

            def __iter__(self) -> Iterator[bytes]:
                call = self._call
                self._begun = True
                try:
                    for chunk in self._stream:
                        self._last = chunk
                        call.body(len(chunk))
                        yield chunk
                except BaseException as error:
                    broke("httpx.body", call, error)
                    raise
                call.end(0)

            def close(self) -> None:
                try:
                    self._stream.close()
                finally:
                    self._settle()

        class AsyncBody(_Body, async_base):  # type: ignore[misc]
            __slots__ = ()

            async def __aiter__(self) -> AsyncIterator[bytes]:
                call = self._call
                self._begun = True
                chunks = self._stream.__aiter__()
                try:
                    async for chunk in chunks:
                        self._last = chunk
                        call.body(len(chunk))
                        yield chunk
                except BaseException as error:
                    broke("httpx.body", call, error)
                    raise
                finally:
                    # An abandoned async generator closes what it iterates only when it is told to.
                    close = getattr(chunks, "aclose", None)
                    if close is not None:
                        await close()
                call.end(0)

            async def aclose(self) -> None:
                try:
                    await self._stream.aclose()
                finally:
                    self._settle()

        class Upload(_Upload, sync_base):  # type: ignore[misc]
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
                    close = getattr(chunks, "aclose", None)
                    if close is not None:
                        await close()

            async def aclose(self) -> None:
                await self._stream.aclose()

        self.sync_body: Callable[[Any, Call], Any] = Body
        self.async_body: Callable[[Any, Call], Any] = AsyncBody
        self.sync_upload: Callable[[Any], _Upload] = Upload
        self.async_upload: Callable[[Any], _Upload] = AsyncUpload


class _Body:
    """A response's stream, and the call that ends with it."""

    __slots__ = ("_begun", "_call", "_last", "_response_headers", "_stream")

    def __init__(self, response: Any, call: Call) -> None:
        self._stream = response.stream
        self._response_headers = response.headers
        self._call = call
        self._begun = False
        self._last = b""

    def _settle(self) -> None:
        """The application closed the response. What was read to its end has been settled before."""
        try:
            call = self._call
            if call.settled:
                return
            whole = self._last.rstrip().endswith(_DONE) if self._begun else self._is_empty()
            if whole:
                call.end(0)
            else:
                call.abandon()
        except Exception as error:
            fault("httpx.close", error)

    def _is_empty(self) -> bool:
        length: str | None = self._response_headers.get("content-length")
        return length == "0"


class _Upload:
    """A request's stream of unknown length, counted as it is sent."""

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
