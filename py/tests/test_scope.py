"""On whose behalf a call is made, whatever the flow of control."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import farcall
import httpx2
import pytest
import requests
from conftest import Ledger
from farcall._scope import current

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from conftest import Sim


def here() -> str | None:
    """The customer at this moment."""
    frame = current.get()
    return None if frame is None else frame.customer


def tags_here() -> dict[str, str]:
    frame = current.get()
    return {} if frame is None else dict(frame.tags)


@pytest.fixture(autouse=True)
def nobody() -> Iterator[None]:
    farcall.install()
    assert here() is None
    yield
    assert here() is None, "a test left its customer behind"


def test_scopes_nest_and_end_with_their_block() -> None:
    with farcall.customer("acme"):
        with farcall.customer("globex"):
            assert here() == "globex"
        assert here() == "acme"
        with farcall.customer(None):
            assert here() is None
        assert here() == "acme"


def test_a_scope_ends_with_an_exception_too() -> None:
    with pytest.raises(ZeroDivisionError), farcall.customer("acme"):
        1 / 0  # noqa: B018
    assert here() is None


def test_tags_add_up_and_the_inner_one_wins() -> None:
    with farcall.tags(team="growth", tier=1), farcall.customer("acme"), farcall.tags(team="core"):
        assert tags_here() == {"team": "core", "tier": "1"}
        assert here() == "acme"
    assert tags_here() == {}


def test_tags_reach_the_ledger_and_too_many_are_cut_and_counted(sim: Sim, ledger: Ledger) -> None:
    before = farcall.status()["counters"]["cut_names"]
    with farcall.customer(ledger.customer), farcall.tags(team="x", env="test"):
        requests.get(f"{sim.plain}/scenario/ok", timeout=60)
    with farcall.customer(ledger.customer), farcall.tags(**{f"k{n}": n for n in range(20)}):
        requests.get(f"{sim.plain}/scenario/ok", timeout=60)
    few, many = sorted((row["tags"] for row in ledger.rows()), key=len)
    assert few == "env=test,team=x"
    assert len(many.split(",")) == 8
    assert farcall.status()["counters"]["cut_names"] == before + 1


def test_a_decorated_function_runs_in_its_scope() -> None:
    @farcall.customer("acme")
    def work() -> str | None:
        return here()

    assert (work(), here()) == ("acme", None)
    assert work.__name__ == "work"


async def test_a_decorated_coroutine_runs_in_its_scope() -> None:
    @farcall.customer("acme")
    async def work() -> str | None:
        await asyncio.sleep(0)
        return here()

    assert (await work(), here()) == ("acme", None)


def test_a_decorated_generator_has_its_scope_and_its_consumer_has_not() -> None:
    seen: list[str | None] = []

    @farcall.customer("acme")
    def work() -> Iterator[int]:
        try:
            seen.append(here())
            got = yield 1
            seen.append(here())
            try:
                yield got
            except KeyError:
                seen.append(here())
                yield 3
        finally:
            seen.append(here())

    steps: Any = work()
    assert (next(steps), here()) == (1, None)
    assert (steps.send(2), here()) == (2, None)
    assert (steps.throw(KeyError()), here()) == (3, None)
    steps.close()
    assert here() is None
    assert seen == ["acme"] * 4


def test_a_decorated_generator_returns_what_it_returns() -> None:
    @farcall.customer("acme")
    def work() -> Any:
        yield 1
        return "done"

    def outer() -> Any:
        return (yield from work())

    steps = outer()
    next(steps)
    with pytest.raises(StopIteration, match="done"):
        next(steps)


async def test_a_decorated_async_generator_has_its_scope_and_its_consumer_has_not() -> None:
    seen: list[str | None] = []

    @farcall.customer("acme")
    async def work() -> AsyncIterator[int]:
        try:
            for number in range(3):
                await asyncio.sleep(0)
                seen.append(here())
                yield number
        finally:
            await asyncio.sleep(0)
            seen.append(here())

    steps: Any = work()
    async for _ in steps:
        assert here() is None
        break
    await steps.aclose()
    assert here() is None
    assert seen == ["acme", "acme"]


def test_blocks_that_end_out_of_order_leave_nobody_with_the_wrong_customer() -> None:
    def work() -> Iterator[None]:
        with farcall.customer("inner"):
            yield

    steps = work()
    next(steps)
    with farcall.customer("outer"):
        steps.close()
        assert here() == "outer"
    assert here() is None


def test_a_generator_that_is_forgotten_gives_its_customer_back() -> None:
    def work() -> Iterator[None]:
        with farcall.customer("acme"):
            yield

    steps = work()
    next(steps)
    del steps
    gc.collect()
    assert here() is None


def test_a_block_that_ends_in_another_context_raises_nothing_and_harms_nobody() -> None:
    scope = farcall.customer("acme")
    contextvars.copy_context().run(scope.__enter__)
    with farcall.customer("globex"):
        scope.__exit__(None, None, None)
        assert here() == "globex"


async def test_a_task_keeps_the_customer_it_was_started_for() -> None:
    go = asyncio.Event()

    async def work() -> str | None:
        await go.wait()
        return here()

    async with farcall.customer("acme"):
        task = asyncio.create_task(work())
        await asyncio.sleep(0)
    go.set()
    assert await task == "acme"


def test_one_scope_object_serves_many_threads_at_once() -> None:
    scope = farcall.customer("acme")
    barrier = threading.Barrier(8)

    def work(_: int) -> list[str | None]:
        with scope:
            barrier.wait()
            inside = here()
        return [inside, here()]

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(work, range(8))) == [["acme", None]] * 8


def test_threads_that_switch_customers_are_told_apart(sim: Sim) -> None:
    names = [f"thread-{number}" for number in range(4)]

    def work(number: int) -> None:
        with farcall.customer(names[number % 4]):
            requests.get(f"{sim.plain}/scenario/ok", timeout=60)

    with ThreadPoolExecutor(16) as threads:
        list(threads.map(work, range(100)))
    assert [Ledger(name).calls() for name in names] == [{(200, "complete"): 25}] * 4


@pytest.mark.parametrize("library", [httpx2, __import__("httpx")])
async def test_a_hundred_tasks_at_once_are_told_apart(sim: Sim, library: Any) -> None:
    names = [f"task-{library.__name__}-{number}" for number in range(5)]

    async with library.AsyncClient(timeout=60) as client:

        async def work(number: int) -> None:
            async with farcall.customer(names[number % 5]):
                await client.get(f"{sim.plain}/scenario/slow?ms=5")

        await asyncio.gather(*map(work, range(100)))
    assert [Ledger(name).calls() for name in names] == [{(200, "complete"): 20}] * 5


def test_a_stream_that_ends_elsewhere_settles_on_the_customer_it_began_for(sim: Sim, ledger: Ledger) -> None:
    with farcall.customer(ledger.customer):
        response = requests.get(f"{sim.plain}/scenario/bytes/5000", stream=True, timeout=60)
    with farcall.customer("somebody else"):
        assert len(response.content) == 5000
    assert (ledger.calls(), ledger.total("bytes_in")) == ({(200, "complete"): 1}, 5000)


def test_half_characters_in_names_reach_nobody_as_an_error() -> None:
    """As Python makes them of bytes that are no text: of a file's name, of a header."""
    broken = b"acme\xff".decode(errors="surrogateescape")
    with farcall.customer(broken), farcall.tags(team=broken):
        assert here() == "acme\ufffd\ufffd\ufffd"
        assert tags_here() == {"team": "acme\ufffd\ufffd\ufffd"}
