"""`make test`: what failed is run once more, and only what fails twice is a failure."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
SPEC = importlib.util.spec_from_file_location("second_chance", ROOT / "scripts" / "test.py")
assert SPEC is not None
assert SPEC.loader is not None
runner: Any = importlib.util.module_from_spec(SPEC)
sys.modules["second_chance"] = runner
SPEC.loader.exec_module(runner)

RUST, PYTHON, NODE, _NEWEST_NODE = runner.SUITES

# Says what it is told to, one answer after the other, and writes down what it was asked.
CARGO = """
import json, sys, time
from pathlib import Path
here = Path(__file__).parent
asked = here / "asked.json"
known = json.loads(asked.read_text()) if asked.exists() else []
asked.write_text(json.dumps([*known, sys.argv[1:]]))
said, code = json.loads((here / "answers.json").read_text())[len(known)]
print(said, flush=True)
if code == "hangs":
    time.sleep(600)
sys.exit(code)
"""


def program(target: str, *failed: str, passed: int = 3, killed: bool = False) -> str:
    """What cargo prints of one test program."""
    heading = "   Doc-tests farcall" if target.endswith("--doc") else f"     Running {target} (target/debug/deps/x-1)"
    if killed:
        return f"{heading}\n\nrunning 4 tests\nerror: test failed, to rerun pass `{target}`\n"
    word = "FAILED" if failed else "ok"
    said = [
        heading,
        "",
        f"running {passed + len(failed)} tests",
        *(f"test {name} ... FAILED" for name in failed),
    ]
    if failed:
        said += ["failures:", *(f"---- {name} stdout ----\nwhy {name}" for name in failed)]
        said += ["failures:", *(f"    {name}" for name in failed), ""]
    said += [f"test result: {word}. {passed} passed; {len(failed)} failed; 0 ignored; 0 measured; finished in 0.01s"]
    return "\n".join([*said, f"error: test failed, to rerun pass `{target}`" if failed else "", ""])


class Made:
    """A suite of the test's own, and what its second chance was."""

    def __init__(self, folder: Path, like: Any, command: list[str]) -> None:
        self.folder = folder
        known = {name: getattr(like, name) for name in ("name", "passed", "failed", "skipped", "once", "again_is_all")}
        self.suite = type(like)(command=command, folder=folder, **known)

    def run(self) -> Any:
        self.result = runner.run(self.suite, time.monotonic() + 120)
        return self.result

    def flaky(self) -> list[str]:
        return [failure.name for failure in self.result.flaky]

    def asked(self) -> list[list[str]]:
        return list(json.loads((self.folder / "asked.json").read_text()))


def cargo(folder: Path, *answers: tuple[str, int | str]) -> Made:
    (folder / "cargo.py").write_text(CARGO)
    (folder / "answers.json").write_text(json.dumps(answers))
    made = Made(folder, RUST, [sys.executable, str(folder / "cargo.py")])
    made.run()
    return made


def fails_once(folder: Path, name: str) -> str:
    """A condition, in Python, that holds the second time that it is asked for."""
    mark = str(folder / name)
    return f"(os.path.exists({mark!r}) or not open({mark!r}, 'w'))"


def pytest_of(folder: Path, text: str) -> Made:
    (folder / "test_x.py").write_text(f"import os, pytest\n{text}")
    (folder / "pytest.ini").write_text("[pytest]\naddopts = -q\n")
    made = Made(folder, PYTHON, [sys.executable, "-m", "pytest", "-ra", "-p", "no:asyncio"])
    made.run()
    return made


