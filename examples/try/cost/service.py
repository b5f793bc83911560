"""Asks a language model for two customers, and refunds two charges."""

import farcall
import requests

farcall.install(service="support")
with requests.Session() as session:
    session.headers["authorization"] = "Bearer sk_test_try"
    for customer in ("acme", "acme", "globex"):
        with farcall.customer(customer):
            question = {
                "model": "gpt-4o-mini",
                "messages": [{"role": "user", "content": "Where is my parcel?"}],
            }
            url = "https://api.openai.com/v1/chat/completions"
            answer = session.post(url, json=question).json()
            print(f"{customer}: the vendor counted {answer['usage']['total_tokens']} tokens")
    with farcall.customer("acme"):
        for charge in ("ch_1", "ch_2"):
            session.post("https://api.stripe.com/v1/refunds", data={"charge": charge})
