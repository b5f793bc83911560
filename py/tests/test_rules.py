"""Where rules decide, every client obeys them: it waits, sends again, changes the request, or does not send at all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from ruled import Rules

REFUSED = """
try:
    client("GET", SIM + "/scenario/ok", CA)
except Base as error:
    assert isinstance(error, farcall.Refused), type(error).__mro__
    print(json.dumps([error.by, error.rule, error.reason, error.until, error.retry_after, str(error)]))
"""


def test_a_denied_call_raises_an_error_of_the_client_and_of_ours(rules: Rules) -> None:
    before = rules.sim.counts("/scenario/ok")["calls"]
    policy = '[[policy]]\nname = "no-sim"\nmatch = { vendor = "sim" }\nverdict = "deny"\nreason = "not here"\n'
    by, rule, reason, until, retry_after, text = rules.run(policy, REFUSED)

    assert (by, rule, reason, until, retry_after) == ("policy", "no-sim", "not here", None, None)
    assert "no-sim" in text
    assert rules.outcomes() == {(0, "refused-policy"): 1}
    assert rules.sim.counts("/scenario/ok")["calls"] == before


# In a process of a pool, and in one that never called `install()` and imported nothing of what raised it.
ACROSS = """
import concurrent.futures, copy, multiprocessing, pickle, subprocess

def ask(_=None):
    client("GET", SIM + "/scenario/ok", CA)

def said(error):
    told = [error.by, error.rule, error.reason, error.until, type(error.retry_after).__name__, str(error)]
    return [type(error).__name__, *told, getattr(error, "request", None) is None]

caught = []
fork = multiprocessing.get_context("fork")
with fork.Pool(1) as pool:
    try:
        pool.map(ask, [1])
    except Base as error:
        caught.append(error)
with concurrent.futures.ProcessPoolExecutor(1, mp_context=fork) as pool:
    try:
        pool.submit(ask).result()
    except Base as error:
        caught.append(error)
try:
    ask()
except Base as error:
    again = [copy.copy(error), copy.deepcopy(error), *(pickle.loads(pickle.dumps(error, n)) for n in range(6))]
    assert all(type(one) is type(error) and one.retry_after == error.retry_after for one in again)
    assert all(isinstance(one, farcall.Refused) for one in caught)
    fresh = "import pickle, sys, farcall; error = pickle.load(sys.stdin.buffer);" \
        "kinds = [kind.__module__ + '.' + kind.__name__ for kind in type(error).__mro__];" \
        "print([isinstance(error, farcall.Refused), farcall.status()['installed'],"\\
        "KIND in kinds, error.rule, str(error)])"
    kind = next(one for one in type(error).__mro__[2:] if one is not farcall.Refused)
    named = f"KIND = {kind.__module__ + '.' + kind.__name__!r};"
    out = subprocess.run([sys.executable, "-c", named + fresh], input=pickle.dumps(error), stdout=subprocess.PIPE)
    assert out.stdout.decode().strip() == str([True, False, True, "none", str(error)]), out
    print(json.dumps([said(error), *map(said, caught + again)]))
