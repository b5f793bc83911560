"""Calls that must not be lost, as Python puts them."""

from __future__ import annotations

import asyncio
import pickle
import queue
import shutil
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import farcall
import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from conftest import Ledger, Program

PATIENCE = 60


class Vendor:
    """A server that writes down what it gets, and answers with `statuses`, then 200."""

    def __init__(self) -> None:
        self.got: list[tuple[dict[str, str], bytes]] = []
        self.statuses: list[int] = []
        vendor = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                vendor.got.append(({name.lower(): value for name, value in self.headers.items()}, body))
                self.send_response(vendor.statuses.pop(0) if vendor.statuses else 200)
                self.send_header("content-length", "6")
                self.end_headers()
                self.wfile.write(b"thanks")

            def log_message(self, *_: Any) -> None:
                """Says nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/v1/refunds"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def vendor(ledger: Ledger) -> Iterator[Vendor]:
    vendor = Vendor()
    yield vendor
    vendor.server.shutdown()
    vendor.server.server_close()


def test_a_call_that_was_put_is_delivered_and_its_answer_can_be_read(
    vendor: Vendor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "key").write_text("from-a-file\n")
    headers = {"x-api-key": farcall.outbox.File(tmp_path / "key", prefix="Key "), "x-mine": b"a"}
    with farcall.customer("outbox-customer"):
        receipt = farcall.outbox.put(
            "POST", vendor.url, headers=headers, json={"amount": 7}, idempotency_header="idempotency-key"
        )
    item = farcall.outbox.wait(receipt.id, PATIENCE)
    assert (item["state"], item["status"], item["customer"]) == ("delivered", 200, "outbox-customer")
    ((got, body),) = vendor.got
    assert body == b'{"amount": 7}'
    assert (got["x-api-key"], got["x-mine"], got["content-type"]) == ("Key from-a-file", "a", "application/json")
    assert got["idempotency-key"] == receipt.idempotency_key
    answer = farcall.outbox.answer(receipt.id)
    assert answer is not None
    assert (answer.status, answer.body, answer.cut) == (200, b"thanks", False)


async def test_async_programs_go_on_and_order_holds(vendor: Vendor) -> None:
    vendor.statuses.append(503)
    receipts = [
        await farcall.outbox.put_async("POST", vendor.url, body=str(number), order_key="k") for number in range(3)
    ]
    items = [await asyncio.to_thread(farcall.outbox.wait, receipt.id, PATIENCE) for receipt in receipts]
    assert {item["state"] for item in items} == {"delivered"}
    assert [body for _, body in vendor.got] == [b"0", b"0", b"1", b"2"]


def test_what_cannot_be_kept_is_an_error(ledger: Ledger) -> None:
    with pytest.raises(farcall.outbox.OutboxError, match="its URL is not an absolute one"):
        farcall.outbox.put("POST", "/v1")
    with pytest.raises(farcall.outbox.OutboxError, match="cannot be sent"):
        farcall.outbox.put("POST", "http://a.example/", headers={"a": "b\r\nc: d"})
    with pytest.raises(farcall.outbox.OutboxError, match="begins with neither http:// nor https://"):
        farcall.outbox.put("POST", "ftp://a.example/")
    with pytest.raises(farcall.outbox.OutboxError, match="its method is CONNECT, which asks a proxy"):
        farcall.outbox.put("CONNECT", "http://a.example/")
    for body in ({"a": 1}, {}, [1], 7):
        with pytest.raises(TypeError, match=f"body is str or bytes, not {type(body).__name__}; .*json="):
            farcall.outbox.put("POST", "http://a.example/", body=body)  # type: ignore[arg-type]
    for age, why in ((float("inf"), "0 at least, not inf"), (float("nan"), "not a number, but nan")):
        with pytest.raises(ValueError, match=f"max_age is .*{why}"):
            farcall.outbox.put("POST", "http://a.example/", max_age=age)
    with pytest.raises(TypeError, match="the name of a credential is a str, not int"):
        farcall.outbox.credential(3, lambda: "")  # type: ignore[arg-type]
    with pytest.raises(farcall.outbox.OutboxError, match="there is no call 999999"):
        farcall.outbox.item(999999)


def test_a_method_is_sent_as_clients_send_it(vendor: Vendor) -> None:
    receipt = farcall.outbox.put("post", vendor.url, body=bytearray(b"a"))
    assert receipt.result(PATIENCE).status == 200
    assert farcall.outbox.item(receipt.id)["method"] == "POST"
    assert [body for _, body in vendor.got] == [b"a"]


@pytest.mark.parametrize(("variable", "trusted"), [("SSL_CERT_FILE", True), ("SSL_CERT_DIR", True), ("others", False)])
def test_deliveries_trust_what_ssl_cert_names_and_nothing_that_clients_alone_know(
    program: Program, tmp_path: Path, variable: str, trusted: bool
) -> None:
    ca = program.environment["SIM_CA"]
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        program.environment.pop(name, None)
    (tmp_path / "certificates").mkdir()
    shutil.copy(ca, tmp_path / "certificates" / "ca.pem")
    others = dict.fromkeys(["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NODE_EXTRA_CA_CERTS"], ca)
    named = {"SSL_CERT_FILE": {variable: ca}, "SSL_CERT_DIR": {variable: f"/nowhere:{tmp_path / 'certificates'}"}}
    program.environment |= named.get(variable, others)
    said = program.run(
        f"""
        import farcall
        farcall.install(service="trusts")
        receipt = farcall.outbox.put("POST", os.environ["SIM_TLS"] + "/v1/trusts", body="a", max_attempts=1)
        item = farcall.outbox.wait(receipt.id, {PATIENCE})
        print(item["state"], item["error"])
        """
    )
    assert said == ("delivered None" if trusted else "dead tls: invalid peer certificate: UnknownIssuer")


def test_a_forked_worker_puts_and_the_parent_goes_on(vendor: Vendor, program: Program) -> None:
    program.run(
        f"""
        import os, farcall
        farcall.install(service="forker")
        first = farcall.outbox.put("POST", {vendor.url!r}, body="parent")
        child = os.fork()
        if child == 0:
            mine = farcall.outbox.put("POST", {vendor.url!r}, body="child")
            state = farcall.outbox.wait(mine.id, {PATIENCE})["state"]
            os._exit(0 if state == "delivered" else 1)
        assert os.waitpid(child, 0)[1] == 0
        second = farcall.outbox.put("POST", {vendor.url!r}, body="parent again")
        for receipt in (first, second):
            # For as long as it takes.
            assert farcall.outbox.wait(receipt.id, float("inf"))["state"] == "delivered"
        """
    )
    assert {body for _, body in vendor.got} == {b"parent", b"child", b"parent again"}


def test_a_receipt_gives_the_answer_and_calls_back(vendor: Vendor) -> None:
    told: queue.Queue[farcall.outbox.Receipt] = queue.Queue()
    receipt = farcall.outbox.put("POST", vendor.url, body="a", on_done=told.put)
    assert receipt.result(PATIENCE).body == b"thanks"
    assert told.get(timeout=PATIENCE) == receipt
    vendor.statuses.append(422)
    refused = farcall.outbox.put("POST", vendor.url, body="b")
    with pytest.raises(farcall.outbox.OutboxError, match="was given up: the vendor answered 422"):
        refused.result(PATIENCE)
    later = farcall.outbox.put("POST", vendor.url, body="c", delay=3600)
    with pytest.raises(TimeoutError):
        later.result(0.05)


async def test_an_outbox_that_cannot_be_asked_for_a_while_ends_no_waiting(
    vendor: Vendor, monkeypatch: pytest.MonkeyPatch
) -> None:
    from farcall._native import native

    asked, look = queue.SimpleQueue[int](), native.outbox_item

    def away_at_first(number: int) -> str:
        asked.put(number)
        if asked.qsize() < 4:
            raise farcall.outbox.OutboxUnavailableError("it is away")
        return look(number)

    receipt = await farcall.outbox.put_async("POST", vendor.url, body="a")
    told: queue.Queue[str] = queue.Queue()
    for waits in ("result", "await", "on_done"):
        asked = queue.SimpleQueue[int]()
        monkeypatch.setattr(native, "outbox_item", away_at_first)
        if waits == "result":
            assert receipt.result(PATIENCE).status == 200
        elif waits == "await":
            assert (await receipt).status == 200
        else:
            receipt.on_done(lambda done: told.put(farcall.outbox.item(done.id)["state"]))
            assert told.get(timeout=PATIENCE) == "delivered"
        assert asked.qsize() >= 4
        monkeypatch.undo()


def test_an_outbox_out_of_reach_is_no_end_of_a_call(program: Program) -> None:
    program.home.mkdir(parents=True, exist_ok=True)
    (program.home / "farcall.toml").write_text('[outbox_store]\nstore = "postgres://nobody@127.0.0.1:1/none"\n')
    program.run(
        """
        import farcall, threading
        farcall.install(service="shop")
        receipt = farcall.outbox.Receipt(1, "k")
        told = threading.Event()
        receipt.on_done(lambda _: told.set())
        try:
            receipt.result(0.2)
        except TimeoutError as error:
            assert isinstance(error.__cause__, farcall.outbox.OutboxUnavailableError), error.__cause__
        else:
            raise AssertionError("nobody knows what came of it")
        try:
            farcall.outbox.wait(1, 0.2)
        except farcall.outbox.OutboxUnavailableError as error:
            assert "cannot reach the outbox" in str(error), error
        else:
            raise AssertionError("nobody knows how it stands")
        assert not told.is_set()
        """
    )


async def test_a_receipt_can_be_awaited(vendor: Vendor) -> None:
    receipt = await farcall.outbox.put_async("POST", vendor.url, body="a")
    assert (await receipt).status == 200


def test_a_parked_response_has_a_receipt(vendor: Vendor) -> None:
    class Response:
        headers: dict[str, str]

    response = Response()
    response.headers = {}
    assert farcall.outbox.parked(response) is None
    receipt = farcall.outbox.put("POST", vendor.url, body="a")
    response.headers = {"farcall-outbox": f"parked; id={receipt.id}"}
    assert farcall.outbox.parked(response) == receipt
    # As what waits in the spool has it.
    response.headers = {"farcall-outbox": "parked; id=-1"}
    with pytest.raises(farcall.outbox.OutboxError):
        farcall.outbox.parked(response)


def test_a_function_of_the_program_is_asked_anew_at_each_attempt(vendor: Vendor) -> None:
    keys = iter(["sk_first", "sk_second"])
    farcall.outbox.credential("rotates", lambda: next(keys))
    vendor.statuses.append(401)
    headers = {"authorization": farcall.outbox.Callback("rotates", prefix="Bearer ")}
    receipt = farcall.outbox.put("POST", vendor.url, headers=headers)
    assert receipt.result(PATIENCE).status == 200
    assert [got["authorization"] for got, _ in vendor.got] == ["Bearer sk_first", "Bearer sk_second"]
    item = farcall.outbox.item(receipt.id)
    assert (item["credential"], item["attempts"]) == ("rotates", 2)
    assert "sk_" not in str(item)


def test_an_async_function_of_the_program_is_awaited_off_the_programs_threads(vendor: Vendor) -> None:
    asked = queue.SimpleQueue[str]()

    async def key() -> str:
        await asyncio.sleep(0)
        asked.put(threading.current_thread().name)
        return "sk_awaited"

    farcall.outbox.credential("async", key)
    headers = {"x-api-key": farcall.outbox.Callback("async"), "x-too": farcall.outbox.Callback("async", suffix="!")}
    receipt = farcall.outbox.put("POST", vendor.url, headers=headers)
    assert receipt.result(PATIENCE).status == 200
    ((got, _),) = vendor.got
    assert (got["x-api-key"], got["x-too"]) == ("sk_awaited", "sk_awaited!")
    assert (asked.get_nowait(), asked.empty()) == ("farcall-credential", True)


@pytest.mark.parametrize(
    ("function", "why"),
    [
        (lambda: {}["sk_in_the_message"], "failed (KeyError)"),
        (lambda: None, "failed (it returned NoneType, and no str)"),
        (lambda: "", "has nothing to give"),
    ],
)
def test_a_function_that_has_no_credential_is_a_failed_attempt(vendor: Vendor, function: Any, why: str) -> None:
    farcall.outbox.credential("fails", function)
    headers = {"x-api-key": farcall.outbox.Callback("fails")}
    receipt = farcall.outbox.put("POST", vendor.url, headers=headers, max_attempts=1)
    item = farcall.outbox.wait(receipt.id, PATIENCE)
    assert (item["state"], item["attempts"]) == ("dead", 1)
    assert item["error"] == f"the callback of the credential `fails` {why}"
    assert vendor.got == []


def test_a_process_without_the_function_leaves_the_call_to_one_that_has_it(vendor: Vendor, program: Program) -> None:
    program.run(
        f"""
        import farcall
        farcall.install(service="knows")
        headers = {{"x-api-key": farcall.outbox.Callback("vault")}}
        first = farcall.outbox.put("POST", {vendor.url!r}, headers=headers, body="first")
        usual = farcall.outbox.put("POST", {vendor.url!r}, body="usual")
        assert usual.result({PATIENCE}).status == 200
        item = farcall.outbox.item(first.id)
        assert (item["state"], item["attempts"]) == ("pending", 0), item
        """
    )
    program.run(
        f"""
        import os, farcall
        farcall.install(service="knows")
        farcall.outbox.credential("vault", lambda: "sk_vault")
        headers = {{"x-api-key": farcall.outbox.Callback("vault")}}
        child = os.fork()
        mine = farcall.outbox.put("POST", {vendor.url!r}, headers=headers, body="child" if child == 0 else "parent")
        state = farcall.outbox.wait(mine.id, {PATIENCE})["state"]
        if child == 0:
            os._exit(0 if state == "delivered" else 1)
        assert os.waitpid(child, 0)[1] == 0 and state == "delivered"
        for number in range(1, mine.id):
            assert farcall.outbox.wait(number, {PATIENCE})["state"] == "delivered"
        """
    )
    assert vendor.got[0][1] == b"usual"
    assert {(body, got.get("x-api-key")) for got, body in vendor.got[1:]} == {
        (b"first", "sk_vault"),
        (b"child", "sk_vault"),
        (b"parent", "sk_vault"),
    }


def test_a_credential_that_is_no_function_is_refused_at_once(ledger: Ledger) -> None:
    secret: Any = "sk_secret"
    with pytest.raises(TypeError, match="'vault'") as caught:
        farcall.outbox.credential("vault", secret)
    assert secret not in str(caught.value)


@pytest.mark.parametrize("option", ["max_age", "timeout", "delay", "max_attempts"])
def test_a_number_that_cannot_be_meant_is_an_error_that_names_its_option(vendor: Vendor, option: str) -> None:
    call: dict[str, Any] = {"method": "POST", "url": vendor.url}
    for wrong in (float("nan"), float("inf"), -1):
        with pytest.raises((TypeError, ValueError), match=f"^{option} is "):
            farcall.outbox.put(**call, **{option: wrong})
    for wrong in ("60", True):
        with pytest.raises(TypeError, match=f"^{option} is a .*number, not "):
            farcall.outbox.put(**call, **{option: wrong})
    with pytest.raises(ValueError, match=r"^max_attempts is 1 at least"):
        farcall.outbox.put(**call, max_attempts=0)
    receipt = farcall.outbox.put(**call, delay=3_600, max_age=7_200.5)
    for look in (receipt.result, lambda timeout: farcall.outbox.wait(receipt.id, timeout)):
        with pytest.raises(ValueError, match=r"^timeout is not a number"):
            look(float("nan"))


@pytest.mark.parametrize("kind", [farcall.outbox.OutboxError, farcall.outbox.OutboxUnavailableError])
def test_what_the_outbox_says_reaches_other_processes(kind: type[Exception]) -> None:
    again = pickle.loads(pickle.dumps(kind("not now")))
    assert (type(again), str(again)) == (kind, "not now")
