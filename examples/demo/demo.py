"""Runs five programs against vendor-sim in namespaces of their own, and shows what Farcall saw.

See README.md beside this file. Standard library only.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from sandbox import BIN, ROOT, Processes, enter_namespaces, environment, make_network, say, start_vendors

OUT = ROOT / "target" / "demo"

# Real names, addresses of the documentation range (RFC 5737): routed nowhere, and here on `lo`.
HOSTS = {
    name: f"203.0.113.{number}"
    for number, name in enumerate(
        [
            "api.openai.com",
            "api.stripe.com",
            "api.github.com",
            "hooks.slack.com",
            "app.launchdarkly.com",
            "api.twilio.com",
            "ip-api.com",
        ],
        start=10,
    )
}
# Whom only a program calls whose TLS nobody can look into yet.
OPAQUE = {"api.twilio.com"}
QUESTIONS = ["vendors", "endpoints", "customers", "callers", "coverage", "findings"]


def make_private_libraries() -> list[Path]:
    """Puts copies of the TLS libraries in their own places, in this mount namespace alone; says which.

    A probe sits on an inode: with copies, no program outside pays for it.
    """
    private = OUT / "libraries"
    private.mkdir(exist_ok=True)
    listed = subprocess.run(["/sbin/ldconfig", "-p"], capture_output=True, text=True, check=True).stdout
    paths = {Path(line.split(" => ")[1]).resolve() for line in listed.splitlines() if "libssl.so" in line}
    for path in paths:
        copy = private / path.name
        shutil.copy2(path, copy)
        subprocess.run(["mount", "--bind", str(copy), str(path)], check=True)
    return sorted(paths)


def find_cgroup() -> Path | None:
    """Makes the demo's own cgroup; `None` where that is not allowed."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields, _, kind = line.partition(" - ")
        if kind.startswith("cgroup2 "):
            cgroup = Path(fields.split()[4]) / f"farcall-demo-{os.getpid()}"
            try:
                cgroup.mkdir()
            except OSError:
                return None
            return cgroup
    return None


def start_sidecar(
    processes: Processes, cgroup: Path, home: Path, libraries: list[Path]
) -> tuple[subprocess.Popen[bytes] | None, str]:
    """Starts the sidecar, its probes in place before any program runs; where it cannot run, says why."""
    sidecar = BIN / "farcall-sidecar"
    ready = OUT / "sidecar.ready"
    log = OUT / "sidecar.log"
    # Only what the programs of the demo map: other programs of this machine must not pay for its probes.
    command = [str(sidecar), "run", "--only-mapped", "--cgroup", str(cgroup), "--home", str(home)]
    command += ["--ready-file", str(ready)]
    for library in libraries:
        command += ["--library", str(library)]
    with log.open("wb") as stream:
        process = processes.start(command, stdout=stream, stderr=stream)
    end = time.monotonic() + 30
    while not ready.exists():
        if process.poll() is not None or time.monotonic() > end:
            processes.stop(process)
            last = log.read_text(errors="replace").strip().splitlines()[-1:] or ["it said nothing"]
            return None, f"the sidecar does not run here: {last[0]}"
        time.sleep(0.05)
    return process, ""


def counted_by_vendors(settled_ms: int = 0) -> dict[str, int]:
    """What vendor-sim counted, by host."""
    url = f"http://{HOSTS['api.openai.com']}/_sim/counts?settled_ms={settled_ms}"
    with urllib.request.urlopen(url, timeout=10) as response:
        counts = json.load(response)
    totals = dict.fromkeys(HOSTS, 0)
    for row in counts["by_host"]:
        totals[row["host"]] = totals.get(row["host"], 0) + row["count"]
    return totals


def report(home: Path, question: str, as_json: bool, *more: str) -> Any:
    """One question to the command line, as people and programs ask it."""
    command = [str(BIN / "farcall"), "report", question, *more, "--since", "10m", "--home", str(home)]
    if as_json:
        output = subprocess.run([*command, "--json"], check=True, capture_output=True, text=True).stdout
        return json.loads(output)
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def run_inside(seconds: int) -> int:
    """The demo itself, inside its namespaces."""
    privileged = "FARCALL_DEMO_UNPRIVILEGED" not in os.environ
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir(parents=True, exist_ok=True)
    home = OUT / "home"
    home.mkdir()
    processes = Processes()
    cgroup = find_cgroup() if privileged else None
    missing = ""
    sidecar = None
    try:
        say("demo: a network namespace, a hosts file and a throw-away CA of its own; nothing leaves here")
        make_network(HOSTS, OUT)
        libraries = make_private_libraries()
        start_vendors(processes, OUT)
        if cgroup is None:
            missing = "the sidecar needs root and a writable cgroup v2 tree"
        else:
            sidecar, missing = start_sidecar(processes, cgroup, home, libraries)

        programs = start_programs(processes, cgroup if sidecar else None, home, seconds)
        say(f"demo: {', '.join(programs)} run for {seconds} s")
        follow(programs, seconds)
        failed = [name for name, process in programs.items() if processes.stop(process) != 0]
        vendors = counted_by_vendors(settled_ms=2000)
        if sidecar is not None:
            processes.stop(sidecar)
    finally:
        processes.stop_all()
        remove_cgroup(cgroup)
    return show(home, vendors, failed, missing, sidecar is not None)


