"""requests: counted in urllib3, below it.

`HTTPAdapter.send` makes one urllib3 request, which may make several exchanges (`Retry` mounted on the adapter), and
each of them is a call. So the hook is urllib3's; this module only makes sure that it is the urllib3 which requests
uses, for some environments carry two; that a refused call is an error of requests too; and that an answer which is kept
needs no connection: where answers are, the first call begins here already, and is held for urllib3's hook.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from farcall import _acting
from farcall._acting import REFUSE, RESPOND, WAIT, Refused, caches, refused_as
from farcall._adapters import channels, urllib3_
from farcall._adapters.requests_stored import maker, shape
from farcall._adapters.urllib3_acting import Held, bytes_of, held, patience_of
from farcall._faults import fault
from farcall._hook import fail, scope
from farcall._native import native

if TYPE_CHECKING:
    from types import ModuleType

    from farcall._farcall import Call
    from farcall._hook import Patches


def attach(module: ModuleType, number: int, patches: Patches) -> None:
    """Hooks the urllib3 below `module`, which is requests."""
    below = sys.modules[module.adapters.PoolManager.__module__.rpartition(".")[0]]
    urllib3_.attach(below, number, patches)
    keeping = Keeping(module, below, number)
    kind = module.adapters.HTTPAdapter
    patches.replace(kind, "send", lambda original: _hook(original, number, keeping, kind))


def _hook(original: Any, number: int, keeping: Keeping, kind: Any) -> Any:
    """Native where it can be, with the one in Python for what the native one does not know."""

    def send(self: Any, request: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            if caches():
                return keeping.send(original, self, request, args, kwargs)
            return original(self, request, *args, **kwargs)
        except Refused as refusal:
            raise keeping.refusal(refusal, request) from None

    def go_on(call: Call, step: tuple[Any, ...], adapter: Any, request: Any, kwargs: dict[str, Any]) -> Any:
        try:
            return keeping.follow(call, step, None, original, adapter, request, (), kwargs)
        except Refused as refusal:
            raise keeping.refusal(refusal, request) from None

    def refuse(refusal: Refused, request: Any) -> None:
        raise keeping.refusal(refusal, request) from None

    known = native.Keeping(kind, kind.build_response, refuse, Refused, go_on, keeping.make, keeping.shape)
    return native.hook("send", number, original, send, scope, known)


class Keeping:
    """What is done of a call before urllib3 is asked, where a rule may keep answers."""

    def __init__(self, module: Any, below: Any, number: int) -> None:
        self._number = number
        self._adapter = module.adapters.HTTPAdapter
        self._select_proxy = module.utils.select_proxy
        self.make = maker(below)
        self.shape = shape(module, below)
        # urllib3 would retry an error that is requests' already, for those are OSErrors.
        self._refused = refused_as(module.exceptions.ConnectionError)

    def refusal(self, refusal: Refused, request: Any) -> Any:
        """A refusal as an error of requests."""
        return self._refused(str(refusal), request=request).like(refusal)

    def send(self, original: Any, adapter: Any, request: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Answers from what is kept, or lets urllib3 make the exchange."""
        if args:
            _, timeout, verify, cert, proxies = (*args, *_rest(args, kwargs))
        else:
            timeout, proxies = kwargs.get("timeout"), kwargs.get("proxies")
            verify, cert = kwargs.get("verify", True), kwargs.get("cert")
        call, channel = self._begin(adapter, request, timeout, verify, cert, proxies)
        if call is None:
            return original(adapter, request, *args, **kwargs)
        return self.follow(call, _acting.step(call, False), channel, original, adapter, request, args, kwargs)

    def follow(
        self,
        call: Call,
        step: tuple[Any, ...],
        channel: bytes | None,
        original: Any,
        adapter: Any,
        request: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        """Does what the engine says of a call that began."""
        # Before a connection is taken: the call that is waited for may need the last one.
        while step[0] == WAIT:
            _acting.wait(call, step[1])
            step = _acting.step(call, False)
        if step[0] == RESPOND:
            try:
                return self.make(*step[1:], adapter, request)
            except Exception as error:
                fault("requests.stored", error)
                return original(adapter, request, *args, **kwargs)
        if step[0] == REFUSE:
            raise Refused(step[1]).told(step)
        holder = Held(call, step, channel)
        token = held.set(holder)
        try:
            response = original(adapter, request, *args, **kwargs)
        except BaseException as error:
            if holder.take() is not None:
                fail("requests.fail", call, error, 0)
            raise
        finally:
            held.reset(token)
        if holder.take() is not None:
            # Nobody looked for it: the hooks were taken out meanwhile.
            _carried(call, response)
        return response

    def _begin(
        self, adapter: Any, request: Any, timeout: Any, verify: Any, cert: Any, proxies: Any
    ) -> tuple[Call | None, bytes | None]:
        """Begins a call; None between `uninstall()` and `install()`, and where we fail."""
        try:
            body = request.body
            content = b"" if body is None else bytes_of(body)
            if content is None:
                # Sent once, and nothing to be kept: urllib3's hook knows more of it.
                return None, None
            proxy = self._select_proxy(request.url, proxies) if proxies else None
            channel = channels.of_adapter(adapter, self._adapter, verify, cert, proxy)
            try:
                # The mapping's own way to its pairs goes through Python for each.
                headers = list(request.headers._store.values())
            except AttributeError:
                headers = list(request.headers.items())
            return _acting.begin_deciding(
                self._number,
                request.method,
                "",
                "",
                None,
                request.url,
                scope(),
                headers,
                len(content),
                content,
                True,
                channel,
                patience_of(timeout),
                False,
            ), channel
        except Exception as error:
            fault("requests.begin", error)
            return None, None


def _carried(call: Call, response: Any) -> None:
    """The exchange of a call went past the hook that it waited for; of its response is known what requests shows."""
    try:
        call.answer(response.status_code, list(response.headers.items()))
        call.opened(response.status_code)
        call.end(0)
    except Exception as error:
        fault("requests.carried", error)


#: What `send` takes after the request, by name.
_DEFAULTS = (("stream", False), ("timeout", None), ("verify", True), ("cert", None), ("proxies", None))


def _rest(args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
    return [kwargs.get(name, default) for name, default in _DEFAULTS[len(args) :]]
