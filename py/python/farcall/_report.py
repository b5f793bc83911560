"""The read side: a question, and a table as the answer."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from farcall._native import native

if TYPE_CHECKING:
    from collections.abc import Iterable


def report(
    question: str,
    since: str = "1h",
    filters: Iterable[str] = (),
    limit: int = 50,
    home: str | os.PathLike[str] | None = None,
) -> dict[str, Any]:
    """Answers from the ledger, as `farcall report QUESTION --json` does on the command line.

    `question` is one of `vendors`, `endpoints`, `customers`, `callers`, `coverage`, `calls`, `incidents`,
    `quotas`, `budgets`, `notices`, `findings`, `advise`, `all`; `since` a time span such as `15m`, `1h` or `7d`;
    `filters` such as `vendor=stripe` or `status>=500`; `limit` the most single `calls`, `quotas` or `notices`; `home`
    the ledger's folder (default: the one this process writes to).

    All programs that write to that ledger are in the answer, not only this one. What this process has counted is
    written first, so that the answer includes it.

    Raises ValueError for an unknown question, span or filter, and OSError where the ledger cannot be read.
    """
    native.flush()
    folder = None if home is None else os.fspath(home)
    answer: dict[str, Any] = json.loads(native.report(question, since, list(filters), limit, folder))
    return answer
