"""Connections of httpx and httpx2 that serve another call: those after an answer that nobody gets."""

from __future__ import annotations

from contextlib import contextmanager
from time import monotonic
from typing import TYPE_CHECKING, Any

from farcall._acting import DRAINING, MOST_DRAINED, NOT_MODIFIED

if TYPE_CHECKING:
    from collections.abc import Iterator

#: No time at all would mean "do not block".
_AT_ONCE = 0.001

# The two are one, but for `await`.


def drain(response: Any) -> None:
    """Reads an answer that nobody gets to its end, where that is at hand; once it is closed, its connection is free."""
    if not _may_be_at_hand(response):
        return
    try:
        with _bounded(response.extensions["network_stream"]) as reading:
            for chunk in response.stream:
                reading.left -= len(chunk)
    except Exception:
        # It broke, or takes its time.
        return


async def drain_async(response: Any) -> None:
    """Reads an answer that nobody gets to its end, where that is at hand; once it is closed, its connection is free."""
    if not _may_be_at_hand(response):
        return
    try:
        with _bounded(response.extensions["network_stream"]) as reading:
            async for chunk in response.stream:
                reading.left -= len(chunk)
    except Exception:
        return


def _may_be_at_hand(response: Any) -> bool:
    # One of HTTP/2 takes no connection along; and one that is waited for in vain would.
    if response.extensions.get("http_version") != b"HTTP/1.1":
        return False
    announced = response.headers.get("content-length", "")
    # One without a body announces that of another.
    return response.status_code == NOT_MODIFIED or not announced.isdecimal() or int(announced) <= MOST_DRAINED


class _Reading:
    """Reads of a connection, of so much and for so long: what comes later, or is more, ends in an error.

    In an error, because that ends the generators of httpcore as well; left where they are, trio would warn of them.
    """

    __slots__ = ("_read", "_until", "left")

    def __init__(self, read: Any) -> None:
        self._read = read
        self._until = monotonic() + DRAINING
        self.left = MOST_DRAINED

    def __call__(self, max_bytes: int, timeout: float | None = None) -> Any:
        if self.left < 0:
            raise TimeoutError
        return self._read(max_bytes, timeout=max(self._until - monotonic(), _AT_ONCE))


@contextmanager
def _bounded(stream: Any) -> Iterator[_Reading]:
    """While its answer is not closed, nobody else has the connection."""
    reading = stream.read = _Reading(stream.read)
    try:
        yield reading
    finally:
        del stream.read
