"""Two customers; one of them asks for more than its budget holds."""

import farcall
import requests

farcall.install(service="billing")
with requests.Session() as session:
    session.headers["authorization"] = "Bearer sk_test_try"
    for customer, calls in (("acme", 15), ("globex", 3)):
        answered = refused = 0
        with farcall.customer(customer):
            for _ in range(calls):
                try:
                    session.get("https://api.stripe.com/v1/balance")
                    answered += 1
                except farcall.Refused as error:
                    refused += 1
                    why = error
        print(f"{customer}: {answered} answered, {refused} refused")
print(why)
