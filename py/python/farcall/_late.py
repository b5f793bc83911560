"""Libraries that are imported after `install()`: told when their import is done."""

from __future__ import annotations

import sys
import threading
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from farcall._faults import fault

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType


class Watch:
    """A finder that finds nothing itself: it lets the others find, and adds a word to the loader.

    The loader of the module's spec stays the object it is (resources, tracebacks and tools ask it things); only
    its `exec_module` is shadowed on this one instance, for the duration of this one import.
    """

    def __init__(self, names: frozenset[str], imported: Callable[[ModuleType], None]) -> None:
        self._names = names
        self._imported = imported
        self._searching = threading.local()

    def begin(self) -> None:
        """Stands at the head of `sys.meta_path`, so that whoever finds the module, we hear of it."""
        if self not in sys.meta_path:
            sys.meta_path.insert(0, self)

    def end(self) -> None:
        """Steps out of `sys.meta_path`."""
        try:
            sys.meta_path.remove(self)
        except ValueError:
            pass

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The spec that the others find; None for what is not watched."""
        if name not in self._names or getattr(self._searching, "now", False):
            return None
        self._searching.now = True
        try:
            spec = find_spec(name)
        except Exception as error:
            fault("import.find", error)
            return None
        finally:
            self._searching.now = False
        if spec is not None and spec.loader is not None:
            self._listen(name, spec.loader)
        return spec

    def _listen(self, name: str, loader: Any) -> None:
        try:
            execute = loader.exec_module

            def exec_module(module: ModuleType) -> None:
                if module.__name__ == name and vars(loader).get("exec_module") is exec_module:
                    del loader.exec_module
                execute(module)
                if name in self._names and sys.modules.get(name) is not None:
                    self._imported(sys.modules[name])

            loader.exec_module = exec_module
        except Exception as error:
            fault("import.listen", error)