"""


def test_a_refusal_reaches_other_processes_as_what_it_is(rules: Rules) -> None:
    quota = '[[quota]]\nname = "none"\nmatch = { vendor = "sim" }\nlimit = "1 request / day"\nmax_wait = "0s"\n'
    raised, *others = rules.run(quota, 'client("GET", SIM + "/scenario/ok", CA)\n' + ACROSS)
    assert raised[1:3] == ["quota", "none"]
    assert raised[5] == "float"
    assert len(others) == 10
    for other in others:
        # When it would pass is told anew to each.
        assert other[:4] + other[5:6] + other[7:] == raised[:4] + raised[5:6] + raised[7:]


def test_a_kill_switch_refuses(rules: Rules) -> None:
    by, rule, *_ = rules.run('[[rollout]]\nname = "off"\nmatch = { vendor = "sim" }\nkill = true\n', REFUSED)
    assert (by, rule) == ("rollout", "off")


def test_a_budget_that_is_spent_refuses_and_says_until_when(rules: Rules) -> None:
    budget = '[[budget]]\nname = "two"\nmatch = { vendor = "sim" }\nlimit = "2 requests / month"\nover = "refuse"\n'
    spend = 'for _ in range(2): assert client("GET", SIM + "/scenario/ok", CA).status == 200\n'
    by, rule, _, until, retry_after, _ = rules.run(budget, spend + REFUSED)

    assert (by, rule) == ("budget", "two")
    assert until > 1_700_000_000
    assert 0 < retry_after <= 31 * 86_400
    assert rules.outcomes() == {(200, "complete"): 2, (0, "refused-budget"): 1}


def test_a_rate_makes_calls_wait_and_the_ledger_knows_how_long(rules: Rules) -> None:
    quota = '[[quota]]\nmatch = { vendor = "sim" }\nlimit = "1 requests / 2s"\nburst = 1\nmax_wait = "1m"\n'
    # The second one waits for what is left of its two seconds; where the machine was busier than that, a later one.
    for made in range(2, 20, 2):
        rules.run(quota, 'for _ in range(2): assert client("GET", SIM + "/scenario/ok", CA).status == 200')
        assert rules.outcomes() == {(200, "complete"): made}
        calls, attempts, waited = rules.total("calls", "attempts", "waited")
        assert (calls, attempts) == (made, made)
        if waited > 0:
            return
    pytest.fail("no call waited")


RETRY = '[[resilience]]\nmatch = { vendor = "sim" }\nattempts = 3\nbackoff = "10ms..20ms"\n'


def test_a_failed_attempt_is_repeated_with_its_whole_body_and_one_key(rules: Rules) -> None:
    path = f"/echoed/{rules.name}"
    rules.sim.control("POST", "script", {"match": {"path": path}, "count": 1, "effect": {"status": 503}})
    status = rules.run(RETRY, f'print(client("POST", SIM + "{path}", CA, body=b"x" * 3000).status)')

    assert status == 200
    assert rules.outcomes() == {(200, "complete"): 1}
    assert rules.total("calls", "attempts", "bytes_out") == (1, 2, 6000)
    seen = [one for one in rules.sim.control("GET", "requests?last=20") if one["path"] == path]
    keys = [value for one in seen for name, value in _pairs(one["headers"]) if name.lower() == "idempotency-key"]
    assert [one["status"] for one in seen] == [503, 200]
    assert len(keys) == 2
    assert len(set(keys)) == 1
    assert rules.sim.counts(path)["bytes_in"] == 6000


def test_a_body_that_goes_out_once_is_not_sent_again(rules: Rules) -> None:
    path = f"/once/{rules.name}"
    rules.sim.control("POST", "script", {"match": {"path": path}, "effect": {"status": 503}})
    chunks = (
        "async def chunks():\n    yield b'x' * 10\n"
        if "async" in rules.name
        else "def chunks():\n    yield b'x' * 10\n"
    )
    assert rules.run(RETRY, f'{chunks}print(client("PUT", SIM + "{path}", CA, body=chunks()).status)') == 503
    assert rules.outcomes() == {(503, "complete"): 1}
    assert rules.total("calls", "attempts", "bytes_out") == (1, 1, 10)


def test_a_connection_that_breaks_is_made_again(rules: Rules) -> None:
    path = f"/reset/{rules.name}"
    rules.sim.control("POST", "script", {"match": {"path": path}, "count": 1, "effect": {"reset": {}}})
    over_tls = f'print(client("GET", os.environ["SIM_TLS"] + "{path}", CA).status)'
    assert rules.run(RETRY, over_tls) == 200
    assert rules.total("calls", "attempts") == (1, 2)


def test_an_attempt_that_is_too_slow_is_given_up(rules: Rules) -> None:
    path = f"/slow/{rules.name}"
    rules.sim.control("POST", "script", {"match": {"path": path}, "count": 1, "effect": {"hang": True}})
    # On a machine that is busy, so may others be.
    rule = RETRY.replace("3", "10") + 'retry_budget_least = 10\nattempt_timeout = "1s"\n'
    assert rules.run(rule, f'print(client("GET", SIM + "{path}", CA).status)') == 200
    calls, attempts = rules.total("calls", "attempts")
    assert calls == 1
    assert attempts >= 2


FAULT = 'allow_faults = true\n[[fault]]\nname = "broken"\nmatch = { vendor = "sim" }\nshare = "100%"\n'
EXPIRES = 'expires = "2100-01-01T00:00:00Z"\n'


def test_an_injected_status_is_a_response_of_the_client(rules: Rules) -> None:
    status, body = rules.run(
        FAULT + EXPIRES + "status = 418\n",
        'answer = client("GET", SIM + "/scenario/ok", CA)\nprint(json.dumps([answer.status, len(answer.body)]))',
    )
    assert (status, body) == (418, 0)
    assert rules.outcomes() == {(418, "refused-fault"): 1}


def test_an_injected_error_is_an_error_of_the_client(rules: Rules) -> None:
    code = """
