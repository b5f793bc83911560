"""Asks faster than the rule allows: what comes too soon waits, and what would wait too long is refused."""

import farcall
import requests

farcall.install(service="checkout")
answered = 0
refused: list[farcall.Refused] = []
with requests.Session() as session, farcall.customer("acme"):
    session.headers["authorization"] = "Bearer sk_test_try"
    for _ in range(12):
        try:
            session.get("https://api.stripe.com/v1/balance")
            answered += 1
        except farcall.Refused as error:
            refused.append(error)
print(f"{answered} calls were answered, {len(refused)} refused")
print(refused[-1])
