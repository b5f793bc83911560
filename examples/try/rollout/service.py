"""Twenty customers, each of whom stays on its side; and a feature that was switched off."""

import json
import urllib.request

import farcall
import requests

farcall.install(service="billing")


def on_the_new_side() -> set[str]:
    """Who sent the new version, as the vendor saw it."""
    with requests.Session() as session:
        session.headers["authorization"] = "Bearer sk_test_try"
        for number in range(20):
            with farcall.customer(f"customer-{number}"):
                session.get("https://api.stripe.com/v1/balance", headers={"x-customer": str(number)})
    with urllib.request.urlopen("http://api.stripe.com/_sim/requests?host=api.stripe.com&last=20") as answer:
        seen = [dict(request["headers"]) for request in json.load(answer)]
    return {headers["x-customer"] for headers in seen if headers.get("stripe-version") == "2026-10-29.clover"}


first = on_the_new_side()
print(f"new: {len(first)} of 20 customers; the same again: {on_the_new_side() == first}")
try:
    requests.post("https://api.stripe.com/v1/charges", data={"amount": "100"})
except farcall.Refused as error:
    print(error)
