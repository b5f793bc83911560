"""Answers that are kept, and are to be forgotten."""

from __future__ import annotations

import os

from farcall._native import native


def purge_cache(
    *,
    vendor: str | None = None,
    endpoint: str | None = None,
    method: str | None = None,
    customer: str | None = None,
    home: str | os.PathLike[str] | None = None,
) -> int:
    """Has the programs of this machine forget the answers that match, all where nothing is said.

    As `farcall cache purge` does: this process has forgotten them when it returns, the others do within a second or so.
    Each of `vendor`, `endpoint` (`GET /v1/prices*`), `method` and `customer` is a pattern, as in a `match` of
    `farcall.toml`; `home` is the ledger's folder (default: the one this process writes to; the programs of another one
    are told as by the command). Returns how many programs were told; this one is among them.

    Raises ValueError for a vendor that nobody knows, and OSError where there is no ledger, through which they are told.
    """
    named = {"vendor": vendor, "endpoint": endpoint, "method": method, "customer": customer}
    folder = None if home is None else os.fspath(home)
    return native.purge_cache([(key, text) for key, text in named.items() if text is not None], folder)
