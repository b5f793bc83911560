"""What is sent beside an attempt, in asyncio: a second attempt where the first is slow, and shadow copies."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from farcall import _acting, _errors
from farcall._acting import HEDGE, NUMBER, PATIENCE
from farcall._faults import fault

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from farcall._farcall import Call

    Perform = Callable[[Call, tuple[Any, ...]], Awaitable[Any]]

#: No more is read of a copy's answer.
_READ = 4 * 1024 * 1024
#: One connection in so many of a client's pool may be a copy's.
_SHARE = 4

#: What nobody waits for; the event loop itself holds tasks only weakly.
_tasks: set[asyncio.Task[Any]] = set()
#: Copies under way, by the pool that they share with calls.
_copies: dict[int, int] = {}


def can() -> bool:
    """Whether something can be sent beside a call: asyncio runs the code."""
    try:
        return asyncio.current_task() is not None
    except RuntimeError:
        return False


async def race(perform: Perform, call: Call, step: tuple[Any, ...]) -> Any:
    """What comes of an attempt, and of a second one beside it where the first is slow.

    The first answer that is of use counts, and the other attempt is given up; one that fails while the other is under
    way is let go of.
    """
    first = asyncio.ensure_future(perform(call, step))
    second: asyncio.Future[Any] | None = None
    taken: asyncio.Future[Any] | None = None
    try:
        await asyncio.wait({first}, timeout=step[HEDGE])
        extra = None if first.done() else _hedge(call)
        if extra is None:
            taken = first
            return await first
        second = asyncio.ensure_future(perform(call, extra))
        await asyncio.wait({first, second}, return_when=asyncio.FIRST_COMPLETED)
        one, number, other, rest = first, step[NUMBER], second, extra[NUMBER]
        if not first.done():
            one, number, other, rest = second, extra[NUMBER], first, step[NUMBER]
        status, error = _ending(one)
        if _is_of_use(status):
            _lost(call, rest, 0, 0)
            taken = one
            return one.result()
        _lost(call, number, status, error)
        taken = other
        return await other
    finally:
        for attempt in (first, second):
            if attempt is not None and (attempt is not taken or not attempt.done()):
                attempt.cancel()
                attempt.add_done_callback(_let_go)


def _hedge(call: Call) -> tuple[Any, ...] | None:
    try:
        return call.hedge()
    except Exception as error:
        fault("hedge", error)
        return None


def _lost(call: Call, number: int, status: int, error: int) -> None:
    try:
        call.lost(number, status, error)
    except Exception as ours:
        fault("lost", ours)


def _ending(attempt: asyncio.Future[Any]) -> tuple[int, int]:
    """The status of the attempt's answer, or else the number of its error."""
    if attempt.cancelled():
        return 0, _errors.CANCELLED
    error = attempt.exception()
    return (attempt.result().status_code, 0) if error is None else (0, _errors.classify(error))


def _is_of_use(status: int) -> bool:
    """Whether an answer ends the race: the vendor did not fail, nor ask to be left alone."""
    return 0 < status < 500 and status != 429


def _let_go(attempt: asyncio.Future[Any]) -> None:
    """Closes the answer of an attempt that nobody wants any more."""
    if not attempt.cancelled() and attempt.exception() is None:
        _keep(attempt.get_loop().create_task(_close(attempt.result())))


async def _close(response: Any) -> None:
    try:
        await response.aclose()
    except Exception as error:
        fault("httpx.close", error)


def _keep(task: asyncio.Task[Any]) -> None:
    _tasks.add(task)
    task.add_done_callback(_tasks.discard)


def shadow(perform: Perform, call: Call, transport: Any) -> None:
    """Sends a copy of the call that is about to be sent, where the pool that they share has room to spare."""
    try:
        pool = getattr(transport, "_pool", None)
        key, most = id(pool), getattr(pool, "_max_connections", 0) // _SHARE
        if _copies.get(key, 0) >= most:
            return
        told = call.shadow()
        if told is None:
            return
        copy, step = told
        task = asyncio.get_running_loop().create_task(_copy(perform, copy, step))
        _copies[key] = _copies.get(key, 0) + 1

        def over(_: asyncio.Task[Any]) -> None:
            copy.abandon()  # where the event loop ended before it did, or before it began
            _less(pool)  # held until here, so that its number stays its own

        task.add_done_callback(over)
        _keep(task)
    except Exception as error:
        fault("shadow", error)


def _less(pool: Any) -> None:
    key = id(pool)
    _copies[key] -= 1
    if not _copies[key]:
        del _copies[key]


async def _copy(perform: Perform, call: Call, step: tuple[Any, ...]) -> None:
    """Makes a copy's one attempt, reads its answer and throws it away. Whatever happens to it stays in here."""
    try:
        await asyncio.wait_for(_measure(perform, call, step), step[PATIENCE])
    except Exception as error:
        # The wire's, or the application closed its client.
        _acting.failed(call, error, 0)
        _acting.end(call)


async def _measure(perform: Perform, call: Call, step: tuple[Any, ...]) -> None:
    response = await perform(call, step)
    read = 0
    try:
        call.answer(response.status_code, response.headers.raw)
        async for chunk in response.stream:
            call.body(chunk)
            read += len(chunk)
            if read > _READ:
                call.abandon()
                return
        call.end(0)
    finally:
        await response.aclose()
