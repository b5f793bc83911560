"""Calls two vendors until both canaries are decided."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import farcall
import requests

farcall.install(service="billing")


def standing() -> str:
    """Where the canaries stand."""
    command = ["farcall", "rollout", "ls"]
    return subprocess.run(command, env=os.environ, capture_output=True, text=True, check=True).stdout


def call(url: str) -> None:
    """One call of one of eight threads."""
    with farcall.customer("acme"):
        session.get(url)


with requests.Session() as session, ThreadPoolExecutor(8) as threads:
    session.headers["authorization"] = "Bearer try"
    for url, decision in (
        ("https://api.stripe.com/v1/balance", "stripe-eu: rolled back"),
        ("https://api.github.com/user", "github-eu: finished"),
    ):
        calls = 0
        while decision not in (now := standing()):
            if calls >= 5_000:
                sys.exit(f"after {calls} calls still: {now}")
            list(threads.map(call, [url] * 100))
            calls += 100
        print(f"{decision} after {calls} calls")
