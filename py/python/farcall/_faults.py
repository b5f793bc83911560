"""Our own failures: counted, never raised."""

from __future__ import annotations

from typing import TYPE_CHECKING

from farcall._native import native

if TYPE_CHECKING:
    from collections.abc import Mapping

_MAX_PLACES = 64

_counts: dict[str, int] = {}
_last: dict[str, str] = {}


def fault(place: str, error: BaseException) -> None:
    """Counts that our code failed at `place`; the call there went on uninstrumented. Never raises."""
    try:
        native.failed()
        if place in _counts or len(_counts) < _MAX_PLACES:
            _counts[place] = _counts.get(place, 0) + 1
            _last[place] = f"{type(error).__name__}: {error}"[:200]
    except Exception:
        pass


def faults() -> Mapping[str, dict[str, object]]:
    """How often, and the last error, by place."""
    return {place: {"count": count, "last": _last.get(place, "")} for place, count in _counts.items()}


def forget() -> None:
    """Starts from zero: in a forked child, whose parent shows its own."""
    _counts.clear()
    _last.clear()
