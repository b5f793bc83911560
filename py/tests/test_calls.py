"""Every call is counted once, with its bytes and its outcome, through every client."""

from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import farcall
import pytest
from clients import CLIENTS, minds_a_short_body

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from conftest import Ledger, Sim

    Client = Callable[..., Any]


@pytest.fixture(params=CLIENTS)
def client(request: pytest.FixtureRequest, ledger: Ledger) -> Iterator[Client]:
    """A client, whose calls are those of the ledger's customer."""
    with farcall.customer(ledger.customer):
        yield CLIENTS[request.param]


def test_a_call_is_one_call_with_the_bytes_of_its_bodies(client: Client, sim: Sim, ledger: Ledger) -> None:
    answer = client("POST", f"{sim.tls}/scenario/echo?n=1", sim.ca, body=b"x" * 1000)

    assert answer.body == b"x" * 1000
    assert ledger.calls() == {(200, "complete"): 1}
    assert (ledger.total("bytes_out"), ledger.total("bytes_in")) == (1000, 1000)
    assert ledger.rows()[0]["endpoint"] == "POST /scenario/echo"


def test_each_hop_of_a_redirect_is_a_call(client: Client, sim: Sim, ledger: Ledger) -> None:
    assert client("GET", f"{sim.tls}/scenario/redirect/2", sim.ca).status == 200
    assert ledger.calls() == {(302, "complete"): 3, (200, "complete"): 1}


@pytest.mark.parametrize("status", [404, 500])
def test_an_error_of_the_vendor_is_complete(client: Client, sim: Sim, ledger: Ledger, status: int) -> None:
    assert client("GET", f"{sim.tls}/scenario/{status}", sim.ca).status == status
    assert ledger.calls() == {(status, "complete"): 1}


@pytest.mark.parametrize(
    "path",
    [
        "gzip?lines=500",
        "chunked?bytes=100000&chunks=37",
        "chunked?bytes=10&chunks=10&every_ms=1",
        "bytes/300000",
        "bytes/0",
        "sse?events=25",
    ],
)
def test_bytes_are_counted_as_they_travelled(client: Client, sim: Sim, ledger: Ledger, path: str) -> None:
    url = f"/scenario/{path}"
    before = sim.counts(url.partition("?")[0])
    client("GET", f"{sim.tls}{url}", sim.ca)
    after = sim.counts(url.partition("?")[0])

    assert ledger.calls() == {(200, "complete"): 1}
    assert ledger.total("bytes_in") == after["bytes_out"] - before["bytes_out"]


def test_a_head_request_and_a_204_have_no_body(client: Client, sim: Sim, ledger: Ledger) -> None:
    client("HEAD", f"{sim.tls}/scenario/ok", sim.ca, read="none")
    client("GET", f"{sim.tls}/scenario/status/204", sim.ca, read="none")

    assert ledger.calls() == {(200, "complete"): 1, (204, "complete"): 1}
    assert ledger.total("bytes_in") == 0


@pytest.mark.parametrize("read", ["none", "first"])
def test_a_stream_that_is_let_go_of_is_abandoned(client: Client, sim: Sim, ledger: Ledger, read: str) -> None:
    client("GET", f"{sim.tls}/scenario/endless?every_ms=1", sim.ca, read=read)
    assert ledger.calls() == {(200, "abandoned"): 1}
    assert (ledger.total("bytes_in") > 0) == (read == "first")


def test_an_empty_body_that_nobody_reads_is_complete(client: Client, sim: Sim, ledger: Ledger) -> None:
    client("GET", f"{sim.tls}/scenario/bytes/0", sim.ca, read="none")
    assert ledger.calls() == {(200, "complete"): 1}


def test_a_refused_connection_is_an_error_of_connect(client: Client, sim: Sim, ledger: Ledger) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        with pytest.raises(Exception):
            client("POST", f"http://127.0.0.1:{held.getsockname()[1]}/x", sim.ca, body=b"never sent")
    assert ledger.calls() == {(0, "connect"): 1}
    assert ledger.total("bytes_out") == 0


