"""One answer of thirty takes three seconds; a second attempt beside it does not."""

import asyncio
import json
import time
import urllib.request

import farcall
import httpx

farcall.install(service="shop")
CALLS = 120


async def main() -> None:
    """One call after the other, each timed."""
    took = []
    async with httpx.AsyncClient(headers={"authorization": "Bearer sk_test_try"}, timeout=30) as client:
        with farcall.customer("acme"):
            for _ in range(CALLS):
                start = time.monotonic()
                (await client.get("https://api.stripe.com/v1/balance")).raise_for_status()
                took.append(time.monotonic() - start)
    with urllib.request.urlopen("http://api.stripe.com/_sim/counts?settled_ms=5000") as answer:
        arrived = json.load(answer)["requests"]
    median, slowest = (1000 * seconds for seconds in (sorted(took)[CALLS // 2], max(took)))
    print(f"{CALLS} calls: the median took {median:.0f} ms, the slowest {slowest:.0f} ms")
    print(f"the vendor got {arrived} requests: {arrived - CALLS} second attempts")


asyncio.run(main())
