"""`os._exit`: how forked children end, without what atexit has.

Those of multiprocessing do, of billiard (Celery), of RQ, and of programs that fork by themselves. Each is a call of
`os._exit`, and the last thing that a process does; their own hooks before it are run by some of them alone.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from farcall._faults import fault
from farcall._hook import Patches
from farcall._native import native

if TYPE_CHECKING:
    from collections.abc import Callable

_patches = Patches()


def watch() -> None:
    """Writes what was counted from now on where the process ends so."""
    _patches.replace(os, "_exit", _exiting)


def unwatch() -> None:
    """Lets it end as it does."""
    _patches.undo()


def _exiting(original: Callable[..., Any]) -> Callable[..., Any]:
    def _exit(status: int) -> Any:
        try:
            # With anything else there is no end, but an error.
            if isinstance(status, int):
                native.shutdown()
        except Exception as error:
            fault("exit", error)
        return original(status)

    return _exit
