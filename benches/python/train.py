"""Calls of each client, by which a build is told what calls execute (`scripts/build-bindings profiled`).

usage: train.py

Processes of their own call a server on loopback: without rules, and with those of train.toml. Nothing is
measured.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

RULES = Path(__file__).parent.parent / "train.toml"
CALLS = 800
CUSTOMERS = ("acme", "globex", "initech", "umbrella")


class Vendor(BaseHTTPRequestHandler):
    """Answers as vendors do: nearly always well, with a quota in its headers; `/kept` may be kept."""

    protocol_version = "HTTP/1.1"
    # Head and body in one piece.
    wbufsize = -1

    def do_GET(self) -> None:
        """Answers; the number in the path says how."""
        self.rfile.read(int(self.headers.get("content-length", 0)))
        number = int(self.path.rpartition("/")[2]) if self.path.startswith("/item/") else 0
        body = b'{"ok": true}'
        self.send_response({397: 429, 398: 503, 399: 404}.get(number % 400, 200))
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.send_header("x-ratelimit-limit", "100000")
        self.send_header("x-ratelimit-remaining", "99000")
        if self.path == "/kept":
            self.send_header("cache-control", "max-age=3600")
            self.send_header("etag", '"1"')
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    do_POST = do_GET

    def log_message(self, *_: Any) -> None:
        """Keeps still."""


class Server(ThreadingHTTPServer):
    """One that clients may hang up on."""

    def handle_error(self, *_: Any) -> None:
        """Keeps still."""


def main() -> None:
    """Lets each client make calls, in processes of their own."""
    if len(sys.argv) > 1:
        work(*sys.argv[1:4])
        return
    for client in ("requests", "urllib3", "httpx", "httpx2", "httpx-async", "httpx2-async"):
        for rules in ("", RULES.read_text()):
            with tempfile.TemporaryDirectory(prefix="farcall-train-") as home:
                config = Path(home, "farcall.toml")
                config.write_text(rules)
                env = {**os.environ, "FARCALL_CONFIG": str(config), "NO_PROXY": "*"}
                subprocess.run([sys.executable, __file__, client, home], env=env, check=True)


def work(client: str, home: str) -> None:
    """Makes the calls of one client."""
    import farcall

    farcall.install(home=home)
    vendor = Server(("127.0.0.1", 0), Vendor)
    threading.Thread(target=vendor.serve_forever, daemon=True).start()
    url = f"http://localhost:{vendor.server_port}"
    if client.endswith("-async"):
        asyncio.run(call_async(client.removesuffix("-async"), url))
        return
    ask = {"requests": of_requests, "urllib3": of_urllib3}.get(client, lambda: of_httpx(client))()
    for number in range(CALLS):
        with farcall.customer(CUSTOMERS[number % len(CUSTOMERS)]):
            ask("GET", f"{url}/item/{number}")
            if number % 4 == 0:
                ask("POST", f"{url}/item")
                ask("GET", f"{url}/kept")


def of_requests() -> Callable[[str, str], object]:
    """A call of requests."""
    import requests

    session = requests.Session()
    return lambda method, url: session.request(method, url, json=_body(method)).json()


def of_urllib3() -> Callable[[str, str], object]:
    """A call of urllib3."""
    import urllib3

    pool = urllib3.PoolManager()
    return lambda method, url: pool.request(method, url, retries=False).data


def of_httpx(name: str) -> Callable[[str, str], object]:
    """A call of httpx or httpx2."""
    client = __import__(name).Client()
    return lambda method, url: client.request(method, url, json=_body(method)).json()


def _body(method: str) -> dict[str, int] | None:
    return {"n": 1} if method == "POST" else None


async def call_async(name: str, url: str) -> None:
    """The same with an asynchronous client, a few at a time."""
    import farcall

    async with __import__(name).AsyncClient() as client:
        for number in range(0, CALLS, 4):
            with farcall.customer(CUSTOMERS[number // 4 % len(CUSTOMERS)]):
                await asyncio.gather(*(client.get(f"{url}/item/{number + n}") for n in range(4)))
                await client.get(f"{url}/kept")


if __name__ == "__main__":
    main()
