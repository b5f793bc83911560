"""Added microseconds per call in Python, beside OpenTelemetry's instrumentation, in one run.

Three processes' worth of client in one: bare, with Farcall, with OpenTelemetry, measured in turns against
the same local server, each turn a few hundred calls; the result is the median of the differences to bare.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

# Three fresh processes each: where memory lies shifts the speed of a process by microseconds a call.
SETS = 5
ROUNDS = 30
CALLS = 200
# Less than this, in microseconds, the machine cannot tell from nothing.
FLOOR = 0.5
URL = ""


def client_of(name: str) -> Callable[[], None]:
    """One call with a client that keeps its connection."""
    if name == "requests":
        import requests

        session = requests.Session()
        return lambda: session.get(URL).content and None  # type: ignore[func-returns-value]
    module = __import__(name)
    client = module.Client()
    return lambda: client.get(URL).content and None  # type: ignore[func-returns-value]


def instrument(name: str, how: str) -> None:
    """Turns on what is measured, before the client is built."""
    if how == "farcall":
        import farcall

        farcall.install(home=tempfile.mkdtemp(prefix="farcall-bench-"))
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


def work(name: str, how: str, url: str) -> None:
    """The measured process: a round for each line on stdin, its CPU and wall time on stdout."""
    global URL
    URL = url
    instrument(name, how)
    call = client_of(name)
    for _ in range(CALLS):
        call()
    print("ready", flush=True)
    for _ in sys.stdin:
        cpu, wall = time.process_time_ns(), time.perf_counter_ns()
        for _ in range(CALLS):
            call()
        cpu, wall = time.process_time_ns() - cpu, time.perf_counter_ns() - wall
        print(json.dumps({"cpu": cpu / CALLS / 1000, "wall": wall / CALLS / 1000}), flush=True)


def measure(name: str, url: str) -> dict[str, object]:
    """What each instrumentation adds to the bare client: the median over sets of the median over rounds."""
    sets = [measure_set(name, url) for _ in range(SETS)]
    ours, peer = (statistics.median(one[how] for one in sets) for how in ("farcall", "opentelemetry"))
    return {
        "name": f"python/{name}",
        "unit": "us of CPU added per call",
        "ours": ours,
        "peer": peer,
        "peer_name": "OpenTelemetry instrumentation",
        "ratio": peer / max(ours, FLOOR),
    }


def measure_set(name: str, url: str) -> dict[str, float]:
    """The same of one set of processes."""
    workers = {
        how: subprocess.Popen(
            [sys.executable, __file__, "work", name, how, url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        for how in ("bare", "farcall", "opentelemetry")
    }
    added: dict[str, list[float]] = {"farcall": [], "opentelemetry": []}
    for worker in workers.values():
        assert worker.stdout and worker.stdout.readline().strip() == "ready"
    for number in range(ROUNDS):
        times = {}
        # Who is first changes from round to round.
        order = list(workers)[number % 3 :] + list(workers)[: number % 3]
        for how in order:
            worker = workers[how]
            assert worker.stdin and worker.stdout
            worker.stdin.write("go\n")
            worker.stdin.flush()
            times[how] = json.loads(worker.stdout.readline())["cpu"]
        for how in added:
            added[how].append(times[how] - times["bare"])
    for worker in workers.values():
        assert worker.stdin
        worker.stdin.close()
        worker.wait()
    return {how: statistics.median(values) for how, values in added.items()}


def main() -> None:
    """`python_bench.py OUT.json URL`."""
    if sys.argv[1] == "work":
        work(*sys.argv[2:5])
        return
    out, url = sys.argv[1:3]
    rows = []
    for name in ("httpx2", "requests"):
        print(f"bench: python/{name} ...", file=sys.stderr, flush=True)
        rows.append(measure(name, url))
    with open(out, "w") as file:
        json.dump(rows, file, indent=2)


if __name__ == "__main__":
    os.environ.setdefault("NO_PROXY", "*")
    main()
