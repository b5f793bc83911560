"""Runs the tests of all languages with their own runners, and adds up what they counted.

The output of each runner passes through as it comes. A runner that says nothing for ten minutes is ended, and
so is whatever runs after forty minutes in all. What failed is run once more, alone: a test that passes then
counts as passed, and is listed as flaky at the end, because it has to be mended all the same. A runner that
hung, or broke off without saying which test it was, is run once more as a whole.

The last line is "N passed, N failed" (and ", N skipped" where something was), over all of them; the exit code
is 0 only where nothing failed and every runner counted something.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# All in seconds. Nothing here takes a tenth of the first two, on any machine that is fit to work on.
SILENCE = float(os.environ.get("FARCALL_TEST_SILENCE", "600"))
IN_ALL = float(os.environ.get("FARCALL_TEST_IN_ALL", "2400"))
HEARTBEAT = 60.0
# How long the output of a runner that has ended may stay open, by a process that it left behind.
LINGERING = 10.0

# More than this is not bad luck.
MOST_AGAIN = 20
LAST_LINES = 25


def say(suite: str, text: str) -> None:
    """A line of our own between those of the runners."""
    print(f"=== {suite}: {text}", flush=True)


@dataclass(frozen=True)
class Failure:
    """A test that failed: its place in the runner's words, and its name; without one, all that is there."""

    where: str
    name: str

    @property
    def whole(self) -> bool:
        """Whether all that is there failed at once: then nobody knows which of it ran."""
        # Node gives such a test the path of its file.
        return not self.name or self.name.endswith(self.where)

    def __str__(self) -> str:
        """For people."""
        return f"{self.where}: {'it ended without saying how' if self.whole else self.name}"


@dataclass
class Output:
    """What a runner said, and how it ended."""

    lines: list[str]
    code: int
    # Why we ended it.
    ended: str = ""


@dataclass
class Suite:
    """One runner: its command, and how its output says what it counted and what failed."""

    name: str
    command: list[str]
    folder: Path
    passed: str
    failed: str
    skipped: str
    # It prints its sums once, at the end.
    once: bool = True
    # What it runs again is all that could have failed, not only what it named.
    again_is_all: bool = True

    def part(self, line: str) -> str | None:
        """What begins with this line, where it is one of several parts of the suite."""
        return None

    def failures(self, lines: list[str]) -> list[Failure]:
        """The tests that failed."""
        raise NotImplementedError

    def again(self, failures: list[Failure]) -> list[tuple[list[str], list[Failure]]]:
        """The commands that run them once more, each with those that it runs."""
        raise NotImplementedError

    def why(self, failure: Failure, lines: list[str]) -> list[str]:
        """What the output says of a failure."""
        raise NotImplementedError

    def counts(self, lines: list[str]) -> tuple[int, int, int]:
        """What passed, failed and was skipped."""
        sums = (total(one, lines, self.once) for one in (self.passed, self.failed, self.skipped))
        passed, failed, skipped = sums
        return passed, failed, skipped


class Cargo(Suite):
    """`cargo test`: one part for each test program."""

    def part(self, line: str) -> str | None:
        """A test program."""
        found = re.match(r"\s+(?:Running|Doc-tests) (.+)", line)
        return found and found.group(1)

    def counts(self, lines: list[str]) -> tuple[int, int, int]:
        """What passed, failed and was skipped: by the last result of each program.

        A failing test prints what it captured, and some capture the results of a test program of their own.
        """
        last: dict[str, int] = {}
        program = ""
        for at, line in enumerate(lines):
            if part := self.part(line):
                program = part
            elif line.startswith("test result: "):
                # Documentation tests come in several runs, and capture no programs.
                last[program if program.endswith(")") else f"{program} {at}"] = at
        kept = set(last.values())
        return super().counts(
            [line for at, line in enumerate(lines) if at in kept or not line.startswith("test result: ")]
        )

    def failures(self, lines: list[str]) -> list[Failure]:
        """The tests that failed."""
        names: list[str] = []
        listed: list[str] = []
        found = []
        for line in lines:
            if line == "failures:":
                listed = []
            elif line.startswith("    "):
                listed.append(line.strip())
            elif line.startswith("test result: FAILED"):
                names = listed
            elif target := re.match(r"error: (?:doc)?test failed, to rerun pass `(.+)`", line):
                # A program that was killed has no list.
                found += [Failure(target.group(1), name) for name in names or [""]]
                names = []
            elif self.part(line):
                names, listed = [], []
        return found

    def again(self, failures: list[Failure]) -> list[tuple[list[str], list[Failure]]]:
        """The commands that run them once more."""
        commands = []
        for where in dict.fromkeys(failure.where for failure in failures):
            here = [failure for failure in failures if failure.where == where]
            # Of the whole workspace: features depend on who is built together. Names are unique enough.
            target = re.sub(r"^(?:-p|--package) \S+ ?", "", where).split()
            # `--doc` takes its arguments apart at the spaces of their names.
            named = all(failure.name for failure in here) and "--doc" not in target
            names = ["--exact", *(failure.name for failure in here)] if named else []
            commands.append(([*self.command, *target, "--", *names], here))
        return commands

    def why(self, failure: Failure, lines: list[str]) -> list[str]:
        """What the output says of a failure."""
        heads = [number for number, line in enumerate(lines) if line == f"---- {failure.name} stdout ----"]
        if not heads:
            return []
        said = lines[heads[-1] + 1 :]
        ends = ("---- ", "failures:", "stack backtrace:")
        end = (number for number, line in enumerate(said) if line.startswith(ends))
        return said[: next(end, len(said))]


