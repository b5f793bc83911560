"""Where the time went: told where the library can see it, absent where it cannot."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import farcall
import httpx
import httpx2
import pytest
import requests
import urllib3
from clients import CLIENTS, PATIENT

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Ledger, Sim

SECOND = 1_000_000_000


@pytest.mark.parametrize("name", CLIENTS)
def test_time_to_the_first_byte_is_not_the_whole_time(name: str, sim: Sim, ledger: Ledger) -> None:
    for calls in range(1, 21):
        with farcall.customer(ledger.customer):
            CLIENTS[name]("GET", f"{sim.plain}/scenario/chunked?bytes=10&chunks=10&every_ms=20", sim.ca)
        (row,) = ledger.rows()
        assert row["answered"] == calls
        # Where this machine had no time for the client, it saw the first byte and the last at the same time.
        if row["duration"] - row["ttfb"] > 0.1 * SECOND:
            return
    pytest.fail("the first byte never came before the last one")


@pytest.mark.parametrize("library", [requests, urllib3])
def test_urllib3_tells_all_parts_of_making_a_connection_and_of_a_reused_one_nothing(
    library: Any, sim: Sim, ledger: Ledger
) -> None:
    call: Callable[[], Any]
    if library is requests:
        session = requests.Session()
        call = lambda: session.get(f"{sim.tls}/scenario/ok", verify=sim.ca, timeout=PATIENT).content  # noqa: E731
    else:
        pool = urllib3.PoolManager(ca_certs=sim.ca)
        call = lambda: pool.request("GET", f"{sim.tls}/scenario/ok").data  # noqa: E731
    with farcall.customer(ledger.customer):
        for _ in range(3):
            call()
    (row,) = ledger.rows()
    assert (row["calls"], row["connections"]) == (3, 1)
    assert all(0 < row[part] < PATIENT * SECOND for part in ("dns", "connect", "tls"))


@pytest.mark.parametrize("library", [httpx, httpx2])
def test_httpx_tells_the_handshake_and_of_a_reused_connection_nothing(library: Any, sim: Sim, ledger: Ledger) -> None:
    import ssl

    trusted = ssl.create_default_context(cafile=sim.ca)
    with library.Client(verify=trusted, timeout=PATIENT) as client, farcall.customer(ledger.customer):
        for _ in range(3):
            client.get(f"{sim.tls}/scenario/ok")
    (row,) = ledger.rows()
    assert (row["calls"], row["connections"], row["dns"], row["connect"]) == (3, 1, 0, 0)
    assert 0 < row["tls"] < PATIENT * SECOND


@pytest.mark.parametrize("library", [httpx, httpx2])
async def test_httpx_tells_the_time_to_connect_to_an_address(library: Any, sim: Sim, ledger: Ledger) -> None:
    async with library.AsyncClient(timeout=PATIENT) as client, farcall.customer(ledger.customer):
        await client.get(f"{sim.plain}/scenario/ok")
    (row,) = ledger.rows()
    assert (row["connections"], row["dns"], row["tls"]) == (1, 0, 0)
    assert 0 < row["connect"] < PATIENT * SECOND
