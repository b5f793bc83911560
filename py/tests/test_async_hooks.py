"""httpx's async hook, which is native: to who awaits it, it is what the library's own method would be."""

from __future__ import annotations

import asyncio
import collections.abc
import gc
import inspect
import warnings
from typing import TYPE_CHECKING, Any

import anyio
import farcall
import httpx
import httpx2
import pytest
import trio
from hooked import httpx_streams, native_hook

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Ledger, Sim

    Run = Callable[[Callable[[], Any]], Any]

LIBRARIES = [httpx, httpx2]


@pytest.fixture(params=["asyncio", "trio"])
def run(request: pytest.FixtureRequest) -> Run:
    return lambda work: anyio.run(work, backend=request.param)


@pytest.fixture(params=LIBRARIES, ids=lambda library: library.__name__)
def library(request: pytest.FixtureRequest, ledger: Ledger) -> Any:
    return request.param


def test_a_call_is_counted_once_in_every_event_loop(library: Any, run: Run, sim: Sim, ledger: Ledger) -> None:
    async def work() -> None:
        async with library.AsyncClient(timeout=60) as client:
            with farcall.customer(ledger.customer):
                answer = await client.post(f"{sim.plain}/scenario/echo", content=b"x" * 100)
            assert answer.content == b"x" * 100

    run(work)
    assert ledger.calls() == {(200, "complete"): 1}
    assert (ledger.total("bytes_out"), ledger.total("bytes_in")) == (100, 100)
    assert ledger.total("connections") == 1


def test_a_call_that_is_cancelled_before_its_head_is_cancelled(
    library: Any, run: Run, sim: Sim, ledger: Ledger
) -> None:
    def begun() -> int:
        return int(farcall.status()["adapters"][library.__name__]["calls"])

    async def work() -> None:
        async def cancel_once_it_has_begun(before: int, scope: anyio.CancelScope) -> None:
            while begun() == before:
                await anyio.sleep(0.01)
            scope.cancel()

        async with library.AsyncClient(timeout=60) as client:
            with farcall.customer(ledger.customer):
                async with anyio.create_task_group() as group:
                    group.start_soon(cancel_once_it_has_begun, begun(), group.cancel_scope)
                    await client.get(f"{sim.plain}/scenario/hang")
            assert group.cancel_scope.cancelled_caught
            # The client is as good as before.
            assert (await client.get(f"{sim.plain}/scenario/ok")).status_code == 200

    run(work)
    assert ledger.calls() == {(0, "cancelled"): 1}


def test_a_stream_that_is_cancelled_is_abandoned(library: Any, run: Run, sim: Sim, ledger: Ledger) -> None:
    async def work() -> None:
        async with library.AsyncClient(timeout=60) as client:
            with farcall.customer(ledger.customer):
                async with client.stream("GET", f"{sim.plain}/scenario/endless?every_ms=1") as answer:
                    with anyio.CancelScope() as scope:
                        async for _ in answer.aiter_raw():
                            scope.cancel()

    run(work)
    assert ledger.calls() == {(200, "abandoned"): 1}
    assert ledger.total("bytes_in") > 0


def test_many_calls_at_once_keep_apart(library: Any, run: Run, sim: Sim, ledger: Ledger) -> None:
    async def work() -> None:
        async def one(client: Any, number: int) -> None:
            answer = await client.post(f"{sim.plain}/scenario/echo", content=b"x" * number)
            assert answer.content == b"x" * number

        async with library.AsyncClient(timeout=60) as client:
            with farcall.customer(ledger.customer):
                async with anyio.create_task_group() as group:
                    for number in range(50):
                        group.start_soon(one, client, number)

    run(work)
    assert ledger.calls() == {(200, "complete"): 50}
    assert ledger.total("bytes_in") == ledger.total("bytes_out") == sum(range(50))


class Fake:
    """Of a transport, a method that waits, and answers as it is told."""

    def __init__(self, library: Any, error: BaseException | None = None) -> None:
        self.library = library
        self.error = error
        self.closed = 0

    async def handle_async_request(self, request: Any) -> Any:
        try:
            await asyncio.sleep(0)
            if self.error is not None:
                raise self.error
        except GeneratorExit:
            self.closed += 1
            raise
        return self.library.Response(200, stream=self.library.ByteStream(b"ok"))


def begin(library: Any, fake: Fake, ledger: Ledger, path: str = "/a", method: Any = None) -> Any:
    """What the hook gives in the place of a coroutine, over a method that is not httpx's own."""
    with farcall.customer(ledger.customer):
        hook = native_hook(
            "async_request",
            2,
            method or Fake.handle_async_request,
            method or Fake.handle_async_request,
            farcall._scope.current.get,
            httpx_streams(library).async_body,
        )
    request = library.Request("GET", f"https://awaited.example{path}")
    hooked: Any = hook
    return hooked(fake, request)