class Pytest(Suite):
    """`pytest -ra`, whose short summary names what failed."""

    def counts(self, lines: list[str]) -> tuple[int, int, int]:
        """What passed, failed and was skipped; a test failed as well where its setup or teardown did."""
        passed, failed, skipped = super().counts(lines)
        errors = total(r"^(?:=+ )?(?:\d+ \w+, )*(\d+) errors?\b", lines, self.once)
        return passed, len(self.failures(lines)) or failed + errors, skipped

    def failures(self, lines: list[str]) -> list[Failure]:
        """The tests that failed."""
        found = (
            re.match(r"(?:FAILED|ERROR) ([^\s:]+)(?:::(\S+?(?:\[.*?\])?))?(?: - .*)?$", line)
            for line in lines
        )
        # A test whose teardown broke as well is named twice.
        return list(dict.fromkeys(Failure(match.group(1), match.group(2) or "") for match in found if match))

    def again(self, failures: list[Failure]) -> list[tuple[list[str], list[Failure]]]:
        """The commands that run them once more."""
        return [([*self.command, "--last-failed", "--last-failed-no-failures", "none"], failures)]

    def why(self, failure: Failure, lines: list[str]) -> list[str]:
        """What the output says of a failure."""
        # `tests/x.py::Class::name` has a heading `Class.name`.
        heading = failure.name.replace("::", ".")
        heads = [
            number for number, line in enumerate(lines) if line.strip("_ ") == heading and line[:1] == "_"
        ]
        if not heads:
            return []
        said = lines[heads[-1] + 1 :]
        end = (number for number, line in enumerate(said) if re.match(r"_{3,} |={3,} ", line))
        return said[: next(end, len(said))]


class Node(Suite):
    """`node --test` with its reporter `spec`, which lists the failures at its end."""

    def listed(self, lines: list[str]) -> list[tuple[Failure, int]]:
        """The failures, and where each is in the output."""
        found = []
        for number, (place, title) in enumerate(zip(lines, lines[1:], strict=False)):
            file = re.match(r"\s*test at (.+):\d+:\d+$", place)
            name = re.match(r"\s*✖ (.*?)(?: \([\d.]+ms\))?$", title)
            if file and name:
                found.append((Failure(file.group(1), name.group(1)), number + 2))
        return found

    def failures(self, lines: list[str]) -> list[Failure]:
        """The tests that failed."""
        return [failure for failure, _ in self.listed(lines)]

    def again(self, failures: list[Failure]) -> list[tuple[list[str], list[Failure]]]:
        """The commands that run them once more."""
        files = dict.fromkeys(failure.where for failure in failures)
        # Whole files, one by one: tests of one file may build on each other.
        return [
            ([*self.command, "--", file], [one for one in failures if one.where == file]) for file in files
        ]

    def why(self, failure: Failure, lines: list[str]) -> list[str]:
        """What the output says of a failure."""
        starts = [number for one, number in self.listed(lines) if one == failure]
        if not starts:
            return []
        said = lines[starts[-1] :]
        end = (number for number, line in enumerate(said) if line.lstrip().startswith("test at "))
        return said[: next(end, len(said))]


CARGO = "cargo test --no-fail-fast --workspace"
# Tested from their own languages, and by `make bench`.
ELSEWHERE = " --exclude farcall-py --exclude farcall-node --exclude farcall-benches"

