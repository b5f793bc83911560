"""The native half: converts types between Python and the engine."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, final

from typing_extensions import Self, disjoint_base

__all__ = [
    "AsyncBody",
    "Body",
    "Call",
    "Keeping",
    "OutboxAsked",
    "OutboxError",
    "OutboxUnavailableError",
    "Scope",
    "after_fork",
    "after_fork_in_parent",
    "attached",
    "before_fork",
    "begin",
    "begin_deciding",
    "caches",
    "calls",
    "counters",
    "decides",
    "failed",
    "flush",
    "flush_late",
    "home",
    "hook",
    "is_enabled",
    "outbox_answer",
    "outbox_credential",
    "outbox_item",
    "outbox_put",
    "outbox_wait",
    "purge_cache",
    "replace_model",
    "report",
    "shutdown",
    "start",
    "under_way",
    "watch",
]

class OutboxError(Exception):
    """The outbox did not do what was asked."""

class OutboxUnavailableError(OutboxError):
    """The outbox cannot be asked now, and may be later: nothing is said of a call that was put before."""

@final
class OutboxAsked:
    """A credential that a delivery asked for."""

    def give(self, value: str | None, why: str | None, /) -> None: ...

@final
class Call:
    """A call under way; an object that is let go of unsettled counts as abandoned."""

    def connected(self, dns: float | None, connect: float | None, tls: float | None, /) -> None: ...
    def head(self, status: int, sent: int, /) -> bool | None: ...
    def respond(self, status: int, sent: int, stream: Any, headers: Any, kind: type[Body | AsyncBody], /) -> Any: ...
    def stream(self, stream: Any, headers: Any, kind: type[Body | AsyncBody], /) -> Any: ...
    def answer(self, status: int, headers: Iterable[tuple[str | bytes, ...]], /) -> None: ...
    def opened(self, status: int, /) -> bool: ...
    def step(self) -> tuple[Any, ...]: ...
    def hedge(self) -> tuple[Any, ...] | None: ...
    def lost(self, number: int, status: int, error: int, /) -> None: ...
    def shadow(self) -> tuple[Call, tuple[Any, ...]] | None: ...
    def park(self, method: str, url: str, headers: list[tuple[Any, Any]], body: bytes, /) -> None: ...
    def sent(self, count: int, /) -> None: ...
    def failed(self, error: int, /) -> None: ...
    def body(self, data: bytes | int, /) -> None: ...
    def end(self, data: bytes | int, /) -> None: ...
    def fail(self, error: int, sent: int, count: int, /) -> None: ...
    def abandon(self) -> None: ...

@disjoint_base
class Body:
    """A response's stream, whose call ends with it: the base of the classes that libraries accept."""

    def __iter__(self) -> Iterator[bytes]: ...
    def close(self) -> None: ...

@disjoint_base
class AsyncBody:
    """The same of a stream whose chunks are awaited."""

    def __aiter__(self) -> AsyncIterator[bytes]: ...
    def aclose(self) -> Awaitable[None]: ...

@disjoint_base
class Scope:
    """A customer, tags and a priority."""

    def __new__(cls, customer: str | None, tags: list[tuple[str, str]], batch: bool = False, /) -> Self: ...
    @property
    def batch(self) -> bool: ...
    @property
    def customer(self) -> str | None: ...
    @property
    def tags(self) -> list[tuple[str, str]]: ...

def begin(
    adapter: int,
    method: str,
    scheme: str,
    host: str,
    port: int | None,
    path: str,
    scope: Scope | None,
    /,
) -> Call | None: ...
def begin_deciding(
    adapter: int,
    method: str,
    scheme: str,
    host: str,
    port: int | None,
    path: str,
    scope: Scope | None,
    headers: Iterable[tuple[str | bytes, ...]],
    length: int | None,
    content: bytes | None,
    replayable: bool,
    channel: bytes | None,
    patience: float | None,
    /,
) -> Call | None: ...
def hook(
    kind: Literal["exchange", "read", "request", "async_request", "send"],
    adapter: int,
    original: Callable[..., Any],
    whole: Callable[..., Any],
    scope: Callable[[], Scope | None],
    extra: Any,
    /,
) -> Callable[..., Any]: ...

@final
class Keeping:
    """What a hook of requests knows of the library, and asks of its other half in Python."""

    def __new__(
        cls,
        adapter: type,
        build: Any,
        refuse: Callable[..., None],
        refused: type[Exception],
        go_on: Callable[..., Any],
        make: Callable[..., Any],
        shape: Any | None,
        /,
    ) -> Self: ...

def under_way(key: object, /) -> Call | None: ...
def decides() -> bool: ...
def caches() -> bool: ...
def replace_model(body: bytes, model: str, /) -> bytes | None: ...
def start(service: str | None, service_hint: str | None, home: str | None, /) -> bool: ...
def is_enabled() -> bool: ...
def home() -> Path | None: ...
def watch(on: bool, /) -> None: ...
def attached(library: str, /) -> None: ...
def failed() -> None: ...
def flush() -> None: ...
def flush_late() -> bool: ...
def shutdown() -> None: ...
def before_fork() -> None: ...
def after_fork_in_parent() -> None: ...
def after_fork() -> None: ...
def calls() -> list[int]: ...
def counters() -> dict[str, int]: ...
def report(question: str, since: str, filters: list[str], limit: int, home: str | None, /) -> str: ...
def purge_cache(conditions: list[tuple[str, str]], home: str | None, /) -> int: ...
def outbox_put(parcel: str, body: bytes, /) -> str: ...
def outbox_item(number: int, /) -> str: ...
def outbox_wait(number: int, timeout: float, /) -> str: ...
def outbox_answer(number: int, /) -> tuple[str, bytes] | None: ...
def outbox_credential(name: str, ask: Callable[[OutboxAsked], object], /) -> None: ...
