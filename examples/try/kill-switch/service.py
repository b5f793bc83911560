"""Three processes call all the time; a line in the file stops them, and its removal lets them go on."""

import multiprocessing
import os
import time
from collections.abc import Callable
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

FILE = Path(os.environ["FARCALL_HOME"]) / "farcall.toml"
KILLED = """
[[rollout]]
name = "no-charges"
match = { vendor = "stripe", endpoint = "POST /v1/charges" }
kill = true
"""


def work(refused: Any, stop: Event) -> None:
    """Calls until told to stop, and shows whether the last call was refused, and when that changed."""
    import farcall
    import requests

    farcall.install()
    with requests.Session() as session:
        session.headers["authorization"] = "Bearer sk_test_try"
        while not stop.is_set():
            try:
                session.post("https://api.stripe.com/v1/charges", data={"amount": "100"})
                now = 1
            except farcall.Refused:
                now = 2
            if refused[0] != now:
                refused[0], refused[1] = now, time.monotonic()
            time.sleep(0.002)


def put(text: str) -> float:
    """Changes the file, whole at once; gives the moment."""
    new = FILE.with_suffix(".new")
    new.write_text(text)
    moment = time.monotonic()
    new.replace(FILE)
    return moment


def until(condition: Callable[[], bool]) -> None:
    """Waits for the workers."""
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def main() -> None:
    """Switches off, on, and breaks the file."""
    context = multiprocessing.get_context("spawn")
    before, stop = FILE.read_text(), context.Event()
    workers = [context.Array("d", 2) for _ in range(3)]
    processes = [context.Process(target=work, args=(state, stop)) for state in workers]
    for process in processes:
        process.start()
    until(lambda: all(state[0] == 1 for state in workers))
    for what, text, then in (("stops", before + KILLED, 2.0), ("goes on", before, 1.0)):
        moment = put(text)
        until(lambda then=then: all(state[0] == then for state in workers))
        last = max(state[1] for state in workers) - moment
        print(f"the last of three processes {what} {1000 * last:.0f} ms after the change of the file")
    put(before + KILLED)
    until(lambda: all(state[0] == 2 for state in workers))
    put("this is no configuration")
    time.sleep(1)
    kept = sum(state[0] == 2 for state in workers)
    print(f"a file that cannot be read: {kept} of three processes keep to the last good one")
    stop.set()
    for process in processes:
        process.join()


if __name__ == "__main__":
    main()
