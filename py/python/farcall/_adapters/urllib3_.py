"""urllib3, and so requests and all that stand on either.

Hooked is the exchange (`HTTPConnectionPool._make_request`), not the request: `urlopen` calls itself for each
redirect and retry, and each of these is an exchange of its own on the wire. requests stands on it with one request
a hop, and so needs no hook of its own, which also settles who owns a call that passes through both.

The response's body is counted where http.client hands it over, before decoding: in `_raw_read` (1.26: `_fp_read`),
and chunk by chunk where `stream()` reads chunks itself.
"""

from __future__ import annotations

from contextvars import ContextVar
from time import perf_counter
from typing import TYPE_CHECKING, Any

from farcall import _errors
from farcall._faults import fault
from farcall._hook import Patches, begin, broke, fail, handshake_failed, scope

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import ModuleType

    from farcall._farcall import Call

# The exchange under way in this context, until its response claims it.
_current: ContextVar[tuple[Call, Any] | None] = ContextVar("farcall_urllib3_exchange", default=None)
# The connection that is being made in this context.
_dialling: ContextVar[_Dial | None] = ContextVar("farcall_urllib3_dial", default=None)

_exchange = _current.get
_ATTRIBUTE = "_farcall_call"


def attach(module: ModuleType, number: int, patches: Patches) -> None:
    """Hooks `module`, which is urllib3."""
    pool, response = module.connectionpool.HTTPConnectionPool, module.response.HTTPResponse
    patches.replace(pool, "_make_request", lambda original: _exchange_hook(original, number))
    patches.replace(response, "_init_length", _claim_hook)
    patches.replace(response, "_raw_read" if hasattr(response, "_raw_read") else "_fp_read", _read_hook)
    patches.replace(response, "_update_chunk_length", _chunk_length_hook)
    patches.replace(response, "_handle_chunk", _chunk_hook)
    patches.replace(response, "close", _close_hook)
    connection = module.connection
    patches.replace(connection.HTTPConnection, "_new_conn", _dial_hook)
    patches.replace(connection.HTTPSConnection, "connect", _handshake_hook)
    patches.replace(module.util.connection, "_set_socket_options", _resolved_hook)


def _exchange_hook(original: Any, number: int) -> Callable[..., Any]:
    def _make_request(self: Any, conn: Any, method: Any, url: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            call = begin(number, method, self.scheme, self.host, self.port, url, scope())
        except Exception as error:
            fault("urllib3.begin", error)
            call = None
        if call is None:
            return original(self, conn, method, url, *args, **kwargs)
        body = kwargs.get("body")
        if body is not None and not isinstance(body, (bytes, str)):
            body = _upload(body, kwargs)
        token = _current.set((call, body))
        try:
            response = original(self, conn, method, url, *args, **kwargs)
        except BaseException as error:
            fail("urllib3.fail", call, error, _sent(body))
            raise
        finally:
            _current.reset(token)
        if getattr(response, _ATTRIBUTE, None) is None:
            _leave(call, response, body)
        return response

    return _make_request


def _leave(call: Call, response: Any, body: Any) -> None:
    """A response that no HTTPResponse of ours has claimed: leaves the call with it."""
    try:
        call.head(response.status, _sent(body))
        # urllib3 1.26 returns http.client's response here, and wraps it afterwards; `_init_length` finds it there.
        setattr(response, _ATTRIBUTE, call)
    except Exception as error:
        fault("urllib3.leave", error)


def _claim_hook(original: Any) -> Callable[..., Any]:
    def _init_length(self: Any, request_method: Any) -> Any:
        length = original(self, request_method)
        try:
            below = self._original_response
            if below is not None:
                held = _exchange()
                call: Call | None
                if held is not None:
                    call, body = held
                    _current.set(None)
                    call.head(self.status, _sent(body) if body is not None else 0)
                else:
                    call = getattr(below, _ATTRIBUTE, None)
                if call is not None:
                    self._farcall_call = call
                    if length == 0 or self.status == 101:
                        call.end(0)
        except Exception as error:
            fault("urllib3.head", error)
        return length

    return _init_length


def _read_hook(original: Any) -> Callable[..., Any]:
    def _raw_read(self: Any, *args: Any, **kwargs: Any) -> Any:
        call = getattr(self, _ATTRIBUTE, None)
        if call is None:
            return original(self, *args, **kwargs)
        try:
            data = original(self, *args, **kwargs)
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
                    call.end(len(data) if data else 0)
            elif data:
                call.body(len(data))
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
            chunk = original(self, amt)
        except BaseException as error:
            broke("urllib3.chunk", call, error)
            raise
        try:
            call.body(len(chunk))
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


def _dial_hook(original: Any) -> Callable[..., Any]:
    def _new_conn(self: Any) -> Any:
        held = _exchange()
        if held is None:
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
            dial.report(held[0], None)
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
        held = _exchange()
        if held is None:
            return original(self)
        dial = _Dial()
        token = _dialling.set(dial)
        try:
            result = original(self)
        except BaseException as error:
            if dial.connected is not None:
                handshake_failed(held[0], error)
            raise
        finally:
            _dialling.reset(token)
        # What a proxy's CONNECT took cannot be told from the handshake.
        tunnelled = getattr(self, "_tunnel_host", None) is not None
        tls = None if tunnelled or dial.connected is None else perf_counter() - dial.connected
        dial.report(held[0], tls)
        return result

    return connect
