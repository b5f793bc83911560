"""Connections that answer from memory: a client's own code and what looks on at it run in full.

The network, the kernel and a server do not: what they take, and what they leave of the caches, shifts
from one turn to the next by more than what an instrumentation adds. What stands in is the lowest thing that
each library lets one put in: below everything that instrumentations hook, and below the library's own
reading and writing of HTTP.
"""

from __future__ import annotations

import io
import json
import socket
from collections.abc import Callable, Iterable
from typing import Any

_BODY = json.dumps({"scenario": "ok", "ok": True}).encode()
ANSWER = (
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ndate: Sat, 01 Jan 2000 00:00:00 GMT\r\n"
    b"content-length: %d\r\n\r\n%b" % (len(_BODY), _BODY)
)
URL = "http://127.0.0.1:8080/scenario/ok"


def client_of(name: str) -> Callable[[], Any]:
    """One call with a client that keeps its connection; returns the response, read."""
    get = _requests() if name == "requests" else _httpx(name)
    assert get().json() == {"scenario": "ok", "ok": True}
    return get


def _httpx(name: str) -> Callable[[], Any]:
    httpx = __import__(name)
    core = __import__({"httpx": "httpcore", "httpx2": "httpcore2"}[name])

    class Stream(core.NetworkStream):  # type: ignore[name-defined, misc]
        def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
            return ANSWER

        def write(self, buffer: bytes, timeout: float | None = None) -> None:
            pass

        def close(self) -> None:
            pass

        def get_extra_info(self, info: str) -> Any:
            # Asked of each connection that is used again: whether its other end has closed it.
            return False if info == "is_readable" else None

    class Backend(core.NetworkBackend):  # type: ignore[name-defined, misc]
        def connect_tcp(self, host: str, port: int, **_: Any) -> Stream:
            return Stream()

    client = httpx.Client()
    client._transport._pool._network_backend = Backend()
    return lambda: client.get(URL)


def _requests() -> Callable[[], Any]:
    import requests
    from urllib3.connection import HTTPConnection
    from urllib3.connectionpool import HTTPConnectionPool
    from urllib3.poolmanager import PoolManager

    class Answer(io.RawIOBase):
        """What a socket's file is made of."""

        def __init__(self) -> None:
            self._left = memoryview(ANSWER)

        def readable(self) -> bool:
            return True

        def readinto(self, buffer: Any) -> int:
            count = min(len(buffer), len(self._left))
            buffer[:count] = self._left[:count]
            self._left = self._left[count:]
            return count

    class Socket:
        def __init__(self) -> None:
            # urllib3 asks the kernel of each connection that is used again whether there is something to
            # read: never.
            self._quiet = socket.socketpair()

        def fileno(self) -> int:
            return self._quiet[0].fileno()

        def makefile(self, mode: str) -> io.BufferedReader:
            return io.BufferedReader(Answer())

        def sendall(self, data: bytes | Iterable[bytes]) -> None:
            pass

        def settimeout(self, seconds: float | None) -> None:
            pass

        def close(self) -> None:
            for one in self._quiet:
                one.close()

    class Connection(HTTPConnection):
        def _new_conn(self) -> Any:
            return Socket()

    class Pool(HTTPConnectionPool):
        ConnectionCls = Connection

    session = requests.Session()
    manager: PoolManager = session.get_adapter(URL).poolmanager  # type: ignore[attr-defined]
    manager.pool_classes_by_scheme = {"http": Pool}  # type: ignore[assignment]
    return lambda: session.get(URL)
