"""Runs the tests of all languages with their own runners, and adds up what they counted.

The output of each runner passes through as it comes. The last line is "N passed, N failed" (and ", N
skipped" where something was), over all of them; the exit code is 0 only where nothing failed and every runner
counted something.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


@dataclass
class Suite:
    """One runner: its command, and how its output says what it counted."""

    name: str
    command: list[str]
    folder: Path
    passed: str
    failed: str
    skipped: str


CARGO = "cargo test --no-fail-fast --workspace"
# Tested from their own languages, and by `make bench`.
ELSEWHERE = " --exclude farcall-py --exclude farcall-node --exclude farcall-benches"

SUITES = [
    Suite(
        "rust",
        (CARGO + ELSEWHERE).split(),
        ROOT,
        r"^test result: .* (\d+) passed;",
        r"^test result: .* (\d+) failed;",
        r"^SKIPPED \(|; (\d+) ignored;",
    ),
    Suite(
        "python",
        [str(ROOT / ".venv/bin/python"), "-m", "pytest", "-ra"],
        ROOT / "py",
        r"^.*?(\d+) passed",
        r"^.*?(\d+) (?:failed|errors?)\b",
        r"^.*?(\d+) skipped",
    ),
    Suite(
        "node",
        ["npm", "test", "--silent"],
        ROOT / "node",
        r"^(?:#|ℹ) pass (\d+)",
        r"^(?:#|ℹ) fail (\d+)",
        r"^(?:#|ℹ) skipped (\d+)",
    ),
]


def total(pattern: str, lines: list[str]) -> int:
    """The sum of what a pattern finds; a match without a number counts one."""
    found = (re.search(pattern, line) for line in lines)
    return sum(int(match.group(1) or 1) if match.groups() else 1 for match in found if match)


def run(suite: Suite) -> tuple[int, int, int]:
    """Runs one suite; what passed, failed and was skipped."""
    print(f"\n=== {suite.name}: {' '.join(suite.command)}", flush=True)
    start = time.monotonic()
    process = subprocess.Popen(
        suite.command,
        cwd=suite.folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
        errors="replace",
        env={**os.environ, "CARGO_TERM_COLOR": "never", "NO_COLOR": "1"},
    )
    lines: list[str] = []
    assert process.stdout is not None
    for line in process.stdout:
        lines.append(line.rstrip("\n"))
        print(line, end="", flush=True)
    code = process.wait()
    # pytest and node print their sums once, at the end; cargo once for each test binary.
    counted = lines if suite.name == "rust" else lines[-40:]
    passed, failed, skipped = (
        total(pattern, counted) for pattern in (suite.passed, suite.failed, suite.skipped)
    )
    if code != 0 and failed == 0:
        print(f"=== {suite.name}: the runner ended with {code} and counted no failure", flush=True)
        failed = 1
    if passed == 0:
        print(f"=== {suite.name}: nothing passed", flush=True)
        failed = max(failed, 1)
    seconds = time.monotonic() - start
    print(f"=== {suite.name}: {passed} ok, {failed} not, {skipped} left out, {seconds:.0f} s", flush=True)
    return passed, failed, skipped


def main() -> int:
    """Runs the suites that the arguments name; all without arguments."""
    wanted = sys.argv[1:] or [suite.name for suite in SUITES]
    unknown = set(wanted) - {suite.name for suite in SUITES}
    if unknown:
        print(f"unknown suite {', '.join(sorted(unknown))}; there are {', '.join(s.name for s in SUITES)}")
        return 2
    results = [run(suite) for suite in SUITES if suite.name in wanted]
    passed, failed, skipped = (sum(column) for column in zip(*results, strict=True))
    print()
    print(f"{passed} passed, {failed} failed" + (f", {skipped} skipped" if skipped else ""))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
