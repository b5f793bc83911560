"""Calls that no rule is about are told to the engine in bundles: that shows nowhere in the account."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import farcall
import pytest
from conftest import PATIENCE

if TYPE_CHECKING:
    from conftest import Ledger, Program, Sim

#: More than a bundle holds, and not a multiple of it.
MANY = 150


@pytest.mark.parametrize("library", ["requests", "urllib3", "httpx", "httpx2"])
def test_every_call_is_there_when_somebody_reads(program: Program, library: str) -> None:
    call = "urllib3.request('GET', url).data" if library == "urllib3" else f"{library}.get(url, timeout=60).content"
    program.run(f"""
        import farcall, {library}
        farcall.install()

        def counted():
            vendors = farcall.report("vendors")["rows"]
            return sum(row["calls"] for row in vendors)

        for made in range(1, 6):
            url = SIM + "/scenario/bytes/100"
            {call}
            assert counted() == made, (counted(), made)
        for made in range(6, {MANY + 1}):
            {call}
        # Whatever was told of by now, what the engine counted is read with all of it.
        farcall.status()
        assert counted() == {MANY}
        {call}
    """)
    assert program.ledger().calls() == {(200, "complete"): MANY + 1}
    assert program.ledger().total("bytes_in") == 100 * (MANY + 1)


def test_what_waits_in_the_parent_at_a_fork_is_the_parents_alone(program: Program) -> None:
    program.run("""
        import farcall, requests
        farcall.install(service="parent")
        session = requests.Session()
        with farcall.customer("parent"):
            for _ in range(10):
                session.get(SIM + "/scenario/ok")
            open_ones = [requests.get(SIM + "/scenario/bytes/3000", stream=True) for _ in range(3)]
        child = os.fork()
        if child == 0:
            with farcall.customer("child"):
                for _ in range(3):
                    requests.get(SIM + "/scenario/ok")
            # Copies of the parent's, let go of in every way.
            open_ones.pop().close()
            del open_ones
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        for response in open_ones:
            assert len(response.content) == 3000
    """)
    assert program.ledger("parent").calls() == {(200, "complete"): 13}
    assert program.ledger("child").calls() == {(200, "complete"): 3}
    assert program.ledger("parent").total("bytes_in") >= 3 * 3000


def test_a_refusal_in_a_child_to_a_request_of_the_parents_is_the_parents(program: Program) -> None:
    program.run("""
        import farcall
        from farcall import _farcall as native
        farcall.install()
        call = native.begin(0, "GET", "http", "one.example", 80, "/", None)
        child = os.fork()
        if child == 0:
            assert call.head(429, 0) is True
            call.answer(429, [("retry-after", "30")])
            call.end(7)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        assert call.head(429, 0) is None
        call.answer(429, [("retry-after", "30")])
        assert call.opened(429)
        call.end(7)
    """)
    assert program.ledger().calls() == {(429, "complete"): 1}


@pytest.mark.parametrize("end", ["os._exit(0)", "os.kill(os.getpid(), 15); time.sleep(60)", "sys.exit(0)", "pass"])
def test_however_a_program_ends_the_last_calls_are_written(program: Program, end: str) -> None:
    process = program.start(f"""
        import farcall, requests, time
        farcall.install()
        session = requests.Session()
        for _ in range({MANY}):
            session.get(SIM + "/scenario/ok")
        {end}
    """)
    _, error = process.communicate(timeout=3 * PATIENCE)
    assert process.returncode in (0, -signal.SIGTERM), error
    assert program.ledger().calls() == {(200, "complete"): MANY}


def test_a_call_is_written_soon_though_nobody_asks(program: Program) -> None:
    process = program.start("""
        import farcall, requests, signal, sqlite3, time
        farcall.install()
        requests.get(SIM + "/scenario/ok")
        end = time.monotonic() + 60
        while time.monotonic() < end:
            time.sleep(0.1)
            try:
                with sqlite3.connect(f"file:{os.environ['FARCALL_HOME']}/ledger.db?mode=ro", uri=True) as db:
                    if db.execute("SELECT sum(calls) FROM rollups").fetchone() == (1,):
                        print("there", flush=True)
                        break
            except sqlite3.Error:
                pass
        os.kill(os.getpid(), signal.SIGKILL)
    """)
    out, error = process.communicate(timeout=3 * PATIENCE)
    assert out == "there\n", error


def test_threads_lose_nothing(program: Program) -> None:
    program.run("""
        import farcall, requests, threading
        farcall.install()

        def work(number):
            session = requests.Session()
            with farcall.customer(f"customer-{number}"):
                for _ in range(100):
                    assert session.get(SIM + "/scenario/ok").status_code == 200

        threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            farcall.flush()
        for thread in threads:
            thread.join()
    """)
    for number in range(6):
        assert program.ledger(f"customer-{number}").calls() == {(200, "complete"): 100}


@pytest.mark.parametrize("library", ["requests", "httpx", "httpx2"])
def test_a_refusal_counts_as_any_other_call(program: Program, library: str) -> None:
    program.run(f"""
        import farcall, {library}
        farcall.install()
        for path in ["/scenario/ok"] * 5 + ["/scenario/status/429"] + ["/scenario/ok"] * 5:
            {library}.get(SIM + path, timeout=60)
        assert farcall.report("vendors")["rows"][0]["calls"] == 11
    """)
    assert program.ledger().calls() == {(200, "complete"): 10, (429, "complete"): 1}


def test_a_rule_that_comes_while_a_call_is_under_way_stops_the_next_one(program: Program) -> None:
    program.run("""
        import farcall, requests, time
        farcall.install()
        config = os.path.join(os.environ["FARCALL_HOME"], "farcall.toml")
        requests.get(SIM + "/scenario/ok")
        with requests.get(SIM + "/scenario/bytes/3000", stream=True) as response:
            with open(config + ".new", "w") as file:
                file.write("[[policy]]\\nname = 'none'\\nmatch = { vendor = '*' }\\nverdict = 'deny'\\n")
            os.replace(config + ".new", config)
            end = time.monotonic() + 60
            while not farcall.status()["counters"].get("reloads"):
                assert time.monotonic() < end
                time.sleep(0.01)
            try:
                requests.get(SIM + "/scenario/ok")
            except requests.ConnectionError:
                pass
            else:
                raise AssertionError("it was not refused")
            assert len(response.content) == 3000
        assert not farcall.status()["counters"].get("overlooked_calls")
    """)
    assert program.ledger().calls() == {(200, "complete"): 2, (0, "refused-policy"): 1}


def test_a_call_that_is_under_way_when_farcall_is_taken_out_counts(program: Program) -> None:
    program.run("""
        import farcall, httpx2, requests
        farcall.install()
        one = requests.get(SIM + "/scenario/bytes/3000", stream=True)
        with httpx2.Client(timeout=60) as client, client.stream("GET", SIM + "/scenario/bytes/3000") as two:
            farcall.uninstall()
            assert len(two.read()) == 3000
            requests.get(SIM + "/scenario/ok")
        # What urllib3 reads from here on nobody sees.
        one.close()
        del one
    """)
    assert program.ledger().calls() == {(200, "complete"): 1, (200, "abandoned"): 1}
    assert program.ledger().total("bytes_in") == 3000


def test_calls_are_counted_for_whom_they_were_made(ledger: Ledger, sim: Sim) -> None:
    import requests

    session = requests.Session()
    with farcall.customer(ledger.customer):
        for number in range(70):
            with farcall.tags(step=str(number % 2)):
                session.get(sim.plain + f"/scenario/bytes/{10 + number}")
        session.get(sim.plain + "/scenario/bytes/5")
    by_tags = {row["tags"]: row["calls"] for row in ledger.rows()}
    assert by_tags == {"step=0": 35, "step=1": 35, "": 1}
