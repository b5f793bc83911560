"""Connections of urllib3 that serve another call: those to another host, and those after an answer that nobody gets.

A rule that sends calls to another host must not make each of them dial: a canary would look slower than what it is
compared with. So a pool of the application has pools beside it, one for each other host, which know nothing but what it
knows: its certificates, timeouts and proxies. Nobody else shares them. Once it was told something else, there is
another one in their place; they are closed when it is closed, and gone when it is gone.
"""

from __future__ import annotations

import copy
import os
import queue
import weakref
from http.client import HTTPResponse
from time import monotonic
from typing import Any

from farcall._acting import DRAINING, MOST_DRAINED

_ATTRIBUTE = "_farcall_beside"
#: How many other hosts a pool keeps connections to. Rules name few.
_MOST_HOSTS = 8
#: What differs between pools that were told the same; and our own notes.
_OWN = frozenset({"host", "port", "_tunnel_host", "pool", "num_connections", "num_requests"})
_NOTE = "_farcall"


class _Beside:
    """A pool that leads to another host, and what it was told when it was made."""

    __slots__ = ("pool", "told")

    def __init__(self, own: Any, name: str, port: int) -> None:
        pool = self.pool = copy.copy(own)
        vars(pool).pop(_ATTRIBUTE, None)
        pool.conn_kw = dict(own.conn_kw)
        self.told = _told(pool)
        pool.host, pool._tunnel_host, pool.port = name, name, port
        # Who gets a connection here has one of the application's pool in hand: that one waits, where it is to.
        pool.block = False
        # None once the application closed it: then nothing is kept.
        idle = pool.pool
        if idle is not None:
            pool.pool = type(idle)(idle.maxsize)
            weakref.finalize(pool, _close_idle, pool.pool, os.getpid())


def pool_to(own: Any, name: str, port: int) -> Any:
    """The pool that leads there and is like this one of the application."""
    # No lock: of two threads that make one at once, one pool is gone once its call is over.
    beside: dict[tuple[str, int], _Beside] = vars(own).setdefault(_ATTRIBUTE, {})
    found = beside.get((name, port))
    if found is not None and _same(found.told, _told(own)):
        return found.pool
    made = _Beside(own, name, port)
    if made.pool.pool is not None:
        for place in list(beside)[: max(0, len(beside) + 1 - _MOST_HOSTS)]:
            beside.pop(place, None)
        beside[name, port] = made
    return made.pool


def connection_of(pool: Any, closed: Any) -> Any:
    """A connection of a pool that leads elsewhere; a new one where the application closes it (`closed`) meanwhile."""
    try:
        return pool._get_conn()
    except closed:
        return pool._new_conn()


def close_beside(own: Any) -> None:
    """Closes what is kept beside a pool of the application."""
    for one in vars(own).pop(_ATTRIBUTE, {}).values():
        one.pool.close()


def drained(conn: Any, response: Any) -> bool:
    """Reads an answer that nobody gets to its end, where that is at hand; then its connection is ready for another."""
    # urllib3 1.26 has http.client's response here.
    below = getattr(response, "_original_response", response)
    sock = conn.sock
    if sock is None or not isinstance(below, HTTPResponse):
        return False
    until, left = monotonic() + DRAINING, MOST_DRAINED
    try:
        patience = sock.gettimeout()
        while not below.isclosed():
            if below.length == 0:
                below.read()
                continue
            rest = until - monotonic()
            if left <= 0 or rest <= 0 or (below.length or 0) > left:
                return False
            sock.settimeout(rest)
            left -= len(below.read1(left))
        sock.settimeout(patience)
    except Exception:
        # It broke, or takes its time.
        return False
    # Of one that ended before its announced length, the connection has.
    return not below.length


def _told(pool: Any) -> dict[str, Any]:
    """What a pool was told of its connections, as it is at this moment, and the process that they belong to."""
    # In one step: other threads use it.
    now = vars(pool).copy()
    told = {name: _copied(value) for name, value in now.items() if name not in _OWN and not name.startswith(_NOTE)}
    return told | {"process": os.getpid()}


def _copied(value: Any) -> Any:
    return dict(value) if isinstance(value, dict) else value


def _same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    try:
        return one == other
    except Exception:
        return False


def _close_idle(idle: Any, process: int) -> None:
    """Closes the connections that wait in a pool that is gone; those of a process that this one left are not ours."""
    if os.getpid() != process:
        return
    try:
        while True:
            conn = idle.get(block=False)
            if conn is not None:
                conn.close()
    except queue.Empty:
        pass
