"""Attaching to the libraries, and saying what is attached."""

from __future__ import annotations

import atexit
import os
import sys
import threading
import warnings
from typing import TYPE_CHECKING, Any, NamedTuple

from farcall import _exit, _faults, _sigterm
from farcall._adapters import detours, httpcore_, httpx_, requests_, urllib3_
from farcall._hook import Patches
from farcall._late import Watch
from farcall._native import native, problem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import ModuleType


class FarcallWarning(RuntimeWarning):
    """Farcall cannot do what was asked; the application goes on without it."""


class _Adapter(NamedTuple):
    #: The name of the library, and of the module whose import makes it ready to be hooked.
    name: str
    attach: Callable[[ModuleType, int, Patches], None]
    #: The library that this one's calls are counted in.
    through: str | None = None
    #: The library below, which sees what this one does not.
    below: str | None = None


# A library's number is its place here.
_ADAPTERS = (
    _Adapter("urllib3", urllib3_.attach),
    _Adapter("requests", requests_.attach, through="urllib3"),
    _Adapter("httpx", httpx_.attach, below="httpcore"),
    _Adapter("httpx2", httpx_.attach, below="httpcore2"),
)

#: All libraries that can be hooked.
NAMES = tuple(adapter.name for adapter in _ADAPTERS)

_lock = threading.RLock()
_installed = False
_wanted: frozenset[str] = frozenset()
_attached: dict[str, tuple[ModuleType, Patches]] = {}
_failed: dict[str, str] = {}
_watch: Watch | None = None


def install(
    service: str | None = None,
    home: str | os.PathLike[str] | None = None,
    adapters: Iterable[str] | None = None,
) -> None:
    """Counts the calls that this process makes from now on. The second time does nothing.

    `service` is this program's name in the reports (default: `OTEL_SERVICE_NAME`, else that of the module that
    `python -m` runs, of the script, folder or archive), `home` the folder of the ledger (default: `FARCALL_HOME`, else
    the XDG state folder), `adapters` the libraries to attach to (default: all of `requests`, `urllib3`, `httpx`,
    `httpx2`). A library that is not imported yet is attached to when the application imports it; none is imported
    here. requests is counted in urllib3, so the two go together.

    Raises ValueError for an unknown adapter, and nothing else: what fails later is counted, and `status()` shows it.
    """
    global _installed, _wanted, _watch
    names = frozenset(NAMES if adapters is None else adapters)
    unknown = sorted(names.difference(NAMES))
    if unknown:
        msg = f"no adapter for {', '.join(unknown)}; there are {', '.join(NAMES)}"
        raise ValueError(msg)
    with _lock:
        if problem is not None:
            warnings.warn(f"farcall counts nothing: {problem}", FarcallWarning, stacklevel=2)
            return
        _start(service, home)
        if not native.is_enabled():
            return
        if _installed:
            names -= _wanted
        _installed = True
        _wanted |= names
        if _watch is not None:
            _watch.end()
        # Before looking at what is imported: another thread may be importing right now.
        _watch = Watch(frozenset(_watched()), _imported)
        _watch.begin()
        native.watch(True)
        detours.watch()
        _exit.watch()
        _sigterm.watch()
        for name in _watched():
            module = sys.modules.get(name)
            if module is not None and _is_ready(module):
                _attach(name, module)


def uninstall() -> None:
    """Counts no further calls: puts the libraries' own methods back, and writes what was counted."""
    global _installed, _wanted, _watch
    with _lock:
        native.watch(False)
        if _watch is not None:
            _watch.end()
            _watch = None
        detours.unwatch()
        _exit.unwatch()
        _sigterm.unwatch()
        for _, patches in _attached.values():
            patches.undo()
        _attached.clear()
        _failed.clear()
        _wanted = frozenset()
        _installed = False
    native.flush()


def flush() -> None:
    """Writes what was counted so far to the ledger. Happens by itself each second and at exit."""
    native.flush()


