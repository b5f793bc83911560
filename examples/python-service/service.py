"""A service of ours: it answers the questions of three customers with OpenAI, and bills them through Stripe.

Farcall needs three things of it: an import, `install`, and the customer's name around each unit of work.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections import Counter

import farcall
import httpx
import openai
import requests
import stripe

farcall.install(service="python-service")

CUSTOMERS = ("acme", "globex", "initech")

#: What this program itself knows of its calls, to be compared with what Farcall says.
made: Counter[str] = Counter()

llm = openai.OpenAI(api_key=os.environ.get("OPENAI_API_KEY", "sk-demo"), max_retries=0)
# The stripe package trusts its own list of authorities, unless it is told of another.
stripe.ca_bundle_path = os.environ.get("REQUESTS_CA_BUNDLE", stripe.ca_bundle_path)
bank = stripe.StripeClient(os.environ.get("STRIPE_API_KEY", "sk_test_demo"), max_network_retries=0)
flag_client = httpx.Client(headers={"authorization": "sdk-demo"})
chat = requests.Session()


def flags() -> dict[str, object]:
    """Which features are on. Asked anew for every unit of work: this is what Farcall will point out."""
    made["app.launchdarkly.com"] += 1
    return flag_client.get("https://app.launchdarkly.com/sdk/latest-all").raise_for_status().json()


def answer(question: str) -> str:
    """The whole answer at once."""
    made["api.openai.com"] += 1
    done = llm.chat.completions.create(model="gpt-5-mini", messages=[{"role": "user", "content": question}])
    return done.choices[0].message.content or ""


def answer_as_it_comes(question: str) -> str:
    """The same, word by word."""
    made["api.openai.com"] += 1
    stream = llm.chat.completions.create(
        model="gpt-5-mini", messages=[{"role": "user", "content": question}], stream=True
    )
    return "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)


def bill(customer: str) -> None:
    """Charges for the answer."""
    made["api.stripe.com"] += 1
    bank.v1.payment_intents.create({"amount": 25, "currency": "usd", "metadata": {"customer": customer}})


def tell(text: str) -> None:
    """Posts to the team's channel."""
    made["hooks.slack.com"] += 1
    chat.post("https://hooks.slack.com/services/T0DEMO/B0DEMO/demo", json={"text": text}, timeout=10).raise_for_status()


def work(customer: str, unit: int) -> None:
    """One unit of work for one customer."""
    flags()
    question = f"What did {customer} order last week?"
    with farcall.tags(feature="answers"):
        text = answer(question) if unit % 2 else answer_as_it_comes(question)
    bill(customer)
    tell(f"{customer}: {text[:200]}")


def main() -> None:
    """Works for `--seconds`, and says at the end what it asked of whom."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20)
    seconds = parser.parse_args().seconds

    failed = 0
    end = time.monotonic() + seconds
    unit = 0
    while time.monotonic() < end:
        customer = CUSTOMERS[unit % len(CUSTOMERS)]
        try:
            with farcall.customer(customer):
                work(customer, unit)
        except (httpx.HTTPError, openai.OpenAIError, requests.RequestException, stripe.StripeError) as error:
            failed += 1
            print(f"{customer}: {error}", file=sys.stderr)
        unit += 1
        time.sleep(0.1)

    farcall.flush()
    print(json.dumps({"service": "python-service", "calls": made, "failed": failed}))


if __name__ == "__main__":
    main()
