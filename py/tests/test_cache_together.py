"""Of calls that ask the same at once, one is made: who waits for it holds up nobody, and is held up by nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from kept import FRESH, Kept

if TYPE_CHECKING:
    from ruled import Rules


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
