"""requests: counted in urllib3, below it.

`HTTPAdapter.send` makes one urllib3 request, which may make several exchanges (`Retry` mounted on the adapter), and
each of them is a call. So the hook is urllib3's; this module only makes sure that it is the urllib3 which requests
uses, for some environments carry two; and that a refused call is an error of requests too.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from farcall._acting import Refused
from farcall._adapters import urllib3_

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from farcall._hook import Patches


def attach(module: ModuleType, number: int, patches: Patches) -> None:
    """Hooks the urllib3 below `module`, which is requests."""
    below = module.adapters.PoolManager.__module__.rpartition(".")[0]
    urllib3_.attach(sys.modules[below], number, patches)
    base = module.exceptions.ConnectionError
    refused = type("RefusedConnectionError", (Refused, base), {"__doc__": Refused.__doc__})
    patches.replace(module.adapters.HTTPAdapter, "send", lambda original: _send_hook(original, refused))


def _send_hook(original: Any, refused: Any) -> Callable[..., Any]:
    def send(self: Any, request: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return original(self, request, *args, **kwargs)
        except Refused as refusal:
            # urllib3 would retry an error that is requests' already, for those are OSErrors.
            raise refused(str(refusal), request=request).like(refusal) from None

    return send
