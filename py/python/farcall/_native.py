"""The native half of the package, or, where it cannot be loaded, a stand-in that counts nothing.

A subinterpreter cannot load it, and a broken installation cannot either. The application goes on in both cases;
`install()` warns once, and `status()` says why.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

problem: str | None = None

if TYPE_CHECKING:
    from farcall import _farcall as native
else:
    try:
        from farcall import _farcall as native
    except ImportError as error:
        from farcall import _absent as native

        problem = f"the native module cannot be loaded: {error}"

__all__ = ["native", "problem"]
