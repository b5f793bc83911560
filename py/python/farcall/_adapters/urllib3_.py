"""urllib3, and so requests and all that stand on either.

Hooked is the exchange (`HTTPConnectionPool._make_request`), not the request: `urlopen` calls itself for each
redirect and retry, and each of these is an exchange of its own on the wire. requests stands on it with one request
a hop, and so needs no hook of its own, which also settles who owns a call that passes through both.

A response usually leaves `_make_request` unread, and gets its call there. One that urllib3 reads at once is read by its
constructor, before that: then the call waits in a context variable for the first read.

The response's body is counted where http.client hands it over, before decoding: in `_raw_read` (1.26: `_fp_read`),
and chunk by chunk where `stream()` reads chunks itself.
"""

from __future__ import annotations

from contextvars import ContextVar
from functools import partial
from http.client import HTTPResponse
from time import perf_counter
from typing import TYPE_CHECKING, Any, Literal

from farcall import _errors
from farcall._acting import decides, shown
from farcall._adapters.urllib3_acting import Acting, headers_of
from farcall._adapters.urllib3_cut import ATTRIBUTE
from farcall._adapters.urllib3_reuse import close_beside
from farcall._faults import fault
from farcall._hook import Patches, begin, broke, call_around, fail, handshake_failed, scope
from farcall._native import native

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import CodeType, ModuleType

    from farcall._farcall import Call

# The call, the request's body and the connection of an exchange whose response is read by its constructor, until it
# claims them.
_unclaimed: ContextVar[tuple[Call, Any, Any] | None] = ContextVar("farcall_urllib3_unclaimed", default=None)
# The connection that is being made in this context.
_dialling: ContextVar[_Dial | None] = ContextVar("farcall_urllib3_dial", default=None)

#: The hooks that hold the call that a connection is made for.
_exchanges: set[CodeType] = set()

_ATTRIBUTE = "_farcall_call"
#: Where a response's call would be, of one that nobody has asked for its call yet.
_UNCLAIMED: Any = object()


def attach(module: ModuleType, number: int, patches: Patches) -> None:
    """Hooks `module`, which is urllib3."""
    pool, response = module.connectionpool.HTTPConnectionPool, module.response.HTTPResponse
    acting = Acting(module, number, _upload, _sent)
    _exchanges.add(Acting.send.__code__)

    # Each of these is native where it can be, and has the one in Python for what the native one does not know.
    def exchange(original: Any) -> Any:
        return native.hook("exchange", number, original, _exchange_hook(original, number, acting), scope, None)

    def read(original: Any) -> Any:
        return native.hook("read", number, original, _read_hook(original), scope, HTTPResponse)

    for kind in (pool, module.connectionpool.HTTPSConnectionPool):
        # The kind for TLS has one of its own where somebody wrapped it there before (New Relic's agent).
        if "_make_request" in vars(kind):
            patches.replace(kind, "_make_request", exchange)
    if hasattr(response, "_raw_read"):
        patches.replace(response, "_raw_read", read)
    else:  # 1.26
        patches.replace(response, "_init_length", _wrap_hook)
        patches.replace(response, "_fp_read", read)
    patches.replace(pool, "close", _pool_close_hook)
    patches.replace(response, "_update_chunk_length", _chunk_length_hook)
    patches.replace(response, "_handle_chunk", _chunk_hook)
    patches.replace(response, "close", _close_hook)
    connection = module.connection
    patches.replace(connection.HTTPConnection, "_new_conn", _dial_hook)
    patches.replace(connection.HTTPSConnection, "connect", _handshake_hook)
    patches.replace(module.util.connection, "_set_socket_options", _resolved_hook)


