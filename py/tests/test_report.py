"""The read side, as the command line shows it."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import farcall
import pytest
import requests

if TYPE_CHECKING:
    from conftest import Ledger, Program, Sim


def test_a_report_includes_what_was_counted_a_moment_ago(sim: Sim, ledger: Ledger, every_name_is_here: None) -> None:
    with farcall.customer(ledger.customer):
        url = f"https://api.stripe.com:{sim.tls_port}/scenario/bytes/1234"
        requests.get(url, timeout=60, verify=sim.ca)
    answer = farcall.report("vendors", since="5m", filters=[f"customer={ledger.customer}"])
    (row,) = answer["rows"]
    assert (answer["report"], row["vendor"], row["calls"], row["bytes_in"]) == ("vendors", "stripe", 1, 1234)


@pytest.mark.parametrize("question", ["vendors", "endpoints", "customers", "callers", "coverage", "calls", "findings"])
def test_every_question_has_an_answer(question: str, ledger: Ledger) -> None:
    assert "rows" in farcall.report(question)


def test_what_cannot_be_understood_is_an_error_that_says_what_can() -> None:
    with pytest.raises(ValueError, match="there is no report `vendor`; there are vendors"):
        farcall.report("vendor")
    with pytest.raises(ValueError, match="`yesterday` is not a time span"):
        farcall.report("vendors", since="yesterday")
    with pytest.raises(ValueError, match="`vendr` is not a key"):
        farcall.report("vendors", filters=["vendr=stripe"])
    with pytest.raises(OSError, match="there is no ledger"):
        farcall.report("vendors", home="/nowhere")


def test_the_module_prints_the_same_json(program: Program) -> None:
    program.run("import farcall, httpx; farcall.install(); httpx.get(SIM + '/scenario/ok')")
    done = subprocess.run(
        [sys.executable, "-m", "farcall", "report", "vendors", "--since", "10m"],
        env=program.environment,
        stdout=subprocess.PIPE,
        check=True,
    )
    assert [row["calls"] for row in json.loads(done.stdout)["rows"]] == [1]
    failed = subprocess.run(
        [sys.executable, "-m", "farcall", "report", "nothing"], env=program.environment, stderr=subprocess.PIPE
    )
    assert failed.returncode == 1
    assert b"there is no report `nothing`" in failed.stderr
