"""Our own failures: counted, never raised."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

from farcall._native import native

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import FrameType

_MAX_PLACES = 64

_counts: dict[str, int] = {}
_last: dict[str, str] = {}


def fault(place: str, error: BaseException) -> None:
    """Counts that our code failed at `place`; the call there went on uninstrumented.

    Raises what is not ours to swallow: the application's own exception, raised by a handler of a signal (an alarm, a
    time limit) that came while our code was run.
    """
    if _is_of_signal(error):
        raise error
    try:
        native.failed()
        if place in _counts or len(_counts) < _MAX_PLACES:
            _counts[place] = _counts.get(place, 0) + 1
            _last[place] = f"{type(error).__name__}: {error}"[:200]
    except Exception:
        pass


def _is_of_signal(error: BaseException) -> bool:
    try:
        handlers = {getattr(signal.getsignal(number), "__code__", None) for number in signal.valid_signals()}
        trace = error.__traceback__
        while trace is not None:
            if trace.tb_frame.f_code in handlers or _is_handler(trace.tb_frame):
                return True
            trace = trace.tb_next
    except Exception:
        pass
    return False


def _is_handler(frame: FrameType) -> bool:
    """Whether it was given the frame that it interrupted, as handlers are: it may not be the signal's any more."""
    interrupted = frame.f_back
    return interrupted is not None and any(
        value is interrupted or (isinstance(value, tuple) and len(value) == 2 and value[1] is interrupted)
        for value in frame.f_locals.values()
    )


def faults() -> Mapping[str, dict[str, object]]:
    """How often, and the last error, by place."""
    return {place: {"count": count, "last": _last.get(place, "")} for place, count in _counts.items()}


def forget() -> None:
    """Starts from zero: in a forked child, whose parent shows its own."""
    _counts.clear()
    _last.clear()
