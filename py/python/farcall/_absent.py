"""What stands in for the native module where it cannot be loaded: every name of it, and nothing behind."""

from __future__ import annotations


class Scope:
    """A customer and tags."""

    def __init__(self, customer: str | None, tags: list[tuple[str, str]]) -> None:
        self.customer = customer
        self.tags = tags


def begin(*_: object) -> None:
    """Begins no call."""


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


def shutdown() -> None:
    """Stops nothing."""


def after_fork() -> None:
    """Forgets nothing."""


def calls() -> list[int]:
    """Counts nothing."""
    return []


def counters() -> dict[str, int]:
    """Counts nothing."""
    return {}
