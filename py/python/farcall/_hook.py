"""What every adapter does at the edges of a call, so that no failure of ours reaches the application."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from farcall import _errors
from farcall._faults import fault
from farcall._native import native
from farcall._scope import current

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import CodeType

    from farcall._farcall import Call

#: `begin(adapter, method, scheme, host, port, path, scope())`
begin = native.begin
scope = current.get

_MARK = "__farcall__"

# Hooks that somebody else has wrapped, and that nobody can take out again; the next install wakes them up.
_wrapped: set[tuple[Any, str]] = set()


def fail(place: str, call: Call, error: BaseException, sent: int) -> None:
    """The exchange ended in `error`, before a response began."""
    try:
        kind = _errors.classify(error)
        call.fail(kind, 0 if kind in _errors.UNSENT else sent, 0)
    except Exception as ours:
        fault(place, ours)


def broke(place: str, call: Call, error: BaseException) -> None:
    """The response's body ended in `error`."""
    try:
        kind = _errors.classify(error)
        if kind == _errors.CANCELLED:
            call.abandon()
        else:
            call.fail(_errors.RESET if kind in _errors.UNSENT else kind, 0, _errors.partial_bytes(error))
    except Exception as ours:
        fault(place, ours)


def handshake_failed(call: Call, error: BaseException) -> None:
    """The TLS handshake ended in `error`; one that was cut off failed too."""
    try:
        if _errors.classify(error) in (_errors.TLS, _errors.RESET, _errors.CONNECT):
            call.fail(_errors.TLS, 0, 0)
    except Exception as ours:
        fault("handshake", ours)


def call_around(hooks: set[CodeType]) -> Call | None:
    """The `call` of the innermost of these hooks that is being run, on the stack of the one who asks.

    Making a connection is rare. A context variable that tells it whom it is for would have to be set and reset for
    each call, new connection or not, and costs more than all else that a hook does in Python.
    """
    frame = sys._getframe(1)
    while frame is not None:
        if frame.f_code in hooks:
            call: Call | None = frame.f_locals.get("call")
            return call
        frame = frame.f_back  # type: ignore[assignment]
    return None


class Patches:
    """The methods that an adapter replaced, and how to put them back."""

    def __init__(self) -> None:
        self._done: list[tuple[type | Any, str, Any, Any]] = []

    def replace(self, owner: Any, name: str, make: Callable[[Any], Any]) -> None:
        """Puts `make(original)` where `owner.name` is; does nothing where one of ours is already."""
        original = vars(owner)[name]
        if getattr(original, _MARK, False) or (owner, name) in _wrapped:
            return
        hook = make(original)
        for attribute in ("__module__", "__name__", "__qualname__", "__doc__"):
            try:
                setattr(hook, attribute, getattr(original, attribute))
            except AttributeError:
                pass
        hook.__wrapped__ = original
        setattr(hook, _MARK, True)
        setattr(owner, name, hook)
        self._done.append((owner, name, original, hook))

    def undo(self) -> None:
        """Puts the originals back. A hook that somebody else has wrapped since stays, and sees nothing."""
        while self._done:
            owner, name, original, hook = self._done.pop()
            if vars(owner).get(name) is hook:
                setattr(owner, name, original)
            else:
                _wrapped.add((owner, name))
