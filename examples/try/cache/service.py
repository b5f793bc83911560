"""Asks the same again and again; then the vendor is down, and the answer still there."""

import json
import time
import urllib.request

import farcall
import requests

farcall.install(service="shop")


def arrived() -> int:
    """How many requests the vendor got."""
    with urllib.request.urlopen("http://api.stripe.com/_sim/counts?settled_ms=2000") as answer:
        return json.load(answer)["requests"]


with requests.Session() as session, farcall.customer("acme"):
    session.headers["authorization"] = "Bearer sk_test_try"
    for _ in range(5):
        answer = session.get("https://api.stripe.com/v1/balance")
        print(answer.status_code, answer.headers.get("cache-status"))
    print(f"asked 5 times, the vendor {arrived()}")
    rule = {"match": {"host": "api.stripe.com"}, "effect": {"status": 503}}
    urllib.request.urlopen("http://api.stripe.com/_sim/script", json.dumps(rule).encode()).close()
    time.sleep(2.5)
    answer = session.get("https://api.stripe.com/v1/balance")
    print(f"the vendor is down, and we have {answer.status_code}: {answer.headers.get('cache-status')}")
