"""Added microseconds per call in Python, beside OpenTelemetry's instrumentation and other caches, in one run.

Processes that differ in nothing else (bare, with Farcall, with OpenTelemetry, and with hooks that do
nothing) make the same calls in turns, all on one core and never two at a time, so that whatever else the
machine does meanwhile falls upon all of them alike. The result is the difference to bare, twice over:

- The row: calls over a connection that answers from memory (`memory.py`), in blocks that begin warm. Of a
  process counts the CPU time of a block at the tenth percentile: what the machine does besides is not in it,
  nor is a full collection of garbage, for nobody. The median over sets of fresh processes, for where memory
  lies shifts the speed of a process by microseconds a call. OpenTelemetry makes its spans, samples all of
  them and hands them to its batch processor, whose exporter throws them away.
- Its note: calls to a server over loopback, a few in each turn, after which the other processes had the
  caches. There all code is dearer, the more so the more places it touches; of the differences within a few
  rounds the median.

An answer out of a cache is measured in the same two ways (`kept.py`). There the bare client is one over a
transport that hands it a ready response: what a client does before and after, no cache below it can spare.
"""

from __future__ import annotations

import json
import os
import pathlib
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
import memory

# Fresh processes each, and how often each of them has its turn.
SETS = 5
ROUNDS = 30
# In a turn: the first ones find the caches as the process before left them, and are not counted. Of the
# others there are as many as Farcall tells its engine of at once, so that each turn has its share of that.
SETTLING = 8
CALLS = 64
# Over loopback, where they are cold, a turn is shorter; so many rounds have as many calls as a turn above.
COLD_SETS = 2
COLD_ROUNDS = 160
COLD_SETTLING = 3
COLD_CALLS = 8
TOGETHER = CALLS // COLD_CALLS
WARM_UP = 500
# Less than this, in microseconds, the machine cannot tell from nothing.
FLOOR = 0.5
# In the place of a URL: over a connection that answers from memory.
MEMORY = "memory"
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
        # None of the rules that this folder, or the machine, may have.
        config = pathlib.Path(home, "farcall.toml")
        config.touch()
        os.environ["FARCALL_CONFIG"] = str(config)
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


def work(name: str, how: str, where: str, home: str) -> None:
    """The measured process: a turn for each line on stdin, the CPU time of its calls on stdout.

    A line says how many calls come first, and how many are counted.
    """
    call: Callable[[], Any]
    if name in kept.PEERS:
        call = kept.client_of(name, how, where, home)
    else:
        instrument(name, how, home)
        call = memory.client_of(name) if where == MEMORY else client_of(name, where)
    for _ in range(WARM_UP):
        call()
    print("ready", flush=True)
    for line in sys.stdin:
        first, counted = map(int, line.split())
        for _ in range(first):
            call()
        spent = time.process_time_ns()
        for _ in range(counted):
            call()
        spent = time.process_time_ns() - spent
        print(spent / counted / 1000, flush=True)


def measure(name: str, url: str) -> dict[str, object]:
    """What each instrumentation adds to the bare client."""
    sets = [warm(name, MEMORY, HOWS) for _ in range(SETS)]
    added = {how: statistics.median(one[how] for one in sets) for how in HOWS}
    ours, peer = added["farcall"], added["opentelemetry"]
    colds = cold(name, url, HOWS)
    return {
        "name": f"python/{name}",
        "unit": "us of CPU added per call",
        "ours": ours,
        "peer": peer,
        "peer_name": "OpenTelemetry instrumentation",
        "ratio": peer / max(ours, FLOOR),
        "note": f"bare {added['bare']:.0f}; ours {spread([one['farcall'] for one in sets])} in the middle "
        f"half of {SETS} sets; hooks that do nothing {added['floor']:.1f}; over loopback, caches cold: "
        f"{colds['farcall']:.1f}, with OpenTelemetry {colds['opentelemetry']:.0f}, hooks that do nothing "
        f"{colds['floor']:.1f}, bare {colds['bare']:.0f}",
    }


def measure_kept(name: str, url: str) -> dict[str, object]:
    """What an answer out of the cache costs, ours and the peer's."""
    sets = [warm(name, url, kept.HOWS) for _ in range(SETS)]
    added = {how: statistics.median(one[how] for one in sets) for how in kept.HOWS}
    ours, peer = added["farcall"], added["peer"]
    colds = cold(name, url, kept.HOWS)
    return {
        "name": name,
        "unit": "us of CPU per hit, beyond the client's own work",
        "ours": ours,
        "peer": peer,
        "peer_name": kept.PEERS[name],
        "ratio": peer / max(ours, FLOOR),
        "note": f"the client's own work {added['bare']:.0f}; "
        f"ours {spread([one['farcall'] for one in sets])} in the middle half of {SETS} sets; "
        f"caches cold: {colds['farcall']:.1f}, the peer {colds['peer']:.0f}",
    }


def spread(values: list[float]) -> str:
    """Between which bounds the middle half lies."""
    low, _, high = statistics.quantiles(values, n=4)
    return f"{low:.1f} to {high:.1f}"


def warm(name: str, where: str, hows: tuple[str, ...]) -> dict[str, float]:
    """What each adds to bare in one set of processes, and what bare itself took."""
    with Processes(name, where, hows) as processes:
        rounds = [processes.turns(SETTLING, CALLS) for _ in range(ROUNDS)]
    taken = {how: statistics.quantiles([one[how] for one in rounds], n=10)[0] for how in hows}
    return {how: taken[how] - (taken["bare"] if how != "bare" else 0) for how in hows}


def cold(name: str, where: str, hows: tuple[str, ...]) -> dict[str, float]:
    """The same where each turn begins with cold caches."""
    added: dict[str, list[float]] = {how: [] for how in hows}
    for _ in range(COLD_SETS):
        with Processes(name, where, hows) as processes:
            for _ in range(COLD_ROUNDS // TOGETHER):
                rounds = [processes.turns(COLD_SETTLING, COLD_CALLS) for _ in range(TOGETHER)]
                spent = {how: statistics.fmean(one[how] for one in rounds) for how in hows}
                for how in hows:
                    added[how].append(spent[how] - (spent["bare"] if how != "bare" else 0))
    return {how: statistics.median(values) for how, values in added.items()}


class Processes:
    """One set of fresh processes, which take turns."""

    def __init__(self, name: str, where: str, hows: tuple[str, ...]) -> None:
        """Starts one for each of `hows`."""
        self._home = tempfile.mkdtemp(prefix="farcall-bench-")
        self._workers = {
            how: subprocess.Popen(
                [sys.executable, __file__, "work", name, how, where, self._home],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                bufsize=1,
            )
            for how in hows
        }

    def __enter__(self) -> Processes:
        """Waits until all are warm."""
        for how, worker in self._workers.items():
            assert worker.stdout
            assert worker.stdout.readline().strip() == "ready", f"{how} did not begin"
        return self

    def __exit__(self, *_: object) -> None:
        """Ends them."""
        for worker in self._workers.values():
            assert worker.stdin
            worker.stdin.close()
            worker.wait()
        shutil.rmtree(self._home, ignore_errors=True)

    def turns(self, first: int, counted: int) -> dict[str, float]:
        """Microseconds per call of each, in a turn; they come in any order."""
        spent = {}
        for how in random.sample(list(self._workers), len(self._workers)):
            worker = self._workers[how]
            assert worker.stdin
            assert worker.stdout
            worker.stdin.write(f"{first} {counted}\n")
            worker.stdin.flush()
            spent[how] = float(worker.stdout.readline())
        return spent


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