def outcomes(ledger: Ledger) -> dict[tuple[int, str], int]:
    return ledger.calls()


def test_it_is_a_coroutine_to_who_asks(library: Any, ledger: Ledger) -> None:
    method = library.AsyncHTTPTransport.handle_async_request
    assert inspect.iscoroutinefunction(method)
    assert asyncio.iscoroutinefunction(method)
    made = begin(library, Fake(library), ledger)
    assert asyncio.iscoroutine(made)
    assert isinstance(made, collections.abc.Coroutine)
    assert inspect.isawaitable(made)
    made.close()
    assert ledger.calls() == {}


@pytest.mark.parametrize("start", [asyncio.ensure_future, lambda made: made], ids=["a task", "awaited"])
def test_it_can_be_awaited_and_be_a_task(library: Any, start: Any, ledger: Ledger) -> None:
    async def work() -> Any:
        with farcall.customer(ledger.customer):
            answer = await start(begin(library, Fake(library), ledger))
            return await answer.aread()

    assert asyncio.run(work()) == b"ok"
    assert ledger.calls() == {(200, "complete"): 1}


def test_nothing_happens_before_it_is_awaited_and_python_says_so_where_it_never_is(
    library: Any, ledger: Ledger
) -> None:
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        begin(library, Fake(library), ledger)
        gc.collect()
    assert ["handle_async_request' was never awaited" in str(one.message) for one in seen] == [True]
    assert ledger.calls() == {}


def test_it_is_awaited_once(library: Any, ledger: Ledger) -> None:
    async def work() -> None:
        made = begin(library, Fake(library), ledger)
        with farcall.customer(ledger.customer):
            await (await made).aread()
            with pytest.raises(RuntimeError, match="cannot reuse already awaited coroutine"):
                await made

    asyncio.run(work())
    assert ledger.calls() == {(200, "complete"): 1}


def test_a_second_task_that_awaits_it_is_refused_and_leaves_the_first_alone(library: Any, ledger: Ledger) -> None:
    async def wait(made: Any) -> bytes:
        return bytes(await (await made).aread())

    async def work() -> None:
        made = begin(library, Fake(library), ledger)
        with farcall.customer(ledger.customer):
            first = asyncio.ensure_future(wait(made))
            second = asyncio.ensure_future(wait(made))
        with pytest.raises(RuntimeError, match="coroutine is being awaited already"):
            await second
        assert await first == b"ok"

    asyncio.run(work())
    assert ledger.calls() == {(200, "complete"): 1}


@pytest.mark.parametrize(
    "again",
    [lambda made: made.send(None), lambda made: made.throw(ValueError("from within")), lambda made: made.close()],
    ids=["send", "throw", "close"],
)
def test_it_is_not_run_from_within_itself(library: Any, again: Any, ledger: Ledger) -> None:
    class Inward(Fake):
        async def handle_async_request(self, request: Any) -> Any:
            with pytest.raises(ValueError, match="coroutine already executing"):
                again(made[0])
            return await super().handle_async_request(request)

    made: list[Any] = []

    async def work() -> None:
        made.append(begin(library, Inward(library), ledger, method=Inward.handle_async_request))
        with farcall.customer(ledger.customer):
            assert await (await made[0]).aread() == b"ok"

    asyncio.run(work())
    assert ledger.calls() == {(200, "complete"): 1}


@pytest.mark.parametrize("error", [ValueError("own"), StopAsyncIteration("own"), asyncio.CancelledError("own")])
def test_an_error_comes_out_as_it_was_raised(library: Any, error: BaseException, ledger: Ledger) -> None:
    async def work() -> None:
        with farcall.customer(ledger.customer):
            await begin(library, Fake(library, error), ledger)

    with pytest.raises(type(error)) as caught:
        asyncio.run(work())
    assert caught.value is error or isinstance(error, asyncio.CancelledError)
    outcome = "cancelled" if isinstance(error, asyncio.CancelledError) else "other"
    assert ledger.calls() == {(0, outcome): 1}


def step_into(made: Any, ledger: Ledger) -> None:
    with farcall.customer(ledger.customer):
        assert made.send(None) is None


