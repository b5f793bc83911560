"""A campaign of the growth team asks Stripe for five things."""

import farcall
import requests

farcall.install(service="campaign")


def ask(method: str, path: str, customer: str = "acme") -> None:
    """Says what became of one call."""
    with farcall.customer(customer):
        try:
            answer = session.request(method, f"https://api.stripe.com{path}")
            print(f"{method} {path} for {customer}: {answer.status_code}")
        except requests.ConnectionError as error:  # what this library raises when no call can be made
            assert isinstance(error, farcall.Refused)
            print(f"{method} {path} for {customer}: {error}")


with requests.Session() as session, farcall.tags(team="growth-eu"):
    session.headers["authorization"] = "Bearer sk_test_try"
    ask("GET", "/v1/customers")
    ask("GET", "/v1/customers/cus_123")
    ask("POST", "/v1/charges")
    ask("GET", "/v1/balance")
    ask("GET", "/v1/balance", "globex")
