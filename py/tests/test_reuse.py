"""A call that a rule sends to another host, or again, takes a connection that an earlier one left, as others do."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from ruled import Rules

ON_URLLIB3 = pytest.mark.parametrize("rules", ["requests", "urllib3"], indirect=True)
ON_HTTPX = pytest.mark.parametrize("rules", ["httpx", "httpx-async", "httpx2", "httpx2-async"], indirect=True)

#: A client that lives on, `ask`s, and closes.
KEEPING = """
HTTP2 = False
if client is CLIENTS["requests"]:
    keeper = requests.Session()
    def ask(url, **kwargs):
        answer = keeper.get(url, verify=CA, **kwargs)
        return answer.status_code, answer.content
    end, pools = keeper.close, keeper.adapters["http://"].poolmanager
elif client is CLIENTS["urllib3"]:
    keeper = pools = urllib3.PoolManager(ca_certs=CA, retries=False)
    def ask(url, **kwargs):
        answer = keeper.request("GET", url, **kwargs)
        return answer.status, answer.data
    end = keeper.clear
else:
    import asyncio
    from clients import trusting
    (name,) = (name for name, one in CLIENTS.items() if one is client)
    library = httpx2 if name.startswith("httpx2") else httpx
    options = {"verify": trusting(CA), "timeout": 60, "http2": HTTP2}
    if name.endswith("async"):
        keeper, loop = library.AsyncClient(**options), asyncio.new_event_loop()
        get = lambda *args, **kwargs: loop.run_until_complete(keeper.get(*args, **kwargs))
    else:
        keeper = library.Client(**options)
        get = keeper.get
    def ask(url, **kwargs):
        answer = get(url, **kwargs)
        return answer.status_code, answer.content
"""

#: How many connections this process has to one port.
OPEN = """
import os, socket
def connections_to(port):
    found = 0
    for number in os.listdir("/proc/self/fd"):
        try:
            copy = os.dup(int(number))
        except OSError:
            continue
        try:
            with socket.socket(fileno=copy) as sock:
                found += sock.family == socket.AF_INET and sock.getpeername()[1] == port
        except OSError:
            pass
    return found
"""

RETRY = (
    '[[resilience]]\nmatch = { vendor = "sim" }\nattempts = 2\nbackoff = "1ms..2ms"\n'
    'retry_budget = "100%"\nretry_budget_least = 100\n'
)


def moved_to(host: str, share: str = "100%") -> str:
    return (
        f'[[rollout]]\nname = "new"\nmatch = {{ host = "127.0.0.1" }}\nby = "call"\nshare = "{share}"\n'
        f'variant = {{ host = "{host}", keep_credentials = true }}\n'
    )


def arrived(rules: Rules, path: str) -> dict[str, list[int]]:
    """The connection of each request for a path, by the host that was asked."""
    found: dict[str, list[int]] = defaultdict(list)
    for one in rules.sim.control("GET", "requests?last=1000"):
        if one["path"] == path:
            found[one["host"].partition(":")[0]].append(one["connection"])
    return found


@ON_URLLIB3
@pytest.mark.parametrize("tls", [False, True])
def test_a_share_that_goes_to_another_host_keeps_its_connection(rules: Rules, tls: bool) -> None:
    path = f"/share/{rules.name}/{tls}"
    port = rules.sim.tls_port if tls else rules.sim.plain_port
    code = f'for _ in range(40): assert ask("http{"s" if tls else ""}://127.0.0.1:{port}{path}")[0] == 200'
    rules.run(moved_to(f"localhost:{port}", "50%"), KEEPING + code)

    seen = arrived(rules, path)
    assert sum(map(len, seen.values())) == 40
    assert {host: len(set(ids)) for host, ids in seen.items()} == {"127.0.0.1": 1, "localhost": 1}
    assert rules.outcomes() == {(200, "complete"): 40}


@ON_URLLIB3
def test_a_failover_keeps_both_connections(rules: Rules) -> None:
    path = f"/over/{rules.name}"
    rules.sim.control("POST", "script", {"match": {"host": "127.0.0.1", "path": path}, "effect": {"status": 500}})
    failover = (
        '[[resilience]]\nmatch = { host = "127.0.0.1" }\n'
        f'failover = {{ host = "localhost:{rules.sim.plain_port}", when = ["5xx"], keep_credentials = true }}\n'
    )
    rules.run(failover, KEEPING + f'for _ in range(15): assert ask(SIM + "{path}")[0] == 200')

    seen = arrived(rules, path)
    assert {host: len(ids) for host, ids in seen.items()} == {"127.0.0.1": 15, "localhost": 15}
    assert {host: len(set(ids)) for host, ids in seen.items()} == {"127.0.0.1": 1, "localhost": 1}


@pytest.mark.parametrize("effect", [{}, {"chunked": True}])
def test_a_repeated_attempt_takes_the_connection_of_the_one_before(rules: Rules, effect: dict[str, bool]) -> None:
    path = f"/again/{rules.name}/{len(effect)}"
    failing = {"match": {"path": path}, "burst": {"n": 1, "of": 2}, "effect": {"status": 500, **effect}}
    rules.sim.control("POST", "script", failing)
    rules.run(RETRY, KEEPING + f'for _ in range(15): assert ask(SIM + "{path}")[0] == 200')

    seen = arrived(rules, path)["127.0.0.1"]
    assert len(seen) == 30
    assert len(set(seen)) == 1


def test_an_answer_whose_place_a_fault_takes_gives_its_connection_back(rules: Rules) -> None:
    path = f"/faulted/{rules.name}"
    rules.sim.control("POST", "script", {"match": {"path": path}, "effect": {"status": 503}})
    # Half of the calls get that answer, and of those half meet the fault at their second attempt.
    fault = (
        'allow_faults = true\n[[fault]]\nmatch = { vendor = "sim" }\nshare = "50%"\nerror = "reset"\n'
        'expires = "2100-01-01T00:00:00Z"\n[[resilience]]\nmatch = { vendor = "sim" }\n'
        'failover = { path_prefix = "/next", when = ["5xx"] }\n'
    )
    code = f"""
