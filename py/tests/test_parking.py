"""Calls that fail go into the outbox where a rule says so, through every client."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from ruled import Rules

if TYPE_CHECKING:
    from conftest import Program, Sim

CLIENTS = ["requests", "urllib3", "httpx", "httpx-async", "httpx2", "httpx2-async"]

PARK = '[[outbox]]\nname = "orders"\nmatch = { vendor = "sim" }\npark = true\n'


@pytest.fixture(params=CLIENTS)
def rules(request: pytest.FixtureRequest, program: Program, sim: Sim) -> Any:
    sim.control("DELETE", "script")
    yield Rules(program, sim, request.param)
    sim.control("DELETE", "script")


def once(rules: Rules, path: str, effect: dict[str, Any]) -> None:
    rules.sim.control("POST", "script", {"match": {"path": path}, "count": 1, "effect": effect})


def got(rules: Rules, path: str) -> list[dict[str, Any]]:
    """What the vendor got there, in order."""
    requests = rules.sim.control("GET", "requests")
    return [request for request in requests if request["path"] == path]


# What the application got, and what became of the parked call.
PARKED = """
with farcall.customer("acme"):
    answer = client("POST", SIM + PATH, CA, body=b"amount=7")
said = json.loads(answer.body)["farcall"]
item = farcall.outbox.wait(said["id"], 60)
print(json.dumps([answer.status, said, item["state"], item["idempotency_key"], item["customer"]]))
"""


@pytest.mark.parametrize("effect", [{"status": 503, "body": "down"}, {"reset": {}}], ids=["503", "reset"])
def test_a_call_that_fails_is_acknowledged_and_delivered_later_under_the_same_key(
    rules: Rules, effect: dict[str, Any]
) -> None:
    path = f"/parked/{rules.name}/{'status' in effect}"
    once(rules, path, effect)
    status, said, state, key, customer = rules.run(PARK, f"PATH = {path!r}\n" + PARKED)
    assert (status, state, customer) == (202, "delivered", "acme")
    assert (said["outbox"], said["idempotency_key"]) == ("parked", key)
    requests = got(rules, path)
    assert len(requests) == 2
    for request in requests:
        assert (request["method"], request["body"]) == ("POST", "amount=7")
        assert dict(request["headers"])["idempotency-key"] == key
    story = rules.events()
    assert "`orders` has it parked in the outbox" in story
    assert f"parked: call {said['id']} of the outbox" in story


UNTAKEN = """
import pathlib
(pathlib.Path(os.environ["FARCALL_HOME"]) / "outbox.db").mkdir(parents=True)
try:
    answer = client("POST", SIM + PATH, CA, body=b"amount=7")
    seen = [answer.status, answer.body.decode()]
except Base as error:
    seen = ["raised", isinstance(error, farcall.Refused)]
print(json.dumps(seen))
"""


def test_where_the_outbox_does_not_take_it_the_application_gets_what_the_wire_said(rules: Rules) -> None:
    path = f"/untaken/{rules.name}"
    once(rules, path, {"status": 503, "body": "down"})
    assert rules.run(PARK, f"PATH = {path!r}\n" + UNTAKEN) == [503, "down"]
    assert "would have it parked, but" in rules.events()


def test_where_the_outbox_does_not_take_it_the_application_gets_the_error(rules: Rules) -> None:
    path = f"/untaken-error/{rules.name}"
    once(rules, path, {"reset": {}})
    assert rules.run(PARK, f"PATH = {path!r}\n" + UNTAKEN) == ["raised", False]


REFUSED = """
answer = client("POST", SIM + PATH, CA, body=b"amount=7")
said = json.loads(answer.body)["farcall"]
print(json.dumps([answer.status, said["why"], farcall.outbox.item(said["id"])["state"]]))
"""


def test_a_call_that_a_quota_refuses_is_parked_without_being_sent(rules: Rules) -> None:
    path = f"/refused/{rules.name}"
    quota = '[[quota]]\nname = "none"\nmatch = { vendor = "sim" }\nlimit = "1 request / day"\nmax_wait = "0s"\n'
    first = 'client("POST", SIM + PATH, CA, body=b"first")\n'
    seen = rules.run(PARK + quota, f"PATH = {path!r}\n" + first + REFUSED)
    assert seen == [202, "refused by quota", "pending"]
    assert [request["body"] for request in got(rules, path)] == ["first"]