def _exchange_hook(original: Any, number: int, acting: Acting) -> Callable[..., Any]:
    def _make_request(self: Any, conn: Any, method: Any, url: Any, *args: Any, **kwargs: Any) -> Any:
        call: Call | Literal[False] | None
        outer = _unclaimed.get()
        if outer is not None and outer[2] is conn:
            # Of two hooks, with somebody's wrapper between them, the outer one counts it.
            return original(self, conn, method, url, *args, **kwargs)
        try:
            call = begin(number, method, self.scheme, self.host, self.port, url, scope())
        except Exception as error:
            fault("urllib3.begin", error)
            call = False
        if not call:
            # Rules decide, or did a moment ago.
            if call is None or decides():
                call, step = acting.begin(self, method, url, kwargs)
                if call is not None:
                    return acting.send(call, step, original, self, conn, method, url, args, kwargs)
            call = None
            return original(self, conn, method, url, *args, **kwargs)
        body = kwargs.get("body")
        if body is not None and not isinstance(body, (bytes, str)):
            body = _upload(body, kwargs)
        token = _unclaimed.set((call, body, conn)) if kwargs.get("preload_content", True) else None
        try:
            response = original(self, conn, method, url, *args, **kwargs)
        except BaseException as error:
            fail("urllib3.fail", call, error, _sent(body))
            raise
        finally:
            if token is not None:
                _unclaimed.reset(token)
        try:
            if token is None or not hasattr(response, _ATTRIBUTE):
                if call.head(response.status, 0 if body is None else _sent(body)) is None:
                    shown(call, response.status, headers_of(response))
                # urllib3 1.26 returns http.client's response here, and wraps it afterwards.
                response._farcall_call = call
                if getattr(response, "length_remaining", None) == 0:
                    call.end(0)
        except Exception as error:
            fault("urllib3.head", error)
        return response

    _exchanges.add(_make_request.__code__)
    return _make_request


def _wrap_hook(original: Any) -> Callable[..., Any]:
    def _init_length(self: Any, request_method: Any) -> Any:
        length = original(self, request_method)
        try:
            call: Call | None = getattr(self._original_response, _ATTRIBUTE, None)
            if call is not None:
                self._farcall_call = call
                if length == 0:
                    call.end(0)
        except Exception as error:
            fault("urllib3.wrap", error)
        return length

    return _init_length


def _claim(response: Any) -> Call | None:
    """The call of a response that its constructor reads: of the exchange under way, if it is that one's."""
    try:
        held = _unclaimed.get()
        # One that was handed out before, and is read only now to be sent on, has its pool.
        if held is None or response._original_response is None or response._pool is not None:
            return None
        call, body, _ = held
        _unclaimed.set(None)
        if call.head(response.status, _sent(body)) is None:
            shown(call, response.status, headers_of(response))
        return call
    except Exception as error:
        fault("urllib3.claim", error)
        return None


def _read_hook(original: Any) -> Callable[..., Any]:
    def _raw_read(self: Any, amt: Any = None, **kwargs: Any) -> Any:
        call: Call | None = getattr(self, _ATTRIBUTE, _UNCLAIMED)
        if call is _UNCLAIMED:
            call = self._farcall_call = _claim(self)
        # Unpacking nothing has its price too.
        if call is None:
            return original(self, amt, **kwargs) if kwargs else original(self, amt)
        try:
            data = original(self, amt, **kwargs) if kwargs else original(self, amt)
        except BaseException as error:
            broke("urllib3.body", call, error)
            raise
        try:
            below = self._fp
            if below is None or below.isclosed():
                if self.length_remaining and not data:
                    # urllib3 1.26, and callers that do not insist on the announced length, call this an end.
                    call.fail(_errors.PROTOCOL, 0, 0)
                else:
                    call.end(data or 0)
                # Nothing is left to tell: urllib3 reads once more to be sure.
                self._farcall_call = None
            elif data:
                call.body(data)
        except Exception as error:
            fault("urllib3.body", error)
        return data

    return _raw_read


def _chunk_length_hook(original: Any) -> Callable[..., Any]:
    def _update_chunk_length(self: Any) -> Any:
        # Out of sight meanwhile: urllib3 closes the response before it says what is wrong with the chunk.
        call = getattr(self, _ATTRIBUTE, None)
        if call is None:
            return original(self)
        self._farcall_call = None
        try:
            result = original(self)
        except BaseException as error:
            broke("urllib3.chunk", call, error)
            raise
        finally:
            self._farcall_call = call
        try:
            if self.chunk_left == 0:
                call.end(0)
        except Exception as error:
            fault("urllib3.chunk", error)
        return result

    return _update_chunk_length


def _chunk_hook(original: Any) -> Callable[..., Any]:
    def _handle_chunk(self: Any, amt: Any) -> Any:
        call = getattr(self, _ATTRIBUTE, None)
        if call is None:
            return original(self, amt)
        try:
            cut = getattr(self._fp, ATTRIBUTE, None)
            chunk = original(self, amt) if cut is None else cut.chunk(partial(original, self), self.chunk_left, amt)
        except BaseException as error:
            broke("urllib3.chunk", call, error)
            raise
        try:
            call.body(chunk)
        except Exception as error:
            fault("urllib3.chunk", error)
        return chunk

    return _handle_chunk


