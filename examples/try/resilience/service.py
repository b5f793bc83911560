"""A refund that succeeds on the third attempt, and a vendor that is then down for good."""

import json
import urllib.request

import farcall
import requests

farcall.install(service="billing")
with requests.Session() as session, farcall.customer("acme"):
    session.headers["authorization"] = "Bearer sk_test_try"
    done = session.post("https://api.stripe.com/v1/refunds", data={"charge": "ch_1"})
    print(f"the refund: {done.status_code}")
    with urllib.request.urlopen("http://api.stripe.com/_sim/requests?host=api.stripe.com&last=3") as answer:
        keys = [dict(request["headers"]).get("idempotency-key") for request in json.load(answer)]
    print(f"it arrived {len(keys)} times, under {len(set(keys))} idempotency key: {keys[0]}")
    for _ in range(8):
        try:
            print(session.get("https://api.stripe.com/v1/balance").status_code)
        except farcall.Refused as error:
            print(error)
            break