def test_a_name_that_does_not_resolve_is_an_error_of_dns(
    client: Client, sim: Sim, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_such_name(*_: Any, **__: Any) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", no_such_name)
    with pytest.raises(Exception):
        client("GET", "https://api.example.com/x", sim.ca)
    assert ledger.calls() == {(0, "dns"): 1}


def test_an_untrusted_certificate_is_an_error_of_tls(client: Client, sim: Sim, ledger: Ledger, other_ca: str) -> None:
    with pytest.raises(Exception):
        client("GET", f"{sim.tls}/scenario/ok", other_ca)
    assert ledger.calls() == {(0, "tls"): 1}


def test_a_handshake_that_is_cut_off_is_an_error_of_tls(
    client: Client, sim: Sim, ledger: Ledger, every_name_is_here: None
) -> None:
    with pytest.raises(Exception):
        client("GET", f"https://reset-handshake.example.com:{sim.tls_port}/scenario/ok", sim.ca)
    assert ledger.calls() == {(0, "tls"): 1}


def test_a_timeout_is_a_timeout(client: Client, sim: Sim, ledger: Ledger) -> None:
    with pytest.raises(Exception):
        client("GET", f"{sim.tls}/scenario/hang", sim.ca, timeout=0.5)
    assert ledger.calls() == {(0, "timeout"): 1}


def test_a_timeout_within_the_body_keeps_the_status(client: Client, sim: Sim, ledger: Ledger) -> None:
    for timeout in (0.5, 5, 50):
        with pytest.raises(Exception):
            client("GET", f"{sim.tls}/scenario/stall?after=100", sim.ca, timeout=timeout)
        # On a machine that is busy it may strike before the head.
        calls = ledger.calls()
        if calls.pop((200, "timeout"), 0):
            break
    assert set(calls) <= {(0, "timeout")}
    assert ledger.calls()[200, "timeout"] == 1


def test_a_reset_before_the_head_is_a_reset(client: Client, sim: Sim, ledger: Ledger) -> None:
    with pytest.raises(Exception):
        client("GET", f"{sim.plain}/scenario/reset", sim.ca)
    assert ledger.calls() == {(0, "reset"): 1}


def test_a_reset_within_the_body_is_a_reset(client: Client, sim: Sim, ledger: Ledger) -> None:
    with pytest.raises(Exception):
        client("GET", f"{sim.plain}/scenario/reset-mid-body", sim.ca)
    assert ledger.calls() == {(200, "reset"): 1}


def test_a_body_that_ends_early_is_not_whole(client: Client, sim: Sim, ledger: Ledger) -> None:
    with pytest.raises(Exception) if minds_a_short_body(client) else nullcontext():
        client("GET", f"{sim.plain}/scenario/truncate?after=5000", sim.ca)
    assert ledger.calls() == {(200, "protocol"): 1}


def test_garbage_is_an_error_of_protocol(client: Client, sim: Sim, ledger: Ledger) -> None:
    with pytest.raises(Exception):
        client("GET", f"{sim.plain}/scenario/garbage", sim.ca)
    assert ledger.calls() == {(0, "protocol"): 1}


def test_a_body_of_unknown_length_is_counted_as_it_goes(client: Client, sim: Sim, ledger: Ledger) -> None:
    def pieces() -> Any:
        yield from [b"abc", b"defg"]

    async def pieces_async() -> Any:
        for piece in pieces():
            yield piece

    body = pieces_async() if client.__qualname__.startswith("_by_async") else pieces()
    assert client("POST", f"{sim.tls}/scenario/echo", sim.ca, body=body).body == b"abcdefg"
    assert ledger.total("bytes_out") == 7


def test_a_hundred_calls_at_once_are_a_hundred_calls(client: Client, sim: Sim, ledger: Ledger) -> None:
    def call(_: int) -> int:
        with farcall.customer(ledger.customer):
            return client("GET", f"{sim.plain}/scenario/ok", sim.ca).status

    with ThreadPoolExecutor(100) as threads:
        assert list(threads.map(call, range(100))) == [200] * 100
    assert ledger.calls() == {(200, "complete"): 100}
