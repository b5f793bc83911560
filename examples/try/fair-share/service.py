"""Five customers share 25 calls a second: four ask for 5 a second each, acme for a hundred times as much."""

import asyncio

import farcall
import httpx

farcall.install(service="shop")
SECONDS = 8
SHARE = 5
went: dict[str, int] = {}


async def call(client: httpx.AsyncClient, customer: str) -> None:
    """One call on behalf of a customer."""
    with farcall.customer(customer):
        try:
            await client.get("https://api.stripe.com/v1/balance")
            went[customer] = went.get(customer, 0) + 1
        except farcall.Refused:
            pass


async def ask(client: httpx.AsyncClient, customer: str, rate: float) -> int:
    """So many calls a second, whether the ones before were answered or not; gives how many there were."""
    loop = asyncio.get_running_loop()
    start, calls = loop.time(), []
    while (passed := loop.time() - start) < SECONDS:
        calls += [
            asyncio.create_task(call(client, customer)) for _ in range(int(passed * rate) + 1 - len(calls))
        ]
        await asyncio.sleep(0.02)
    await asyncio.gather(*calls)
    return len(calls)


async def main() -> None:
    """All at once."""
    rates = {"acme": 100.0 * SHARE, **dict.fromkeys(("globex", "hooli", "initech", "umbrella"), 1.0 * SHARE)}
    headers = {"authorization": "Bearer sk_test_try"}
    async with httpx.AsyncClient(headers=headers, timeout=30) as client:
        asked = await asyncio.gather(*(ask(client, customer, rate) for customer, rate in rates.items()))
    for customer, calls in zip(rates, asked, strict=True):
        print(f"{customer}: asked {calls} times, {went[customer]} answered", end="; ")
        print(f"{100 * went[customer] / (SHARE * SECONDS):.0f} % of its share of {SHARE * SECONDS}")


asyncio.run(main())
