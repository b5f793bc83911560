"""Puts three refunds into the outbox, and is killed."""

import os
import signal
import sys

import farcall

farcall.install(service="refunds")
for number in (1, 2, 3):
    parcel = farcall.outbox.put(
        "POST",
        "https://api.stripe.com/v1/refunds",
        headers={"authorization": farcall.outbox.Env("STRIPE_API_KEY", prefix="Bearer ")},
        body=f"charge=ch_{number}",
        order_key="acme",
    )
    print(f"on the disk: {parcel}")
sys.stdout.flush()
if os.fork() == 0:
    os.kill(os.getppid(), signal.SIGKILL)
