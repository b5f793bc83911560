"""Nobody gets an answer that was given to somebody else."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from kept import DISK, FEW, FRESH, Kept, header

if TYPE_CHECKING:
    from ruled import Rules


@pytest.mark.parametrize("rules", FEW, indirect=True)
def test_answers_that_vary_are_kept_apart_by_what_they_vary_by(rules: Rules) -> None:
    kept = Kept(rules, "vary", headers=FRESH | {"vary": "accept-language"})
    kept.run("[ask(AT, {'accept-language': of}) for of in ('de', 'fr', 'de', 'fr')]")
    assert [header(one, "accept-language") for one in kept.asked()] == ["de", "fr"]


def test_nobody_gets_what_was_answered_to_another_credential_customer_or_host(rules: Rules) -> None:
    kept = Kept(rules, "apart", headers=FRESH)
    code = """
    for _ in range(2):
        for of in ("a", "b"):
            ask(AT, {"authorization": "Bearer " + of})
            ask(AT, {"x-unheard-of": of})
            ask(AT, {"host": of + ".example"})
            with farcall.customer(of):
                ask(AT)
    """
    kept.run("\n".join(line[4:] for line in code.splitlines()))
    assert len(kept.asked()) == 8


#: Through a proxy each, and how often each of these was asked.
PROXIES = """
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
import threading
class Proxy(BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.asked += 1
        body = str(self.server.server_port).encode()
        self.send_response(200)
        self.send_header("cache-control", "max-age=600")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_): pass
proxies = [ThreadingHTTPServer(("127.0.0.1", 0), Proxy) for _ in range(2)]
for proxy in proxies:
    proxy.asked = 0
    threading.Thread(target=proxy.serve_forever, daemon=True).start()
ports = [proxy.server_port for proxy in proxies]
at = [f"http://127.0.0.1:{port}" for port in ports]
URL = "http://prices.internal/now"
"""

BY_PROXY = {
    "requests": """
session = keeping.requests.Session()
def get(proxy): return session.get(URL, proxies={"http": proxy}).text
""",
    "urllib3": """
def get(proxy): return keeping.urllib3.ProxyManager(proxy).request("GET", URL).data
""",
    "httpx": """
clients = {proxy: keeping.httpx.Client(proxy=proxy) for proxy in at}
def get(proxy): return clients[proxy].get(URL).text
""",
    "httpx2-async": """
import asyncio
def get(proxy):
    async def ask():
        async with keeping.httpx2.AsyncClient(proxy=proxy) as client:
            return (await client.get(URL)).text
    return asyncio.run(ask())
""",
}


@pytest.mark.parametrize("rules", list(BY_PROXY), indirect=True)
def test_what_came_through_one_proxy_is_not_for_who_asks_through_another(rules: Rules) -> None:
    kept = Kept(rules, "proxied")
    code = """
got = [int(get(proxy)) == port for _ in range(2) for proxy, port in zip(at, ports)]
print(json.dumps([got, [proxy.asked for proxy in proxies]]))
"""
    assert kept.run(PROXIES + BY_PROXY[rules.name] + code) == [[True] * 4, [1, 1]]


@pytest.mark.parametrize("rules", ["requests"], indirect=True)
def test_who_a_proxy_knows_keeps_his_answers_to_himself(rules: Rules) -> None:
    kept = Kept(rules, "known-to-a-proxy")
    code = """
own = at[0].replace("//", "//me:secret@")
got = [int(get(proxy)) for proxy in (at[0], own, at[0], own)]
print(json.dumps(proxies[0].asked))
"""
    assert kept.run(PROXIES + BY_PROXY[rules.name] + code, top=DISK) == 2
    assert not any(b"secret" in path.read_bytes() for path in rules.program.home.rglob("*") if path.is_file())


@pytest.mark.parametrize("rules", ["requests"], indirect=True)
def test_a_connection_that_nobody_verified_keeps_its_answers_to_itself(rules: Rules) -> None:
    kept = Kept(rules, "unverified", headers=FRESH)
    code = """
import requests, warnings
warnings.simplefilter("ignore")
for verify in (False, CA, False, CA):
    requests.get(AT, verify=verify)
print("null")
"""
    kept.run(code)
    assert len(kept.asked()) == 2


@pytest.mark.parametrize("rules", ["httpx", "httpx2"], indirect=True)
def test_clients_with_a_certificate_keep_their_answers_to_themselves(rules: Rules) -> None:
    kept = Kept(rules, "certified", headers=FRESH)
    code = f"""
import {rules.name} as library
one, other = (keeping.ssl.create_default_context(cafile=CA) for _ in range(2))
for verify in (one, other, one, other):
    with library.Client(verify=verify) as client:
        assert client.get(AT).status_code == 200
print("null")
"""
    kept.run(code)
    assert len(kept.asked()) == 2


@pytest.mark.parametrize("rules", ["httpx", "httpx2"], indirect=True)
def test_what_a_context_of_one_program_got_is_not_for_that_of_another(rules: Rules) -> None:
    kept = Kept(rules, "context-on-disk", headers=FRESH)
    # Each program has a TLS context of its own, which may show another certificate.
    for _ in range(2):
        kept.run("show(ask(AT), ask(AT))", top=DISK)
    assert len(kept.asked()) == 2
