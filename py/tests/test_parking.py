"""Calls that fail go into the outbox where a rule says so, through every client."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from conftest import ROOT
from ruled import Rules

if TYPE_CHECKING:
    from conftest import Program, Sim

CLIENTS = ["requests", "urllib3", "httpx", "httpx-async", "httpx2", "httpx2-async"]

PARK = '[[outbox]]\nname = "orders"\nmatch = { vendor = "sim" }\npark = true\n'


@pytest.fixture(params=CLIENTS)
def rules(request: pytest.FixtureRequest, program: Program, sim: Sim) -> Any:
    sim.control("DELETE", "script")
    yield Rules(program, sim, request.param)
    sim.control("DELETE", "script")


def once(rules: Rules, path: str, effect: dict[str, Any]) -> None:
    rules.sim.control("POST", "script", {"match": {"path": path}, "count": 1, "effect": effect})


def got(rules: Rules, path: str) -> list[dict[str, Any]]:
    """What the vendor got there, in order."""
    requests = rules.sim.control("GET", "requests")
    return [request for request in requests if request["path"] == path]


# What the application got, and what became of the parked call.
PARKED = """
with farcall.customer("acme"):
    answer = client("POST", SIM + PATH, CA, body=b"amount=7")
said = json.loads(answer.body)["farcall"]
item = farcall.outbox.wait(said["id"], 60)
print(json.dumps([answer.status, said, item["state"], item["idempotency_key"], item["customer"]]))
"""


@pytest.mark.parametrize("effect", [{"status": 503, "body": "down"}, {"reset": {}}], ids=["503", "reset"])
def test_a_call_that_fails_is_acknowledged_and_delivered_later_under_the_same_key(
    rules: Rules, effect: dict[str, Any]
) -> None:
    path = f"/parked/{rules.name}/{'status' in effect}"
    once(rules, path, effect)
    status, said, state, key, customer = rules.run(PARK, f"PATH = {path!r}\n" + PARKED)
    assert (status, state, customer) == (202, "delivered", "acme")
    assert (said["outbox"], said["idempotency_key"]) == ("parked", key)
    requests = got(rules, path)
    assert len(requests) == 2
    for request in requests:
        assert (request["method"], request["body"]) == ("POST", "amount=7")
        assert dict(request["headers"])["idempotency-key"] == key
    story = rules.events()
    assert "`orders` has it parked in the outbox" in story
    assert f"parked: call {said['id']} of the outbox" in story


UNTAKEN = """
import pathlib
(pathlib.Path(os.environ["FARCALL_HOME"]) / "outbox.db").mkdir(parents=True)
try:
    answer = client("POST", SIM + PATH, CA, body=b"amount=7")
    seen = [answer.status, answer.body.decode()]
except Base as error:
    seen = ["raised", isinstance(error, farcall.Refused)]
