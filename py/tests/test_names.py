"""Which service a program is that names none."""

from __future__ import annotations

import os
import subprocess
import sys
import zipapp
from pathlib import Path

import pytest
from conftest import PATIENCE, Program

CALL = """
import farcall, httpx, os
farcall.install()
httpx.get(os.environ["SIM"] + "/scenario/ok")
"""
SPAWN = """
import multiprocessing
def nothing(): pass
if __name__ == "__main__":
    child = multiprocessing.get_context("spawn").Process(target=nothing)
    child.start()
    child.join()
    raise SystemExit(child.exitcode)
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A package, a folder and an archive that can be run, and a script."""
    place = tmp_path / "place"
    (place / "shop" / "jobs").mkdir(parents=True)
    for package in (place / "shop", place / "shop" / "jobs"):
        (package / "__init__.py").touch()
        (package / "__main__.py").write_text(CALL)
    (place / "shop" / "nightly.py").write_text(CALL + SPAWN)
    folder = place / "my.folder"
    folder.mkdir()
    (folder / "__main__.py").write_text(CALL)
    zipapp.create_archive(folder, place / "billing.pyz")
    zipapp.create_archive(folder, place / "refunds", interpreter="/usr/bin/env python3")
    (place / "early").mkdir()
    (place / "early" / "sitecustomize.py").write_text(CALL)
    (place / "early" / "nothing.py").touch()
    (place / "my.script.py").write_text(CALL)
    return place


def services(program: Program, place: Path, *arguments: str | bytes, stdin: str = "", **environment: str) -> list[str]:
    without = {key: value for key, value in program.environment.items() if key != "OTEL_SERVICE_NAME"}
    command = [os.fsencode(one) for one in (sys.executable, *arguments)]
    subprocess.run(
        command, env=without | environment, cwd=place, input=stdin, text=True, check=True, timeout=3 * PATIENCE
    )
    return program.ledger().services()


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (["my.script.py"], "my.script"),
        (["billing.pyz"], "billing"),
        (["./refunds"], "refunds"),
        (["my.folder"], "my.folder"),
        (["my.folder/"], "my.folder"),
        (["my.folder/__main__.py"], "my.folder"),
        (["-m", "shop"], "shop"),
        (["-m", "shop.jobs"], "shop.jobs"),
        (["-Bm", "shop.jobs.__main__"], "shop.jobs"),
    ],
)
def test_a_service_is_named_after_what_python_runs(
    program: Program, place: Path, arguments: list[str], name: str
) -> None:
    assert services(program, place, *arguments) == [name]


def test_a_folder_is_named_where_one_stands_in_it(program: Program, place: Path) -> None:
    assert services(program, place / "my.folder", ".") == ["my.folder"]


def test_a_spawned_process_has_the_name_of_its_parent(program: Program, place: Path) -> None:
    assert services(program, place, "-m", "shop.nightly") == ["shop.nightly"]


@pytest.mark.parametrize("arguments", [["-m", "nothing", "-m", "more"], ["-Bmnothing", "more"]])
def test_what_installs_before_the_module_is_found_knows_its_name(
    program: Program, place: Path, arguments: list[str]
) -> None:
    assert services(program, place, *arguments, PYTHONPATH=python_path(place / "early")) == ["nothing"]


def test_a_program_without_a_file_is_named_after_python(program: Program, place: Path) -> None:
    python = os.path.basename(os.path.realpath(sys.executable))
    assert services(program, place, "-c", CALL) == [python]
    assert services(program, place, stdin=CALL) == [python]
    assert services(program, place, "-", stdin=CALL) == [python]


def test_a_name_that_is_no_text_is_no_error(program: Program, place: Path) -> None:
    odd = os.fsencode(place) + b"/caf\xe9.py"
    Path(os.fsdecode(odd)).write_text(CALL)
    assert services(program, place, odd) == ["caf?"]


def python_path(first: Path) -> str:
    return os.pathsep.join(filter(None, [str(first), os.environ.get("PYTHONPATH")]))
