"""One client of each kind that lives as long as its program, and shows all of an answer."""

from __future__ import annotations

import asyncio
import ssl
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

import httpx
import httpx2
import requests
import urllib3

if TYPE_CHECKING:
    from collections.abc import Callable

PATIENT = 60.0


class Answer:
    """What the application saw."""

    def __init__(self, status: int, headers: Any, body: bytes) -> None:
        self.status = status
        self.headers = {name.lower(): value for name, value in headers.items()}
        self.body = body

    @property
    def kept(self) -> str:
        """What the cache says of it."""
        value: str = self.headers.get("cache-status", "")
        return value


def _by_requests(ca: str) -> Callable[..., Answer]:
    session = requests.Session()
    session.mount("https://", requests.adapters.HTTPAdapter(pool_maxsize=64))

    def ask(url: str, headers: Any = None, method: str = "GET", *, part: bool = False) -> Answer:
        with session.request(method, url, headers=headers, timeout=PATIENT, stream=part, verify=ca) as response:
            body = next(response.iter_content(64)) if part else response.content
            return Answer(response.status_code, response.headers, body)

    return ask


def _by_urllib3(ca: str) -> Callable[..., Answer]:
    pool = urllib3.PoolManager(maxsize=64, ca_certs=ca, retries=False)

    def ask(url: str, headers: Any = None, method: str = "GET", *, part: bool = False) -> Answer:
        response = pool.request(method, url, headers=headers, timeout=PATIENT, preload_content=not part)
        if not part:
            return Answer(response.status, response.headers, response.data)
        body = next(response.stream(64))
        response.close()
        return Answer(response.status, response.headers, body)

    return ask


def _by_httpx(library: Any) -> Callable[[str], Callable[..., Answer]]:
    def make(ca: str) -> Callable[..., Answer]:
        client = library.Client(verify=ssl.create_default_context(cafile=ca), timeout=PATIENT)

        def ask(url: str, headers: Any = None, method: str = "GET", *, part: bool = False) -> Answer:
            with client.stream(method, url, headers=headers) as response:
                body = next(response.iter_raw(64)) if part else response.read()
                return Answer(response.status_code, response.headers, body)

        return ask

    return make


def _by_async_httpx(library: Any) -> Callable[[str], Callable[..., Answer]]:
    def make(ca: str) -> Callable[..., Answer]:
        client = library.AsyncClient(verify=ssl.create_default_context(cafile=ca), timeout=PATIENT)
        runner = asyncio.Runner()

        async def ask_async(url: str, headers: Any = None, method: str = "GET", *, part: bool = False) -> Answer:
            async with client.stream(method, url, headers=headers) as response:
                body = await anext(response.aiter_raw(64)) if part else await response.aread()
                return Answer(response.status_code, response.headers, body)

        def ask(*args: Any, **kwargs: Any) -> Answer:
            return runner.run(ask_async(*args, **kwargs), context=copy_context())

        def ask_many(times: int, *args: Any) -> list[Answer]:
            async def many() -> list[Answer]:
                return await asyncio.gather(*(ask_async(*args) for _ in range(times)))

            return runner.run(many())

        ask.many = ask_many  # type: ignore[attr-defined]
        return ask

    return make


CLIENTS: dict[str, Callable[[str], Callable[..., Any]]] = {
    "requests": _by_requests,
    "urllib3": _by_urllib3,
    "httpx": _by_httpx(httpx),
    "httpx-async": _by_async_httpx(httpx),
    "httpx2": _by_httpx(httpx2),
    "httpx2-async": _by_async_httpx(httpx2),
}


def ask_many(ask: Any, times: int, *args: Any) -> list[Answer]:
    """The same, so often at once: in tasks, or in threads."""
    if hasattr(ask, "many"):
        answers: list[Answer] = ask.many(times, *args)
        return answers
    from concurrent.futures import ThreadPoolExecutor
    from threading import Barrier

    ready = Barrier(times)

    def one(_: int) -> Answer:
        ready.wait(PATIENT)
        answer: Answer = ask(*args)
        return answer

    with ThreadPoolExecutor(times) as threads:
        return list(threads.map(one, range(times)))
