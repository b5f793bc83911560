"""The native half, asked directly: written against the C API, it must refuse what it cannot read, and leak nothing."""

from __future__ import annotations

import gc
import sys
from typing import TYPE_CHECKING, Any

import farcall
import pytest
from farcall import _farcall as native

if TYPE_CHECKING:
    from conftest import Ledger

GOOD: tuple[Any, ...] = (0, "GET", "https", "native.example", 443, "/a", None)


@pytest.mark.parametrize(
    ("place", "wrong", "error"),
    [
        (0, "0", TypeError),
        (0, -1, OverflowError),
        (1, b"GET", TypeError),
        (1, None, TypeError),
        (3, "\ud800", UnicodeEncodeError),
        (4, "443", TypeError),
        (4, 65_536, OverflowError),
        (4, 1 << 70, OverflowError),
        (5, 7, TypeError),
        (6, object(), TypeError),
    ],
)
def test_a_call_with_arguments_that_cannot_be_read_raises_and_does_not_begin(
    place: int, wrong: object, error: type[Exception], ledger: Ledger
) -> None:
    arguments = [*GOOD[:place], wrong, *GOOD[place + 1 :]]
    before = native.calls()
    with pytest.raises(error):
        native.begin(*arguments)
    assert native.calls() == before


def test_a_wrong_number_of_arguments_raises(ledger: Ledger) -> None:
    call: Any = native.begin(*GOOD)
    begin: Any = native.begin
    for function, arguments in [
        (begin, ()),
        (begin, GOOD[:6]),
        (call.head, (200,)),
        (call.end, ()),
        (call.abandon, (1,)),
    ]:
        with pytest.raises(TypeError, match="were given"):
            function(*arguments)
    call.end(0)


def test_a_call_cannot_be_made_otherwise_and_its_methods_take_nothing_else(ledger: Ledger) -> None:
    kind: Any = native.Call
    with pytest.raises(TypeError):
        kind()
    with pytest.raises(TypeError):
        kind.end(object(), 0)
    with pytest.raises(TypeError):
        kind.invented = 1


def test_calls_leave_no_reference_behind(ledger: Ledger) -> None:
    arguments = (0, "GET", "https", "native.example", 443, "/" + "refcount" * 2, None)
    counted = [native.Call, None, True, False, *arguments]
    # What earlier tests left behind holds many references to None, and goes when it goes.
    gc.collect()
    gc.disable()
    try:
        before = [sys.getrefcount(one) for one in counted]
        for _ in range(10_000):
            call = native.begin(*arguments)
            assert call is not None
            call.head(200, 0)
            call.body(1)
            call.end(1)
        del call
        after = [sys.getrefcount(one) for one in counted]
    finally:
        gc.enable()
    # One too many or too few in each call is ten thousand; other threads come and go with some.
    assert all(abs(then - now) < 5_000 for then, now in zip(before, after, strict=True))


@pytest.mark.parametrize(
    ("method", "status", "follows"),
    [
        ("GET", 200, True),
        ("GET", 204, False),
        ("GET", 304, False),
        ("GET", 101, False),
        ("HEAD", 200, False),
        ("CONNECT", 200, False),
        ("POST", 500, True),
    ],
)
def test_the_head_tells_whether_a_body_follows_and_settles_the_call_where_none_does(
    method: str, status: int, follows: bool, ledger: Ledger
) -> None:
    with farcall.customer(ledger.customer):
        call = native.begin(0, method, "https", "native.example", None, "/a", farcall._scope.current.get())
    assert call is not None
    assert call.head(status, 0) is follows
    if follows:
        call.end(3)
    (row,) = ledger.rows()
    assert (row["calls"], row["status"], row["outcome"]) == (1, status, "complete")
