"""Added microseconds per call in Python, beside OpenTelemetry's instrumentation and other caches, in one run.

Processes that differ in nothing else (bare, with Farcall, with OpenTelemetry, and with hooks that do
nothing) call the same local server in turns, all on one core and never two at a time. A turn is a few
calls, so that whatever else the machine does meanwhile falls upon all of them alike. The result is the
median of the differences to bare within a round, over all rounds of several sets of fresh processes; its
interval is where the medians of the sets lie.

An answer out of a cache is measured in the same way (`kept.py`). There the bare client is one over a
transport that hands it a ready response: what a client does before and after, no cache below it can spare.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import kept

# Fresh processes each: where memory lies shifts the speed of a process by microseconds a call.
SETS = 7
ROUNDS = 120
# In a turn. The first ones find the caches as the process before left them, and are not counted.
SETTLING = 3
CALLS = 8
WARM_UP = 500
# Less than this, in microseconds, the machine cannot tell from nothing.
FLOOR = 0.5
# The last is what a hook costs that does nothing: no instrumentation in Python can be cheaper.
HOWS = ("bare", "farcall", "opentelemetry", "floor")


def client_of(name: str, url: str) -> Callable[[], None]:
    """One call with a client that keeps its connection."""
    if name == "requests":
        import requests

        session = requests.Session()
        return lambda: session.get(url).content and None  # type: ignore[func-returns-value]
    client = __import__(name).Client()
    return lambda: client.get(url).content and None  # type: ignore[func-returns-value]


def hook_nothing(name: str) -> None:
    """Hooks with the shape of Farcall's, and nothing in them."""
    if name == "requests":
        import urllib3

        pool, response = urllib3.connectionpool.HTTPConnectionPool, urllib3.response.HTTPResponse
        exchange, read = pool._make_request, response._raw_read

        def _make_request(self: Any, *args: Any, **kwargs: Any) -> Any:
            return exchange(self, *args, **kwargs)

        def _raw_read(self: Any, *args: Any, **kwargs: Any) -> Any:
            return read(self, *args, **kwargs)

        pool._make_request, response._raw_read = _make_request, _raw_read
        return
    module = __import__(name)
    handle = module.HTTPTransport.handle_request

    class Body(module.SyncByteStream):  # type: ignore[name-defined, misc]
        def __init__(self, stream: Any) -> None:
            self.stream = stream

        def __iter__(self) -> Any:
            for chunk in self.stream:  # noqa: UP028 (a hook would look at the chunk)
                yield chunk

        def close(self) -> None:
            self.stream.close()

    def handle_request(self: Any, request: Any) -> Any:
        answer = handle(self, request)
        answer.stream = Body(answer.stream)
        return answer

    module.HTTPTransport.handle_request = handle_request


def instrument(name: str, how: str, home: str) -> None:
    """Turns on what is measured, before the client is built."""
    if how == "floor":
        hook_nothing(name)
    elif how == "farcall":
        import farcall

        farcall.install(home=home)
    elif how == "opentelemetry":
        from opentelemetry import trace
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

        class Nowhere(SpanExporter):
            def export(self, spans: object) -> SpanExportResult:
                return SpanExportResult.SUCCESS

        provider = TracerProvider()
        provider.add_span_processor(BatchSpanProcessor(Nowhere()))
        trace.set_tracer_provider(provider)
        if name == "requests":
            from opentelemetry.instrumentation.requests import RequestsInstrumentor

            RequestsInstrumentor().instrument()
        else:
            from opentelemetry.instrumentation.httpx import HTTPX2ClientInstrumentor

            HTTPX2ClientInstrumentor().instrument()


def work(name: str, how: str, url: str, home: str) -> None:
    """The measured process: a turn for each line on stdin, the CPU time of its calls on stdout."""
    if name in kept.PEERS:
        call = kept.client_of(name, how, url, home)
    else:
        instrument(name, how, home)
        call = client_of(name, url)
    for _ in range(WARM_UP):
        call()
    print("ready", flush=True)
    for _ in sys.stdin:
        for _ in range(SETTLING):
            call()
        spent = time.process_time_ns()
        for _ in range(CALLS):
            call()
        spent = time.process_time_ns() - spent
        print(spent / CALLS / 1000, flush=True)


