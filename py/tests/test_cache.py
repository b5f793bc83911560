"""Where a rule keeps answers, every client hands them out, as responses like any other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from conftest import TARGET

if TYPE_CHECKING:
    from ruled import Rules

KEEP = '[[cache]]\nname = "all"\nmatch = {}\ncoalesce = "60s"\n'

HEAD = """
import farcall, keeping
ask = keeping.CLIENTS[{name!r}](CA)
TLS = os.environ["SIM_TLS"]
AT = TLS + {path!r}
def show(*answers):
    print(json.dumps([[a.status, a.kept, a.headers, a.body.decode("latin-1")] for a in answers]))
"""


class Kept:
    """A path of the vendor's, asked for by programs with one client where answers are kept."""

    def __init__(self, rules: Rules, name: str, **effect: Any) -> None:
        self.rules, self.sim = rules, rules.sim
        self.path = f"/kept/{name}/{rules.name}"
        if effect:
            self.script(**effect)

    def script(self, count: int | None = None, **effect: Any) -> None:
        rule: dict[str, Any] = {"match": {"path": self.path}, "effect": effect}
        self.sim.control("POST", "script", rule if count is None else rule | {"count": count})

    def run(self, code: str, keys: str = "", path: str | None = None, top: str = "") -> Any:
        head = HEAD.format(name=self.rules.name, path=path or self.path)
        return self.rules.run(top + KEEP + keys, head + code)

    def asked(self, path: str | None = None) -> list[dict[str, Any]]:
        """What came to the vendor."""
        self.sim.counts(self.path)  # waits until no exchange is open
        every = self.sim.control("GET", "requests?last=500")
        return [one for one in every if one["path"] == (path or self.path)]

    def outcomes(self) -> dict[tuple[int, str], int]:
        return self.rules.outcomes()


DISK = 'cache_disk = "16MiB"\ncache_disk_wait = "30s"\n'
FRESH = {"cache-control": "max-age=600"}
#: One client of each kind, for what the engine decides: the others differ in nothing there.
FEW = ["requests", "httpx2", "httpx2-async"]


def test_a_fresh_answer_is_asked_for_once_and_says_where_it_comes_from(rules: Rules) -> None:
    kept = Kept(rules, "fresh", headers=FRESH)
    first, *others = kept.run("show(*[ask(AT) for _ in range(3)])")

    assert len(kept.asked()) == 1
    assert first[:2] == [200, ""]
    for status, says, headers, body in others:
        assert (status, body) == (200, first[3])
        assert says.startswith("farcall; hit; ttl=")
        assert int(headers["age"]) < 600
        assert {name: headers.get(name) for name in first[2]} == first[2], "every header of the vendor's"
    assert kept.outcomes() == {(200, "complete"): 1, (200, "cached"): 2}
    assert rules.total("calls", "attempts", "saved_bytes") == (3, 1, 2 * len(first[3]))


@pytest.mark.parametrize("rules", FEW, indirect=True)
def test_without_a_rule_nothing_is_kept_and_no_call_is_one_that_could_not_be(rules: Rules) -> None:
    kept = Kept(rules, "unruled", headers=FRESH)
    code = HEAD.format(name=rules.name, path=kept.path) + "ask(AT); ask(AT); print('null')"
    rules.run('[[cache]]\nname = "other"\nmatch = { vendor = "stripe" }\n', code)
    assert len(kept.asked()) == 2


@pytest.mark.parametrize("rules", FEW, indirect=True)
def test_no_call_goes_by_a_rule_that_its_client_could_not_follow(rules: Rules) -> None:
    kept = Kept(rules, "counted", headers=FRESH)
    counters = kept.run("ask(AT); ask(AT); print(json.dumps(farcall.status()))")
    assert counters["counters"]["uncached_calls"] == 0
    assert counters["faults"] == {}


