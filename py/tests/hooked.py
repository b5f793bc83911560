"""Native hooks as a test makes them, without the library that they are meant for."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from farcall import _farcall as native


def native_hook(*given: Any) -> Any:
    """A hook; skips the test on Python 3.10, which has none: it lacks what they call others by."""
    if sys.version_info < (3, 11):
        pytest.skip("Python 3.10 has no native hooks")
    return native.hook(*given)


def httpx_streams(library: Any) -> Any:
    """The streams of httpx's native hooks, over those of a library."""
    from farcall._adapters.httpx_streams import Streams

    return Streams(library.SyncByteStream, library.AsyncByteStream)
