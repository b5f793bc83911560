"""Plays one kind of rule: its configuration, a program that meets it, and what Farcall then says of it.

See README.md beside this file. Standard library only.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from database import postgres
from sandbox import BIN, ROOT, Processes, enter_namespaces, environment, make_network, say, start_vendors

HERE = Path(__file__).resolve().parent
# Addresses of the documentation range (RFC 5737): routed nowhere, and here on `lo`.
HOSTS = {"api.openai.com": "203.0.113.10", "api.stripe.com": "203.0.113.11", "api.github.com": "203.0.113.12"}
KEYS = {"OPENAI_API_KEY": "sk-try", "STRIPE_API_KEY": "sk_test_try"}


def examples() -> list[str]:
    """The names of all examples."""
    return sorted(path.parent.name for path in HERE.glob("*/try.json"))


class Heard:
    """What was printed, for the comparison with what the example promises."""

    def __init__(self) -> None:
        """Nothing yet."""
        self.text = ""

    def run(self, command: list[str], **options: Any) -> int:
        """Runs a command to its end, and passes on what it says."""
        process = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
            **options,
        )
        say(process.stdout.rstrip())
        self.text += process.stdout
        return process.returncode


def tell_vendors(rules: list[Any]) -> None:
    """Scripts vendor-sim: how the vendors behave in this example."""
    if rules:
        url = f"http://{HOSTS['api.stripe.com']}/_sim/script"
        request = urllib.request.Request(url, json.dumps({"rules": rules}).encode(), method="POST")
        urllib.request.urlopen(request, timeout=10).close()


def variable(value: str, folder: Path, out: Path) -> str:
    """What an example gives its program in the environment."""
    return value.format(here=folder, out=out, database=os.environ.get("OUTBOX_DATABASE"))


def outside(within: dict[str, list[float]], text: str) -> list[str]:
    """Which numbers are not within their bounds: what the brackets of the expressions hold."""
    wrong = []
    for expression, (least, most) in within.items():
        found = [float(number) for number in re.findall(expression, text)]
        if not found:
            wrong.append(f"nothing of the above says `{expression}`")
        wrong += [
            f"`{expression}` is {number:g}, and not between {least:g} and {most:g}"
            for number in found
            if not least <= number <= most
        ]
    return wrong


def play(name: str) -> int:
    """One example, inside its namespaces."""
    folder = HERE / name
    plan = json.loads((folder / "try.json").read_text())
    out = ROOT / "target" / "try" / name
    shutil.rmtree(out, ignore_errors=True)
    home = out / "home"
    home.mkdir(parents=True)
    # A copy: a program may change it while it runs.
    shutil.copy(folder / "farcall.toml", home / "farcall.toml")
    heard = Heard()
    processes = Processes()
    try:
        more = {host: f"203.0.113.{number}" for number, host in enumerate(plan.get("hosts", []), 20)}
        make_network({**HOSTS, **more}, out)
        start_vendors(processes, out)
        tell_vendors(plan.get("vendors", []))
        variables = {
            **environment(home, out),
            **KEYS,
            **{name: variable(value, folder, out) for name, value in plan.get("variables", {}).items()},
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "COLUMNS": "100",
        }
        say(f"# {name}: {plan['what']}\n")
        say((folder / "farcall.toml").read_text().strip())
        say(f"\n$ python examples/try/{name}/service.py")
        ended = heard.run([sys.executable, str(folder / "service.py")], env=variables)
        wrong = [] if ended == plan.get("ends", 0) else ["service.py"]
        for line in plan["ask"]:
            say(f"\n$ {line}")
            if heard.run(["/bin/sh", "-c", line], env=variables, cwd=home) not in plan.get("codes", [0]):
                wrong.append(line)
    finally:
        processes.stop_all()
    missing = [shown for shown in plan["shows"] if not re.search(shown, heard.text)]
    for what in wrong:
        say(f"\nFAILED: `{what}` ended with an error")
    for shown in missing:
        say(f"\nFAILED: nothing of the above says `{shown}`")
    strange = outside(plan.get("within", {}), heard.text)
    for what in strange:
        say(f"\nFAILED: {what}")
    return 1 if wrong or missing or strange else 0


def unbuilt() -> str | None:
    """What is missing of a build, in words: without it a program might wait for ever for its first call."""
    for program in ("farcall", "vendor-sim"):
        if not (BIN / program).exists():
            return f"there is no {BIN / program}"
    probe = [sys.executable, "-c", "import farcall"]
    tried = subprocess.run(probe, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if tried.returncode != 0:
        says = tried.stderr.strip().splitlines() or ["no reason given"]
        return f"{sys.executable} cannot import farcall ({says[-1]})"
    return None


def main() -> int:
    """Parses the arguments, and goes where the example can run."""
    parser = argparse.ArgumentParser(description=__doc__, epilog=f"examples: {', '.join(examples())}")
    parser.add_argument("example", nargs="?", help="which one; without it, they are listed")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if not arguments.example:
        for name in examples():
            say(f"  make try RULE={name:14} {json.loads((HERE / name / 'try.json').read_text())['what']}")
        return 0
    if arguments.example not in examples():
        say(f"there is no example {arguments.example!r}; there are {', '.join(examples())}")
        return 2
    if arguments.inside:
        return play(arguments.example)
    if (missing := unbuilt()) is not None:
        say(f"this example needs a build of farcall, and {missing}: run `make build` first")
        return 1
    plan = json.loads((HERE / arguments.example / "try.json").read_text())
    if plan.get("redis") and shutil.which("redis-server") is None:
        say("this example needs redis-server: scripts/setup-system installs it")
        return 1
    if not plan.get("postgres"):
        enter_namespaces(__file__, "try")
    # Started out here, by a user whom it runs for; its socket is reached from within.
    with postgres() as url:
        if url is None:
            say("this example needs PostgreSQL: scripts/setup-system installs it")
            return 1
        os.environ["OUTBOX_DATABASE"] = url
        if (player := os.fork()) == 0:
            enter_namespaces(__file__, "try")
        return os.waitstatus_to_exitcode(os.waitpid(player, 0)[1])


if __name__ == "__main__":
    sys.exit(main())
