"""A vendor's answers that programs keep, and what came to the vendor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ruled import Rules

KEEP = '[[cache]]\nname = "all"\nmatch = {}\ncoalesce = "60s"\n'

HEAD = """
import farcall, keeping
ask = keeping.CLIENTS[{name!r}](CA)
TLS = os.environ["SIM_TLS"]
AT = TLS + {path!r}
def show(*answers):
    print(json.dumps([[a.status, a.kept, a.headers, a.body.decode("latin-1")] for a in answers]))
"""


class Kept:
    """A path of the vendor's, asked for by programs with one client where answers are kept."""

    def __init__(self, rules: Rules, name: str, **effect: Any) -> None:
        self.rules, self.sim = rules, rules.sim
        self.path = f"/kept/{name}/{rules.name}"
        if effect:
            self.script(**effect)

    def script(self, count: int | None = None, **effect: Any) -> None:
        rule: dict[str, Any] = {"match": {"path": self.path}, "effect": effect}
        self.sim.control("POST", "script", rule if count is None else rule | {"count": count})

    def run(self, code: str, keys: str = "", path: str | None = None, top: str = "") -> Any:
        head = HEAD.format(name=self.rules.name, path=path or self.path)
        return self.rules.run(top + KEEP + keys, head + code)

    def asked(self, path: str | None = None) -> list[dict[str, Any]]:
        """What came to the vendor."""
        self.sim.counts(self.path)  # waits until no exchange is open
        every = self.sim.control("GET", "requests?last=500")
        return [one for one in every if one["path"] == (path or self.path)]

    def outcomes(self) -> dict[tuple[int, str], int]:
        return self.rules.outcomes()


DISK = 'cache_disk = "16MiB"\ncache_disk_wait = "30s"\n'

FRESH = {"cache-control": "max-age=600"}

#: One client of each kind, for what the engine decides: the others differ in nothing there.
FEW = ["requests", "httpx2", "httpx2-async"]


def has_header(one: dict[str, Any], name: str) -> bool:
    return header(one, name) is not None


def header(one: dict[str, Any], name: str) -> str | None:
    headers = one["headers"]
    pairs = headers.items() if isinstance(headers, dict) else headers
    return next((value for known, value in pairs if known.lower() == name), None)
