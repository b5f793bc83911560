"""A kept answer is a response of the library that asked, and comes out as it did the first time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from kept import FRESH, Kept

if TYPE_CHECKING:
    from ruled import Rules


def test_a_compressed_answer_comes_out_as_it_did_the_first_time(rules: Rules) -> None:
    kept = Kept(rules, "gzip")
    first, second = kept.run("show(ask(AT), ask(AT))", 'ttl = "1h"\n', path=f"/scenario/gzip?of={rules.name}")
    assert second[1].startswith("farcall; hit")
    assert first[3] == second[3] == "All work and no play makes Jack a dull boy.\n" * 100
    assert second[2]["content-encoding"] == "gzip"


def test_latin_headers_of_an_answer_stay_what_they_were(rules: Rules) -> None:
    kept = Kept(rules, "latin", headers=FRESH | {"x-name": {"hex": "6a6fe9"}})
    first, second = kept.run("show(ask(AT), ask(AT))")
    assert second[1].startswith("farcall; hit")
    assert first[2]["x-name"] == second[2]["x-name"]


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
