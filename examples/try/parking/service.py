"""Refunds a charge while the vendor is down: the call is kept, and delivered once the vendor is back."""

import farcall
import requests

farcall.install(service="refunds")
with farcall.customer("acme"):
    answer = requests.post(
        "https://api.stripe.com/v1/refunds",
        data={"charge": "ch_1"},
        headers={"authorization": "Bearer sk_test_try"},
    )
print(answer.status_code, answer.headers.get("farcall-outbox"))
