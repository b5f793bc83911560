"""Asks the better model again and again, on a budget of one cent."""

from collections import Counter

import farcall
import requests

farcall.install(service="support")
models: Counter[str] = Counter()
with requests.Session() as session, farcall.customer("acme"):
    session.headers["authorization"] = "Bearer sk-try"
    question = {
        "model": "gpt-4o",
        "max_tokens": 10,
        "messages": [{"role": "user", "content": "Where? " * 400}],
    }
    for _ in range(20):
        answer = session.post("https://api.openai.com/v1/chat/completions", json=question).json()
        models[answer["model"]] += 1
print(f"asked for gpt-4o {sum(models.values())} times, answered by", dict(models))
