"""The official packages of vendors, under the vendors' own names."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any

import farcall
import httpx2
import openai
import pytest
import stripe

if TYPE_CHECKING:
    from conftest import Ledger, Sim

pytestmark = pytest.mark.usefixtures("every_name_is_here")

CHAT: Any = {"model": "gpt-5-mini", "messages": [{"role": "user", "content": "hello"}]}


def openai_options(sim: Sim) -> dict[str, Any]:
    return {"api_key": "sk-test", "base_url": f"https://api.openai.com:{sim.tls_port}/v1"}


@pytest.fixture
def trusted(sim: Sim) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=sim.ca)


def test_a_chat_completion_is_one_call(sim: Sim, ledger: Ledger, trusted: ssl.SSLContext) -> None:
    client = openai.OpenAI(**openai_options(sim), http_client=httpx2.Client(verify=trusted))
    with farcall.customer(ledger.customer):
        assert client.chat.completions.create(**CHAT).choices
    (row,) = ledger.rows()
    assert (row["vendor"], row["endpoint"]) == ("openai", "POST /v1/chat/completions")
    assert (row["calls"], row["status"], row["outcome"]) == (1, 200, "complete")


def test_a_stream_that_is_read_to_its_end_mark_is_complete(sim: Sim, ledger: Ledger, trusted: ssl.SSLContext) -> None:
    client = openai.OpenAI(**openai_options(sim), http_client=httpx2.Client(verify=trusted))
    with farcall.customer(ledger.customer):
        assert [chunk for chunk in client.chat.completions.create(**CHAT, stream=True) if chunk.choices]
    assert ledger.calls() == {(200, "complete"): 1}


def test_a_stream_that_is_left_after_its_first_word_is_abandoned(
    sim: Sim, ledger: Ledger, trusted: ssl.SSLContext
) -> None:
    client = openai.OpenAI(**openai_options(sim), http_client=httpx2.Client(verify=trusted))
    sim.control(
        "POST", "script", {"match": {"host": "api.openai.com"}, "count": 1, "effect": {"drip": {"every_ms": 5}}}
    )
    with farcall.customer(ledger.customer), client.chat.completions.create(**CHAT, stream=True) as stream:
        next(iter(stream))
    assert ledger.calls() == {(200, "abandoned"): 1}


async def test_an_async_stream_is_complete_too(sim: Sim, ledger: Ledger, trusted: ssl.SSLContext) -> None:
    client = openai.AsyncOpenAI(**openai_options(sim), http_client=httpx2.AsyncClient(verify=trusted))
    async with farcall.customer(ledger.customer):
        stream = await client.chat.completions.create(**CHAT, stream=True)
        assert [chunk async for chunk in stream if chunk.choices]
    assert ledger.calls() == {(200, "complete"): 1}


@pytest.mark.parametrize("how", ["plain", "compressed", "streamed", "left"])
def test_what_a_model_cost_is_known_without_any_rule(
    how: str, sim: Sim, ledger: Ledger, trusted: ssl.SSLContext
) -> None:
    client = openai.OpenAI(**openai_options(sim), http_client=httpx2.Client(verify=trusted))
    if how == "compressed":
        sim.control("POST", "script", {"match": {"host": "api.openai.com"}, "count": 1, "effect": {"gzip": True}})
    with farcall.customer(ledger.customer):
        if how == "streamed":
            options = {"stream": True, "stream_options": {"include_usage": True}}
            usage = [chunk.usage for chunk in client.chat.completions.create(**CHAT, **options)][-1]
        elif how == "left":
            with client.chat.completions.create(**CHAT, stream=True) as stream:
                next(iter(stream))
            usage = None
        else:
            usage = client.chat.completions.create(**CHAT).usage
    (row,) = ledger.rows()
    if usage is None:
        assert (row["cost"], row["cost_unknown"]) == (0, 1)
    else:
        # 0.25 USD and 2 USD for a million tokens, in nano-units.
        cost = usage.prompt_tokens * 250 + usage.completion_tokens * 2_000
        assert (row["cost"], row["cost_unknown"]) == (cost, 0)


def test_each_retry_of_an_sdk_is_a_call(sim: Sim, ledger: Ledger, trusted: ssl.SSLContext) -> None:
    client = openai.OpenAI(**openai_options(sim), http_client=httpx2.Client(verify=trusted), max_retries=2)
    refused = {
        "match": {"host": "api.openai.com"},
        "count": 2,
        "effect": {"status": 503, "headers": {"retry-after-ms": "1"}},
    }
    sim.control("POST", "script", refused)
    with farcall.customer(ledger.customer):
        assert client.chat.completions.create(**CHAT).choices
    assert ledger.calls() == {(503, "complete"): 2, (200, "complete"): 1}


def test_a_stripe_call_is_one_call(sim: Sim, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stripe, "ca_bundle_path", sim.ca)
    client = stripe.StripeClient("sk_test", base_addresses={"api": f"https://api.stripe.com:{sim.tls_port}"})
    with farcall.customer(ledger.customer):
        assert client.v1.payment_intents.create({"amount": 25, "currency": "usd"}).id
    (row,) = ledger.rows()
    assert (row["vendor"], row["endpoint"], row["calls"]) == ("stripe", "POST /v1/payment_intents", 1)
    assert row["bytes_out"] > 0
