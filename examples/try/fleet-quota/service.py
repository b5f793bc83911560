"""Two hosts that share 40 calls a second through a Redis, which dies and comes back.

Hosts are home directories here: what has no `quota.map` in common is another host to Farcall.
"""

import multiprocessing
import os
import shutil
import socket
import subprocess
import sys
import time
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

HOME = Path(os.environ["FARCALL_HOME"])
SECONDS = 4


def work(home: Path, went: Any, stop: Event) -> None:
    """One host: calls as fast as the quota lets it."""
    os.environ["FARCALL_HOME"] = str(home)
    import farcall
    import requests

    farcall.install(service="worker")
    with requests.Session() as session:
        session.headers["authorization"] = "Bearer sk_test_try"
        while not stop.is_set():
            try:
                session.get("https://api.stripe.com/v1/balance")
                went.value += 1
            except farcall.Refused:
                pass


def start_redis() -> subprocess.Popen[bytes]:
    """On the port of the configuration; the network here is ours alone."""
    quiet = ["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", str(HOME)]
    server = subprocess.Popen(["redis-server", *quiet], stdout=subprocess.DEVNULL)
    while True:
        try:
            socket.create_connection(("127.0.0.1", 6379)).close()
            return server
        except ConnectionRefusedError:
            time.sleep(0.02)


def main() -> None:
    """Counts what both hosts did, with the store and without."""
    context = multiprocessing.get_context("spawn")
    stop, went, processes = context.Event(), {}, []
    redis = start_redis()
    for host in ("host-a", "host-b"):
        home = HOME.parent / host
        home.mkdir()
        shutil.copy(HOME / "farcall.toml", home)
        went[host] = context.Value("q", 0)
        processes.append(context.Process(target=work, args=(home, went[host], stop)))
        processes[-1].start()

    def tell(what: str) -> None:
        """Lets what was granted before go, and then counts for some seconds."""
        time.sleep(1.5)
        before, start = {host: count.value for host, count in went.items()}, time.monotonic()
        time.sleep(SECONDS)
        used = {host: count.value - before[host] for host, count in went.items()}
        allowed = 40 * (time.monotonic() - start)
        each = ", ".join(f"{host} {calls}" for host, calls in used.items())
        share = 100 * sum(used.values()) / allowed
        print(f"{what}: {share:.0f} % of the {allowed:.0f} that are allowed ({each})")

    while not all(count.value for count in went.values()):
        if not all(process.is_alive() for process in processes):
            stop.set()
            redis.kill()
            sys.exit("a host ended before its first call: why, it says above")
        time.sleep(0.02)
    tell("with the store")
    redis.kill()
    redis.wait()
    tell("without it, each host on its share")
    redis = start_redis()
    tell("with the store again")
    stop.set()
    for process in processes:
        process.join()
    redis.kill()
    redis.wait()


if __name__ == "__main__":
    main()
