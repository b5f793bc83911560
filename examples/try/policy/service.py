"""A search service that was never meant to talk to a payment provider."""

import farcall
import requests

farcall.install(service="search")
print(requests.get("https://api.github.com/rate_limit").status_code)
try:
    requests.get("https://api.stripe.com/v1/balance", headers={"authorization": "Bearer sk_test_try"})
except requests.ConnectionError as error:  # what this library raises when no call can be made
    assert isinstance(error, farcall.Refused)
    print(error)
