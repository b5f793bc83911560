"""OpenAI is down: a safe call goes to the backup at once, a question once the breaker is open."""

import json
import urllib.request

import farcall
import requests

farcall.install(service="support")


def tell(what: str, answer: requests.Response) -> None:
    """Who answered, and what it was asked; the backup says in its answer what it got."""
    got = answer.json()
    if "headers" not in got:
        print(f"{what}: {answer.status_code} from {answer.request.url}")
        return
    key = dict(got["headers"])["authorization"]
    print(
        f"{what}: {answer.status_code} from the backup, asked for {got['method']} {got['path']} with {key!r}"
    )


with requests.Session() as session, farcall.customer("acme"):
    session.headers["authorization"] = "Bearer sk-try"
    models, chat = "https://api.openai.com/v1/models", "https://api.openai.com/v1/chat/completions"
    question = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Where is my parcel?"}]}
    tell("the models", session.get(models))
    for _ in range(4):
        tell("a question", session.post(chat, json=question))
with urllib.request.urlopen("http://api.openai.com/_sim/counts?settled_ms=2000") as answer:
    rows = json.load(answer)["by_host"]
print("requests that arrived:", ", ".join(f"{row['host']} {row['count']}" for row in rows))
