"""One way to ask for something through each client, so that a promise is tested on all of them."""

from __future__ import annotations

import asyncio
import functools
import ssl
from typing import TYPE_CHECKING, Any

import httpx
import httpx2
import requests
import urllib3

if TYPE_CHECKING:
    from collections.abc import Callable

#: How long a client waits for a connection, and for anything to read unless a test says otherwise, in seconds.
PATIENT = 60.0


@functools.cache
def trusting(ca: str) -> ssl.SSLContext:
    """One for all clients: what came by one context is no answer to who asks by another."""
    return ssl.create_default_context(cafile=ca)


class Answer:
    """What the application saw."""

    def __init__(self, status: int, body: bytes) -> None:
        self.status = status
        self.body = body


def by_requests(
    method: str, url: str, ca: str, *, body: Any = None, timeout: float = PATIENT, read: str = "all"
) -> Answer:
    with requests.Session() as session:
        response = session.request(method, url, data=body, timeout=(PATIENT, timeout), stream=read != "all", verify=ca)
        if read == "all":
            return Answer(response.status_code, response.content)
        first = next(response.iter_content(64)) if read == "first" else b""
        response.close()
        return Answer(response.status_code, first)


def by_urllib3(
    method: str, url: str, ca: str, *, body: Any = None, timeout: float = PATIENT, read: str = "all"
) -> Answer:
    with urllib3.PoolManager(ca_certs=ca, retries=urllib3.Retry(connect=0, read=0, other=0, redirect=5)) as pool:
        patience = urllib3.Timeout(connect=PATIENT, read=timeout)
        response = pool.request(method, url, body=body, timeout=patience, preload_content=read == "all")
        if read == "all":
            return Answer(response.status, response.data)
        first = next(response.stream(64)) if read == "first" else b""
        response.close()
        return Answer(response.status, first)


def _by_httpx(library: Any) -> Callable[..., Answer]:
    def call(
        method: str, url: str, ca: str, *, body: Any = None, timeout: float = PATIENT, read: str = "all"
    ) -> Answer:
        verify = trusting(ca)
        patience = library.Timeout(PATIENT, read=timeout)
        with library.Client(verify=verify, timeout=patience, follow_redirects=True) as client:
            if read == "all":
                response = client.request(method, url, content=body)
                return Answer(response.status_code, response.content)
            with client.stream(method, url, content=body) as response:
                first = next(response.iter_raw(64)) if read == "first" else b""
            return Answer(response.status_code, first)

    return call


def _by_async_httpx(library: Any) -> Callable[..., Answer]:
    def call(
        method: str, url: str, ca: str, *, body: Any = None, timeout: float = PATIENT, read: str = "all"
    ) -> Answer:
        async def run() -> Answer:
            verify = trusting(ca)
            patience = library.Timeout(PATIENT, read=timeout)
            async with library.AsyncClient(verify=verify, timeout=patience, follow_redirects=True) as client:
                if read == "all":
                    response = await client.request(method, url, content=body)
                    return Answer(response.status_code, response.content)
                async with client.stream(method, url, content=body) as response:
                    first = await anext(response.aiter_raw(64)) if read == "first" else b""
                return Answer(response.status_code, first)

        return asyncio.run(run())

    return call


def minds_a_short_body(client: Callable[..., Answer]) -> bool:
    """Whether a body that ends before its announced length is an error.

    urllib3 1.26 minds it where it is asked to, and requests does not ask: the application gets what there is.
    """
    return client is not by_requests or not urllib3.__version__.startswith("1.")


CLIENTS: dict[str, Callable[..., Answer]] = {
    "requests": by_requests,
    "urllib3": by_urllib3,
    "httpx": _by_httpx(httpx),
    "httpx-async": _by_async_httpx(httpx),
    "httpx2": _by_httpx(httpx2),
    "httpx2-async": _by_async_httpx(httpx2),
}
