"""Clients whose answers come out of a cache in memory: ours, a peer's, and none at all."""

from __future__ import annotations

import json
import os
import sqlite3
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

PEERS = {
    "cache/hit/httpx2": "hishel 2 (SQLite in memory, the least that it offers)",
    "cache/hit/requests": "requests-cache (memory)",
}
#: `bare` is the client over a transport that hands it a ready response.
HOWS = ("bare", "farcall", "peer")

_PATH = "/bench/kept"


def answers(url: str) -> str:
    """Has the vendor of `url` answer in a way that may be kept; returns where."""
    origin = "/".join(url.split("/")[:3])
    headers = {
        "cache-control": "max-age=86400",
        "etag": '"33a64df551425fcc55e4d42a148795d9"',
        "x-request-id": "req_123",
    }
    rule = {"match": {"path": _PATH}, "effect": {"status": 200, "headers": headers, "body": "x" * 512}}
    order = urllib.request.Request(f"{origin}/_sim/script", json.dumps(rule).encode(), method="POST")
    with urllib.request.urlopen(order) as done:
        assert done.status < 300
    return f"{origin}{_PATH}"


def client_of(name: str, how: str, url: str, home: str) -> Callable[[], None]:
    """One call with a client whose answers are kept."""
    if how == "farcall":
        config = Path(home, "farcall.toml")
        config.write_text('[[cache]]\nname = "all"\nmatch = {}\n')
        os.environ["FARCALL_CONFIG"] = str(config)
        import farcall

        farcall.install(home=home)
    get, says = (_httpx2 if name.endswith("httpx2") else _requests)(how, url)
    get(), get()
    assert how == "bare" or says(get()), "the answer did not come out of the cache"
    return lambda: get().content and None


def _httpx2(how: str, url: str) -> tuple[Callable[[], Any], Callable[[Any], bool]]:
    import httpx2

    if how == "peer":
        import hishel
        from hishel.httpx2 import CacheClient

        memory = sqlite3.connect(":memory:", check_same_thread=False)
        client: Any = CacheClient(storage=hishel.SqliteStorage(connection=memory))
        return lambda: client.get(url), lambda response: response.extensions["caching"]["from_cache"]
    client = httpx2.Client()
    if how == "bare":
        ready = client.get(url)
        state = vars(httpx2.Response(200, headers=ready.headers, stream=httpx2.ByteStream(ready.content)))

        class Ready(httpx2.BaseTransport):
            def handle_request(self, request: Any) -> Any:
                response = object.__new__(httpx2.Response)
                vars(response).update(state)
                return response

        client = httpx2.Client(transport=Ready())
    return lambda: client.get(url), lambda response: "farcall; hit" in response.headers["cache-status"]


def _requests(how: str, url: str) -> tuple[Callable[[], Any], Callable[[Any], bool]]:
    import requests

    if how == "peer":
        import requests_cache

        session: Any = requests_cache.CachedSession(backend="memory", cache_control=True)
        return lambda: session.get(url), lambda response: bool(response.from_cache)
    session = requests.Session()
    if how == "bare":
        state = vars(session.get(url))

        class Ready(requests.adapters.BaseAdapter):
            def send(self, request: Any, **_: Any) -> Any:
                response = object.__new__(requests.Response)
                vars(response).update(state)
                return response

            def close(self) -> None:
                pass

        session.mount("http://", Ready())
    return lambda: session.get(url), lambda response: "farcall; hit" in response.headers["cache-status"]