def measure(name: str, url: str) -> dict[str, object]:
    """What each instrumentation adds to the bare client."""
    sets = [measure_set(name, url) for _ in range(SETS)]
    pooled = {how: [added for one in sets for added in one[how]] for how in HOWS}
    added = {how: statistics.median(values) for how, values in pooled.items()}
    ours, peer = added["farcall"], added["opentelemetry"]
    interval = [round(bound, 1) for bound in spread([statistics.median(one["farcall"]) for one in sets])]
    floor = [round(bound, 1) for bound in spread([statistics.median(one["floor"]) for one in sets])]
    return {
        "name": f"python/{name}",
        "unit": "us of CPU added per call",
        "ours": ours,
        "peer": peer,
        "peer_name": "OpenTelemetry instrumentation",
        "ratio": peer / max(ours, FLOOR),
        "note": f"bare {added['bare']:.0f}; ours {interval[0]} to {interval[1]} in the middle half of {SETS} "
        f"sets; hooks that do nothing {added['floor']:.1f} ({floor[0]} to {floor[1]})",
    }


def measure_kept(name: str, url: str) -> dict[str, object]:
    """What an answer out of the cache costs, ours and the peer's."""
    sets = [measure_set(name, url, kept.HOWS) for _ in range(SETS)]
    pooled = {how: [added for one in sets for added in one[how]] for how in kept.HOWS}
    added = {how: statistics.median(values) for how, values in pooled.items()}
    ours, peer = added["farcall"], added["peer"]
    interval = [round(bound, 1) for bound in spread([statistics.median(one["farcall"]) for one in sets])]
    return {
        "name": name,
        "unit": "us of CPU per hit, beyond the client's own work",
        "ours": ours,
        "peer": peer,
        "peer_name": kept.PEERS[name],
        "ratio": peer / max(ours, FLOOR),
        "note": f"the client's own work {added['bare']:.0f}; ours {interval[0]} to {interval[1]} in the "
        f"middle half of {SETS} sets",
    }


def spread(medians: list[float]) -> tuple[float, float]:
    """Between which bounds the middle half lies."""
    low, _, high = statistics.quantiles(medians, n=4)
    return low, high


def measure_set(name: str, url: str, hows: tuple[str, ...] = HOWS) -> dict[str, list[float]]:
    """The difference to bare of each round, and what bare itself took."""
    home = tempfile.mkdtemp(prefix="farcall-bench-")
    workers = {
        how: subprocess.Popen(
            [sys.executable, __file__, "work", name, how, url, home],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        for how in hows
    }
    try:
        for worker in workers.values():
            assert worker.stdout and worker.stdout.readline().strip() == "ready"
        found: dict[str, list[float]] = {how: [] for how in hows}
        order = list(hows)
        for _ in range(ROUNDS):
            random.shuffle(order)
            spent = {how: turn(workers[how]) for how in order}
            bare = spent["bare"]
            for how in hows:
                found[how].append(spent[how] - bare if how != "bare" else bare)
        return found
    finally:
        for worker in workers.values():
            assert worker.stdin
            worker.stdin.close()
            worker.wait()
        shutil.rmtree(home, ignore_errors=True)


def turn(worker: subprocess.Popen[str]) -> float:
    """Microseconds per call in one turn of a process."""
    assert worker.stdin and worker.stdout
    worker.stdin.write("go\n")
    worker.stdin.flush()
    return float(worker.stdout.readline())


def main() -> None:
    """`bench.py OUT.json URL`."""
    if sys.argv[1] == "work":
        work(*sys.argv[2:6])
        return
    out, url = sys.argv[1:3]
    # The workers inherit it: caches that a process warmed are of no use to it on another core.
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    rows = []
    for name in ("httpx2", "requests"):
        print(f"bench: python/{name} ...", file=sys.stderr, flush=True)
        rows.append(measure(name, url))
        print(f"bench: python/{name}: {rows[-1]['note']}", file=sys.stderr, flush=True)
    for name in kept.PEERS:
        print(f"bench: {name} ...", file=sys.stderr, flush=True)
        rows.append(measure_kept(name, kept.answers(url)))
        print(f"bench: {name}: {rows[-1]['note']}", file=sys.stderr, flush=True)
    with open(out, "w") as file:
        json.dump(rows, file, indent=2)


if __name__ == "__main__":
    os.environ.setdefault("NO_PROXY", "*")
    main()
