"""httpx and httpx2, where rules decide: a call may wait, be changed, be sent again, or not be sent at all."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from farcall import _acting, _errors
from farcall._acting import (
    FAIL,
    HEDGE,
    INSTEAD,
    REFUSE,
    RESPOND,
    SEND,
    SHADOW,
    WAIT,
    refused_as,
)
from farcall._adapters import channels, httpx_beside
from farcall._adapters.httpcore_ import exchanges
from farcall._adapters.httpx_reuse import drain, drain_async
from farcall._adapters.httpx_stored import maker
from farcall._faults import fault
from farcall._hook import scope
from farcall._native import native
from farcall._parking import PARK, park_request, park_request_async

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from types import ModuleType

    from farcall._adapters.httpx_streams import Streams
    from farcall._farcall import Call


class Acting:
    """The loop over what the engine says, for one library."""

    def __init__(self, module: ModuleType, number: int, streams: Streams) -> None:
        self._module: Any = module
        self._number = number
        self._streams = streams
        self._refused = refused_as(module.TransportError)
        self._cut, self._async_cut = _cuts(module)
        self._stored = maker(module)
        exchanges.add(Acting.send.__code__)
        exchanges.add(Acting.send_async.__code__)
        exchanges.add(Acting._perform.__code__)

    def begin(self, transport: Any, request: Any, *, hedges: bool) -> Call | None:
        """Begins a call; None between `uninstall()` and `install()`, and where we fail."""
        try:
            uri = request.url._uri_reference
            content = getattr(request, "_content", None)
            if content is None:
                content = self._content(request)
            length = _announced(request) if content is None else len(content)
            try:
                fields = request.headers._list  # tuples that begin with a name and end with its value
            except AttributeError:
                fields = request.headers.raw
            return _acting.begin_deciding(
                self._number,
                request.method,
                uri.scheme,
                uri.host,
                uri.port,
                uri.path if uri.query is None else f"{uri.path}?{uri.query}",
                scope(),
                fields,
                length,
                content,
                content is not None,
                channels.of_transport(transport, request.extensions),
                _patience_of(request.extensions.get("timeout")),
                hedges,
            )
        except Exception as error:
            fault("httpx.begin", error)
            return None

    # The two are one, but for `await`.

    def send(self, original: Any, transport: Any, request: Any) -> Any:
        """Makes the call as the engine says."""
        call = self.begin(transport, request, hedges=False)
        if call is None:
            return original(transport, request)
        response: Any = None
        failure: Exception | None = None
        limit = None
        while True:
            step = _acting.step(call, response is not None or failure is not None)
            kind = step[0]
            if kind == RESPOND and response is None:
                return self._stored(*step[1:])
            if response is not None and kind in INSTEAD:
                # What follows takes its place. Unread, it would take its connection with it.
                try:
                    drain(response)
                finally:
                    _quietly(response.close)
                response = None
            if kind == SEND:
                failure = None
                content = self._content(request)
                upload = None if content is not None else self._streams.upload(request)
                sent, limit, restore = self._attempt(request, step)
                try:
                    response = original(transport, sent)
                except Exception as error:
                    failure = error
                    _acting.failed(call, error, len(content) if upload is None else upload.give_back())
                except BaseException as error:
                    _acting.failed(call, error, len(content) if upload is None else upload.give_back())
                    _acting.end(call)
                    raise
                else:
                    restore()
                    self._answered(call, response, len(content) if upload is None else upload.give_back())
            elif kind == WAIT:
                _acting.wait(call, step[1])
            elif kind == PARK:
                park_request(call, transport, request, self._content(request))
            else:
                return self._hand_out(call, step, request, response, failure, limit, asynchronous=False)

    async def send_async(self, original: Any, transport: Any, request: Any) -> Any:
        """Makes the call as the engine says."""
        call = self.begin(transport, request, hedges=httpx_beside.can())
        if call is None:
            return await original(transport, request)
        response: Any = None
        failure: Exception | None = None
        limit = None
        while True:
            step = _acting.step(call, response is not None or failure is not None)
            kind = step[0]
            if kind == RESPOND and response is None:
                return self._stored(*step[1:])
            if response is not None and kind in INSTEAD:
                try:
                    await drain_async(response)
                finally:
                    try:
                        await response.aclose()
                    except Exception as error:
                        fault("httpx.close", error)
                response = None
            if kind == SEND:
                failure = None
                content = self._content(request)
                upload = None if content is not None else self._streams.async_upload(request)
                sent, limit, restore = self._attempt(request, step)
                beside = (step[SHADOW] or step[HEDGE] is not None) and httpx_beside.can()
                perform = partial(self._perform, original, transport, request) if beside else None
                if perform is not None and step[SHADOW]:
                    httpx_beside.shadow(perform, call, transport)
                try:
                    if perform is not None and step[HEDGE] is not None:
                        response = await httpx_beside.race(perform, call, step)
                    else:
                        response = await original(transport, sent)
                except Exception as error:
                    failure = error
                    _acting.failed(call, error, len(content) if upload is None else upload.give_back())
                except BaseException as error:
                    _acting.failed(call, error, len(content) if upload is None else upload.give_back())
                    _acting.end(call)
                    raise
                else:
                    restore()
                    self._answered(call, response, len(content) if upload is None else upload.give_back())
            elif kind == WAIT:
                await _acting.wait_async(call, step[1])
            elif kind == PARK:
                try:
                    await park_request_async(call, transport, request, self._content(request))
                except BaseException:
                    # Cancelled: nobody else gives its connection back.
                    if response is not None:
                        await response.aclose()
                    raise
            else:
                return self._hand_out(call, step, request, response, failure, limit, asynchronous=True)

    async def _perform(self, original: Any, transport: Any, request: Any, call: Call, step: tuple[Any, ...]) -> Any:
        """Makes one attempt of `call` among others."""
        sent, _, restore = self._attempt(request, step)
        response = await original(transport, sent)
        restore()
        return response

    def _content(self, request: Any) -> Any:
        """The body, where it can be sent again. A request that follows a redirect has it in its stream alone."""
        content = getattr(request, "_content", None)
        if content is None and type(request.stream) is self._module.ByteStream:
            content = b"".join(request.stream)
        return content

    def _answered(self, call: Call, response: Any, sent: int) -> None:
        _acting.answered(call, response, response.status_code, _headers_of, sent)

    def _attempt(self, request: Any, step: tuple[Any, ...]) -> tuple[Any, int | None, Callable[[], None]]:
        """The request of one attempt, after how many bytes its response breaks off, and what puts its timeouts back."""
        _, host, prefix, headers, model, patience, limit = step[:7]
        if host is None and prefix is None and not headers and model is None and patience is None:
            return request, limit, _nothing
        try:
            return self._changed(request, host, prefix, headers, model, patience, limit)
        except Exception as error:
            fault("httpx.change", error)
            return request, limit, _nothing

    def _changed(
        self,
        request: Any,
        host: str | None,
        prefix: str | None,
        headers: list[tuple[str, str]],
        model: str | None,
        patience: float | None,
        limit: int | None,
    ) -> tuple[Any, int | None, Callable[[], None]]:
        module = self._module
        url, fields, stream = request.url, request.headers.copy(), request.stream
        extensions = dict(request.extensions)
        if host is not None:
            name, port = _acting.split_host(host)
            url = url.copy_with(host=name, port=port)
            fields["Host"] = host
        if prefix is not None:
            url = url.copy_with(raw_path=prefix.encode() + url.raw_path)
        for field, value in headers:
            fields[field] = value
        content = self._content(request)
        if model is not None and content:
            cheaper = native.replace_model(content, model)
            if cheaper is not None:
                stream = module.ByteStream(cheaper)
                fields["Content-Length"] = str(len(cheaper))
        restore: Callable[[], None] = _nothing
        if patience is not None:
            own = dict(extensions.get("timeout") or {})
            # Until the response begins: then the application's own hold again, for the body.
            shorter = {part: _sooner(own.get(part), patience) for part in ("connect", "read", "write", "pool")}
            extensions["timeout"] = shorter

            def restore() -> None:
                shorter.clear()
                shorter.update(own)

        sent = module.Request(request.method, url, headers=fields, stream=stream, extensions=extensions)
        if patience is not None:
            # The library copies the dictionary, and not what is in it.
            sent.extensions["timeout"] = extensions["timeout"]
        return sent, limit, restore

    def _hand_out(
        self,
        call: Call,
        step: tuple[Any, ...],
        request: Any,
        response: Any,
        failure: Exception | None,
        limit: int | None,
        *,
        asynchronous: bool,
    ) -> Any:
        kind = step[0]
        if kind == RESPOND:
            return self._stored(*step[1:])
        if kind == REFUSE:
            raise self._refused(step[1]).told(step)
        if kind == FAIL:
            raise self._error(step[1], request)
        if failure is not None:
            _acting.end(call)
            raise failure
        if _acting.opened(call, response.status_code):
            if limit is not None:
                response.stream = (self._async_cut if asynchronous else self._cut)(response.stream, limit)
            kind = self._streams.async_body if asynchronous else self._streams.body
            response.stream = call.stream(response.stream, response.headers, kind)
        return response

    def _error(self, number: int, request: Any) -> Exception:
        module = self._module
        kinds = {
            _errors.DNS: (module.ConnectError, "[Errno -2] Name or service not known"),
            _errors.CONNECT: (module.ConnectError, "[Errno 111] Connection refused"),
            _errors.TLS: (module.ConnectError, "TLS handshake failed"),
            _errors.TIMEOUT: (module.ReadTimeout, "The read operation timed out"),
            _errors.PROTOCOL: (module.RemoteProtocolError, "Server sent an illegal response"),
        }
        kind, text = kinds.get(number, (module.ReadError, "[Errno 104] Connection reset by peer"))
        error: Exception = kind(text, request=request)
        return error


def _cuts(module: Any) -> tuple[Any, Any]:
    """Streams that break off after so many bytes: an injected fault."""

    class Cut(module.SyncByteStream):  # type: ignore[misc]
        def __init__(self, stream: Any, limit: int) -> None:
            self._stream, self._left = stream, limit

        def __iter__(self) -> Iterator[bytes]:
            for chunk in self._stream:
                if len(chunk) > self._left:
                    if self._left:
                        yield chunk[: self._left]
                    raise module.ReadError("[Errno 104] Connection reset by peer")
                self._left -= len(chunk)
                yield chunk

        def close(self) -> None:
            self._stream.close()

    class AsyncCut(module.AsyncByteStream):  # type: ignore[misc]
        def __init__(self, stream: Any, limit: int) -> None:
            self._stream, self._left = stream, limit

        async def __aiter__(self) -> AsyncIterator[bytes]:
            async for chunk in self._stream:
                if len(chunk) > self._left:
                    if self._left:
                        yield chunk[: self._left]
                    raise module.ReadError("[Errno 104] Connection reset by peer")
                self._left -= len(chunk)
                yield chunk

        async def aclose(self) -> None:
            await self._stream.aclose()

    return Cut, AsyncCut


def _headers_of(response: Any) -> Any:
    return response.headers.raw


def _announced(request: Any) -> int | None:
    """The length that a body is said to have which nobody has seen."""
    announced = request.headers.get("content-length", "")
    return int(announced) if announced.isdecimal() else None


def _patience_of(timeout: Any) -> float | None:
    """How many seconds the client waits for an answer; None where it does for ever."""
    read: float | None = timeout.get("read") if timeout else None
    return read


def _nothing() -> None:
    pass


def _sooner(own: float | None, patience: float) -> float:
    patience = max(patience, 0.001)  # no time at all would mean "do not block"
    return patience if own is None else min(own, patience)


def _quietly(close: Callable[[], None]) -> None:
    try:
        close()
    except Exception as error:
        fault("httpx.close", error)
