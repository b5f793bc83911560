"""The Python shim of the scenario matrix: makes the calls it is told to, with the real clients (tests/PROTOCOL.md)."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import ssl
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import farcall

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Command = dict[str, Any]
Seen = tuple[int, int, str]  # status, bytes of the body as the application got it, the header that was asked for


def resolve_all_names_here() -> None:
    """Connects every name to 127.0.0.1."""
    resolve = socket.getaddrinfo

    def here(host: Any, port: Any, *args: Any, **kwargs: Any) -> Any:
        return resolve("127.0.0.1", port, *args, **kwargs)

    socket.getaddrinfo = here


def size(read: str, pieces: Any) -> int:
    """Reads all pieces, the first, or none."""
    if read == "all":
        return sum(len(piece) for piece in pieces)
    return len(next(iter(pieces), b"")) if read == "first-chunk" else 0


async def size_async(read: str, pieces: Any) -> int:
    if read == "all":
        return sum([len(piece) async for piece in pieces])
    return len(await anext(pieces, b"")) if read == "first-chunk" else 0


def requests_client(ca: str) -> Callable[[Command], Seen]:
    import requests

    session = requests.Session()
    adapter = requests.adapters.HTTPAdapter(pool_maxsize=128)
    session.mount("https://", adapter)
    session.mount("http://", adapter)

    def call(command: Command) -> Seen:
        with session.request(
            command["method"],
            command["url"],
            headers=command["headers"],
            data=body(command),
            timeout=command["timeout_ms"] / 1000,
            allow_redirects=command["follow_redirects"],
            stream=True,
            verify=ca,
        ) as response:
            return response.status_code, size(command["read"], response.iter_content(None)), shown(command, response)

    return call


def urllib3_client(ca: str) -> Callable[[Command], Seen]:
    import urllib3

    pool = urllib3.PoolManager(maxsize=128, ca_certs=ca)

    def call(command: Command) -> Seen:
        response = pool.request(
            command["method"],
            command["url"],
            headers=command["headers"],
            body=body(command),
            timeout=command["timeout_ms"] / 1000,
            redirect=command["follow_redirects"],
            retries=urllib3.Retry(total=None, connect=0, read=0, redirect=10, other=0),
            preload_content=command["read"] == "all",
        )
        if command["read"] == "all":
            return response.status, len(response.data), shown(command, response)
        try:
            return response.status, size(command["read"], response.stream()), shown(command, response)
        finally:
            response.close()

    return call


def httpx_client(ca: str, library: str) -> Callable[[Command], Seen]:
    httpx = __import__(library)
    client = httpx.Client(verify=ssl.create_default_context(cafile=ca))

    def call(command: Command) -> Seen:
        with client.stream(
            command["method"],
            command["url"],
            headers=command["headers"],
            content=body(command),
            timeout=command["timeout_ms"] / 1000,
            follow_redirects=command["follow_redirects"],
        ) as response:
            return response.status_code, size(command["read"], response.iter_bytes()), shown(command, response)

    return call


def httpx_async_client(ca: str, library: str) -> Callable[[Command, asyncio.Semaphore], Any]:
    httpx = __import__(library)
    client = httpx.AsyncClient(verify=ssl.create_default_context(cafile=ca))

    async def call(command: Command) -> Seen:
        async with client.stream(
            command["method"],
            command["url"],
            headers=command["headers"],
            content=body(command),
            timeout=command["timeout_ms"] / 1000,
            follow_redirects=command["follow_redirects"],
        ) as response:
            read = await size_async(command["read"], response.aiter_bytes())
            return response.status_code, read, shown(command, response)

    return call


BLOCKING = {
    "requests": requests_client,
    "urllib3": urllib3_client,
    "httpx": lambda ca: httpx_client(ca, "httpx"),
    "httpx2": lambda ca: httpx_client(ca, "httpx2"),
}
ASYNC = {
    "httpx-async": lambda ca: httpx_async_client(ca, "httpx"),
    "httpx2-async": lambda ca: httpx_async_client(ca, "httpx2"),
}


def body(command: Command) -> bytes | None:
    return None if command.get("body") is None else command["body"].encode()


def shown(command: Command, response: Any) -> str:
    """What the answer has in the field that the command names."""
    return str(response.headers.get(command.get("header") or "", ""))


@contextmanager
def scope(command: Command, number: int) -> Iterator[None]:
    customers = command.get("customers")
    name = customers[number % len(customers)] if customers else command.get("customer")
    with ExitStack() as scopes:
        if name is not None:
            scopes.enter_context(farcall.customer(name))
        if command.get("priority") is not None:
            scopes.enter_context(farcall.priority(command["priority"]))
        yield


def run_blocking(call: Callable[[Command], Seen], command: Command) -> list[Seen | BaseException]:
    def one(number: int) -> Seen | BaseException:
        try:
            with scope(command, number):
                return call(command)
        except Exception as error:
            return error

    parallel = command.get("parallel") or 1
    if parallel == 1:
        return [one(0)]
    with ThreadPoolExecutor(parallel) as threads:
        return list(threads.map(one, range(parallel)))


async def run_async(call: Any, command: Command) -> list[Seen | BaseException]:
    async def one(number: int) -> Seen:
        with scope(command, number):
            return await call(command)

    return await asyncio.gather(*map(one, range(command.get("parallel") or 1)), return_exceptions=True)


def word(result: Seen | BaseException) -> str:
    """What one call came to."""
    if not isinstance(result, BaseException):
        return str(result[0])
    return f"refused-{result.by}" if isinstance(result, farcall.Refused) else "failed"


def answer(command: Command, results: list[Seen | BaseException]) -> dict[str, Any]:
    errors = [result for result in results if isinstance(result, BaseException)]
    seen = [result for result in results if not isinstance(result, BaseException)]
    return {
        "id": command["id"],
        "ok": not errors,
        "status": seen[-1][0] if seen else None,
        "bytes": sum(count for _, count, _ in seen),
        "error": f"{type(errors[0]).__name__}: {errors[0]}" if errors else None,
        "got": Counter(map(word, results)),
        "values": Counter(value for _, _, value in seen),
    }


def main() -> None:
    if os.environ.get("FARCALL_TEST_RESOLVE") == "1":
        resolve_all_names_here()
    ca = os.environ["FARCALL_TEST_CA"]
    farcall.install()
    clients: dict[str, Any] = {}
    with asyncio.Runner() as runner:
        for line in sys.stdin:
            command = json.loads(line)
            if command.get("flush"):
                farcall.flush()
                reply: dict[str, Any] = {"id": command["id"], "ok": True}
            else:
                command = {"headers": {}, "read": "all", "follow_redirects": True, "timeout_ms": 5000} | command
                name = command["client"]
                if name not in clients:
                    clients[name] = (BLOCKING.get(name) or ASYNC[name])(ca)
                if name in BLOCKING:
                    results = run_blocking(clients[name], command)
                else:
                    results = runner.run(run_async(clients[name], command))
                reply = answer(command, results)
            print(json.dumps(reply), flush=True)
    farcall.flush()


if __name__ == "__main__":
    main()