def test_a_stale_answer_is_asked_about_and_stays_what_it_was(rules: Rules) -> None:
    kept = Kept(rules, "tagged")
    answers = kept.run("show(*[ask(AT) for _ in range(3)])", path="/scenario/etag")
    asked = kept.asked("/scenario/etag")[-3:]

    assert [status for status, *_ in answers] == [200, 200, 200]
    assert {body for *_, body in answers} == {"the same as ever"}
    assert [one["status"] for one in asked] == [200, 304, 304]
    assert [_has(one, "if-none-match") for one in asked] == [False, True, True]
    assert answers[2][1].startswith("farcall; fwd=stale; fwd-status=304")
    assert len({one["connection"] for one in asked}) == 1, "an answer without a body leaves its connection open"
    assert kept.outcomes() == {(200, "complete"): 3}


@pytest.mark.parametrize("rules", FEW, indirect=True)
def test_answers_that_vary_are_kept_apart_by_what_they_vary_by(rules: Rules) -> None:
    kept = Kept(rules, "vary", headers=FRESH | {"vary": "accept-language"})
    kept.run("[ask(AT, {'accept-language': of}) for of in ('de', 'fr', 'de', 'fr')]")
    assert [_value(one, "accept-language") for one in kept.asked()] == ["de", "fr"]


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


DOWN = """
first = ask(AT)
kill()
show(first, ask(AT), ask(AT))
"""


def test_a_vendor_that_is_down_is_stood_in_for_by_a_stale_answer(rules: Rules, tmp_path: Any) -> None:
    kept = Kept(rules, "down")
    own = f"""
import subprocess
vendor = subprocess.Popen([{str(TARGET / "debug" / "vendor-sim")!r}, "--dir", {str(tmp_path)!r}],
                          stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True)
ready = json.loads(vendor.stdout.readline())
ask = keeping.CLIENTS[{rules.name!r}](ready["ca"])
AT = "https://localhost:" + ready["tls"].rpartition(":")[2] + "/scenario/etag"
def kill():
    vendor.kill()
    vendor.wait()
"""
    first, second, third = kept.run(own + DOWN, 'stale_if_error = "1h"\n')
    assert first[3] == second[3] == third[3] == "the same as ever"
    assert second[1].endswith("detail=stale-if-error")
    assert kept.outcomes() == {(200, "complete"): 1, (200, "stale"): 2}


@pytest.mark.parametrize("rules", FEW, indirect=True)
def test_an_answer_that_is_an_error_is_stood_in_for_too(rules: Rules) -> None:
    kept = Kept(rules, "broken")
    kept.script(count=1, headers={"cache-control": "max-age=0", "etag": '"1"'}, body="good")
    kept.script(status=503)
    first, second = kept.run("show(ask(AT), ask(AT))", 'stale_if_error = "1h"\n')
    assert (first[0], first[3], second[0], second[3]) == (200, "good", 200, "good")
    assert "fwd-status=503" in second[1]
    assert [one["status"] for one in kept.asked()] == [200, 503]


@pytest.mark.parametrize("rules", FEW, indirect=True)
def test_a_purge_makes_programs_forget(rules: Rules) -> None:
    kept = Kept(rules, "purged", headers=FRESH)
    cli = TARGET / "debug" / "farcall"
    assert cli.exists(), "build it first: cargo build -p farcall-cli"
    code = f"""
import subprocess
answers = [ask(AT), ask(AT)]
farcall.flush()
subprocess.run([{str(cli)!r}, "cache", "purge", "vendor=sim"], check=True, stdout=subprocess.DEVNULL)
farcall.flush()
show(*answers, ask(AT), ask(AT))
"""
    answers = kept.run(code)
    assert [says != "" for _, says, *_ in answers] == [False, True, False, True]
    assert len(kept.asked()) == 2