try:
    client("GET", SIM + "/scenario/ok", CA)
except Base as error:
    print(json.dumps(isinstance(error, farcall.Refused)))
"""
    assert rules.run(FAULT + EXPIRES + 'error = "timeout"\n', code) is False
    assert rules.outcomes() == {(0, "refused-fault"): 1}


def test_a_rollout_changes_host_path_and_headers(rules: Rules) -> None:
    rollout = (
        '[[rollout]]\nname = "new"\nmatch = { vendor = "sim" }\nby = "call"\nshare = "100%"\n'
        f'variant = {{ host = "localhost:{rules.sim.tls_port}", path_prefix = "/v2", headers = {{ x-new = "yes" }}, '
        "keep_credentials = true }\n"
    )
    path = f"/moved/{rules.name}"
    code = f'for _ in range(2): print(client("GET", "https://127.0.0.1:{rules.sim.tls_port}{path}?a=1", CA).status)'
    assert rules.run(rollout, code.replace("print", "assert 200 == ")) is None
    seen = [one for one in rules.sim.control("GET", "requests?last=20") if one["path"] == f"/v2{path}"]
    assert len(seen) == 2
    for one in seen:
        headers = {name.lower(): value for name, value in _pairs(one["headers"])}
        assert headers["x-new"] == "yes"
        assert one["query"] in ("a=1", "?a=1")
        assert one["host"].startswith("localhost")


# From 127.0.0.1 to localhost, and so from one host to another.
REDIRECTED = """
try:
    client("GET", SIM + "{path}", CA)
except Base as error:
    assert isinstance(error, farcall.Refused), type(error).__mro__
    print(json.dumps([error.by, error.rule]))
"""


def _sends_on(rules: Rules, path: str, to: str) -> None:
    effect = {"status": 302, "body": "", "headers": {"location": f"{rules.sim.tls}{to}"}}
    rules.sim.control("POST", "script", {"match": {"path": path}, "effect": effect})


def test_a_redirect_does_not_lead_to_where_a_rule_denies_it(rules: Rules) -> None:
    path, denied = f"/from/{rules.name}", f"/denied/{rules.name}"
    _sends_on(rules, path, denied)
    policy = '[[policy]]\nname = "not-there"\nmatch = { host = "localhost" }\nverdict = "deny"\n'
    assert rules.run(policy, REDIRECTED.format(path=path)) == ["policy", "not-there"]
    assert rules.outcomes() == {(302, "complete"): 1, (0, "refused-policy"): 1}
    assert rules.sim.counts(path)["calls"] == 1
    assert rules.sim.counts(denied)["calls"] == 0


def test_each_hop_of_a_redirect_has_its_own_turn_and_attempts(rules: Rules) -> None:
    path, to = f"/on/{rules.name}", f"/shaky/{rules.name}"
    _sends_on(rules, path, to)
    rules.sim.control("POST", "script", {"match": {"path": to}, "count": 1, "effect": {"status": 503}})
    quota = '[[quota]]\nmatch = { host = "localhost" }\nlimit = "1000 requests / 1s"\nmax_wait = "5s"\n'
    assert rules.run(RETRY + quota, f'print(client("GET", SIM + "{path}", CA).status)') == 200
    assert rules.outcomes() == {(302, "complete"): 1, (200, "complete"): 1}
    assert rules.total("calls", "attempts") == (2, 3)


def test_a_call_that_no_rule_is_about_is_counted_as_ever(rules: Rules) -> None:
    policy = '[[policy]]\nmatch = { vendor = "openai" }\nverdict = "deny"\n'
    code = 'assert client("POST", SIM + "/scenario/echo", CA, body=b"x" * 1000).body == b"x" * 1000'
    rules.run(policy, code)
    assert rules.outcomes() == {(200, "complete"): 1}
    assert rules.total("bytes_out", "bytes_in") == (1000, 1000)


def test_a_failure_of_ours_lets_the_call_go_out_as_it_is(rules: Rules) -> None:
    code = """
