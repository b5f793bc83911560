"""One vendor-sim for the whole run, and one ledger for each test."""

from __future__ import annotations

import atexit
import itertools
import json
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
import textwrap
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import farcall
import pytest
import urllib3
from ruled import CLIENTS, Rules

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ROOT = Path(__file__).resolve().parents[2]
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))

#: How long anything is waited for, in seconds: more than it takes on the busiest machine.
PATIENCE = 60

# One ledger for the process: the agent starts once. Tests tell their calls apart by customer and by path.
HOME = tempfile.mkdtemp(prefix="farcall-test-")
# What is registered first runs last: by then Farcall has written what it had to.
atexit.register(shutil.rmtree, HOME, ignore_errors=True)
os.environ["FARCALL_HOME"] = HOME


class Sim:
    """A running vendor-sim."""

    def __init__(self, ready: dict[str, Any]) -> None:
        self.ca: str = ready["ca"]
        self.tls_port = int(ready["tls"].rpartition(":")[2])
        self.plain_port = int(ready["plain"].rpartition(":")[2])
        self.tls = f"https://localhost:{self.tls_port}"
        self.plain = f"http://127.0.0.1:{self.plain_port}"
        self._pool = urllib3.PoolManager()

    def control(self, method: str, path: str, body: Any = None) -> Any:
        encoded = None if body is None else json.dumps(body).encode()
        with farcall.customer("control"):
            response = self._pool.request(method, f"{self.plain}/_sim/{path}", body=encoded)
        assert response.status < 300, response.data
        return json.loads(response.data or b"null")

    def counts(self, path: str) -> dict[str, int]:
        """What arrived for a path, once no exchange is open."""
        counts = self.control("GET", "counts?settled_ms=60000")
        rows = [row for row in counts["rows"] if row["path"] == path]
        return {
            "calls": sum(row["count"] for row in rows),
            "bytes_in": sum(row["bytes_in"] for row in rows),
            "bytes_out": sum(row["bytes_out"] for row in rows),
            "aborted": sum(row["count"] for row in rows if row["aborted"]),
        }


@pytest.fixture(scope="session")
def sim() -> Iterator[Sim]:
    binary = TARGET / "debug" / "vendor-sim"
    assert binary.exists(), "build it first: cargo build -p vendor-sim"
    with tempfile.TemporaryDirectory() as folder:
        process = subprocess.Popen(
            [binary, "--dir", folder], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True
        )
        try:
            assert process.stdout is not None
            yield Sim(json.loads(process.stdout.readline()))
        finally:
            process.terminate()
            process.wait(PATIENCE)


class Ledger:
    """What the ledger holds for one customer; the tests' own reading of it, beside `farcall.report`."""

    def __init__(self, customer: str, home: str | os.PathLike[str] = HOME) -> None:
        self.customer = customer
        self.home = home

    def rows(self) -> list[dict[str, Any]]:
        farcall.flush()
        with closing(sqlite3.connect(f"file:{self.home}/ledger.db?mode=ro", uri=True)) as db:
            db.row_factory = sqlite3.Row
            query = """
                SELECT v.name vendor, e.name endpoint, t.name tags, r.status, r.outcome,
                       sum(calls) calls, sum(bytes_out) bytes_out, sum(bytes_in) bytes_in, sum(answered) answered,
                       sum(connections) connections, sum(dns) dns, sum(connect) connect, sum(tls) tls,
                       sum(duration) duration, sum(ttfb) ttfb, sum(cost) cost, sum(cost_unknown) cost_unknown
                FROM rollups r JOIN names v ON v.id = vendor JOIN names e ON e.id = endpoint
                JOIN names c ON c.id = customer JOIN names t ON t.id = tags
                WHERE c.name = ?
                GROUP BY 1, 2, 3, 4, 5 ORDER BY 1, 2, 3, 4, 5"""
            return [dict(row) for row in db.execute(query, [self.customer])]

    def services(self) -> list[str]:
        """The programs that made calls."""
        with closing(sqlite3.connect(f"file:{self.home}/ledger.db?mode=ro", uri=True)) as db:
            query = "SELECT DISTINCT service FROM rollups JOIN callers c ON c.id = caller ORDER BY 1"
            return [service for (service,) in db.execute(query)]

    def calls(self) -> dict[tuple[int, str], int]:
        """How many calls came out with which status and outcome."""
        counted: dict[tuple[int, str], int] = {}
        for row in self.rows():
            key = (row["status"], row["outcome"])
            counted[key] = counted.get(key, 0) + row["calls"]
        return counted

    def total(self, column: str) -> int:
        return sum(row[column] for row in self.rows())


class Program:
    """Python programs in processes of their own, which share a ledger of their own."""

    def __init__(self, home: Path, sim: Sim) -> None:
        self.home = home
        self.environment = os.environ | {
            "FARCALL_HOME": str(home),
            "SIM": sim.plain,
            "SIM_TLS": sim.tls,
            "SIM_CA": sim.ca,
        }

    def start(self, code: str, *, under: Sequence[str] = (), **kwargs: Any) -> subprocess.Popen[str]:
        head = "import os, sys\nSIM = os.environ['SIM']\n"
        return subprocess.Popen(
            [*under, sys.executable, "-c", head + textwrap.dedent(code)],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **kwargs,
        )

    def run(self, code: str) -> str:
        process = self.start(code)
        out, err = process.communicate(timeout=3 * PATIENCE)
        assert process.returncode == 0, err
        assert "Traceback" not in err, err
        return out.strip()

    def script(self, path: Path) -> None:
        subprocess.run([sys.executable, path], env=self.environment, check=True, timeout=3 * PATIENCE)

    def ledger(self, customer: str = "unknown") -> Ledger:
        return Ledger(customer, self.home)


@pytest.fixture
def program(tmp_path: Path, sim: Sim) -> Program:
    return Program(tmp_path / "home", sim)


@pytest.fixture
def ledger() -> Ledger:
    """The calls of a customer that only this test has."""
    farcall.install(service="farcall-tests")
    return Ledger(f"test-{next(_numbers)}")


_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def other_ca(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The certificate of an authority that signed nothing here."""
    folder = tmp_path_factory.mktemp("ca")
    binary = TARGET / "debug" / "vendor-sim"
    process = subprocess.Popen([binary, "--dir", folder], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())["ca"]
    finally:
        process.terminate()
        process.wait(PATIENCE)


@pytest.fixture
def every_name_is_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Resolves every name to 127.0.0.1."""
    resolve = socket.getaddrinfo

    def here(host: Any, port: Any, *args: Any, **kwargs: Any) -> Any:
        return resolve("127.0.0.1", port, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", here)


@pytest.fixture(params=CLIENTS)
def rules(request: pytest.FixtureRequest, program: Program, sim: Sim) -> Any:
    sim.control("DELETE", "script")
    yield Rules(program, sim, request.param)
    sim.control("DELETE", "script")