@pytest.mark.parametrize("rules", FEW, indirect=True)
def test_a_program_can_have_answers_forgotten_by_what_they_are(rules: Rules) -> None:
    kept = Kept(rules, "purged-here", headers=FRESH)
    code = """
def told(**which):
    many = farcall.purge_cache(**which)
    farcall.flush()
    return many
def refused(**which):
    try:
        farcall.purge_cache(**which)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
with farcall.customer("acme"):
    answers = [ask(AT), ask(AT)]
    many = [told(customer="other", vendor="sim")]
    answers.append(ask(AT))
    many.append(told(customer="acme", vendor="sim", method="GET"))
    answers.append(ask(AT))
    many.append(told())
    answers.append(ask(AT))
why = [refused(vendor="sym"), refused(vendor="sim", home="/nowhere/at/all"), refused(status="200")]
print(json.dumps([[a.kept for a in answers], many, why]))
"""
    says, many, why = kept.run(code)
    assert [said != "" for said in says] == [False, True, True, False, False]
    assert many == [1, 1, 1], "this program"
    assert why[0].startswith("ValueError: the vendor `sym` is not known")
    assert [text.partition(":")[0] for text in why[1:]] == ["OSError", "TypeError"]
    assert len(kept.asked()) == 3


def test_a_stampede_makes_one_call_and_holds_up_nobody_else(rules: Rules) -> None:
    kept = Kept(rules, "stampede", headers=FRESH, latency_ms=700)
    answers = kept.run("show(*keeping.ask_many(ask, 24, AT))")
    assert len(kept.asked()) == 1
    assert len({body for *_, body in answers}) == 1
    assert kept.outcomes() == {(200, "complete"): 1, (200, "cached"): 23}


@pytest.mark.parametrize("rules", ["requests", "urllib3", "httpx", "httpx2"], indirect=True)
def test_who_waits_for_another_call_takes_no_connection_that_it_needs(rules: Rules) -> None:
    kept = Kept(rules, "one-connection", headers=FRESH, latency_ms=300)
    code = {
        "requests": """
session = keeping.requests.Session()
session.mount("https://", keeping.requests.adapters.HTTPAdapter(pool_maxsize=1, pool_block=True))
def get(): return session.get(AT, verify=CA, timeout=60).status_code
""",
        "urllib3": """
pool = keeping.urllib3.PoolManager(maxsize=1, block=True, ca_certs=CA, timeout=60)
def get(): return pool.request("GET", AT).status
""",
    }
    httpx = """
library = keeping.{library}
client = library.Client(verify=keeping.ssl.create_default_context(cafile=CA), timeout=60,
                        limits=library.Limits(max_connections=1))
def get(): return client.get(AT).status_code
"""
    code |= {name: httpx.format(library=name) for name in ("httpx", "httpx2")}
    many = """
from concurrent.futures import ThreadPoolExecutor
with ThreadPoolExecutor(8) as threads:
    print(json.dumps(list(threads.map(lambda _: get(), range(8)))))
"""
    assert kept.run(code[rules.name] + many) == [200] * 8
    assert len(kept.asked()) == 1


@pytest.mark.parametrize("rules", ["httpx-async", "httpx2-async"], indirect=True)
def test_an_event_loop_goes_on_while_tasks_wait_for_another(rules: Rules) -> None:
    kept = Kept(rules, "loop", headers=FRESH, latency_ms=700)
    code = f"""
import asyncio
library = keeping.{rules.name.removesuffix("-async")}
async def tick(ticks):
    while True:
        await asyncio.sleep(0.01)
        ticks.append(1)
async def main():
    ticks = []
    ticking = asyncio.create_task(tick(ticks))
    async with library.AsyncClient(verify=keeping.ssl.create_default_context(cafile=CA), timeout=60) as client:
        first = asyncio.create_task(client.get(AT))
        answers = await asyncio.gather(*(client.get(AT) for _ in range(5)), first)
    ticking.cancel()
    return [len(ticks), [answer.status_code for answer in answers]]
print(json.dumps(asyncio.run(main())))
"""
    ticks, statuses = kept.run(code)
    assert statuses == [200] * 6
    assert ticks >= 3
    assert len(kept.asked()) == 1


