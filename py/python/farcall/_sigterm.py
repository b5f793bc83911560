"""SIGTERM of a program that handles it and then lets it act, as uvicorn does at its end.

The agent writes what was counted when the signal comes and nobody else handles it. Python sets the disposition itself
wherever a program sets a handler, so the agent's is put back when the program lets go of the signal.
"""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any

from farcall._faults import fault
from farcall._hook import Patches
from farcall._native import native

if TYPE_CHECKING:
    from collections.abc import Callable

_patches = Patches()


def watch() -> None:
    """Sees from now on what the program does with SIGTERM."""
    _patches.replace(signal, "signal", _setting)
    _patches.replace(signal, "raise_signal", _raising)


def unwatch() -> None:
    """Sees no longer."""
    _patches.undo()


def _setting(original: Callable[..., Any]) -> Callable[..., Any]:
    def signal_(signalnum: Any, handler: Any) -> Any:
        before = original(signalnum, handler)
        try:
            if signalnum == signal.SIGTERM and isinstance(handler, int) and handler == signal.SIG_DFL:
                native.mind_sigterm()
        except Exception as error:
            fault("sigterm", error)
        return before

    return signal_


def _raising(original: Callable[..., Any]) -> Callable[..., Any]:
    def raise_signal(signalnum: Any, /) -> Any:
        try:
            # It dies right here, as it would have: nothing after this line of the program's is run.
            if signalnum == signal.SIGTERM and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
                native.end_by_sigterm()
        except Exception as error:
            fault("sigterm", error)
        return original(signalnum)

    return raise_signal
