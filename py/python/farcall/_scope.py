"""On whose behalf calls are made, and how urgent they are: `customer`, `tags` and `priority`."""

from __future__ import annotations

import functools
import inspect
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from farcall._native import native

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator
    from types import TracebackType

    from typing_extensions import Self

F = TypeVar("F", bound="Callable[..., Any]")


class Frame(native.Scope):
    """A scope that was entered, above the ones around it.

    There is no contextvars.Token here: a token must be reset in the context that made it, and in the order in
    which tokens were made, and neither holds for a `with` block inside a generator. A frame is left by marking
    it; a context that stands on it steps down to the nearest one that is still live, and every other context
    (a task that was started inside the block) keeps what it inherited.
    """

    __slots__ = ("live", "owner", "parent")

    parent: Frame | None
    owner: object
    live: bool

    def __new__(cls, customer: str | None, tags: list[tuple[str, str]], batch: bool, *_: object) -> Self:
        """Makes the native half."""
        return super().__new__(cls, customer, tags, batch)

    def __init__(
        self, customer: str | None, tags: list[tuple[str, str]], batch: bool, parent: Frame | None, owner: object
    ) -> None:
        # Dead frames below are not needed to step down to.
        while parent is not None and not parent.live:
            parent = parent.parent
        self.parent = parent
        self.owner = owner
        self.live = True


current: ContextVar[Frame | None] = ContextVar("farcall_scope", default=None)


class _Entered:
    """What `customer`, `tags` and `priority` share: entering, leaving, decorating."""

    __slots__ = ()

    def _frame(self, around: Frame | None) -> Frame:
        raise NotImplementedError

    def _enter(self) -> None:
        current.set(self._frame(current.get()))

    def _leave(self) -> None:
        top = current.get()
        frame = top
        while frame is not None and not (frame.live and frame.owner is self):
            frame = frame.parent
        if frame is None:
            # Left in another context than it was entered in: that one still has it, and nobody can reach it.
            return
        frame.live = False
        while top is not None and not top.live:
            top = top.parent
        current.set(top)

    def __enter__(self) -> Self:
        self._enter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave()

    async def __aenter__(self) -> Self:
        self._enter()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave()

    def __call__(self, function: F) -> F:
        """Decorates a function, coroutine function, generator function or async generator function."""
        call: Callable[..., Any]
        if inspect.iscoroutinefunction(function):

            async def call(*args: Any, **kwargs: Any) -> Any:
                with self:
                    return await function(*args, **kwargs)

        elif inspect.isgeneratorfunction(function):

            def call(*args: Any, **kwargs: Any) -> Any:
                return _drive(self, function(*args, **kwargs))

        elif inspect.isasyncgenfunction(function):

            def call(*args: Any, **kwargs: Any) -> Any:
                return _drive_async(self, function(*args, **kwargs))

        else:

            def call(*args: Any, **kwargs: Any) -> Any:
                with self:
                    return function(*args, **kwargs)

        return functools.wraps(function)(call)  # type: ignore[return-value]


def _drive(scope: _Entered, inner: Generator[Any, Any, Any]) -> Generator[Any, Any, Any]:
    """Runs each step of a generator inside the scope, and nothing of its consumer (PEP 380, without `yield from`)."""
    step: Callable[..., Any] = inner.send
    given: Any = None
    while True:
        try:
            with scope:
                item = step(given)
        except StopIteration as end:
            return end.value
        try:
            given = yield item
            step = inner.send
        except GeneratorExit:
            with scope:
                inner.close()
            raise
        except BaseException as error:
            given, step = error, inner.throw


async def _drive_async(scope: _Entered, inner: AsyncGenerator[Any, Any]) -> AsyncGenerator[Any, Any]:
    """The same for an async generator."""
    step: Callable[..., Any] = inner.asend
    given: Any = None
    while True:
        try:
            async with scope:
                item = await step(given)
        except StopAsyncIteration:
            return
        try:
            given = yield item
            step = inner.asend
        except GeneratorExit:
            async with scope:
                await inner.aclose()
            raise
        except BaseException as error:
            given, step = error, inner.athrow


def _text(given: object) -> str:
    """What a ledger can hold: of bytes that are no text, which Python keeps in half characters, the mark for those."""
    text = str(given)
    try:
        text.encode()
    except UnicodeEncodeError:
        text = text.encode(errors="surrogatepass").decode(errors="replace")
    return text


class customer(_Entered):
    __slots__ = ("_name",)

    def __init__(self, name: str | None) -> None:
        """On whose behalf the calls inside are made: our customer, tenant or user.

        Works as `with`, as `async with` and as a decorator, and may be entered any number of times, by any number
        of threads and tasks. Threads and tasks started inside with a copy of the context (`asyncio.create_task`,
        `asyncio.to_thread`) inherit it; a plain `threading.Thread` does not before Python 3.14.

        A `with` block in a generator stays in force for the generator's consumer between two items, because
        context variables do not know generators. Decorate the generator function instead: then the scope holds
        while the generator runs, and at no other time.

        `None` takes back the customer around it: the calls inside are those of no one in particular.
        """
        self._name = None if name is None else _text(name)

    def _frame(self, around: Frame | None) -> Frame:
        if around is None:
            return Frame(self._name, [], False, None, self)
        return Frame(self._name, around.tags, around.batch, around, self)


class tags(_Entered):
    __slots__ = ("_tags",)

    def __init__(self, **tags: object) -> None:
        """Free-form tags for the calls inside, added to those of the scopes around it.

        `with farcall.tags(team="growth"):` A tag of the same name further in wins. At most eight are kept, of at
        most 128 bytes each; what is cut is counted (`status()["counters"]["cut_names"]`).
        """
        self._tags = {_text(key): _text(value) for key, value in tags.items()}

    def _frame(self, around: Frame | None) -> Frame:
        if around is None:
            return Frame(None, list(self._tags.items()), False, None, self)
        merged = dict(around.tags)
        merged.update(self._tags)
        return Frame(around.customer, list(merged.items()), around.batch, around, self)


class priority(_Entered):
    __slots__ = ("_batch",)

    def __init__(self, name: Literal["interactive", "batch"]) -> None:
        """Who goes first where a rule has not enough for all: `interactive` (what all calls are) before `batch`.

        `with farcall.priority("batch"):` around calls whose answers nobody waits for.
        """
        if name not in ("interactive", "batch"):
            msg = f"no priority {name!r}; there are 'interactive' and 'batch'"
            raise ValueError(msg)
        self._batch = name == "batch"

    def _frame(self, around: Frame | None) -> Frame:
        if around is None:
            return Frame(None, [], self._batch, None, self)
        return Frame(around.customer, around.tags, self._batch, around, self)