print(json.dumps(seen))
"""


def test_where_the_outbox_does_not_take_it_the_application_gets_what_the_wire_said(rules: Rules) -> None:
    path = f"/untaken/{rules.name}"
    once(rules, path, {"status": 503, "body": "down"})
    assert rules.run(PARK, f"PATH = {path!r}\n" + UNTAKEN) == [503, "down"]
    story = rules.events()
    assert "would have it parked, but" in story
    assert "has it parked" not in story


def test_where_the_outbox_does_not_take_it_the_application_gets_the_error(rules: Rules) -> None:
    path = f"/untaken-error/{rules.name}"
    once(rules, path, {"reset": {}})
    assert rules.run(PARK, f"PATH = {path!r}\n" + UNTAKEN) == ["raised", False]


REFUSED = """
answer = client("POST", SIM + PATH, CA, body=b"amount=7")
said = json.loads(answer.body)["farcall"]
print(json.dumps([answer.status, said["why"], farcall.outbox.item(said["id"])["state"]]))
"""


def test_a_call_that_a_quota_refuses_is_parked_without_being_sent(rules: Rules) -> None:
    path = f"/refused/{rules.name}"
    quota = '[[quota]]\nname = "none"\nmatch = { vendor = "sim" }\nlimit = "1 request / day"\nmax_wait = "0s"\n'
    first = 'client("POST", SIM + PATH, CA, body=b"first")\n'
    seen = rules.run(PARK + quota, f"PATH = {path!r}\n" + first + REFUSED)
    assert seen == [202, "refused by quota", "pending"]
    assert [request["body"] for request in got(rules, path)] == ["first"]


# How a client of each library goes another way than straight to its URL, by what is written in the client's terms.
DETOURS = {
    "requests": {
        "proxy": "requests.post(URL, data=b'a', proxies={'http': DEAF, 'https': DEAF}, timeout=60)",
        "certificate": "requests.post(TLS, data=b'a', verify=CA, cert=CERT, timeout=60)",
        "authorities": "requests.post(TLS, data=b'a', verify=CA, timeout=60)",
        "unverified": "requests.post(TLS, data=b'a', verify=False, timeout=60)",
    },
    "urllib3": {
        "proxy": "urllib3.ProxyManager(DEAF, retries=False).request('POST', URL, body=b'a')",
        "certificate": "urllib3.PoolManager(ca_certs=CA, cert_file=CERT, retries=False).request("
        "'POST', TLS, body=b'a')",
        "authorities": "urllib3.PoolManager(ca_certs=CA, retries=False).request('POST', TLS, body=b'a')",
        "unverified": "urllib3.PoolManager(cert_reqs='NONE', retries=False).request('POST', TLS, body=b'a')",
        "name": "urllib3.PoolManager(ca_certs=CA, assert_hostname='localhost', retries=False).request("
        "'POST', TLS, body=b'a')",
        "context": "urllib3.PoolManager(ssl_context=certified(), retries=False).request('POST', TLS, body=b'a')",
        "own": "Own('127.0.0.1', 1, retries=False).request('POST', '/', body=b'a')",
        "connection": "elsewhere().request('POST', '/', body=b'a')",
    },
    "httpx": {
        "proxy": "with_httpx(proxy=DEAF)(URL)",
        "socket": "with_httpx(transport=transport(uds='/nowhere'))(URL)",
        "certificate": "with_httpx(verify=certified())(TLS)",
        "authorities": "with_httpx(verify=trusting(CA))(TLS)",
        "unverified": "with_httpx(verify=False)(TLS)",
        "name": "with_httpx(verify=trusting(CA))(TLS, extensions={'sni_hostname': 'localhost'})",
        "own": "with_httpx()(URL, extensions={'target': PATH.encode()})",
        "unchecked": "with_httpx(verify=unchecked())(TLS)",
        "connection": "with_httpx(transport=elsewhere())(URL)",
    },
}

DETOUR = """
import asyncio, ssl, warnings
from clients import trusting
warnings.simplefilter("ignore")
library = {"httpx": httpx, "httpx2": httpx2}.get(NAME.removesuffix("-async"))

class Own(urllib3.HTTPConnectionPool):
    pass

def certified():
    context = ssl.create_default_context(cafile=CA)
    context.load_cert_chain(CERT)
    return context

def unchecked():
    context = ssl.create_default_context()
    context.load_verify_locations(CA)
    context.check_hostname = False
    return context

def elsewhere():
    if library is None:
        class Connection(urllib3.connection.HTTPConnection):
            pass

        pool = urllib3.HTTPConnectionPool("127.0.0.1", 1, retries=False)
        pool.ConnectionCls = Connection
        return pool
    made = transport()

    class Backend(type(made._pool._network_backend)):
        pass

    made._pool._network_backend = Backend()
    return made

def transport(**given):
    return (library.AsyncHTTPTransport if NAME.endswith("-async") else library.HTTPTransport)(**given)

def with_httpx(**given):
    def post(url, **more):
        if not NAME.endswith("-async"):
            with library.Client(**given) as client:
                return client.post(url, content=b"a", **more)

        async def run():
            async with library.AsyncClient(**given) as client:
                return await client.post(url, content=b"a", **more)

        return asyncio.run(run())
    return post

