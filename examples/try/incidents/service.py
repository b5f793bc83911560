"""One customer of three asks for nearly everything, until GitHub has had enough."""

import farcall
import requests

farcall.install()
statuses = []
with requests.Session() as session:
    for number in range(53):
        customer = {0: "globex", 1: "initech"}.get(number % 12, "acme")
        with farcall.customer(customer):
            url = f"https://api.github.com/repos/{customer}/app/issues"
            statuses.append(session.get(url, headers={"authorization": "Bearer ghp_try"}).status_code)
print(f"{sum(status < 400 for status in statuses)} answers, then {statuses[-3:]}")
