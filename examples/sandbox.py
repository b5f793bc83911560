"""What the demo and the examples share: namespaces of their own, the vendors' names in them, and vendor-sim.

Standard library only.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
BIN = ROOT / "target" / "debug"


def say(text: str) -> None:
    """Prints at once: progress is for people who wait."""
    print(text, flush=True)


class Processes:
    """The processes that the demo started; none other is ever signalled."""

    def __init__(self) -> None:
        """None yet."""
        self.running: list[subprocess.Popen[bytes]] = []

    def start(
        self, command: list[str], cgroup: Path | None = None, **options: Any
    ) -> subprocess.Popen[bytes]:
        """Starts a command, in a cgroup of its own below the demo's where one is given."""
        if cgroup is not None:
            cgroup.mkdir(parents=True, exist_ok=True)
            enter = 'echo $$ > "$0" && exec "$@"'
            command = ["/bin/sh", "-c", enter, str(cgroup / "cgroup.procs"), *command]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, **options)
        self.running.append(process)
        return process

    def stop(self, process: subprocess.Popen[bytes]) -> int:
        """Asks a process to end, and waits until it has."""
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(timeout=15)
            except subprocess.TimeoutExpired:
                process.kill()
        return process.wait()

    def stop_all(self) -> None:
        """Ends all that still runs."""
        for process in reversed(self.running):
            self.stop(process)


def enter_namespaces(script: str, what: str) -> None:
    """Runs a script again, with `--inside`, in a network and a mount namespace of its own."""
    inside = [sys.executable, str(Path(script).resolve()), "--inside", *sys.argv[1:]]
    flags = ["--net", "--mount", "--propagation", "private"]
    # Root in a container is often not allowed to, either: what counts is whether it works.
    if os.geteuid() != 0 or not can_unshare(flags):
        flags.append("--map-root-user")
        if not can_unshare(flags):
            say(f"{what}: this user may make no network namespace, and without one the vendors' names")
            say(f"{what}: cannot be played here. {REMEDY[os.geteuid() == 0]}")
            sys.exit(1)
        os.environ["FARCALL_DEMO_UNPRIVILEGED"] = "1"
    os.execvp("unshare", ["unshare", *flags, "--", *inside])


REMEDY = {
    True: "In a container, start it with --privileged; else, run this on the machine itself.",
    False: "Run it with sudo, or allow unprivileged user namespaces.",
}


def can_unshare(flags: list[str]) -> bool:
    """Whether this user may make such namespaces."""
    return subprocess.run(["unshare", *flags, "true"], capture_output=True).returncode == 0


def make_network(names: dict[str, str], out: Path) -> None:
    """Gives the vendors their names and addresses."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    for address in names.values():
        subprocess.run(["ip", "address", "add", f"{address}/32", "dev", "lo"], check=True)
    hosts = out / "hosts"
    lines = ["127.0.0.1 localhost", *(f"{address} {name}" for name, address in names.items())]
    hosts.write_text("\n".join(lines) + "\n")
    subprocess.run(["mount", "--bind", str(hosts), "/etc/hosts"], check=True)


def start_vendors(processes: Processes, out: Path) -> None:
    """Starts vendor-sim under all names and addresses, and waits until it listens."""
    ready = out / "vendor-sim.ready"
    command = [str(BIN / "vendor-sim"), "--listen", "0.0.0.0:443", "--plain", "0.0.0.0:80", "--dir", str(out)]
    with (out / "vendor-sim.log").open("wb") as log:
        processes.start([*command, "--ready-file", str(ready)], stdout=log, stderr=log)
    wait_for(ready, 20)


def environment(home: Path, out: Path) -> dict[str, str]:
    """What a program needs to trust the throw-away CA, and to keep its ledger in `home`."""
    ca = str(out / "ca.pem")
    names = ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NODE_EXTRA_CA_CERTS"]
    trust = dict.fromkeys(names, ca)
    return {**os.environ, **trust, "FARCALL_HOME": str(home)}


def wait_for(path: Path, seconds: float) -> None:
    """Waits until a file is there."""
    end = time.monotonic() + seconds
    while not path.exists():
        if time.monotonic() > end:
            raise SystemExit(f"{path} did not appear in {seconds:.0f} s; see {path.parent}/*.log")
        time.sleep(0.02)