@pytest.mark.parametrize("rules", ["httpx-async", "httpx2-async"], indirect=True)
def test_a_task_that_is_cancelled_hands_over_to_those_that_wait(rules: Rules) -> None:
    kept = Kept(rules, "cancelled")
    kept.script(count=1, hang=True)
    kept.script(headers=FRESH)
    code = f"""
import asyncio
import urllib.request
library = keeping.{rules.name.removesuffix("-async")}
def has_come():
    counts = json.load(urllib.request.urlopen(SIM + "/_sim/counts", timeout=60))
    return any(row["path"] == {kept.path!r} for row in counts["rows"])
async def main():
    async with library.AsyncClient(verify=keeping.ssl.create_default_context(cafile=CA), timeout=60) as client:
        first = asyncio.create_task(client.get(AT))
        while not await asyncio.to_thread(has_come):
            await asyncio.sleep(0.01)
        others = [asyncio.create_task(client.get(AT)) for _ in range(5)]
        await asyncio.sleep(0)
        others.pop().cancel()
        first.cancel()
        return [answer.status_code for answer in await asyncio.gather(*others)]
print(json.dumps(asyncio.run(main())))
"""
    assert kept.run(code) == [200] * 4
    assert len(kept.asked()) == 2


def test_an_answer_that_was_let_go_of_is_not_kept(rules: Rules) -> None:
    kept = Kept(rules, "half", headers=FRESH)
    path = f"/scenario/bytes/200000?of={rules.name}"
    answers = kept.run("show(ask(AT, part=True), ask(AT), ask(AT))", 'ttl = "1h"\n', path=path)
    assert [says != "" for _, says, *_ in answers] == [False, False, True]
    assert len(answers[2][3]) == 200_000


def test_an_answer_that_broke_off_is_not_kept(rules: Rules) -> None:
    kept = Kept(rules, "cut")
    kept.script(count=1, headers=FRESH, body="x" * 5000, truncate={"after_bytes": 2000})
    kept.script(headers=FRESH, body="x" * 5000)
    code = """
try:
    ask(AT)
except (Base, OSError):
    show(ask(AT), ask(AT))
"""
    answers = kept.run(code)
    assert [(len(body), says != "") for _, says, _, body in answers] == [(5000, False), (5000, True)]


def test_a_compressed_answer_comes_out_as_it_did_the_first_time(rules: Rules) -> None:
    kept = Kept(rules, "gzip")
    first, second = kept.run("show(ask(AT), ask(AT))", 'ttl = "1h"\n', path=f"/scenario/gzip?of={rules.name}")
    assert second[1].startswith("farcall; hit")
    assert first[3] == second[3] == "All work and no play makes Jack a dull boy.\n" * 100
    assert second[2]["content-encoding"] == "gzip"


@pytest.mark.parametrize("rules", FEW, indirect=True)
def test_streams_and_large_bodies_pass_and_are_not_kept(rules: Rules) -> None:
    kept = Kept(rules, "passing")
    code = f"""
one, other = TLS + "/scenario/sse?of={rules.name}", TLS + "/scenario/bytes/5000?of={rules.name}"
show(ask(one), ask(one), ask(other), ask(other))
"""
    answers = kept.run(code, 'ttl = "1h"\nmax_bytes = "4KiB"\n')
    assert [says for _, says, *_ in answers] == ["", "", "", ""]


@pytest.mark.parametrize("rules", FEW, indirect=True)
def test_a_change_makes_what_was_kept_of_its_path_useless(rules: Rules) -> None:
    kept = Kept(rules, "changed", headers=FRESH)
    kept.run("[ask(AT), ask(AT), ask(AT, method='DELETE'), ask(AT), ask(AT)]")
    assert [one["method"] for one in kept.asked()] == ["GET", "DELETE", "GET"]


def test_latin_headers_of_an_answer_stay_what_they_were(rules: Rules) -> None:
    kept = Kept(rules, "latin", headers=FRESH | {"x-name": {"hex": "6a6fe9"}})
    first, second = kept.run("show(ask(AT), ask(AT))")
    assert second[1].startswith("farcall; hit")
    assert first[2]["x-name"] == second[2]["x-name"]


# What each library's own responses can do


