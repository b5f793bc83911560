"""What your service asks of other people's APIs: counted, and attributed to your customers, in your own process.

import farcall

farcall.install(service="checkout")

with farcall.customer("acme"):
    openai.OpenAI().chat.completions.create(...)

farcall.report("vendors", since="1h")
"""

from __future__ import annotations

from farcall import outbox
from farcall._acting import Refused
from farcall._install import FarcallWarning, flush, install, status, uninstall
from farcall._purge import purge_cache
from farcall._report import report
from farcall._scope import customer, priority, tags

__all__ = [
    "FarcallWarning",
    "Refused",
    "customer",
    "flush",
    "install",
    "outbox",
    "priority",
    "purge_cache",
    "report",
    "status",
    "tags",
    "uninstall",
]
