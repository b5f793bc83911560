"""What is sent beside an attempt in asyncio: a second one where the first is slow, and shadow copies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from ruled import Rules

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import Program, Sim

HEDGED = '[[resilience]]\nmatch = { vendor = "sim" }\nhedge = { after = "30ms", budget = "%s" }\n'
SHADOWED = """
[[rollout]]
name = "v2"
match = { vendor = "sim" }
by = "call"
shadow = "100%"
variant = { path_prefix = "/v2" }
"""
PLAIN = """
import asyncio, importlib
from farcall._adapters import httpx_beside
library = importlib.import_module({library!r})
async def main():
    async with library.AsyncClient(timeout=60) as client:
        {code}
        while httpx_beside._tasks:
            await asyncio.sleep(0.005)
asyncio.run(main())
"""


@pytest.fixture(params=["httpx", "httpx2"])
def rules(request: pytest.FixtureRequest, program: Program, sim: Sim) -> Iterator[Rules]:
    sim.control("DELETE", "script")
    yield Rules(program, sim, request.param)
    sim.control("DELETE", "script")


def run(rules: Rules, config: str, code: str) -> Any:
    return rules.run(config, PLAIN.format(library=rules.name, code=code))


def script(rules: Rules, path: str, effect: dict[str, Any], **more: Any) -> None:
    rules.sim.control("POST", "script", {"match": {"path": path}, "effect": effect, **more})


def test_a_second_attempt_answers_for_a_first_one_that_hangs_which_is_given_up(rules: Rules) -> None:
    path = f"/scenario/bytes/{777 if rules.name == 'httpx' else 778}"
    script(rules, path, {"hang": True}, count=1)
    answer = run(rules, HEDGED % "100%", f'r = await client.get(SIM + "{path}"); print(len(r.content))')

    assert answer == int(path.rpartition("/")[2])
    assert rules.outcomes() == {(200, "complete"): 1}
    assert rules.total("calls", "attempts", "bytes_in") == (1, 2, answer)
    events = rules.events()
    assert "a second attempt beside the first" in events
    assert "was given up: the other one counts" in events
    counts = rules.sim.counts(path)
    assert (counts["calls"], counts["aborted"]) == (2, 1)


def test_a_second_attempt_that_fails_leaves_the_first_one_its_time(rules: Rules) -> None:
    script(rules, "/scenario/ok", {"status": 503}, count=1)
    # The first attempt goes out once the second one was answered.
    code = """
        class Turns:
            begun, answered, pool = 0, asyncio.Event(), client._transport._pool
            def __getattr__(self, name):
                return getattr(self.pool, name)
            async def handle_async_request(self, request):
                self.begun += 1
                if self.begun == 1:
                    await self.answered.wait()
                try:
                    return await self.pool.handle_async_request(request)
                finally:
                    self.answered.set()
        client._transport._pool = Turns()
        print((await client.get(SIM + "/scenario/ok")).status_code)"""
    assert run(rules, HEDGED % "100%", code) == 200
    assert rules.total("calls", "attempts") == (1, 2)
    assert "answered 503: the other one counts" in rules.events()


def test_second_attempts_stay_within_their_budget(rules: Rules) -> None:
    script(rules, "/scenario/ok", {"latency_ms": 200})
    code = 'for _ in range(4): await client.get(SIM + "/scenario/ok")'
    run(rules, HEDGED % "1%", code)
    calls, attempts = rules.total("calls", "attempts")
    assert calls == 4
    # One in ten seconds in any case.
    assert 5 <= attempts < 8


def test_nothing_is_sent_beside_what_must_not_be_repeated(rules: Rules) -> None:
    script(rules, "/scenario/ok", {"latency_ms": 200})
    run(rules, SHADOWED + HEDGED % "100%", 'await client.post(SIM + "/scenario/ok")')
    assert rules.total("calls", "attempts") == (1, 1)


def test_an_application_that_gives_up_takes_both_attempts_with_it(rules: Rules) -> None:
    path = "/scenario/hang"
    before = rules.sim.counts(path)["calls"]
    code = f"""
        asking = asyncio.create_task(client.get(SIM + "{path}"))
        def arrived():
            import urllib.request
            with urllib.request.urlopen(SIM + "/_sim/counts") as counts:
                rows = json.load(counts)["rows"]
            return sum(row["count"] for row in rows if row["path"] == "{path}")
        while await asyncio.to_thread(arrived) < {before} + 2:
            await asyncio.sleep(0.01)
        asking.cancel()
        try:
            await asking
        except asyncio.CancelledError:
            print("true")"""
    assert run(rules, HEDGED % "100%", code) is True
    assert rules.outcomes() == {(0, "cancelled"): 1}
    assert rules.total("attempts") == (2,)
    assert rules.sim.counts(path)["calls"] - before == 2


@pytest.mark.parametrize("effect", [{"status": 500}, {"reset": {}}, {"latency_ms": 300}])
def test_a_copy_goes_to_the_variant_and_nobody_gets_its_answer(rules: Rules, effect: dict[str, Any]) -> None:
    before = rules.sim.counts("/v2/scenario/ok")["calls"]
    script(rules, "/v2/scenario/ok", effect)
    status = run(rules, SHADOWED, 'print((await client.get(SIM + "/scenario/ok")).status_code)')

    assert status == 200
    assert rules.sim.counts("/v2/scenario/ok")["calls"] - before == 1
    by_tag = rules.by_tags()
    assert by_tag[""] == (1, 200, "complete")
    copy = {"status": (1, 500, "complete"), "reset": (1, 0, "reset"), "latency_ms": (1, 200, "complete")}
    assert by_tag["shadow=v2"] == copy[next(iter(effect))]


def test_copies_take_a_small_part_of_a_clients_connections(rules: Rules) -> None:
    # Longer than it takes to ask for all of them; nobody waits so long, for the client is closed before.
    script(rules, "/v2/scenario/ok", {"latency_ms": 20_000})
    code = """
        pass
    limits = library.Limits(max_connections=8)
    async with library.AsyncClient(limits=limits, timeout=60) as client:
        asked = [client.get(SIM + "/scenario/ok") for _ in range(6)]
        print(json.dumps([answer.status_code for answer in await asyncio.gather(*asked)]))"""
    assert run(rules, SHADOWED, code) == [200] * 6
    by_tag = rules.by_tags()
    assert by_tag[""][0] == 6
    assert by_tag["shadow=v2"][0] == 2


def test_a_copy_that_an_ending_loop_keeps_from_beginning_leaves_its_place_to_others(rules: Rules) -> None:
    code = """
        pass
    from farcall._adapters import httpx_beside as beside
    class Pool: _max_connections = 4
    class Transport: _pool = Pool()
    class Copy:
        abandoned = False
        def abandon(self): self.abandoned = True
    class Shadowing:
        def shadow(self): return copy, ()
    copy = Copy()
    beside.shadow(None, Shadowing(), Transport())
    (task,) = beside._tasks
    task.cancel()
    await asyncio.wait({task})
    await asyncio.sleep(0)
    print(json.dumps([copy.abandoned, len(beside._copies)]))
    async with library.AsyncClient():
        pass"""
    assert run(rules, "", code) == [True, 0]
