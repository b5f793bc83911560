"""A body that breaks off after so many bytes, as by a reset: an injected fault.

It breaks where http.client hands it over, below urllib3's own care of broken connections: to urllib3, to requests
and to the account it is a connection that broke.
"""

from __future__ import annotations

from errno import ECONNRESET
from os import strerror
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

ATTRIBUTE = "_farcall_cut"


class Cut:
    """How much is left of a body until it breaks off; a body that ends before that is whole."""

    __slots__ = ("_left", "_over")

    def __init__(self, below: Any, limit: int) -> None:
        """Cuts the body of `below`, which is a response of http.client."""
        self._left = limit
        self._over = False
        below._farcall_cut = self
        read, read1 = below.read, below.read1

        def limited(amt: int | None = None) -> bytes:
            if amt is not None and amt >= 0:
                return self._part(read, amt)
            data = self._part(read, self._left)
            # The rest is empty, or says what is wrong with the end.
            return data + (read() if self._left else self._part(read, 1))

        def limited_at_hand(amt: int | None = None) -> bytes:
            return self._part(read1, self._left or 1 if amt is None or amt < 0 else amt)

        below.read, below.read1 = limited, limited_at_hand

    def _part(self, read: Callable[[int], bytes], amt: int) -> bytes:
        # Never more than is left: what is read to its end is closed, and then nobody asks for the rest.
        if self._left == 0 and amt > 0:
            if self._over or read(1):
                self._break()
            return b""
        data = read(min(amt, self._left))
        self._left -= len(data)
        return data

    def chunk(self, read: Callable[[int | None], bytes], length: int, amt: int | None) -> bytes:
        """A part of a chunk of which `length` bytes are unread, where urllib3 reads the chunks itself."""
        wanted = length if amt is None else min(amt, length)
        if wanted <= self._left:
            self._left -= wanted
            return read(amt)
        if self._left == 0:
            self._break()
        left, self._left = self._left, 0
        return read(left)

    def _break(self) -> None:
        self._over = True
        raise ConnectionResetError(ECONNRESET, strerror(ECONNRESET))