SUITES: list[Suite] = [
    Cargo(
        "rust",
        (CARGO + ELSEWHERE).split(),
        ROOT,
        r"^test result: .* (\d+) passed;",
        r"^test result: .* (\d+) failed;",
        r"^SKIPPED \(|; (\d+) ignored;",
        once=False,
        again_is_all=False,
    ),
    Pytest(
        "python",
        [str(ROOT / ".venv/bin/python"), "-m", "pytest", "-ra"],
        ROOT / "py",
        r"^(?:=+ )?(?:\d+ \w+, )*(\d+) passed",
        r"^(?:=+ )?(?:\d+ \w+, )*(\d+) failed\b",
        r"^(?:=+ )?(?:\d+ \w+, )*(\d+) skipped",
    ),
    Node(
        "node",
        ["npm", "test", "--silent"],
        ROOT / "node",
        r"^(?:#|ℹ) pass (\d+)",
        r"^(?:#|ℹ) fail (\d+)",
        r"^(?:#|ℹ) skipped (\d+)",
    ),
    # The other end of what is supported: its fetch speaks HTTP/2, and its undici is another one.
    Node(
        "node 26",
        ["npx", "--yes", "--package=node@26.10.0", "node", "test/run.mjs"],
        ROOT / "node",
        r"^(?:#|ℹ) pass (\d+)",
        r"^(?:#|ℹ) fail (\d+)",
        r"^(?:#|ℹ) skipped (\d+)",
    ),
]


def total(pattern: str, lines: list[str], once: bool) -> int:
    """The sum of what a pattern finds, or the last of it; a match without a number counts one."""
    found = [match for match in (re.search(pattern, line) for line in lines) if match]
    return sum(int(match.group(1) or 1) if match.groups() else 1 for match in (found[-1:] if once else found))


def execute(suite: Suite, command: list[str], deadline: float) -> Output:
    """Runs a command to its end, or until it takes too long, and passes on what it says."""
    process = subprocess.Popen(
        command,
        cwd=suite.folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        env={**os.environ, "CARGO_TERM_COLOR": "never", "NO_COLOR": "1"},
        # A group of its own, so that it can be ended with all that it started.
        start_new_session=True,
    )
    try:
        said, ended = listen(suite, process, deadline)
        if ended:
            end_group(process)
        return Output(said.decode(errors="replace").split("\n"), process.wait(), ended)
    finally:
        end_group(process)


def listen(suite: Suite, process: subprocess.Popen[bytes], deadline: float) -> tuple[bytes, str]:
    """What the process says until it ends, and why it has to be ended before."""
    assert process.stdout is not None
    pipe = process.stdout.fileno()
    said = bytearray()
    heard = beat = time.monotonic()
    while True:
        if select.select([pipe], [], [], 1.0)[0]:
            piece = os.read(pipe, 65_536)
            if not piece:
                return bytes(said), ""
            said += piece
            sys.stdout.buffer.write(piece)
            sys.stdout.flush()
            heard = beat = time.monotonic()
        now = time.monotonic()
        if process.poll() is not None and now - heard > LINGERING:
            say(suite.name, "the runner has ended, and something that it started has not")
            return bytes(said), ""
        if now - heard > SILENCE:
            return bytes(said), f"nothing was heard of {place(suite, said)} for {SILENCE:.0f} s"
        if now > deadline:
            return bytes(said), f"{place(suite, said)} is still running after {IN_ALL:.0f} s of tests in all"
        if now - beat > HEARTBEAT:
            beat = now
            say(suite.name, f"{place(suite, said)} is under way; nothing was heard for {now - heard:.0f} s")


def place(suite: Suite, said: bytearray) -> str:
    """Where the suite has got to."""
    lines = said.decode(errors="replace").split("\n")
    return next((part for part in map(suite.part, reversed(lines)) if part), suite.name)


def end_group(process: subprocess.Popen[bytes]) -> None:
    """Ends what is left of a runner and of what it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


@dataclass
class Result:
    """What came of a suite."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0
    flaky: list[Failure] = field(default_factory=list)
    # Each with the last that was said of it.
    broken: list[tuple[str, list[str]]] = field(default_factory=list)


