"""requests: counted in urllib3, below it.

`HTTPAdapter.send` makes one urllib3 request, which may make several exchanges (`Retry` mounted on the adapter), and
each of them is a call. So the hook is urllib3's; this module only makes sure that it is the urllib3 which requests
uses, for some environments carry two.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from farcall._adapters import urllib3_

if TYPE_CHECKING:
    from types import ModuleType

    from farcall._hook import Patches


def attach(module: ModuleType, number: int, patches: Patches) -> None:
    """Hooks the urllib3 below `module`, which is requests."""
    below = module.adapters.PoolManager.__module__.rpartition(".")[0]
    urllib3_.attach(sys.modules[below], number, patches)
