"""Three vendors fail on purpose: the application meets the first, a retry the second, a breaker the third."""

import json
import time
import urllib.request

import farcall
import requests

farcall.install(service="billing")
for customer in ("acme", "test-customer"):
    start = time.monotonic()
    with farcall.customer(customer):
        answer = requests.get(
            "https://api.stripe.com/v1/balance", headers={"authorization": "Bearer sk_test_try"}
        )
    took = time.monotonic() - start
    wait = answer.headers.get("retry-after")
    print(f"{customer}: {answer.status_code} after {took:.2f} s, Retry-After {wait}")

statuses = [requests.get("https://api.github.com/user").status_code for _ in range(20)]
with urllib.request.urlopen("http://api.stripe.com/_sim/requests?host=api.github.com") as answer:
    arrived = len(json.load(answer))
print(f"github: {statuses.count(200)} of {len(statuses)} calls answered with 200; {arrived} requests arrived")

for _ in range(4):
    try:
        requests.get("https://api.openai.com/v1/models")
    except farcall.Refused as error:
        print(f"openai: refused: {error}")
    except requests.ConnectionError as error:
        print(f"openai: {type(error).__name__}")