def status() -> dict[str, Any]:
    """What is attached, and what went wrong: tells "never attached" from "no calls".

    `adapters` says for each library its `state` (`attached`, `waiting` for its import, `failed`, `off`), its `version`,
    the library it is counted `through`, how many `calls` this process began there, and the `problem` where it failed.
    `counters` are the engine's, `faults` our own failures by place: a call there went on, uninstrumented.
    """
    with _lock:
        begun = native.calls()
        adapters = {}
        for adapter in _ADAPTERS:
            counted = _number(adapter)
            shown: dict[str, Any] = {
                "state": _state(adapter.name),
                "version": _version(adapter.name),
                "calls": begun[counted] if counted < len(begun) else 0,
            }
            if adapter.through is not None:
                shown["through"] = adapter.through
            if adapter.name in _failed:
                shown["problem"] = _failed[adapter.name]
            adapters[adapter.name] = shown
        return {
            "installed": _installed,
            "problem": _problem(),
            "home": None if (home := native.home()) is None else str(home),
            "adapters": adapters,
            "counters": native.counters(),
            "faults": dict(_faults.faults()),
        }


def _problem() -> str | None:
    if problem is None and os.environ.get("FARCALL_DISABLED") and not native.is_enabled():
        return "switched off by FARCALL_DISABLED"
    return problem


def _number(adapter: _Adapter) -> int:
    """The number under which an adapter's calls are counted."""
    return NAMES.index(adapter.through or adapter.name)


def _state(name: str) -> str:
    if name in _attached:
        return "attached"
    if name in _failed:
        return "failed"
    return "waiting" if name in _wanted else "off"


def _version(name: str) -> str | None:
    version = getattr(sys.modules.get(name), "__version__", None)
    return version if isinstance(version, str) else None


def _start(service: str | None, home: str | os.PathLike[str] | None) -> None:
    if not native.start(service, _service_hint(), None if home is None else os.fspath(home)):
        return
    atexit.register(native.shutdown)
    native.flush_late()
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(
            before=native.before_fork, after_in_parent=native.after_fork_in_parent, after_in_child=_after_fork
        )


def _after_fork() -> None:
    global _lock
    # Another thread of the parent may have held it.
    _lock = threading.RLock()
    try:
        _faults.forget()
        native.after_fork()
    except Exception as error:
        _faults.fault("fork", error)


def _service_hint() -> str | None:
    """What this program would be called: the module that `python -m` runs, else its script, folder or archive."""
    # A process that multiprocessing spawned has its parent's main module under a name of its own.
    for main in ("__mp_main__", "__main__"):
        spec = getattr(sys.modules.get(main), "__spec__", None)
        name = str(spec.name).removesuffix(".__main__") if spec is not None and spec.name else "__main__"
        # What runs in a folder or an archive is only the main module.
        if name != "__main__":
            return name
    arguments = getattr(sys, "argv", None) or [""]
    if arguments[0] == "-m":
        # The module is yet to be found, as where `sitecustomize` installs: what stands before its own arguments.
        name = sys.orig_argv[: len(sys.orig_argv) - len(arguments) + 1][-1]
        return name.partition("m")[2] if name.startswith("-") else name
    if arguments[0] in ("", "-", "-c"):
        return None
    try:
        script = os.path.abspath(arguments[0])
    except OSError:  # The working folder is gone.
        script = arguments[0]
    name = os.path.basename(script)
    if name == "__main__.py":
        name = os.path.basename(os.path.dirname(script))
    elif not os.path.isdir(script):
        name = os.path.splitext(name)[0]
    # A file's name may be no text.
    return name.encode(errors="replace").decode() or None


def _watched() -> list[str]:
    """The modules whose import makes something ready to be hooked."""
    wanted = [adapter for adapter in _ADAPTERS if adapter.name in _wanted]
    return [adapter.name for adapter in wanted] + [adapter.below for adapter in wanted if adapter.below is not None]


def _is_ready(module: ModuleType) -> bool:
    """Whether the module's import is done: in the middle of it, the watch will tell."""
    return not getattr(getattr(module, "__spec__", None), "_initializing", False)


def _imported(module: ModuleType) -> None:
    """The import of a watched library is done."""
    with _lock:
        name = module.__name__
        # Not always the name that was imported: httpx2 can stand in for httpx.
        if name in _watched():
            _attach(name, module)


def _attach(name: str, module: ModuleType) -> None:
    if name in _attached and _attached[name][0] is module:
        return
    patches = Patches()
    try:
        if name in NAMES:
            adapter = _ADAPTERS[NAMES.index(name)]
            adapter.attach(module, _number(adapter), patches)
        else:
            httpcore_.attach(module, 0, patches)
    except Exception as error:
        patches.undo()
        _failed[name] = f"{type(error).__name__}: {error}"
        _faults.fault(f"attach.{name}", error)
        return
    _failed.pop(name, None)
    _attached[name] = (module, patches)
    if name in NAMES:
        native.attached(name)