failed = 0
for _ in range(60):
    try:
        assert ask(SIM + "{path}")[0] == 200
    except Base:
        failed += 1
print(json.dumps([failed, connections_to({rules.sim.plain_port})]))
"""
    failed, still_open = rules.run(fault, KEEPING + OPEN + code)
    assert 30 <= failed < 60
    assert still_open <= 1


@pytest.mark.parametrize(
    "effect",
    [
        {"body": "x" * 100_000},
        {"body": "x" * 100_000, "chunked": True},
        {"stall": {"after_bytes": 3}},
        {"stall": {"after_bytes": 3}, "chunked": True},
        {"truncate": {"after_bytes": 3}},
    ],
)
def test_an_answer_that_is_not_at_hand_is_not_waited_for(rules: Rules, effect: dict[str, object]) -> None:
    path = f"/long/{rules.name}/{len(str(effect))}/{'truncate' in effect}"
    rules.sim.control("POST", "script", {"match": {"path": path}, "count": 1, "effect": {"status": 500, **effect}})
    # A body that stalls does so for ever, and nobody gives up by himself.
    rules.run(RETRY, KEEPING + f'assert ask(SIM + "{path}", timeout=None)[0] == 200')

    seen = arrived(rules, path)["127.0.0.1"]
    assert len(seen) == len(set(seen)) == 2


@ON_HTTPX
def test_an_answer_over_http2_takes_no_connection_along(rules: Rules) -> None:
    path = f"/h2/{rules.name}"
    stalls = {"match": {"path": path}, "count": 1, "effect": {"status": 500, "stall": {"after_bytes": 3}}}
    rules.sim.control("POST", "script", stalls)
    keeping = KEEPING.replace("HTTP2 = False", "HTTP2 = True")
    url = f"https://127.0.0.1:{rules.sim.tls_port}{path}"
    rules.run(RETRY, keeping + f'for _ in range(2): assert ask("{url}")[0] == 200')

    seen = arrived(rules, path)["127.0.0.1"]
    assert len(seen) == 3
    assert len(set(seen)) == 1


@ON_URLLIB3
def test_threads_share_no_more_connections_than_the_pool_keeps(rules: Rules) -> None:
    path = f"/threads/{rules.name}"
    code = f"""
from concurrent.futures import ThreadPoolExecutor
if keeper is pools:
    keeper = pools = urllib3.PoolManager(maxsize=8, block=True)