def _close_hook(original: Any) -> Callable[..., Any]:
    def close(self: Any) -> Any:
        try:
            return original(self)
        finally:
            call = getattr(self, _ATTRIBUTE, None)
            if call is not None:
                try:
                    call.abandon()
                except Exception as error:
                    fault("urllib3.close", error)

    return close


def _pool_close_hook(original: Any) -> Callable[..., Any]:
    def close(self: Any) -> Any:
        try:
            return original(self)
        finally:
            try:
                close_beside(self)
            except Exception as error:
                fault("urllib3.close", error)

    return close


# The request's body


def _sent(body: Any) -> int:
    """How many bytes of the request's body went out."""
    try:
        if body is None:
            return 0
        if isinstance(body, bytes):
            return len(body)
        if isinstance(body, str):
            return len(body.encode())
        return int(body.count())
    except Exception as error:
        fault("urllib3.sent", error)
        return 0


def _upload(body: Any, kwargs: dict[str, Any]) -> Any:
    """What will tell how much of a body was sent that is neither bytes nor str."""
    try:
        if hasattr(body, "read"):
            return _File(body)
        try:
            return memoryview(body).cast("B")  # a bytearray or another buffer: its length is known
        except TypeError:
            upload = kwargs["body"] = _Chunks(body)
            return upload
    except Exception as error:
        fault("urllib3.upload", error)
        return None


class _File:
    """A file that is sent: what was read of it, by its position."""

    __slots__ = ("_file", "_start")

    def __init__(self, file: Any) -> None:
        self._file = file
        try:
            self._start: int | None = file.tell()
        except Exception:
            self._start = None

    def count(self) -> int:
        return 0 if self._start is None else max(0, self._file.tell() - self._start)


class _Chunks:
    """An iterable that is sent, counted as it passes."""

    __slots__ = ("_chunks", "_count")

    def __init__(self, chunks: Any) -> None:
        self._chunks = chunks
        self._count = 0

    def __iter__(self) -> Iterator[Any]:
        for chunk in self._chunks:
            self._count += len(chunk.encode() if isinstance(chunk, str) else chunk)
            yield chunk

    def count(self) -> int:
        return self._count


# Making a connection


class _Dial:
    """When the steps of making a connection were done."""

    __slots__ = ("connected", "resolved", "started")

    def __init__(self) -> None:
        self.started = perf_counter()
        self.resolved: float | None = None
        self.connected: float | None = None

    def report(self, call: Call, tls: float | None) -> None:
        try:
            dns = connect = None
            if self.connected is not None and self.resolved is not None:
                dns, connect = self.resolved - self.started, self.connected - self.resolved
            call.connected(dns, connect, tls)
        except Exception as error:
            fault("urllib3.connected", error)


def _call_of(connection: Any) -> Call | None:
    """The call that a connection is made for."""
    call = native.under_way(connection)
    return call_around(_exchanges) if call is None else call


def _dial_hook(original: Any) -> Callable[..., Any]:
    def _new_conn(self: Any) -> Any:
        call = _call_of(self)
        if call is None:
            return original(self)
        around = _dialling.get()
        dial = _Dial() if around is None else around
        token = _dialling.set(dial)
        try:
            result = original(self)
            dial.connected = perf_counter()
        finally:
            _dialling.reset(token)
        if around is None:
            dial.report(call, None)
        return result

    return _new_conn


def _resolved_hook(original: Any) -> Callable[..., Any]:
    def _set_socket_options(sock: Any, options: Any) -> Any:
        # urllib3 comes by here once for each address, after the name was resolved and before it connects.
        dial = _dialling.get()
        if dial is not None and dial.resolved is None:
            dial.resolved = perf_counter()
        return original(sock, options)

    return _set_socket_options


def _handshake_hook(original: Any) -> Callable[..., Any]:
    def connect(self: Any) -> Any:
        call = _call_of(self)
        if call is None:
            return original(self)
        dial = _Dial()
        token = _dialling.set(dial)
        try:
            result = original(self)
        except BaseException as error:
            if dial.connected is not None:
                handshake_failed(call, error)
            raise
        finally:
            _dialling.reset(token)
        # What a proxy's CONNECT took cannot be told from the handshake.
        tunnelled = getattr(self, "_tunnel_host", None) is not None
        tls = None if tunnelled or dial.connected is None else perf_counter() - dial.connected
        dial.report(call, tls)
        return result

    return connect
