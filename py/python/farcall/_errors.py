"""Which type of error an exception is, in the ledger's words."""

from __future__ import annotations

import errno
import socket
import ssl
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

DNS, CONNECT, TLS, TIMEOUT, RESET, PROTOCOL, CANCELLED, OTHER = range(1, 9)

#: Failures before the first byte of the request went out.
UNSENT = frozenset({DNS, CONNECT, TLS})

_MAX_CHAIN = 16

_CANCELLED = frozenset(
    {"CancelledError", "Cancelled", "GeneratorExit", "KeyboardInterrupt", "SystemExit", "GreenletExit"}
)

# By name, so that no client library has to be imported to ask whether an error is one of its own.
_NAMES = {
    # urllib3
    "NameResolutionError": DNS,
    "NewConnectionError": CONNECT,
    "ConnectTimeoutError": TIMEOUT,
    "ReadTimeoutError": TIMEOUT,
    "IncompleteRead": PROTOCOL,
    "InvalidChunkLength": PROTOCOL,
    "InvalidHeader": PROTOCOL,
    # httpx, httpcore
    "ConnectTimeout": TIMEOUT,
    "ReadTimeout": TIMEOUT,
    "WriteTimeout": TIMEOUT,
    "PoolTimeout": TIMEOUT,
    "ConnectError": CONNECT,
    "ProxyError": CONNECT,
    "ReadError": RESET,
    "WriteError": RESET,
    "RemoteProtocolError": PROTOCOL,
    "LocalProtocolError": PROTOCOL,
    # http.client
    "RemoteDisconnected": RESET,
    "BadStatusLine": PROTOCOL,
    "HTTPException": PROTOCOL,
}

_UNREACHABLE = frozenset(
    {errno.ECONNREFUSED, errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EADDRNOTAVAIL, errno.ENETDOWN, errno.EHOSTDOWN}
)

# In the text of httpx's RemoteProtocolError: the server hung up instead of answering.
_HUNG_UP = "Server disconnected"


def chain(error: BaseException) -> Iterator[BaseException]:
    """The error, and those it was made from: wrapped, caused by, or raised while handling."""
    seen: list[BaseException] = []
    waiting = [error]
    while waiting and len(seen) < _MAX_CHAIN:
        one = waiting.pop(0)
        if one in seen:
            continue
        seen.append(one)
        yield one
        inner = [getattr(one, "reason", None), one.__cause__, one.__context__, *one.args]
        waiting.extend(cause for cause in inner if isinstance(cause, BaseException))


def classify(error: BaseException) -> int:
    """The number of the error's type (core's `ErrorType`)."""
    if _is_cancelled(error):
        return CANCELLED
    found = _kind(error)
    if found in (DNS, TLS, TIMEOUT, RESET):
        # The library itself says so: what lies below is how it came about.
        return found
    for one in chain(error):
        kind = _kind(one)
        # The names of the wrappers say little ("connection error"); what lies below says more.
        if kind in (DNS, TLS, TIMEOUT):
            return kind
        if found in (OTHER, CONNECT, PROTOCOL) and kind != OTHER:
            found = kind if found in (OTHER, PROTOCOL) or kind == RESET else found
    return found


def _kind(error: BaseException) -> int:
    if isinstance(error, socket.gaierror):
        return DNS
    if isinstance(error, ssl.SSLError):
        if isinstance(error, (ssl.SSLWantReadError, ssl.SSLWantWriteError)):
            return OTHER  # how memory BIOs work: in the context of most errors of an async client
        # Within an exchange this is a connection cut off without a farewell, not a failed handshake.
        cut = (ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError)
        return RESET if isinstance(error, cut) else TLS
    if isinstance(error, TimeoutError):
        return TIMEOUT
    if isinstance(error, ConnectionRefusedError):
        return CONNECT
    if isinstance(error, ConnectionError):
        return RESET
    for base in type(error).__mro__:
        kind = _NAMES.get(base.__name__)
        if kind is not None:
            return RESET if kind == PROTOCOL and _HUNG_UP in str(error) else kind
    if isinstance(error, OSError) and error.errno in _UNREACHABLE:
        return CONNECT
    return OTHER


def _is_cancelled(error: BaseException) -> bool:
    if _name_of(error) in _CANCELLED:
        return True
    # What trio makes of tasks that were all cancelled: those that tried the addresses of a host.
    within = getattr(error, "exceptions", None)
    if type(error).__name__ != "BaseExceptionGroup" or not isinstance(within, tuple):
        return False
    return len(within) <= _MAX_CHAIN and all(map(_is_cancelled, within))


def _name_of(error: BaseException) -> str:
    asyncio = sys.modules.get("asyncio")
    if asyncio is not None and isinstance(error, asyncio.CancelledError):
        return "CancelledError"
    return type(error).__name__


def partial_bytes(error: BaseException) -> int:
    """Bytes of a body that http.client had read when the connection ended, and gave to nobody."""
    for one in chain(error):
        partial = getattr(one, "partial", None)
        if isinstance(partial, bytes):
            return len(partial)
    return 0