def test_what_is_thrown_in_is_raised_below(library: Any, ledger: Ledger) -> None:
    error = KeyError("thrown")
    for thrown in ((error,), (KeyError, error), (KeyError, error, None)):
        made = begin(library, Fake(library), ledger)
        step_into(made, ledger)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            with pytest.raises(KeyError) as caught:
                made.throw(*thrown)
        assert caught.value is error
        with pytest.raises(RuntimeError, match="cannot reuse"):
            made.send(None)
    assert ledger.calls() == {(0, "other"): 3}


def test_one_that_catches_what_is_thrown_in_goes_on(library: Any, ledger: Ledger) -> None:
    class Stubborn(Fake):
        async def handle_async_request(self, request: Any) -> Any:
            try:
                await asyncio.sleep(0)
            except KeyError:
                return (1, 2)

    stubborn = Stubborn(library)
    hook: Any = native_hook(
        "async_request",
        2,
        Stubborn.handle_async_request,
        Stubborn.handle_async_request,
        farcall._scope.current.get,
        httpx_streams(library).async_body,
    )
    made = hook(stubborn, library.Request("GET", "https://awaited.example/a"))
    step_into(made, ledger)
    # A tuple is one value.
    with pytest.raises(StopIteration) as caught:
        made.throw(KeyError("thrown"))
    assert caught.value.value == (1, 2)


def test_one_that_was_not_begun_raises_what_is_thrown_in(library: Any, ledger: Ledger) -> None:
    made = begin(library, Fake(library), ledger)
    error = KeyError("thrown")
    with pytest.raises(KeyError) as caught:
        made.throw(error)
    assert caught.value is error
    assert ledger.calls() == {}


@pytest.mark.parametrize("how", ["closed", "dropped"])
def test_one_that_is_closed_or_dropped_half_way_is_cancelled(library: Any, how: str, ledger: Ledger) -> None:
    fake = Fake(library)
    made = begin(library, fake, ledger)
    step_into(made, ledger)
    if how == "closed":
        made.close()
        made.close()
    del made
    gc.collect()
    assert fake.closed == 1
    assert ledger.calls() == {(0, "cancelled"): 1}


def test_who_looks_at_where_a_task_stands_sees_the_method_below(library: Any, ledger: Ledger) -> None:
    made = begin(library, Fake(library), ledger)
    step_into(made, ledger)
    assert made.cr_frame.f_code is Fake.handle_async_request.__code__
    assert made.cr_await is not None
    assert not made.cr_running
    with pytest.raises(AttributeError):
        _ = made.no_such_thing
    made.close()


def test_what_is_below_need_not_be_a_coroutine(library: Any, ledger: Ledger) -> None:
    class Ready:
        def __await__(self) -> Any:
            yield from asyncio.sleep(0).__await__()
            return library.Response(200, stream=library.ByteStream(b"ok"))

    async def work() -> Any:
        hook: Any = native_hook(
            "async_request",
            2,
            lambda *_: Ready(),
            lambda *_: Ready(),
            farcall._scope.current.get,
            httpx_streams(library).async_body,
        )
        with farcall.customer(ledger.customer):
            answer = await hook(object(), library.Request("GET", "https://awaited.example/a"))
            return await answer.aread()

    assert asyncio.run(work()) == b"ok"
    assert ledger.calls() == {(200, "complete"): 1}


def test_what_cannot_be_awaited_says_so(library: Any, ledger: Ledger) -> None:
    hook: Any = native_hook(
        "async_request", 2, lambda *_: 7, lambda *_: 7, farcall._scope.current.get, httpx_streams(library).async_body
    )

    async def work() -> None:
        await hook(object(), library.Request("GET", "https://awaited.example/a"))

    with pytest.raises(TypeError, match="await"):
        asyncio.run(work())


def test_trio_runs_a_task_of_the_hook_itself(library: Any, sim: Sim, ledger: Ledger) -> None:
    async def work() -> None:
        transport = library.AsyncHTTPTransport()
        with farcall.customer(ledger.customer):
            request = library.Request("GET", f"{sim.plain}/scenario/ok", extensions={"timeout": {}})
            async with trio.open_nursery() as nursery:
                nursery.start_soon(transport.handle_async_request, request)
        await transport.aclose()

    trio.run(work)
    assert ledger.calls() == {(200, "abandoned"): 1}


def test_nothing_is_left_behind_by_async_calls(library: Any, ledger: Ledger) -> None:
    async def work(times: int) -> None:
        for _ in range(times):
            answer = await begin(library, Fake(library), ledger)
            await answer.aread()
            half = begin(library, Fake(library), ledger)
            half.send(None)
            half.close()

    def counted() -> int:
        asyncio.run(work(50))
        gc.collect()
        return len(gc.get_objects())

    counted()
    before = counted()
    asyncio.run(work(1_000))
    assert counted() - before < 500
