"""Only the customer of our own tests meets the fault."""

import time

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
