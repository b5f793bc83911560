"""httpx and httpx2: the two transports that reach the network, sync and async.

Hooked is the method of the base class, so that mounted transports and subclasses count, and a subclass that calls
`super()` counts once for each exchange it makes. A redirect is followed above the transport: each hop is a call.
"""

from __future__ import annotations

from inspect import unwrap
from types import FunctionType
from typing import TYPE_CHECKING, Any, Literal

from farcall._acting import decides
from farcall._adapters import channels
from farcall._adapters.httpcore_ import carriers, exchanges
from farcall._adapters.httpx_acting import Acting
from farcall._adapters.httpx_streams import Streams
from farcall._faults import fault
from farcall._hook import Patches, begin, fail, scope
from farcall._native import native

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from farcall._farcall import Call


def attach(module: ModuleType, number: int, patches: Patches) -> None:
    """Hooks `module`, which is httpx or a fork of it with the same names."""
    streams = Streams(module.SyncByteStream, module.AsyncByteStream)
    acting = Acting(module, number, streams)

    # Native where it can be, with the one in Python for what the native one does not know.
    def request(original: Any) -> Any:
        whole = _sync_hook(original, number, streams, acting)
        return native.hook("request", number, original, whole, scope, streams.body) if _carries(original) else whole

    def async_request(original: Any) -> Any:
        whole = _async_hook(original, number, streams, acting)
        if not _carries(original):
            return whole
        return native.hook("async_request", number, original, whole, scope, streams.async_body)

    patches.replace(module.HTTPTransport, "handle_request", request)
    patches.replace(module.AsyncHTTPTransport, "handle_async_request", async_request)
    for transport in (module.HTTPTransport, module.AsyncHTTPTransport):
        patches.replace(transport, "__init__", channels.init_hook)


def _carries(original: Any) -> bool:
    """Whether the call of a native hook can be found while this method runs, which may be wrapped."""
    function = unwrap(original)
    if not isinstance(function, FunctionType) or function.__code__.co_argcount < _TRANSPORT_AND_REQUEST:
        return False
    carriers.add(function.__code__)
    return True


_TRANSPORT_AND_REQUEST = 2


# The two hooks are one, but for `await`. What is done for every call is written out in both: a function of its own
# would cost each call another frame, and arguments that need packing (`*args`) as much. The rest they share.


def _sync_hook(original: Any, number: int, streams: Streams, acting: Acting) -> Callable[..., Any]:
    body, upload_of = streams.body, streams.upload

    def handle_request(self: Any, request: Any) -> Any:
        call: Call | Literal[False] | None
        try:
            uri = request.url._uri_reference  # the public properties parse and encode anew at each read
            call = begin(number, request.method, uri.scheme, uri.host, uri.port, uri.path, scope())
        except Exception as error:
            fault("httpx.begin", error)
            call = False
        if not call:
            # Rules decide, or did a moment ago.
            if call is None or decides():
                return acting.send(original, self, request)
            call = None
            return original(self, request)
        try:
            content = request._content
        except AttributeError:  # it is a stream
            content = None
        upload = None if content is not None else upload_of(request)
        try:
            response = original(self, request)
        except BaseException as error:
            _failed(call, error, content, upload)
            raise
        try:
            sent = len(content) if upload is None else upload.give_back()
            response.stream = call.respond(response.status_code, sent, response.stream, response.headers, body)
        except Exception as error:
            fault("httpx.head", error)
        return response

    exchanges.add(handle_request.__code__)
    return handle_request


def _async_hook(original: Any, number: int, streams: Streams, acting: Acting) -> Callable[..., Any]:
    body, upload_of = streams.async_body, streams.async_upload

    async def handle_async_request(self: Any, request: Any) -> Any:
        call: Call | Literal[False] | None
        try:
            uri = request.url._uri_reference
            call = begin(number, request.method, uri.scheme, uri.host, uri.port, uri.path, scope())
        except Exception as error:
            fault("httpx.begin", error)
            call = False
        if not call:
            # Rules decide, or did a moment ago.
            if call is None or decides():
                return await acting.send_async(original, self, request)
            call = None
            return await original(self, request)
        try:
            content = request._content
        except AttributeError:  # it is a stream
            content = None
        upload = None if content is not None else upload_of(request)
        try:
            response = await original(self, request)
        except BaseException as error:
            _failed(call, error, content, upload)
            raise
        try:
            sent = len(content) if upload is None else upload.give_back()
            response.stream = call.respond(response.status_code, sent, response.stream, response.headers, body)
        except Exception as error:
            fault("httpx.head", error)
        return response

    exchanges.add(handle_async_request.__code__)
    return handle_async_request


def _failed(call: Call, error: BaseException, content: Any, upload: Any) -> None:
    """The exchange ended in `error`, before a response began."""
    fail("httpx.fail", call, error, len(content) if upload is None else upload.give_back())