def broken(*_): raise RuntimeError("ours")
farcall._acting.begin_deciding = broken
assert client("GET", SIM + "/scenario/ok", CA).status == 200
print(json.dumps(sum(fault["count"] for fault in farcall.status()["faults"].values())))
"""
    policy = '[[policy]]\nmatch = { vendor = "sim" }\nverdict = "deny"\n'
    assert rules.run(policy, code) == 1


def test_a_budget_near_its_end_sends_the_cheaper_model(rules: Rules) -> None:
    budget = (
        '[[budget]]\nmatch = { vendor = "sim" }\nlimit = "100 requests / month"\nat_5_percent = "downgrade"\n'
        'over = "downgrade"\ndowngrade = { from = "big*", to = "small" }\n'
        # The engine reads the model only where the vendor has prices.
        '[[price]]\nvendor = "sim"\nmodels = ["big-1", "small"]\nas_of = "2026-11-01"\n'
        'input = "2.00 USD / 1M tokens"\noutput = "8.00 USD / 1M tokens"\n'
    )
    path = f"/scenario/echo?{rules.name}"
    body = '{"model": "big-1", "messages": []}'
    code = f"""
for _ in range(7): answer = client("POST", SIM + "{path}", CA, body=b'{body}')
print(json.dumps(answer.body.decode()))
"""
    assert rules.run(budget, code) == body.replace("big-1", "small")


@pytest.mark.parametrize("rules", ["httpx"], indirect=True)
def test_an_sdk_tells_of_a_refusal_as_the_cause_of_its_own_error(rules: Rules) -> None:
    code = """
import openai
sdk = openai.OpenAI(api_key="k", base_url=SIM + "/v1", max_retries=0)
try:
    sdk.models.list()
except openai.APIConnectionError as error:
    print(json.dumps(error.__cause__.rule))
"""
    policy = '[[policy]]\nname = "no-sim"\nmatch = { vendor = "sim" }\nverdict = "deny"\n'
    assert rules.run(policy, code) == "no-sim"


# Rules about somebody else: where any are, requests show their headers, and SDKs are recognised by those.
ELSEWHERE = '[[quota]]\nmatch = { vendor = "github" }\nmax_wait = "1s"\n'

SDKS = {
    "openai": """
import openai
sdk = openai.OpenAI(api_key="k", base_url=SIM + "/v1", max_retries=2)
ask = lambda: sdk.chat.completions.create(model="m", messages=[{"role": "user", "content": "hello"}])
""",
    "openai-async": """
import asyncio, openai
def ask():
    async def asking():
        async with openai.AsyncOpenAI(api_key="k", base_url=SIM + "/v1", max_retries=2) as sdk:
            await sdk.chat.completions.create(model="m", messages=[{"role": "user", "content": "hello"}])
    asyncio.run(asking())
""",
    "stripe": """