DEAF, URL, TLS = "http://127.0.0.1:1", SIM + PATH, os.environ["SIM_TLS"] + PATH
try:
    answer = eval(ASKED)
    seen = getattr(answer, "status_code", getattr(answer, "status", None))
except Base as error:
    seen = "raised"
counters = farcall.status()["counters"]
print(json.dumps([seen, counters["unparkable_calls"], counters["unparked_calls"], farcall.status()["faults"]]))
"""

WORDS = {
    "proxy": "goes through a proxy",
    "socket": "goes through a Unix socket",
    "certificate": "has a client certificate",
    "context": "has a client certificate",
    "authorities": "certificate authorities of its own",
    "unverified": "takes any certificate",
    "name": "another name in the certificate",
    "own": "in a way of its own",
    "connection": "in a way of its own",
    "unchecked": "another name in the certificate",
}


# How mocks of httpx take the place of what goes to the network, while they are in force. `named` is what mock's own
# `autospec` makes: a function with the name and the module of the one that it stands for.
MOCKS = {
    "respx": "respx",
    "named": "mock.patch.object(Pool, METHOD, autospec=True, side_effect=answer)",
    "instance": "mock.patch.object(shared._pool, METHOD, answer_plain)",
    "before": "early",
}

MOCKED = """
import asyncio, contextlib, importlib, sys
from unittest import mock
library, asynchronous = {"httpx": httpx, "httpx2": httpx2}[NAME.removesuffix("-async")], NAME.endswith("-async")
core = importlib.import_module(library.__name__.replace("httpx", "httpcore"))
Transport = library.AsyncHTTPTransport if asynchronous else library.HTTPTransport
Pool = core.AsyncConnectionPool if asynchronous else core.ConnectionPool
METHOD = "handle_async_request" if asynchronous else "handle_request"

def answer(*_args, **_kwargs):
    return core.Response(503, content=b"down")

def plain(*_args, **_kwargs):
    return answer()

async def plain_async(*_args, **_kwargs):
    return answer()

answer_plain = plain_async if asynchronous else plain

def at_the_transport(_self, request):
    return library.Response(503, stream=library.ByteStream(b"down"), request=request)

async def at_the_transport_async(_self, request):
    return library.Response(503, stream=library.ByteStream(b"down"), request=request)

if KIND == "before":
    # A mock that was there when Farcall came.
    farcall.uninstall()
    kept = getattr(Transport, METHOD)
    setattr(Transport, METHOD, at_the_transport_async if asynchronous else at_the_transport)
    farcall.install()

@contextlib.contextmanager
def respx_mock():
    import respx
    with respx.mock(using="httpcore") as router:
        router.post(SIM + PATH).mock(return_value=httpx.Response(503, content=b"down"))
        yield

shared = Transport()
url = SIM + PATH

def post():
    if not asynchronous:
        with library.Client(transport=shared) as client:
            return client.post(url, content=b"a")
    async def run():
        async with library.AsyncClient(transport=shared) as client:
            return await client.post(url, content=b"a")
    return asyncio.run(run())

with {"respx": respx_mock, "before": contextlib.nullcontext}.get(KIND, lambda: eval(ASKED))():
    answer_seen = post()
status = farcall.status()
print(json.dumps([answer_seen.status_code, status["counters"]["unparkable_calls"], status["faults"]]))
"""


@pytest.mark.parametrize(
    ("rules", "kind"),
    [
        (client, kind)
        for client in CLIENTS
        for kind in MOCKS
        # respx knows httpx alone.
        if client.startswith("httpx") and not (kind == "respx" and client.startswith("httpx2"))
    ],
    indirect=["rules"],
)
def test_what_a_mock_answers_is_not_parked(rules: Rules, kind: str) -> None:
    if kind == "respx":
        pytest.importorskip("respx")
    path = f"/mocked/{rules.name}/{kind}"
    given = f"PATH, KIND, ASKED, NAME = {path!r}, {kind!r}, {MOCKS[kind]!r}, {rules.name!r}\n"
    assert rules.run(PARK, given + MOCKED) == [503, 1, {}]
    assert got(rules, path) == []
    story = rules.events()
    assert "would have it parked, but" in story
    assert WORDS["own"] in story


TRACED = """
import functools, httpcore, httpcore2