def run(suite: Suite, deadline: float) -> Result:
    """Runs one suite, and once more what failed of it."""
    print(f"\n=== {suite.name}: {' '.join(suite.command)}", flush=True)
    start = time.monotonic()
    result = Result()
    output = execute(suite, suite.command, deadline)
    failures = suite.failures(output.lines)
    # Those that failed in a run which then broke off.
    before: list[Failure] = []
    if (lost := broken_off(suite, output)) and time.monotonic() < deadline:
        say(suite.name, f"once more, all of it: {lost}")
        before = failures
        output = execute(suite, suite.command, deadline)
        failures = suite.failures(output.lines)
        lost_again = broken_off(suite, output)
        if not lost_again:
            result.flaky.append(Failure(suite.name, lost))
            result.flaky += [failure for failure in before if failure not in failures]
        lost = lost_again
    result.passed, result.failed, result.skipped = suite.counts(output.lines)
    # A program that was killed counted nothing, not even its failure.
    result.failed = max(result.failed, len(failures))
    if lost:
        say(suite.name, f"ENDED: {lost}")
        result.failed += 1
        result.broken.append((lost, output.lines))
    else:
        # What failed in both runs had its second chance.
        fresh = [failure for failure in failures if failure not in before]
        if 0 < len(fresh) <= MOST_AGAIN:
            run_again(suite, fresh, result, deadline)
    for failure in dict.fromkeys(failures):
        if failure not in result.flaky:
            result.broken.append((str(failure), suite.why(failure, output.lines)))
    if result.passed == 0:
        say(suite.name, "nothing passed")
        result.failed = max(result.failed, 1)
    seconds = time.monotonic() - start
    say(suite.name, f"{result.passed} ok, {result.failed} not, {result.skipped} left out, {seconds:.0f} s")
    return result


def broken_off(suite: Suite, output: Output) -> str:
    """Why it is not known what failed; empty where it is."""
    if output.ended:
        return output.ended
    _, failed, _ = suite.counts(output.lines)
    named = len(suite.failures(output.lines))
    if output.code != 0 and failed == named == 0:
        return f"the runner ended with {output.code} and counted no failure"
    if failed > named and (named == 0 or not suite.again_is_all):
        return f"{failed} failed, and {named} of them are named"
    return ""


def run_again(suite: Suite, failures: list[Failure], result: Result, deadline: float) -> None:
    """Runs what failed once more; what passes then is flaky."""
    unnamed = result.failed - len(failures)
    cleared = True
    for command, here in suite.again(failures):
        say(suite.name, f"once more: {' '.join(command)}")
        output = execute(suite, command, deadline)
        passed, _, _ = suite.counts(output.lines)
        still = suite.failures(output.lines)
        # Where all failed at once, or fails so now, nobody knows what of it passed.
        unknown = {failure.where for failure in still if failure.whole}
        failing = {failure.where for failure in still}
        better = [
            failure
            for failure in here
            if failure not in still
            and failure.where not in unknown
            and not (failure.whole and failure.where in failing)
        ]
        # Not seen to fail is not seen to pass.
        if output.ended or passed < len(better) or (output.code != 0 and not still):
            cleared = False
            continue
        cleared = cleared and len(better) == len(here)
        result.flaky += better
        # What passed the first time and not now is no better.
        result.flaky += [
            failure
            for failure in still
            if failure not in failures
            and not failure.whole
            and not any(one.whole and one.where == failure.where for one in here)
        ]
        result.failed -= len(better)
        # A whole program that was killed the first time has counted none of its tests yet.
        result.passed += sum(1 if failure.name else passed for failure in better)
    if cleared and suite.again_is_all:
        # Tests that failed because of one within them are counted and not named.
        result.passed += unnamed
        result.failed -= unnamed


def main() -> int:
    """Runs the suites that the arguments name; all without arguments."""
    wanted = sys.argv[1:] or [suite.name for suite in SUITES]
    unknown = set(wanted) - {suite.name for suite in SUITES}
    if unknown:
        print(f"unknown suite {', '.join(sorted(unknown))}; there are {', '.join(s.name for s in SUITES)}")
        return 2
    # So that what runs below us ends with us.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    deadline = time.monotonic() + IN_ALL
    results = [run(suite, deadline) for suite in SUITES if suite.name in wanted]
    for what, lines in (one for result in results for one in result.broken):
        print(f"\nFAILED {what}")
        for line in [line for line in lines if line.strip()][-LAST_LINES:]:
            print(f"    {line}")
    flaky = [failure for result in results for failure in result.flaky]
    if flaky:
        print(f"\n{len(flaky)} FLAKY: failed, and passed on the second run; each is a defect all the same")
        for failure in flaky:
            print(f"flaky: {failure}")
    passed, failed, skipped = (
        sum(getattr(result, what) for result in results) for what in ("passed", "failed", "skipped")
    )
    print()
    print(f"{passed} passed, {failed} failed" + (f", {skipped} skipped" if skipped else ""))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