import stripe
sdk = stripe.StripeClient("sk_test", base_addresses={"api": SIM}, max_network_retries=2)
ask = lambda: sdk.v1.payment_intents.create({"amount": 25, "currency": "usd"})
""",
    "stripe-get": """
import stripe
sdk = stripe.StripeClient("sk_test", base_addresses={"api": SIM}, max_network_retries=2)
ask = lambda: sdk.v1.payment_intents.retrieve("pi_1")
""",
}
PATHS = {
    "openai": "/v1/chat/completions",
    "openai-async": "/v1/chat/completions",
    "stripe": "/v1/payment_intents",
    "stripe-get": "/v1/payment_intents/pi_1",
}
RETRY_MORE = (
    '[[resilience]]\nmatch = { vendor = "sim" }\nattempts = 5\nbackoff = "1ms..2ms"\n'
    'retry_on = ["409", "429", "503"]\nretry_budget = "100%"\n'
)
FAILED = {
    "openai": {"status": 429, "headers": {"retry-after-ms": "1"}},
    "openai-async": {"status": 503, "headers": {"retry-after-ms": "1"}},
    "stripe": {"status": 503},
    "stripe-get": {"status": 409},
}


@pytest.mark.parametrize("rules", ["httpx"], indirect=True)
@pytest.mark.parametrize("sdk", SDKS)
def test_what_an_sdk_tries_again_is_one_call_with_all_its_attempts(rules: Rules, sdk: str) -> None:
    script = {"match": {"path": PATHS[sdk]}, "count": 1, "effect": FAILED[sdk]}
    rules.sim.control("POST", "script", script)
    rules.run(ELSEWHERE, SDKS[sdk] + "ask()")
    assert rules.outcomes() == {(200, "complete"): 1}
    assert rules.total("calls", "attempts") == (1, 2)
    family = "stainless" if sdk.startswith("openai") else "stripe"
    assert f"answered {FAILED[sdk]['status']}: the SDK above ({family}) tries again after" in rules.events()


@pytest.mark.parametrize("rules", ["httpx"], indirect=True)
@pytest.mark.parametrize("sdk", SDKS)
def test_where_an_sdk_tries_again_we_do_not(rules: Rules, sdk: str) -> None:
    path = PATHS[sdk]
    before = rules.sim.counts(path)["calls"]
    script = {"match": {"path": path}, "effect": FAILED[sdk]}
    rules.sim.control("POST", "script", script)
    rules.run(RETRY_MORE, SDKS[sdk] + "try:\n    ask()\nexcept Exception:\n    pass\n")
    assert rules.total("calls", "attempts") == (1, 3), "its own one and two more, and none of ours"
    assert rules.sim.counts(path)["calls"] - before == 3
    assert "no further attempt, the SDK retries by itself" in rules.events()


@pytest.mark.parametrize("rules", ["httpx"], indirect=True)
def test_an_sdk_that_gives_up_is_one_failed_call_also_at_the_end_of_its_program(rules: Rules) -> None:
    script = {"match": {"path_prefix": "/v1/chat"}, "effect": FAILED["openai"]}
    rules.sim.control("POST", "script", script)
    code = SDKS["openai"] + "try:\n    ask()\nexcept openai.RateLimitError:\n    pass\n"
    rules.run(ELSEWHERE, code)
    assert rules.outcomes() == {(429, "complete"): 1}
    assert rules.total("calls", "attempts") == (1, 3)


def test_priority_is_checked_and_nests() -> None:
    import farcall
    from farcall._scope import current

    with pytest.raises(ValueError, match="batch"):
        farcall.priority("urgent")  # type: ignore[arg-type]
    with farcall.priority("batch"), farcall.customer("acme"):
        frame = current.get()
        assert frame is not None
        assert (frame.batch, frame.customer) == (True, "acme")
        with farcall.priority("interactive"):
            inner = current.get()
            assert inner is not None
            assert not inner.batch


def _pairs(headers: Any) -> list[tuple[str, str]]:
    return list(headers.items()) if isinstance(headers, dict) else [tuple(pair) for pair in headers]
