"""httpcore, below httpx: what making a connection took. A call on a connection that was there comes by nothing here.

httpcore's own tracing would tell as much, and costs every call, new connection or not.
"""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING, Any

from farcall._faults import fault
from farcall._hook import call_around, handshake_failed

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import CodeType, ModuleType

    from farcall._farcall import Call
    from farcall._hook import Patches

#: The hooks of httpx, which hold the call that a connection is made for.
exchanges: set[CodeType] = set()
#: httpx's own methods, of which the call of a native hook is found by the request that they send.
carriers: set[CodeType] = set()


def attach(module: ModuleType, number: int, patches: Patches) -> None:
    """Hooks `module`, which is httpcore or a fork of it with the same names."""
    backends = module._backends
    sync = backends.sync
    patches.replace(sync.SyncBackend, "connect_tcp", lambda original: _hook(original, _connected, _not_connected))
    patches.replace(sync.SyncStream, "start_tls", lambda original: _hook(original, _secured, handshake_failed))
    for name, backend, stream in (("anyio", "AnyIOBackend", "AnyIOStream"), ("trio", "TrioBackend", "TrioStream")):
        # Each is there only where its library is installed.
        asynchronous = getattr(backends, name, None)
        if asynchronous is not None:
            patches.replace(
                getattr(asynchronous, backend),
                "connect_tcp",
                lambda original: _async_hook(original, _connected, _not_connected),
            )
            patches.replace(
                getattr(asynchronous, stream),
                "start_tls",
                lambda original: _async_hook(original, _secured, handshake_failed),
            )


def _hook(original: Any, report: Callable[..., None], failed: Callable[..., None]) -> Callable[..., Any]:
    def timed(self: Any, *args: Any, **kwargs: Any) -> Any:
        call = call_around(exchanges, carriers)
        if call is None:
            return original(self, *args, **kwargs)
        started = perf_counter()
        try:
            stream = original(self, *args, **kwargs)
        except BaseException as error:
            failed(call, error)
            raise
        report(call, perf_counter() - started, args, kwargs)
        return stream

    return timed


def _async_hook(original: Any, report: Callable[..., None], failed: Callable[..., None]) -> Callable[..., Any]:
    async def timed(self: Any, *args: Any, **kwargs: Any) -> Any:
        call = call_around(exchanges, carriers)
        if call is None:
            return await original(self, *args, **kwargs)
        started = perf_counter()
        try:
            stream = await original(self, *args, **kwargs)
        except BaseException as error:
            failed(call, error)
            raise
        report(call, perf_counter() - started, args, kwargs)
        return stream

    return timed


def _not_connected(call: Call, error: BaseException) -> None:
    """The transport's own error says it all, and another address may still answer."""


def _connected(call: Call, seconds: float, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    try:
        host = kwargs["host"] if "host" in kwargs else args[0]
        # The name is resolved in there too, and cannot be told apart: only an address has a time to connect.
        if ":" in host or host[-1:].isdigit():
            call.connected(None, seconds, None)
    except Exception as error:
        fault("httpcore.connected", error)


def _secured(call: Call, seconds: float, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    try:
        call.connected(None, None, seconds)
    except Exception as error:
        fault("httpcore.secured", error)
