"""httpx and httpx2: the two transports that reach the network, sync and async.

Hooked is the method of the base class, so that mounted transports and subclasses count, and a subclass that calls
`super()` counts once for each exchange it makes. A redirect is followed above the transport: each hop is a call.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from farcall._adapters.httpcore_ import under_way
from farcall._adapters.httpx_streams import Streams
from farcall._faults import fault
from farcall._hook import BODILESS, Patches, begin, fail, scope

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

# CONNECT that succeeds turns the connection into a tunnel, whose bytes are not a body.
_NO_BODY = frozenset({"HEAD", "CONNECT"})

_set_under_way = under_way.set


def attach(module: ModuleType, number: int, patches: Patches) -> None:
    """Hooks `module`, which is httpx or a fork of it with the same names."""
    streams = Streams(module.SyncByteStream, module.AsyncByteStream)
    patches.replace(module.HTTPTransport, "handle_request", lambda original: _sync_hook(original, number, streams))
    patches.replace(
        module.AsyncHTTPTransport, "handle_async_request", lambda original: _async_hook(original, number, streams)
    )


def _sync_hook(original: Any, number: int, streams: Streams) -> Callable[..., Any]:
    body_of, upload_of = streams.body, streams.upload

    def handle_request(self: Any, request: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            uri = request.url._uri_reference  # the public properties parse and encode anew at each read
            call = begin(number, request.method, uri.scheme, uri.host, uri.port, uri.path, scope())
        except Exception as error:
            fault("httpx.begin", error)
            call = None
        if call is None:
            return original(self, request, *args, **kwargs)
        content: Any = getattr(request, "_content", None)
        upload = None if content is not None else upload_of(request)
        _set_under_way(call)
        try:
            response = original(self, request, *args, **kwargs)
        except BaseException as error:
            fail("httpx.fail", call, error, len(content) if upload is None else upload.give_back())
            raise
        finally:
            _set_under_way(None)
        try:
            status = response.status_code
            call.head(status, len(content) if upload is None else upload.give_back())
            if status in BODILESS or request.method in _NO_BODY:
                call.end(0)
            else:
                response.stream = body_of(response, call)
        except Exception as error:
            fault("httpx.head", error)
        return response

    return handle_request


def _async_hook(original: Any, number: int, streams: Streams) -> Callable[..., Any]:
    body_of, upload_of = streams.async_body, streams.async_upload

    async def handle_async_request(self: Any, request: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            uri = request.url._uri_reference
            call = begin(number, request.method, uri.scheme, uri.host, uri.port, uri.path, scope())
        except Exception as error:
            fault("httpx.begin", error)
            call = None
        if call is None:
            return await original(self, request, *args, **kwargs)
        content: Any = getattr(request, "_content", None)
        upload = None if content is not None else upload_of(request)
        _set_under_way(call)
        try:
            response = await original(self, request, *args, **kwargs)
        except BaseException as error:
            fail("httpx.fail", call, error, len(content) if upload is None else upload.give_back())
            raise
        finally:
            _set_under_way(None)
        try:
            status = response.status_code
            call.head(status, len(content) if upload is None else upload.give_back())
            if status in BODILESS or request.method in _NO_BODY:
                call.end(0)
            else:
                response.stream = body_of(response, call)
        except Exception as error:
            fault("httpx.head", error)
        return response

    return handle_async_request
