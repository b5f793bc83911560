"""Programs that make calls with one client, under a configuration."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from conftest import Program, Sim

# What each client calls its errors.
CLIENTS = {
    "requests": "requests.RequestException",
    "urllib3": "urllib3.exceptions.HTTPError",
    "httpx": "httpx.HTTPError",
    "httpx-async": "httpx.HTTPError",
    "httpx2": "httpx2.HTTPError",
    "httpx2-async": "httpx2.HTTPError",
}

PRELUDE = """
import json, sys, time
sys.path.insert(0, {tests!r})
import farcall, httpx, httpx2, requests, urllib3
from clients import CLIENTS
farcall.install(service="rules")
CA = os.environ["SIM_CA"]
client = CLIENTS[{name!r}]
Base = {base}
"""


class Rules:
    """Programs with one client, under a configuration."""

    def __init__(self, program: Program, sim: Sim, name: str) -> None:
        self.program, self.sim, self.name = program, sim, name

    def run(self, rules: str, code: str) -> Any:
        """What the program prints as JSON."""
        config = self.program.home.parent / "farcall.toml"
        vendor = (
            '[[vendor]]\nname = "sim"\nhosts = ["127.0.0.1", "localhost"]\nidempotency_header = "idempotency-key"\n'
        )
        config.write_text(rules + vendor)
        self.program.environment["FARCALL_CONFIG"] = str(config)
        here = __file__.rpartition("/")[0]
        prelude = PRELUDE.format(tests=here, name=self.name, base=CLIENTS[self.name])
        return json.loads(self.program.run(prelude + code) or "null")

    def total(self, *columns: str) -> tuple[int, ...]:
        """Sums over all calls of the ledger."""
        with closing(sqlite3.connect(f"file:{self.program.home}/ledger.db?mode=ro", uri=True)) as db:
            wanted = ", ".join(f"sum({column})" for column in columns)
            return tuple(db.execute(f"SELECT {wanted} FROM rollups").fetchone())

    def by_tags(self) -> dict[str, tuple[int, int, str]]:
        """Calls, status and outcome of each set of tags."""
        query = (
            "SELECT coalesce(t.name, ''), sum(r.calls), max(r.status), max(r.outcome) FROM rollups r"
            " LEFT JOIN names t ON t.id = r.tags GROUP BY 1"
        )
        with closing(sqlite3.connect(f"file:{self.program.home}/ledger.db?mode=ro", uri=True)) as db:
            return {tags: (calls, status, outcome) for tags, calls, status, outcome in db.execute(query)}

    def events(self) -> str:
        """What is told of calls to which something happened."""
        with closing(sqlite3.connect(f"file:{self.program.home}/ledger.db?mode=ro", uri=True)) as db:
            return "\n".join(row[0] for row in db.execute("SELECT events FROM exemplars ORDER BY begun"))

    def outcomes(self) -> dict[tuple[int, str], int]:
        return self.program.ledger().calls()