HTTPX = """
import {library} as library
verify = keeping.ssl.create_default_context(cafile=CA)
client = library.Client(verify=verify)
def both():
    # Each without the cookie that the other one got.
    return [library.get(AT, verify=verify) for _ in range(2)]
def look(r):
    return [r.json(), r.text, r.http_version, r.reason_phrase, r.is_closed, str(r.url), r.elapsed.total_seconds() >= 0,
            r.request.method, r.num_bytes_downloaded, r.encoding, sorted(r.cookies.items()), type(r).__qualname__]
first, second = both()
assert look(first) == look(second), (look(first), look(second))
assert "cache-status" in second.headers and "cache-status" not in first.headers
client.stream = lambda *of, stream=client.stream: (client.cookies.clear(), stream(*of))[1]
with client.stream("GET", AT) as r:
    assert not r.is_closed
    lines = list(r.iter_lines())
with client.stream("GET", AT) as r:
    raw = b"".join(r.iter_raw(7))
with client.stream("GET", AT) as r:
    pass
assert r.is_closed
print(json.dumps(["".join(lines) == first.text, raw == first.content, "cache-status" in r.headers]))
"""


@pytest.mark.parametrize("rules", ["httpx", "httpx2"], indirect=True)
def test_a_kept_answer_is_a_response_of_httpx(rules: Rules) -> None:
    kept = Kept(rules, "shape", headers=FRESH | {"set-cookie": "a=b"})
    assert kept.run(HTTPX.format(library=rules.name)) == [True, True, True]
    assert len(kept.asked()) == 1


REQUESTS = """
import copy, pickle, requests
def get(**options):
    # Each without the cookie that the other one got.
    return requests.get(AT, verify=CA, **options)
def look(r):
    return [r.json(), r.text, r.status_code, r.reason, r.url, r.elapsed.total_seconds() >= 0, r.request.method, r.ok,
            r.encoding, r.raw.version, r.raw.status, r.raw.reason, r.raw.read(), r.raw.headers["content-type"],
            r.raw.closed, r.is_redirect, r.history, sorted(r.cookies.items()), type(r).__name__, type(r.raw).__name__,
            type(r.connection).__name__, r.next, r.links, list(r.iter_content(5))]
first, second = get(), get()
assert look(first) == look(second), (look(first), look(second))
assert "Cache-Status" in second.headers and "cache-status" not in first.headers
assert pickle.loads(pickle.dumps(second)).json() == first.json()
for jar in (get().cookies.copy(), copy.copy(get().cookies), pickle.loads(pickle.dumps(get().cookies)), get().cookies):
    assert type(jar.get_policy()).__name__ == "DefaultCookiePolicy"
    assert isinstance(jar, requests.cookies.RequestsCookieJar)
    assert sorted(jar.items()) == sorted(first.cookies.items())
jars = [get().cookies, get().cookies]
jars[0].set("own", "1")
assert "own" not in jars[1].keys()
r = get(stream=True)
read = r.raw.read(10) + r.raw.read()
r = get(stream=True)
chunks = b"".join(r.iter_content(7))
r = get(stream=True)
assert b"".join(r.iter_content(None)) == chunks
with get(stream=True) as r:
    lines = list(r.iter_lines())
r = get(stream=True)
r.close()
same = [part == first.content for part in (read, chunks, b"".join(lines))]
print(json.dumps([*same, "age" in r.headers]))
"""


@pytest.mark.parametrize("rules", ["requests"], indirect=True)
@pytest.mark.parametrize("cookie", [False, True], ids=["plain", "cookie"])
def test_a_kept_answer_is_a_response_of_requests(rules: Rules, cookie: bool) -> None:
    more = {"set-cookie": "a=b; Path=/"} if cookie else {}
    kept = Kept(rules, f"shape-{cookie}", headers=FRESH | more)
    assert kept.run(REQUESTS) == [True, True, True, True]