def one(number):
    status, body = ask(f"{{SIM}}{path}?number={{number}}x")
    assert status == 200 and f"number={{number}}x".encode() in body, body
with ThreadPoolExecutor(8) as threads:
    list(threads.map(one, range(200)))
"""
    rules.run(moved_to(f"localhost:{rules.sim.plain_port}"), KEEPING + code)
    seen = arrived(rules, path)["localhost"]
    assert len(seen) == 200
    assert len(set(seen)) <= 8


@ON_URLLIB3
@pytest.mark.parametrize("how", ["end()", "for key in pools.pools.keys(): pools.pools[key].close()"])
def test_what_is_kept_is_closed_with_what_the_application_closes(rules: Rules, how: str) -> None:
    code = f"""
assert ask(SIM + "/scenario/ok")[0] == 200
before = connections_to({rules.sim.plain_port})
{how}
print(json.dumps([before, connections_to({rules.sim.plain_port})]))
"""
    rollout = moved_to(f"localhost:{rules.sim.plain_port}")
    assert rules.run(rollout, KEEPING + OPEN + code) == [1, 0]


@ON_URLLIB3
def test_a_body_that_is_let_go_of_unread_takes_its_connection_along(rules: Rules) -> None:
    path = f"/unread/{rules.name}"
    rules.sim.control("POST", "script", {"match": {"path": path}, "effect": {"body": "x" * 1_000_000}})
    code = f"""
url = SIM + "{path}"
for read in (True, False, True):
    if client is CLIENTS["requests"]:
        answer = keeper.get(url, stream=True, verify=CA)
        got = b"".join(answer.iter_content(10_000)) if read else next(answer.iter_content(10))
    else:
        answer = keeper.request("GET", url, preload_content=False)
        got = b"".join(answer.stream(10_000)) if read else answer.read(10)
    answer.close()
    assert got == b"x" * (1_000_000 if read else 10), len(got)
"""
    rules.run(moved_to(f"localhost:{rules.sim.plain_port}"), KEEPING + code)
    first, second, third = arrived(rules, path)["localhost"]
    assert first == second != third


@ON_URLLIB3
def test_a_pool_that_was_told_to_trust_others_shares_nothing_of_before(rules: Rules, other_ca: str) -> None:
    path, port = f"/trust/{rules.name}", rules.sim.tls_port
    code = f"""
url = "https://127.0.0.1:{port}{path}"
assert ask(url)[0] == 200
pool = pools.connection_from_url(url) if keeper is pools else keeper.adapters["https://"].get_connection_with_tls_context(
    requests.Request("GET", url).prepare(), CA)
pool.ca_certs = {other_ca!r}
try:
    pool.urlopen("GET", "{path}", retries=False)
except urllib3.exceptions.SSLError:
    print("true")
"""
    assert rules.run(moved_to(f"localhost:{port}"), KEEPING + code) is True
    assert len(arrived(rules, path)["localhost"]) == 1


@ON_URLLIB3
def test_a_child_process_makes_connections_of_its_own(rules: Rules) -> None:
    path = f"/child/{rules.name}"
    code = f"""
import os
def some(): assert all(ask(SIM + "{path}")[0] == 200 for _ in range(3))
some()
child = os.fork()
if child == 0:
    try:
        some()
        os._exit(0)
    finally:
        os._exit(1)
assert os.waitpid(child, 0)[1] == 0
some()
"""
    rules.run(moved_to(f"localhost:{rules.sim.plain_port}"), KEEPING + code)
    seen = arrived(rules, path)["localhost"]
    assert seen[:3] == [seen[0]] * 3 == seen[6:]
    assert seen[3:6] == [seen[3]] * 3
    assert seen[3] != seen[0]


@pytest.mark.parametrize("rules", ["urllib3"], indirect=True)
def test_hosts_without_number_leave_few_connections(rules: Rules) -> None:
    code = """
from farcall._adapters.urllib3_reuse import pool_to
own = urllib3.HTTPConnectionPool("127.0.0.1", 1)
made = [pool_to(own, f"host-{number}", 80) for number in range(20)]
assert pool_to(own, "host-19", 80) is made[19]
assert pool_to(own, "host-0", 80) is not made[0]
assert len(own._farcall_beside) == 8
"""
    rules.run(moved_to("localhost:1"), code)