def node_of(folder: Path, **files: str) -> Made:
    head = (
        "import { test, after } from 'node:test'\nimport { existsSync, writeFileSync } from 'node:fs'\n"
        "const second = (mark) => existsSync(mark) || writeFileSync(mark, '') === null\n"
        "const check = (fine) => { if (!fine) throw new Error('no') }\n"
    )
    for name, text in files.items():
        (folder / f"{name}.test.mjs").write_text(head + text)
    script = (
        "const { spawnSync } = require('node:child_process'); const given = process.argv.slice(2);"
        "const all = require('node:fs').readdirSync('.').filter((name) => name.endsWith('.test.mjs'));"
        "const run = ['--test', '--test-reporter=spec', ...(given.length ? given : all)];"
        "process.exit(spawnSync(process.execPath, run, { stdio: 'inherit' }).status ?? 1)"
    )
    (folder / "run.cjs").write_text(script)
    made = Made(folder, NODE, ["node", "run.cjs"])
    # `npm test` takes its own arguments away.
    again = made.suite.again
    made.suite.again = lambda failures: [
        ([one for one in command if one != "--"], here) for command, here in again(failures)
    ]
    made.run()
    return made


def test_what_passes_alone_is_flaky_and_no_failure(tmp_path: Path) -> None:
    first = program("-p a --lib", "x::one", "x::two") + program("-p b --test b", passed=5)
    made = cargo(tmp_path, (first, 101), (program("-p a --lib", passed=2), 0))
    assert (made.result.passed, made.result.failed, made.flaky()) == (10, 0, ["x::one", "x::two"])
    assert made.asked() == [[], ["--lib", "--", "--exact", "x::one", "x::two"]]


def test_what_fails_twice_is_a_failure_with_what_was_said_of_it(tmp_path: Path) -> None:
    made = cargo(
        tmp_path,
        (program("-p a --lib", "x::one", "x::two"), 101),
        (program("-p a --lib", "x::two", passed=1), 101),
    )
    assert (made.result.failed, made.flaky()) == (1, ["x::one"])
    ((what, said),) = made.result.broken
    assert what == "-p a --lib: x::two"
    assert "why x::two" in said


def test_a_program_that_was_killed_has_to_pass_as_a_whole(tmp_path: Path) -> None:
    killed = program("-p a --test t", killed=True)
    for number, (second, code, failed) in enumerate(
        [
            (program("-p a --test t", passed=4), 0, 0),
            (program("-p a --test t", "one"), 101, 1),
            (killed, 101, 1),
        ]
    ):
        (tmp_path / str(number)).mkdir()
        made = cargo(tmp_path / str(number), (program("-p b --lib") + killed, 101), (second, code))
        assert (made.result.failed, len(made.flaky())) == (failed, 1 - failed)


def test_a_program_that_is_killed_at_its_second_chance_has_not_passed(tmp_path: Path) -> None:
    second = program("-p b --lib", passed=4) + program("-p a --lib", killed=True)
    made = cargo(tmp_path, (program("-p a --lib", "one"), 101), (second, 101))
    assert (made.result.failed, made.flaky()) == (1, [])


def test_documentation_that_failed_is_tested_again(tmp_path: Path) -> None:
    name = "core/src/lib.rs - f (line 7)"
    made = cargo(tmp_path, (program("-p a --doc", name), 101), (program("-p a --doc", passed=4), 0))
    assert (made.result.failed, made.flaky()) == (0, [name])
    assert made.asked()[1] == ["--doc", "--"]


def test_a_runner_that_hangs_or_breaks_off_is_run_once_more_as_a_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "SILENCE", 3.0)
    fine, bad = program("-p a --lib"), program("-p a --lib", "one")
    for number, (first, second, failed) in enumerate(
        [
            (("     Running a (x)", "hangs"), (fine, 0), 0),
            ((bad + "     Running b (x)", "hangs"), (fine, 0), 0),
            ((bad + "     Running b (x)", "hangs"), (bad, 101), 1),
            (("error: something else", 3), (fine, 0), 0),
            (("error: something else", 3), ("error: something else", 3), 2),
        ]
    ):
        (tmp_path / str(number)).mkdir()
        made = cargo(tmp_path / str(number), first, second)
        assert (made.result.failed > 0) == (failed > 0), number
        assert bool(made.flaky()) or failed == 2, number


