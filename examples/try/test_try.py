"""Each example shows what it promises."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def may_make_namespaces() -> bool:
    """Whether this user may, as root here or as root of a namespace."""
    flags = ["--net", "--mount"]
    tries = [flags] if os.geteuid() == 0 else []
    tries.append([*flags, "--map-root-user"])
    return any(subprocess.run(["unshare", *t, "true"], capture_output=True).returncode == 0 for t in tries)


@pytest.mark.skipif(not may_make_namespaces(), reason="SKIPPED: this user may make no network namespace")
@pytest.mark.parametrize("name", sorted(path.parent.name for path in HERE.glob("*/try.json")))
def test_an_example_shows_what_it_promises(name: str) -> None:
    """By its own list of what must be seen."""
    command = [sys.executable, str(HERE / "try.py"), name]
    played = subprocess.run(command, capture_output=True, text=True, timeout=300)
    if "needs PostgreSQL" in played.stdout:
        pytest.skip("SKIPPED (postgres): no initdb on this machine; scripts/setup-system installs it")
    assert played.returncode == 0, played.stdout + played.stderr


def test_without_a_build_it_is_told_what_to_run(tmp_path: Path) -> None:
    """Not waited for a first call that never comes."""
    (tmp_path / "farcall").mkdir()
    (tmp_path / "farcall" / "__init__.py").write_text("from farcall import _farcall\n")
    command = [sys.executable, str(HERE / "try.py"), "fleet-quota"]
    played = subprocess.run(
        command, capture_output=True, text=True, timeout=60, env={**os.environ, "PYTHONPATH": str(tmp_path)}
    )
    assert played.returncode == 1
    assert "needs a build of farcall" in played.stdout
    assert "make build" in played.stdout
    assert played.stderr == ""


def test_a_wrong_name_is_told_the_right_ones() -> None:
    """As a list."""
    command = [sys.executable, str(HERE / "try.py"), "qota"]
    played = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert played.returncode == 2
    assert "quota" in played.stdout


@pytest.mark.parametrize("script", ["../demo/demo.py", "try.py"])
def test_who_may_make_no_namespace_is_told_what_helps(script: str, tmp_path: Path) -> None:
    """Root of an ordinary container, too."""
    refusing = tmp_path / "unshare"
    refusing.write_text("#!/bin/sh\necho 'unshare failed: Operation not permitted' >&2\nexit 1\n")
    refusing.chmod(0o755)
    command = [sys.executable, str(HERE / script), *(["budget"] if script == "try.py" else [])]
    path = f"{tmp_path}:{os.environ['PATH']}"
    played = subprocess.run(
        command, capture_output=True, text=True, timeout=300, env={**os.environ, "PATH": path}
    )
    assert played.returncode == 1
    assert "may make no network namespace" in played.stdout
    assert "container" in played.stdout or "sudo" in played.stdout
    assert played.stderr == ""
