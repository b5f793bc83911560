"""What the answers that each client gets advise: which could have been kept, and for how long."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from conftest import Program, Sim

CLIENTS = ["requests", "urllib3", "httpx", "httpx-async", "httpx2", "httpx2-async"]
VENDOR = '[[vendor]]\nname = "sim"\nhosts = ["127.0.0.1", "localhost"]\n'
CODE = """
import json, sys
sys.path.insert(0, {tests!r})
import farcall
from clients import CLIENTS
farcall.install(service="checkout")
client = CLIENTS[{name!r}]
for _ in range(30):
    for path in ("steady", "moving"):
        assert client("GET", SIM + "/" + path, os.environ["SIM_CA"]).status == 200
print(json.dumps(farcall.report("advise", limit=100)))
"""


@pytest.fixture
def changing(sim: Sim) -> Any:
    """A vendor whose `/steady` is always the same, and whose `/moving` is another after five answers."""
    sim.control("DELETE", "script")
    rules = [
        {"match": {"path": "/moving"}, "count": 5, "effect": {"status": 200, "body": {"version": n}}} for n in range(6)
    ]
    rules.append({"match": {"path": "/steady"}, "effect": {"status": 200, "body": {"flags": "on"}}})
    sim.control("POST", "script", rules)
    yield
    sim.control("DELETE", "script")


def advice(program: Program, name: str, config: str) -> Any:
    file = program.home.parent / "farcall.toml"
    file.write_text(config + VENDOR)
    program.environment["FARCALL_CONFIG"] = str(file)
    return json.loads(program.run(CODE.format(tests=__file__.rpartition("/")[0], name=name)))


@pytest.mark.usefixtures("changing")
@pytest.mark.parametrize("name", CLIENTS)
def test_every_client_shows_which_answers_could_have_been_kept(program: Program, name: str) -> None:
    answer = advice(program, name, '[advise]\ncompare = "all"\n')
    assert (answer["answers"]["calls"], answer["answers"]["compared"]) == (60, 60)
    found = {row["endpoint"]: row for row in answer["rows"] if row["rule"] == "cacheable"}
    steady = found["GET /steady"]
    assert (steady["evidence"]["compared"], steady["evidence"]["compared_roughly"]) == (30, 0)
    within_a_day = steady["evidence"]["at"][-1]
    assert (within_a_day["ttl_s"], within_a_day["calls"], within_a_day["stale"]) == (86_400, 29, 0)
    assert '[[cache]]\nmatch = { vendor = "sim", endpoint = "GET /steady" }\nttl = "' in steady["config"]
    # However long its five equal answers take, to keep it for a day is never advised.
    assert "GET /moving" not in found or found["GET /moving"]["evidence"]["ttl_s"] < 86_400


@pytest.mark.usefixtures("changing")
def test_without_a_rule_calls_are_counted_and_how_to_compare_them_is_said(program: Program) -> None:
    answer = advice(program, "requests", "")
    assert answer["answers"] == {"calls": 60, "compared": 0, "not_compared": 60}
    assert any('compare = "all"' in note for note in answer["notes"])