def start_programs(
    processes: Processes, cgroup: Path | None, home: Path, seconds: int
) -> dict[str, subprocess.Popen[bytes]]:
    """Starts the five programs, each with its log, its name and the throw-away CA."""
    keys = {"OPENAI_API_KEY": "sk-demo", "STRIPE_API_KEY": "sk_test_demo"}
    variables = {**environment(home, OUT), **keys}
    go = OUT / "go-service"
    go_source = ROOT / "examples" / "go-service"
    subprocess.run(["go", "build", "-o", str(go), "."], cwd=go_source, check=True)
    examples = ROOT / "examples"
    n = str(seconds)
    commands = {
        "python-service": [sys.executable, str(examples / "python-service" / "service.py"), "--seconds", n],
        "node-service": [node(), str(examples / "node-service" / "service.mjs"), "--seconds", n],
        "rust-service": [str(BIN / "rust-service"), "--seconds", n],
        "shell-service": [str(examples / "shell-service" / "service.sh"), n],
        "go-service": [str(go), "--seconds", n],
    }
    if cgroup is None:
        # Nobody would see these: they bring no library.
        del commands["shell-service"], commands["go-service"]
    started = {}
    for name, command in commands.items():
        with (OUT / f"{name}.log").open("wb") as log:
            started[name] = processes.start(
                command,
                cgroup / name if cgroup else None,
                env={**variables, "OTEL_SERVICE_NAME": name},
                stdout=log,
                stderr=subprocess.STDOUT,
            )
    return started


def node() -> str:
    """The Node to run."""
    return shutil.which("node") or "node"


def follow(programs: dict[str, subprocess.Popen[bytes]], seconds: int) -> None:
    """Shows progress until all programs have ended."""
    start = time.monotonic()
    while any(process.poll() is None for process in programs.values()):
        elapsed = time.monotonic() - start
        if elapsed > seconds + 30:
            late = [name for name, process in programs.items() if process.poll() is None]
            raise SystemExit(f"demo: {', '.join(late)} did not end; see {OUT}")
        calls = sum(counted_by_vendors().values())
        text = f"demo: {min(elapsed, seconds):3.0f} of {seconds} s, {calls:5} calls arrived at the vendors"
        print(text, end="\r" if sys.stdout.isatty() else "\n", flush=True)
        time.sleep(1 if sys.stdout.isatty() else 4)
    if sys.stdout.isatty():
        print()


def remove_cgroup(cgroup: Path | None) -> None:
    """Removes the demo's cgroups; they are empty by now."""
    if cgroup is None:
        return
    for child in [*(path for path in cgroup.iterdir() if path.is_dir()), cgroup]:
        end = time.monotonic() + 5
        while time.monotonic() < end:
            try:
                child.rmdir()
                break
            except OSError:
                time.sleep(0.05)


def compared(line: dict[str, Any]) -> str:
    """A line of the comparison, at most 80 columns wide."""
    seen, counted = line["farcall"], line["vendor"]
    if seen == counted == 0:
        verdict = "not called"
    elif line["opaque"]:
        verdict = "not read: Go's TLS"
    else:
        verdict = "equal" if seen == counted else "DIFFERENT"
    return f"  {line['host']:24} {seen:6} seen {counted:6} counted   {verdict}"


def show(home: Path, vendors: dict[str, int], failed: list[str], missing: str, complete: bool) -> int:
    """Prints the inventory, writes report.json, and compares both with what the vendors counted."""
    answers = {question: report(home, question, as_json=True) for question in QUESTIONS}
    whole: dict[str, Any] = {
        question: answers[question]["rows"] for question in QUESTIONS if question != "coverage"
    }
    whole["coverage"] = answers["coverage"]
    for question in QUESTIONS:
        say("")
        say(report(home, question, as_json=False).rstrip())
    whole["advise"] = report(home, "advise", as_json=True)["rows"]
    say("")
    say(report(home, "advise", False, "--limit", "3").rstrip())

    hosts = {row["vendor"]: row for row in whole["vendors"]}
    names = {
        "api.openai.com": "openai",
        "api.stripe.com": "stripe",
        "api.github.com": "github",
        "hooks.slack.com": "slack",
        "app.launchdarkly.com": "launchdarkly",
        "api.twilio.com": "twilio",
        "ip-api.com": "ip-api.com",
    }
    comparison = []
    for host, counted in vendors.items():
        row = hosts.get(names.get(host, host))
        seen = row["calls"] if row else 0
        comparison.append({"host": host, "farcall": seen, "vendor": counted, "opaque": host in OPAQUE})
    whole["comparison"] = comparison
    (OUT / "report.json").write_text(json.dumps(whole, indent=2) + "\n")

    say("")
    say("Compared with what the vendors counted, call by call:")
    wrong = []
    for line in comparison:
        say(compared(line))
        if not line["opaque"] and line["farcall"] != line["vendor"]:
            wrong.append(line["host"])
    # All who ask are programs of the demo. Answers that overtake each other blur it by a few calls.
    quotas = report(home, "quotas", as_json=True)["rows"]
    foreign = [row for row in quotas if row["unit"] == "requests" and (row["foreign"] or 0) > 10]
    say("")
    say(f"The report is in {(OUT / 'report.json').relative_to(ROOT)}; to ask further, from {ROOT}:")
    say(f"  {(BIN / 'farcall').relative_to(ROOT)} report calls --home {home.relative_to(ROOT)}")
    if not complete:
        say(f"Only the instrumented programs ran: {missing}")
    for name in failed:
        say(f"FAILED: {name} ended with an error; see {(OUT / name).relative_to(ROOT)}.log")
    for host in wrong:
        say(f"FAILED: Farcall and {host} do not agree")
    for row in foreign:
        say(f"FAILED: {row['foreign']} requests to {row['label']} are taken for somebody else's")
    return 1 if failed or wrong or foreign else 0


def main() -> int:
    """Parses the arguments, and goes where the demo can run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=20, help="how long the programs run (20)")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if not arguments.inside:
        enter_namespaces(__file__, "demo")
    return run_inside(arguments.seconds)


if __name__ == "__main__":
    sys.exit(main())
