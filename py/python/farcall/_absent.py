"""What stands in for the native module where it cannot be loaded: every name of it, and nothing behind."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from typing_extensions import Self


class Scope:
    """A customer, tags and a priority."""

    customer: str | None
    tags: list[tuple[str, str]]
    batch: bool

    def __new__(cls, customer: str | None, tags: list[tuple[str, str]], batch: bool = False) -> Self:
        scope = super().__new__(cls)
        scope.customer, scope.tags, scope.batch = customer, tags, batch
        return scope


def begin(*_: object) -> None:
    """Begins no call."""


def begin_deciding(*_: object) -> None:
    """Begins no call."""


def hook(kind: str, adapter: int, original: object, whole: object, scope: object, extra: object) -> object:
    """Is no hook of its own."""
    return whole


class Keeping:
    """Knows nothing of requests."""

    def __init__(self, *_: object) -> None:
        pass


def under_way(_: object) -> None:
    """Knows of no call."""


def decides() -> bool:
    """Has no rules."""
    return False


def caches() -> bool:
    """Keeps nothing."""
    return False


def replace_model(*_: object) -> None:
    """Replaces nothing."""


def start(*_: object) -> bool:
    """Starts nothing."""
    return False


def watch(_: bool) -> None:
    """Watches nothing."""


def attached(_: str) -> None:
    """Notes nothing."""


def failed() -> None:
    """Counts nothing."""


def is_enabled() -> bool:
    """Says that nothing is counted."""
    return False


def home() -> None:
    """Has no ledger."""


def before_fork() -> None:
    """Stops nothing."""


def after_fork_in_parent() -> None:
    """Goes on with nothing."""


def flush() -> None:
    """Writes nothing."""


def flush_late() -> bool:
    """Writes nothing."""
    return False


def shutdown() -> None:
    """Stops nothing."""


def mind_sigterm() -> bool:
    """Handles nothing."""
    return False


def end_by_sigterm() -> None:
    """Writes nothing."""


def after_fork() -> None:
    """Forgets nothing."""


def calls() -> list[int]:
    """Counts nothing."""
    return []


def counters() -> dict[str, int]:
    """Counts nothing."""
    return {}


def report(*_: object) -> NoReturn:
    """Cannot read the ledger."""
    msg = "the native module of farcall cannot be loaded in this interpreter"
    raise RuntimeError(msg)


def purge_cache(*_: object) -> NoReturn:
    """Tells nobody."""
    msg = "the native module of farcall cannot be loaded in this interpreter"
    raise RuntimeError(msg)


class OutboxError(Exception):
    """The outbox did not do what was asked."""


class OutboxUnavailableError(OutboxError):
    """Never raised here: nothing is kept at all."""


def outbox_put(*_: object) -> NoReturn:
    """Keeps nothing, and says so."""
    msg = "the native module of farcall cannot be loaded in this interpreter: nothing is kept"
    raise OutboxError(msg)


outbox_item = outbox_wait = outbox_answer = outbox_credential = outbox_put


class OutboxAsked:
    """Never made here: nothing is delivered."""
