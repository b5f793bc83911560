"""Puts three refunds into the outbox, and is killed before they are due."""

import os
import signal

import farcall

farcall.install(service="refunds")
for number in (1, 2, 3):
    parcel = farcall.outbox.put(
        "POST",
        "https://api.stripe.com/v1/refunds",
        headers={"authorization": farcall.outbox.Env("STRIPE_API_KEY", prefix="Bearer ")},
        body=f"charge=ch_{number}",
        order_key="acme",
        delay=3600,
    )
    print(f"on the disk, on another, and in a database: {parcel}", flush=True)
os.kill(os.getpid(), signal.SIGKILL)
