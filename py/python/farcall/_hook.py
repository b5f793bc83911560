"""What every adapter does at the edges of a call, so that no failure of ours reaches the application."""

from __future__ import annotations

import sys
from types import FunctionType
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
            call.handshake_failed()
    except Exception as ours:
        fault("handshake", ours)


def call_around(hooks: set[CodeType], carriers: frozenset[CodeType] | set[CodeType] = frozenset()) -> Call | None:
    """The `call` of the innermost of these hooks that is being run, on the stack of the one who asks.

    A native hook has no frame. It is found by what the function that it stands for carries: its first argument.

    Making a connection is rare. A context variable that tells it whom it is for would have to be set and reset for
    each call, new connection or not, and costs more than all else that a hook does in Python.
    """
    frame = sys._getframe(1)
    while frame is not None:
        code = frame.f_code
        if code in hooks:
            call: Call | None = frame.f_locals.get("call")
            return call
        if code in carriers:
            call = native.under_way(frame.f_locals.get(code.co_varnames[1]))
            if call is not None:
                return call
        frame = frame.f_back  # type: ignore[assignment]
    return None


def is_hook(function: Any) -> bool:
    """Whether this is one of ours, or a wrapper of others around one that says so."""
    return getattr(function, _MARK, False) is True


async def awaited(awaitable: Any) -> Any:
    """What comes of it: for what only a coroutine knows how to await."""
    return await awaitable


async def nothing() -> None:
    """A coroutine, to raise in or to await."""


#: By these a function that is none is taken for one, by `inspect` and what stands on it.
_LIKE_A_FUNCTION = ("__code__", "__defaults__", "__kwdefaults__", "__annotations__")


def _is_own(function: Any, owner: Any, name: str) -> bool:
    """Whether it is the library's own, which somebody has put back: with nothing of ours, or of others, below."""
    return (
        isinstance(function, FunctionType)
        and not hasattr(function, "__wrapped__")
        and function.__qualname__ == f"{owner.__qualname__}.{name}"
        and function.__globals__.get("__name__") == owner.__module__
    )


class Patches:
    """The methods that an adapter replaced, and how to put them back."""

    def __init__(self) -> None:
        self._done: list[tuple[type | Any, str, Any, Any]] = []

    def replace(self, owner: Any, name: str, make: Callable[[Any], Any]) -> None:
        """Puts `make(original)` where `owner.name` is; does nothing where one of ours is already."""
        original = vars(owner)[name]
        if getattr(original, _MARK, False):
            return
        if (owner, name) in _wrapped:
            if not _is_own(original, owner, name):
                return
            _wrapped.remove((owner, name))
        # As an instance finds it: a wrapper of others (wrapt's) that is taken out of its class by hand does not know
        # whom it is called for.
        hook = make(getattr(owner, name))
        looks = () if isinstance(hook, FunctionType) else _LIKE_A_FUNCTION
        for attribute in ("__module__", "__name__", "__qualname__", "__doc__", *looks):
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
