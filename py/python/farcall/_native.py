"""The native half of the package, or, where it cannot be loaded, a stand-in that counts nothing.

A subinterpreter cannot load it, and a broken installation cannot either. The application goes on in both cases;
`install()` warns once, and `status()` says why.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

problem: str | None = None


def _is_subinterpreter() -> bool:
    """Whether this is not the main interpreter. Asked before the native module is loaded.

    It would load here where it is the first to, and then refuse to be loaded by the main interpreter.
    """
    for name in ("_interpreters", "_xxsubinterpreters"):
        try:
            interpreters = __import__(name)
            return bool(interpreters.get_current() != interpreters.get_main())
        except (ImportError, AttributeError):
            continue
    return False


if TYPE_CHECKING:
    from farcall import _farcall as native
else:
    try:
        if _is_subinterpreter():
            raise ImportError("this is a subinterpreter")
        from farcall import _farcall as native
    except ImportError as error:
        from farcall import _absent as native

        problem = f"the native module cannot be loaded: {error}"

__all__ = ["native", "problem"]
