"""Whatever fails in our own code: the application gets what it would have got, and the failure is counted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import farcall
import pytest
from clients import CLIENTS, minds_a_short_body
from farcall import _errors, _hook
from farcall._adapters import httpx_, urllib3_
from farcall._native import native
from hooked import native_hook

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from conftest import Ledger, Program, Sim


class Broken:
    """A call whose methods fail, all but those named."""

    def __init__(self, *sound: str) -> None:
        self._sound = sound

    def __getattr__(self, name: str) -> Any:
        if name in self._sound:
            return lambda *_: None
        msg = f"injected into {name}"
        raise RuntimeError(msg)


def fail(*_: object) -> Any:
    msg = "injected"
    raise RuntimeError(msg)


@pytest.fixture(params=CLIENTS)
def client(request: pytest.FixtureRequest) -> Callable[..., Any]:
    farcall.install()
    return CLIENTS[request.param]


def faults() -> int:
    return sum(one["count"] for one in farcall.status()["faults"].values())


@pytest.fixture
def in_python(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """All hooks are those in Python, which alone can be given calls that fail."""
    farcall.uninstall()
    with monkeypatch.context() as patch:
        patch.setattr(native, "hook", lambda _kind, _adapter, _original, whole, *_: whole)
        farcall.install()
    yield
    farcall.uninstall()
    farcall.install()


@pytest.fixture(params=[(), ("head",), ("head", "body")], ids=["all", "body", "end"])
def broken(in_python: None, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Calls that begin well, and fail at something that follows."""
    for adapter in (httpx_, urllib3_):
        monkeypatch.setattr(adapter, "begin", lambda *_: Broken(*request.param))


@pytest.mark.parametrize("path", ["ok", "chunked", "gzip", "redirect/1", "bytes/0", "status/204", "sse"])
def test_a_call_object_that_fails_changes_nothing(
    client: Callable[..., Any], sim: Sim, broken: None, path: str
) -> None:
    before = faults()
    answer = client("POST" if path == "ok" else "GET", f"{sim.tls}/scenario/{path}", sim.ca)
    assert answer.status in (200, 204)
    assert faults() > before


@pytest.mark.parametrize("sound", [(), ("head",), ("head", "body")])
def test_an_exception_passes_through_a_call_object_that_fails(
    client: Callable[..., Any], in_python: None, sim: Sim, monkeypatch: pytest.MonkeyPatch, sound: tuple[str, ...]
) -> None:
    def error_of(path: str) -> list[Any]:
        # What breaks has the time that it takes, so that only what hangs can time out.
        more = {"timeout": 0.5} if path == "hang" else {}
        if path == "truncate" and not minds_a_short_body(client):
            assert client("GET", f"{sim.plain}/scenario/{path}", sim.ca).status == 200
            return []
        with pytest.raises(Exception) as caught:
            client("GET", f"{sim.plain}/scenario/{path}", sim.ca, **more)
        return [type(one) for one in _errors.chain(caught.value)]

    paths = ["reset", "reset-mid-body", "truncate", "hang", "garbage"]
    plain = [error_of(path) for path in paths]
    for adapter in (httpx_, urllib3_):
        monkeypatch.setattr(adapter, "begin", lambda *_: Broken(*sound))
    assert [error_of(path) for path in paths] == plain


def test_a_call_that_cannot_begin_goes_on_uncounted(
    client: Callable[..., Any], in_python: None, sim: Sim, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = faults()
    for adapter in (httpx_, urllib3_):
        monkeypatch.setattr(adapter, "begin", fail)
    with farcall.customer(ledger.customer):
        assert client("GET", f"{sim.tls}/scenario/ok", sim.ca).status == 200
    assert ledger.calls() == {}
    assert faults() == before + 1
    assert any("injected" in one["last"] for one in farcall.status()["faults"].values())


def test_a_classification_that_fails_leaves_the_exception_alone(
    client: Callable[..., Any], sim: Sim, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_errors, "classify", fail)
    before = faults()
    with pytest.raises(Exception, match=r"^(?!injected)"):
        client("GET", f"{sim.plain}/scenario/hang", sim.ca, timeout=0.1)
    assert faults() > before


class Pool:
    """Of urllib3's pools, what a hook looks at."""

    scheme, host, port = "https", "native.example", 443


def test_a_native_hook_that_cannot_begin_a_call_lets_the_exchange_go_on() -> None:
    farcall.install()

    def original(*args: object, **kwargs: object) -> tuple[object, object]:
        return args, kwargs

    hook = native_hook("exchange", 0, original, fail, fail, None)
    before = faults()
    arguments, options = (Pool(), object(), "GET", "/a"), {"body": b"", "preload_content": False}
    assert hook(*arguments, **options) == (arguments, options)
    assert faults() == before + 1


def test_a_native_hook_hands_out_a_response_that_it_does_not_understand() -> None:
    farcall.install()
    response = object()
    hook = native_hook("exchange", 0, lambda *_, **__: response, fail, lambda: None, None)
    before = faults()
    assert hook(Pool(), object(), "GET", "/a", body=None, preload_content=False) is response
    assert faults() == before + 1


def test_a_native_hook_hands_out_what_was_read_of_a_response_that_it_does_not_understand() -> None:
    farcall.install()

    class Response:
        _farcall_call = native.begin(0, "GET", "https", "native.example", 443, "/a", None)

    hook = native_hook("read", 0, lambda *_: b"data", fail, lambda: None, object)
    before = faults()
    assert hook(Response(), 10) == b"data"
    assert faults() == before + 1


@pytest.mark.parametrize("kind", ["exchange", "read"])
def test_an_exception_passes_through_a_native_hook(kind: Any) -> None:
    farcall.install()
    error = KeyError("the application's own")

    class Response(Pool):
        _farcall_call = native.begin(0, "GET", "https", "native.example", 443, "/a", None)

    def original(*_: object, **__: object) -> None:
        raise error

    hook = native_hook(kind, 0, original, fail, lambda *_: None, None)
    with pytest.raises(KeyError) as caught:
        hook(Response(), object(), "GET", "/a", body=None, preload_content=False)
    assert caught.value is error


def test_faults_reach_the_ledgers_counters(monkeypatch: pytest.MonkeyPatch) -> None:
    farcall.install()
    before = farcall.status()["counters"].get("python_hook_errors", 0)
    _hook.fail("test", Broken(), ValueError(), 0)  # type: ignore[arg-type]
    assert farcall.status()["counters"]["python_hook_errors"] == before + 1


def test_a_response_of_a_fake_is_left_alone(program: Program) -> None:
    out = program.run("""
        import farcall, httpx, io, urllib3
        farcall.install()
        made = urllib3.HTTPResponse(body=io.BytesIO(b"abc"), preload_content=False, headers={"content-length": "3"})
        print(made.read())
        mock = httpx.MockTransport(lambda request: httpx.Response(200, text="mock"))
        print(httpx.Client(transport=mock).get("https://api.stripe.com/").text)
        print(sum(one["calls"] for one in farcall.status()["adapters"].values()), farcall.status()["faults"])
    """)
    assert out.splitlines() == ["b'abc'", "mock", "0 {}"]