def traced(original):
    # As tools that trace do.
    @functools.wraps(original)
    def handle(self, request):
        return original(self, request)
    return handle

for one in (httpcore.ConnectionPool, httpcore2.ConnectionPool):
    one.handle_request = traced(one.handle_request)
for one in (httpcore.AsyncConnectionPool, httpcore2.AsyncConnectionPool):
    one.handle_async_request = traced(one.handle_async_request)
"""


@pytest.mark.parametrize("rules", [name for name in CLIENTS if name.startswith("httpx")], indirect=True)
def test_a_call_that_others_only_look_at_is_parked(rules: Rules) -> None:
    path = f"/traced/{rules.name}"
    once(rules, path, {"status": 503, "body": "down"})
    status, _, state, _, customer = rules.run(PARK, f"PATH = {path!r}\n" + TRACED + PARKED)
    assert (status, state, customer) == (202, "delivered", "acme")


@pytest.fixture
def certificate(tmp_path: Path) -> str:
    """A file with a client certificate of nobody, and its key."""
    node = (ROOT / "node" / "test" / "support" / "certificate.mjs").read_text()
    path = tmp_path / "client.pem"
    path.write_text("".join(re.findall(r"-----BEGIN.*?-----END[^\n]*-----\n", node, re.DOTALL)))
    return str(path)


def library_of(client: str) -> str:
    return "httpx" if client.startswith("httpx") else client


@pytest.mark.parametrize(
    ("rules", "kind"),
    [(client, kind) for client in CLIENTS for kind in DETOURS[library_of(client)]],
    indirect=["rules"],
)
def test_a_call_that_goes_another_way_than_a_delivery_would_is_not_parked(
    rules: Rules, kind: str, certificate: str
) -> None:
    asked = DETOURS[library_of(rules.name)][kind]
    path = f"/detour/{rules.name}/{kind}"
    once(rules, path, {"status": 503, "body": "down"})
    given = f"PATH, ASKED, NAME, CERT = {path!r}, {asked!r}, {rules.name!r}, {certificate!r}\n"
    seen, unparkable, unparked, faults = rules.run(PARK, given + DETOUR)
    # A connection that breaks off, or a vendor that says no: never "parked".
    assert seen in (503, "raised")
    assert (unparkable, unparked, faults) == (1, 0, {})
    story = rules.events()
    assert "would have it parked, but" in story
    assert "has it parked" not in story
    assert WORDS[kind] in story


def test_a_call_whose_authorities_are_the_systems_is_parked(rules: Rules) -> None:
    path = f"/trusted/{rules.name}"
    once(rules, path, {"status": 503, "body": "down"})
    rules.program.environment["SSL_CERT_FILE"] = rules.sim.ca
    status, _, state, _, customer = rules.run(
        PARK, f"PATH = {path!r}\n" + PARKED.replace("SIM +", "os.environ['SIM_TLS'] +")
    )
    assert (status, state, customer) == (202, "delivered", "acme")


BUNDLE = Path("/etc/ssl/certs/ca-certificates.crt")


@pytest.mark.skipif(not BUNDLE.exists(), reason="this system keeps what it trusts elsewhere")
@pytest.mark.parametrize("rules", ["requests", "httpx"], indirect=True)
def test_a_system_of_which_openssl_knows_no_bundle_is_known_all_the_same(rules: Rules) -> None:
    # As many builds of OpenSSL are, which look elsewhere.
    rules.program.environment["SSL_CERT_FILE"] = "/nowhere"
    asked = f"""
answer = client("POST", os.environ["SIM_TLS"] + "/trusting", {str(BUNDLE)!r}, body=b"a")
print(json.dumps([answer.status, json.loads(answer.body)["farcall"]["why"]]))
"""
    assert rules.run(PARK, asked) == [202, "failed (tls)"]
