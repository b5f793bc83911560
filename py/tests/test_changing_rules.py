"""Rules that come or go while a call is under way: it is counted once, with its own outcome."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from ruled import Rules

RETRY = '[[resilience]]\nmatch = { vendor = "sim" }\nattempts = 2\nbackoff = "1ms..2ms"\n'
CACHE = '[[cache]]\nmatch = { vendor = "sim", endpoint = "GET /kept" }\nttl = "1m"\n'
RULES = RETRY + CACHE

#: `change()` puts the other rules in force, once: none for some, or `RULES` for none.
CHANGE = f"""
from pathlib import Path
config = Path(os.environ["FARCALL_CONFIG"])
rules, vendor = {RULES!r}, config.read_text().partition("[[vendor]]")[2]
def reloads():
    return farcall.status()["counters"].get("reloads", 0)
def change():
    if reloads():
        return
    there = config.read_text().startswith("[[vendor]]")
    config.with_suffix(".new").write_text((rules if there else "") + "[[vendor]]" + vendor)
    config.with_suffix(".new").replace(config)
    end = time.monotonic() + 60
    while not reloads():
        assert time.monotonic() < end, "nobody looked at the rules"
        time.sleep(0.01)
"""

#: A session of requests that does so after its adapter was asked to send, and before urllib3 is.
BETWEEN = """
from requests.adapters import HTTPAdapter
class Between(HTTPAdapter):
    def add_headers(self, request, **kwargs):
        between()
between = change
session = requests.Session()
session.mount("http://", Between())
"""
#: The same with an adapter of requests' own, which the native hook knows.
OWN = (
    BETWEEN
    + """
session.mount("http://", HTTPAdapter())
session.adapters["http://"].add_headers = lambda *_, **__: between()
"""
)
ASK = """
try:
    answer = session.get(SIM + {path!r}, stream={stream})
    print(json.dumps([answer.status_code, len(answer.content)]))
except requests.ConnectionError as error:
    print(json.dumps([0, 0]))
"""
ENDINGS = {
    "/scenario/ok": (200, "complete"),
    "/scenario/reset": (0, "reset"),
    "/scenario/status/404": (404, "complete"),
}


@pytest.mark.parametrize("path", ENDINGS)
@pytest.mark.parametrize("session", [BETWEEN, OWN], ids=["subclass", "own"])
@pytest.mark.parametrize("before", [RULES, ""], ids=["go", "come"])
@pytest.mark.parametrize("rules", ["requests"], indirect=True)
def test_rules_that_change_between_requests_and_urllib3(rules: Rules, before: str, session: str, path: str) -> None:
    arrived = rules.sim.counts(path)["calls"]
    status, _ = rules.run(before, CHANGE + session + ASK.format(path=path, stream=False))
    arrived = rules.sim.counts(path)["calls"] - arrived

    assert status == ENDINGS[path][0]
    assert rules.outcomes() == {ENDINGS[path]: 1}
    # Under the rules that it began under, a call that failed is made again.
    assert rules.total("calls", "attempts") == (1, arrived)
    if path == "/scenario/reset":
        assert arrived == 2
    if status == 200:
        assert rules.total("bytes_in") > (0,)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("rules", ["requests"], indirect=True)
def test_hooks_that_are_taken_out_between_requests_and_urllib3(rules: Rules, stream: bool) -> None:
    out = "between = farcall.uninstall\n"
    status, _ = rules.run(RULES, CHANGE + BETWEEN + out + ASK.format(path="/scenario/ok", stream=stream))
    assert status == 200
    assert rules.outcomes() == {(200, "complete"): 1}


@pytest.mark.parametrize("rules", ["requests"], indirect=True)
def test_what_is_held_holds_up_nobody(rules: Rules) -> None:
    # Others that call meanwhile, and after one that was never sent.
    code = """
others = {name: CLIENTS[name] for name in ("urllib3", "httpx", "httpx2", "httpx-async")}
def calls():
    for other in others.values():
        assert other("GET", SIM + "/scenario/ok", CA).status == 200
import threading
def between():
    change()
    thread = threading.Thread(target=calls)
    thread.start()
    thread.join()
    raise KeyboardInterrupt
try:
    session.get(SIM + "/scenario/ok")
except KeyboardInterrupt:
    pass
from farcall._native import native
assert not native.decides()
calls()
"""
    rules.run(RULES, CHANGE + OWN + code)
    assert rules.outcomes() == {(200, "complete"): 8, (0, "cancelled"): 1}


@pytest.mark.parametrize("before", [RULES, ""], ids=["go", "come"])
def test_rules_that_change_while_a_body_is_sent(rules: Rules, before: str) -> None:
    path = f"/changing/{rules.name}"
    keyword = "async def" if "async" in rules.name else "def"
    body = f'{keyword} chunks():\n    yield b"x" * 10\n    change()\n    yield b"x" * 10\n'
    code = f'{CHANGE}{body}print(client("PUT", SIM + "{path}", CA, body=chunks()).status)'
    assert rules.run(before, code) == 200
    assert rules.outcomes() == {(200, "complete"): 1}
    assert rules.total("calls", "bytes_out") == (1, 20)


def test_rules_that_go_while_a_call_begins(rules: Rules) -> None:
    # Where an adapter learns that rules decide, and before it has them decide.
    code = """
from farcall._adapters import httpx_, urllib3_
from farcall._native import native
def begin(*args):
    call = native.begin(*args)
    change()
    return call
for adapter in (httpx_, urllib3_):
    adapter.begin = begin
print(client("GET", SIM + "/scenario/ok", CA).status)
"""
    assert rules.run(RETRY, CHANGE + code) == 200
    assert rules.outcomes() == {(200, "complete"): 1}
