"""Searches, until a vendor that nobody's catalogue has says in its own words that it is enough."""

import farcall
import requests

farcall.install(service="search")
with requests.Session() as session, farcall.customer("acme"):
    session.headers["authorization"] = "Bearer try"
    for number in range(1, 6):
        try:
            answer = session.get("https://search.acme.example/v1/search")
            says = {name: text for name, text in answer.headers.items() if name.startswith("x-acme-")}
            print(f"search {number}: {answer.status_code} {says or answer.text}")
        except farcall.Refused as error:
            print(f"search {number}: {error}")
