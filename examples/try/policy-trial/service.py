"""A search service that asks GitHub, as it should, and Stripe, as it should not."""

import farcall
import requests

farcall.install()
with requests.Session() as session:
    for number in range(12):
        with farcall.customer("acme" if number % 3 else "globex"):
            session.get(f"https://api.github.com/repos/acme/app-{number}/issues")
    session.headers["authorization"] = "Bearer sk_test_try"
    for _ in range(4):
        with farcall.customer("globex"):
            session.get("https://api.stripe.com/v1/balance")
print("16 calls went out; nothing refused any of them")