URLLIB3 = """
import io, urllib3
pool = urllib3.PoolManager(ca_certs=CA)
def get(**options):
    return pool.request("GET", AT, **options)
first, second = get(), get()
def look(r):
    return [r.json(), r.data, r.status, r.reason, r.version, r.headers["content-type"], type(r).__name__]
assert look(first) == look(second), (look(first), look(second))
r = get(preload_content=False)
text = io.TextIOWrapper(r).read()
r = get(preload_content=False)
chunks = b"".join(r.stream(7))
r.release_conn()
r = get(preload_content=False)
assert b"".join(r.stream(None)) == chunks
assert list(r.stream(None)) == []
r = get(preload_content=False)
r.drain_conn()
print(json.dumps([text == first.data.decode(), chunks == first.data, "age" in r.headers]))
"""


@pytest.mark.parametrize("rules", ["urllib3"], indirect=True)
def test_a_kept_answer_is_a_response_of_urllib3(rules: Rules) -> None:
    kept = Kept(rules, "shape", headers=FRESH)
    assert kept.run(URLLIB3) == [True, True, True]
    assert len(kept.asked()) == 1


#: A call that never ends, and one beside it that has less time.
HASTY = {
    "requests": """
session = keeping.requests.Session()
def get(timeout): return session.get(AT, verify=CA, timeout=(60, timeout)).status_code
""",
    "urllib3": """
pool = keeping.urllib3.PoolManager(ca_certs=CA, retries=False)
def get(timeout): return pool.request("GET", AT, timeout=timeout).status
""",
    "httpx": """
client = keeping.httpx.Client(verify=keeping.ssl.create_default_context(cafile=CA))
def get(timeout): return client.get(AT, timeout=timeout).status_code
""",
    "httpx2-async": """
import asyncio
loop = asyncio.new_event_loop()
threading.Thread(target=loop.run_forever, daemon=True).start()
client = keeping.httpx2.AsyncClient(verify=keeping.ssl.create_default_context(cafile=CA))
def get(timeout): return asyncio.run_coroutine_threadsafe(client.get(AT, timeout=timeout), loop).result().status_code
""",
}


@pytest.mark.parametrize("rules", list(HASTY), indirect=True)
def test_nobody_waits_for_an_equal_call_longer_than_its_own_timeout(rules: Rules) -> None:
    kept = Kept(rules, "hasty")
    kept.script(count=1, hang=True)
    kept.script(headers=FRESH)
    code = f"""
import threading, urllib.request
def has_come():
    counts = json.load(urllib.request.urlopen(SIM + "/_sim/counts", timeout=60))
    return any(row["path"] == {kept.path!r} for row in counts["rows"])
{HASTY[rules.name]}
first = threading.Thread(target=get, args=(3600,), daemon=True)
first.start()
while not has_come():
    time.sleep(0.01)
print(json.dumps([get(3), first.is_alive()]), flush=True)
os._exit(0)
"""
    # Where it waited for as long as the rule says it would ask after that, too, but only once the first was given up.
    assert kept.run(code, top='[[resilience]]\nmatch = {}\ndeadline = "50s"\n') == [200, True]
    assert len(kept.asked()) == 2


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


@pytest.mark.parametrize("rules", ["requests"], indirect=True)
def test_a_restarted_program_finds_on_the_disk_what_was_kept_there(rules: Rules) -> None:
    kept = Kept(rules, "on-disk", headers=FRESH)
    shown = [kept.run("show(ask(AT))", top=DISK)[0] for _ in range(2)]
    assert [("hit" in status, body) for _, status, _, body in shown] == [(False, shown[0][3]), (True, shown[0][3])]
    assert len(kept.asked()) == 1


@pytest.mark.parametrize("rules", ["httpx", "httpx2"], indirect=True)
def test_what_a_context_of_one_program_got_is_not_for_that_of_another(rules: Rules) -> None:
    kept = Kept(rules, "context-on-disk", headers=FRESH)
    # Each program has a TLS context of its own, which may show another certificate.
    for _ in range(2):
        kept.run("show(ask(AT), ask(AT))", top=DISK)
    assert len(kept.asked()) == 2


def _has(one: dict[str, Any], name: str) -> bool:
    return _value(one, name) is not None


def _value(one: dict[str, Any], name: str) -> str | None:
    headers = one["headers"]
    pairs = headers.items() if isinstance(headers, dict) else headers
    return next((value for known, value in pairs if known.lower() == name), None)