def test_pytest_has_a_second_chance_whatever_its_tests_are_called(tmp_path: Path) -> None:
    made = pytest_of(
        tmp_path,
        f"""
@pytest.mark.parametrize("what", ["a - b", "c] d", "GET /v1"])
def test_named(what): assert what != "a - b" or {fails_once(tmp_path, "named")}
@pytest.fixture
def torn():
    yield
    assert {fails_once(tmp_path, "torn")}
def test_torn(torn): assert {fails_once(tmp_path, "failed")}
class TestClass:
    def test_inside(self): assert {fails_once(tmp_path, "inside")}
def test_fine(): pass
""",
    )
    assert (made.result.passed, made.result.failed) == (6, 0)
    assert set(made.flaky()) == {"test_named[a - b]", "test_torn", "TestClass::test_inside"}


def test_a_pytest_file_that_cannot_be_read_at_first_is_flaky(tmp_path: Path) -> None:
    made = pytest_of(tmp_path, f"assert {fails_once(tmp_path, 'file')}\ndef test_fine(): pass\n")
    assert (made.result.passed, made.result.failed) == (1, 0)


def test_a_pytest_that_is_killed_is_run_again(tmp_path: Path) -> None:
    text = f"def test_fine(): pass\ndef test_killed(): {fails_once(tmp_path, 'killed')} or os.kill(os.getpid(), 9)\n"
    made = pytest_of(tmp_path, text)
    assert (made.result.passed, made.result.failed, len(made.flaky())) == (2, 0, 1)


def test_node_has_a_second_chance_for_tests_within_tests_and_of_one_name(tmp_path: Path) -> None:
    made = node_of(
        tmp_path,
        a="""
test('parent', async (t) => { await t.test('child', () => check(second('child'))); await t.test('good', () => {}) })
for (const n of [1, 2]) test('same', () => check(second(`same-${n}`)))
test('two\\nlines (3ms)', () => check(second('lines')))
""",
        b="test('fine', () => {})",
    )
    assert (made.result.passed, made.result.failed) == (7, 0)
    assert sorted(made.flaky()) == ["child", "same", "same", "two"]


def test_a_node_file_that_breaks_off_has_to_pass_as_a_whole(tmp_path: Path) -> None:
    made = node_of(
        tmp_path,
        crashes="if (!second('crash')) process.kill(process.pid, 'SIGKILL')\ntest('fine', () => {})",
        hook="after(() => check(second('hook')))\ntest('fine', () => {})",
        worse="if (!second('worse')) throw new Error('no')\ntest('broken', () => check(false))",
        twice="test('twice', () => check(false))\ntest('once', () => check(second('once')))",
    )
    assert made.result.failed >= 2
    broken = [what.rpartition(": ")[2] for what, _ in made.result.broken]
    assert sorted(broken) == ["it ended without saying how", "twice"]
    assert [failure.where for failure in made.result.flaky] == [
        "crashes.test.mjs",
        "hook.test.mjs",
        "twice.test.mjs",
    ]


@pytest.mark.parametrize("fixed", [True, False])
def test_the_exit_code_is_that_of_the_second_run(tmp_path: Path, fixed: bool) -> None:
    (tmp_path / "cargo.py").write_text(CARGO)
    bad = program("-p a --lib", "one")
    answers = [(bad, 101), (program("-p a --lib", passed=1) if fixed else bad, 0 if fixed else 101)]
    (tmp_path / "answers.json").write_text(json.dumps(answers))
    code = f"""
import importlib.util, sys
spec = importlib.util.spec_from_file_location("runner", {str(ROOT / "scripts" / "test.py")!r})
runner = sys.modules["runner"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(runner)
runner.SUITES[0].command = [sys.executable, {str(tmp_path / "cargo.py")!r}]
sys.argv[1:] = ["rust"]
sys.exit(runner.main())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == (0 if fixed else 1), done.stdout + done.stderr
    assert ("flaky: -p a --lib: one" in done.stdout) == fixed
    assert done.stdout.endswith("4 passed, 0 failed\n" if fixed else "3 passed, 1 failed\n")
