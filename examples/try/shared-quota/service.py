"""Four processes of twenty calls each, and a quota that lets thirty go at once."""

import multiprocessing


def work(_: int) -> int:
    """How many calls of one process went out."""
    import farcall
    import requests

    farcall.install(service="worker")
    went = 0
    with requests.Session() as session:
        session.headers["authorization"] = "Bearer sk_test_try"
        for _ in range(20):
            try:
                session.get("https://api.stripe.com/v1/balance")
                went += 1
            except farcall.Refused:
                pass
    return went


if __name__ == "__main__":
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        print(f"together {sum(pool.map(work, range(4), chunksize=1))} of 80 calls went out")
