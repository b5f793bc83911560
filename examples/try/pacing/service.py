"""Spreads twelve calls over what GitHub leaves, and fills what Stripe leaves with a nightly export."""

import time

import farcall
import requests

farcall.install(service="export")
with requests.Session() as session, farcall.customer("acme"):
    session.headers["authorization"] = "Bearer try"
    answer = session.get("https://api.github.com/user")
    print(
        f"GitHub says that {answer.headers['x-ratelimit-remaining']} calls are left for the next ten seconds"
    )
    start, sent = time.monotonic(), []
    for _ in range(12):
        session.get("https://api.github.com/user")
        sent.append(time.monotonic() - start)
    most = max(sum(begin <= at < begin + 1 for at in sent) for begin in sent)
    print(f"smooth: 12 calls took {sent[-1]:.1f} s, at most {most} of them in any second")
    answer = session.get("https://api.stripe.com/v1/balance")
    print(f"Stripe says: {answer.headers['ratelimit']}")


def answered(priority: str) -> int:
    """How many of 20 calls of a priority are answered."""
    count = 0
    with requests.Session() as session, farcall.customer("acme"), farcall.priority(priority):
        session.headers["authorization"] = "Bearer try"
        for _ in range(20):
            try:
                session.get("https://api.stripe.com/v1/balance")
                count += 1
            except farcall.Refused as error:
                why = error
    print(why)
    return count


print(f"reserve: {answered('batch')} of 20 calls of the export are answered")
print(f"reserve: {answered('interactive')} of 20 calls of people are answered")
