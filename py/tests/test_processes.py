"""Forks, exits and signals: every process counts its own calls, exactly, and ends as it would have."""

from __future__ import annotations

import os
import signal
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from conftest import PATIENCE

if TYPE_CHECKING:
    from conftest import Program


def test_parent_and_children_each_count_their_own(program: Program) -> None:
    program.run("""
        import farcall, requests
        farcall.install()
        session = requests.Session()
        with farcall.customer("parent"):
            for _ in range(5):
                session.get(SIM + "/scenario/ok")
        children = []
        for number in range(4):
            child = os.fork()
            if child == 0:
                with farcall.customer(f"child-{number}"):
                    for _ in range(10):
                        requests.get(SIM + "/scenario/ok")
                assert farcall.status()["adapters"]["urllib3"]["calls"] == 10
                sys.exit(0)
            children.append(child)
        with farcall.customer("parent"):
            for _ in range(5):
                session.get(SIM + "/scenario/ok")
        for child in children:
            assert os.waitpid(child, 0)[1] == 0
        assert farcall.status()["counters"]["late_forks"] == 0
    """)
    assert program.ledger("parent").calls() == {(200, "complete"): 10}
    for number in range(4):
        assert program.ledger(f"child-{number}").calls() == {(200, "complete"): 10}


def test_a_response_that_is_open_across_a_fork_counts_once(program: Program) -> None:
    program.run("""
        import farcall, httpx2
        farcall.install()
        with httpx2.Client(timeout=60) as client, client.stream("GET", SIM + "/scenario/bytes/3000") as response:
            child = os.fork()
            if child == 0:
                del response
                os._exit(0)
            os.waitpid(child, 0)
            assert len(response.read()) == 3000
    """)
    assert program.ledger().calls() == {(200, "complete"): 1}
    assert program.ledger().total("bytes_in") == 3000


def test_forks_while_other_threads_are_calling_hang_nobody(program: Program) -> None:
    program.run("""
        import farcall, httpx, signal, threading
        farcall.install()
        signal.alarm(150)
        stop = threading.Event()
        counts = [0] * 3

        def work(number):
            with httpx.Client(timeout=60) as client, farcall.customer("parent"):
                while not stop.is_set():
                    client.get(SIM + "/scenario/ok")
                    counts[number] += 1

        threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
        for thread in threads:
            thread.start()
        while not all(counts):  # a fork within an import hangs in Python's own import lock
            threads[0].join(0.01)
        for _ in range(20):
            child = os.fork()
            if child == 0:
                signal.alarm(60)
                with farcall.customer("child"):
                    httpx.get(SIM + "/scenario/ok", timeout=60)
                farcall.flush()
                os._exit(0)
            assert os.waitpid(child, 0)[1] == 0
        stop.set()
        for thread in threads:
            thread.join()
        with open(os.environ["FARCALL_HOME"] + "/made", "w") as file:
            file.write(str(sum(counts)))
    """)
    made = int((program.home / "made").read_text())
    assert program.ledger("child").calls() == {(200, "complete"): 20}
    assert program.ledger("parent").calls() == {(200, "complete"): made}


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_children_of_multiprocessing_lose_nothing_at_their_end(program: Program, method: str) -> None:
    script = program.home.parent / "workers.py"
    script.write_text(f"""
import multiprocessing, os
import farcall, requests
farcall.install(service="workers")

def work(number):
    with farcall.customer("acme"):
        return requests.get(os.environ["SIM"] + "/scenario/ok").status_code

if __name__ == "__main__":
    context = multiprocessing.get_context("{method}")
    children = [context.Process(target=work, args=(number,)) for number in range(4)]
    for child in children:
        child.start()
    for child in children:
        child.join()
    assert [child.exitcode for child in children] == [0] * 4
    work(4)
""")
    program.script(script)
    assert program.ledger("acme").calls() == {(200, "complete"): 5}


def test_children_that_end_by_os_exit_lose_nothing_and_are_said_to_have_ended(program: Program) -> None:
    # As children of Celery's pool and of RQ do, after each task or after many: nothing else is run at their end.
    program.run("""
        import farcall, requests
        children = []
        farcall.install()
        for number in range(4):
            child = os.fork()
            if child == 0:
                try:
                    with farcall.customer("acme"):
                        requests.get(SIM + "/scenario/ok")
                finally:
                    os._exit(number)
            children.append(child)
        assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0, 1, 2, 3]
        for wrong in ((), ("1",), (1, 2)):
            try:
                os._exit(*wrong)
            except TypeError:
                continue
            raise AssertionError(wrong)
        farcall.uninstall()
        assert type(os._exit) is type(os.fork)
    """)
    assert program.ledger("acme").calls() == {(200, "complete"): 4}
    with closing(sqlite3.connect(f"file:{program.home}/ledger.db?mode=ro", uri=True)) as db:
        assert db.execute("SELECT count(*), count(ended) FROM processes").fetchone() == (5, 5)


def test_a_program_that_just_ends_loses_nothing(program: Program) -> None:
    program.run("""
        import farcall, httpx2
        farcall.install()
        httpx2.get(SIM + "/scenario/ok", timeout=60)
    """)
    assert program.ledger().calls() == {(200, "complete"): 1}


def test_responses_that_nobody_closed_count_at_the_end(program: Program) -> None:
    program.run("""
        import farcall, httpx2, requests
        farcall.install()
        client = httpx2.Client(timeout=60)
        one = client.send(client.build_request("GET", SIM + "/scenario/endless"), stream=True)
        two = requests.get(SIM + "/scenario/endless", stream=True)
    """)
    assert program.ledger().calls() == {(200, "abandoned"): 2}


def test_a_program_that_fails_loses_nothing(program: Program) -> None:
    process = program.start("""
        import farcall, requests
        farcall.install()
        requests.get(SIM + "/scenario/ok")
        raise SystemExit(3)
    """)
    process.communicate(timeout=3 * PATIENCE)
    assert process.returncode == 3
    assert program.ledger().calls() == {(200, "complete"): 1}


def test_sigterm_writes_what_was_counted_and_kills_as_before(program: Program) -> None:
    process = program.start("""
        import farcall, requests, signal
        farcall.install()
        requests.get(SIM + "/scenario/ok")
        print("ready", flush=True)
        signal.pause()
    """)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.terminate()
    process.communicate(timeout=3 * PATIENCE)
    assert process.returncode == -signal.SIGTERM
    assert program.ledger().calls() == {(200, "complete"): 1}


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_sigterm_handler_of_the_application_is_left_alone(program: Program, when: str) -> None:
    process = program.start(f"""
        import farcall, requests, signal

        class Ended(Exception):
            pass

        def end(*_):
            raise Ended

        if {when == "after"}:
            farcall.install()
        signal.signal(signal.SIGTERM, end)
        if {when == "before"}:
            farcall.install()
        requests.get(SIM + "/scenario/ok")
        try:
            print("ready", flush=True)
            signal.pause()
        except Ended:
            print("ended", flush=True)
            sys.exit(7)
    """)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.terminate()
    out, err = process.communicate(timeout=3 * PATIENCE)
    assert (out, process.returncode) == ("ended\n", 7), err
    assert program.ledger().calls() == {(200, "complete"): 1}


def test_a_program_that_closes_all_that_it_finds_open_keeps_what_it_opens_next(program: Program) -> None:
    # As daemons do: the numbers of Farcall's descriptors are the program's then.
    process = program.start("""
        import farcall, os, requests, signal, socket, time
        farcall.install()
        requests.get(SIM + "/scenario/ok")
        if os.fork():
            os.wait()
            os._exit(0)
        os.closerange(3, 1024)
        pairs = [socket.socketpair() for _ in range(12)]
        config = os.path.join(os.environ["FARCALL_HOME"], "farcall.toml")
        with open(config, "w") as file:
            file.write("[[policy]]\\nname = 'none'\\nmatch = { endpoint = 'GET /nothing' }\\nverdict = 'deny'\\n")
        for _ in range(6):
            for one, other in pairs:
                one.sendall(b"x" * 50)
            # The threads look at theirs each second.
            time.sleep(0.3)
            for one, other in pairs:
                other.settimeout(5)
                assert len(other.recv(50, socket.MSG_WAITALL)) == 50
        requests.get(SIM + "/scenario/ok")
        print(os.getpid(), flush=True)
        signal.pause()
    """)
    assert process.stdout is not None
    os.kill(int(process.stdout.readline()), signal.SIGTERM)
    _, err = process.communicate(timeout=3 * PATIENCE)
    assert (process.returncode, err) == (0, "")
    assert program.ledger().calls() == {(200, "complete"): 2}


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_program_that_handles_sigterm_and_raises_it_again_loses_nothing(program: Program, when: str) -> None:
    # As uvicorn ends: nothing that atexit has is run.
    process = program.start(f"""
        import farcall, requests, signal, threading, time

        came = threading.Event()
        if {when == "after"}:
            farcall.install()
        before = signal.signal(signal.SIGTERM, lambda *_: came.set())
        assert before is signal.SIG_DFL
        if {when == "before"}:
            farcall.install()
        print("ready", flush=True)
        while not came.is_set():
            time.sleep(0.01)
        signal.signal(signal.SIGTERM, before)
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        requests.get(SIM + "/scenario/ok")
        signal.raise_signal(signal.SIGTERM)
        print("still there", flush=True)
    """)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.terminate()
    out, err = process.communicate(timeout=3 * PATIENCE)
    assert (out, process.returncode) == ("", -signal.SIGTERM), err
    assert program.ledger().calls() == {(200, "complete"): 1}


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_program_that_lets_go_of_sigterm_dies_of_a_later_one_and_loses_nothing(program: Program, when: str) -> None:
    process = program.start(f"""
        import asyncio, farcall, requests, signal
        if {when == "after"}:
            farcall.install()

        async def main():
            loop = asyncio.get_running_loop()
            loop.add_signal_handler(signal.SIGTERM, print)
            if {when == "before"}:
                farcall.install()
            loop.remove_signal_handler(signal.SIGTERM)

        asyncio.run(main())
        requests.get(SIM + "/scenario/ok")
        print("ready", flush=True)
        signal.pause()
    """)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.terminate()
    _, err = process.communicate(timeout=3 * PATIENCE)
    assert process.returncode == -signal.SIGTERM, err
    assert program.ledger().calls() == {(200, "complete"): 1}


def test_a_daemon_thread_that_still_calls_does_not_hold_up_the_end(program: Program) -> None:
    program.run("""
        import farcall, requests, threading
        farcall.install()
        started = threading.Event()

        def work():
            session = requests.Session()
            while True:
                session.get(SIM + "/scenario/ok")
                started.set()

        threading.Thread(target=work, daemon=True).start()
        started.wait()
    """)
    assert program.ledger().total("calls") >= 1


def test_a_home_that_cannot_be_written_disturbs_nobody(program: Program) -> None:
    program.home.write_text("a file where the folder should be")
    process = program.start("""
        import farcall, requests
        farcall.install()
        print(requests.get(SIM + "/scenario/ok").status_code)
    """)
    out, err = process.communicate(timeout=3 * PATIENCE)
    assert (out, process.returncode) == ("200\n", 0)
    assert err.count("farcall") <= 2, err


def test_a_subinterpreter_is_told_that_nothing_is_counted(program: Program) -> None:
    out = program.run("""
        import textwrap
        try:
            import _xxsubinterpreters as interpreters
        except ImportError:
            import _interpreters as interpreters
        sub = interpreters.create()
        interpreters.run_string(sub, textwrap.dedent('''
            import warnings
            with warnings.catch_warnings(record=True) as said:
                warnings.simplefilter("always")
                import farcall
                farcall.install()
            with farcall.customer("acme"):
                pass
            print(len(said), farcall.status()["problem"], flush=True)
        '''))
        interpreters.destroy(sub)
        import farcall, requests
        farcall.install()
        requests.get(SIM + "/scenario/ok")
    """)
    assert out == "1 the native module cannot be loaded: this is a subinterpreter"
    assert program.ledger().calls() == {(200, "complete"): 1}


@pytest.mark.parametrize(
    "calls",
    [
        "import requests; get = lambda: requests.get(SLOW)",
        "import requests; get = lambda: requests.get(ENDLESS)",
        "import urllib3; get = lambda: urllib3.PoolManager().request('GET', SLOW)",
        "import httpx; get = lambda: httpx.get(SLOW)",
        "import httpx2; get = lambda: httpx2.get(ENDLESS)",
        "import asyncio, httpx; get = lambda: asyncio.run(httpx.AsyncClient().get(ENDLESS))",
    ],
)
@pytest.mark.parametrize("rules", ["", "[[resilience]]\nmatch = {}\nattempts = 2\n"])
def test_a_daemon_thread_in_a_call_leaves_the_program_its_end(program: Program, calls: str, rules: str) -> None:
    """Before Python 3.14 such a thread is unwound when it wants to go on, whatever it is in."""
    program.home.mkdir()
    (program.home / "farcall.toml").write_text(rules)
    code = f"""
        import string, threading, time
        SLOW, ENDLESS = SIM + "/scenario/slow?ms=700", SIM + "/scenario/endless?every_ms=100"
        {calls}
        import farcall
        farcall.install()
        threading.Thread(target=get, daemon=True).start()
        time.sleep(0.2)

        class Last:
            def __del__(self, sleep=time.sleep):
                # The interpreter is ending, and lets others run.
                sleep(1.5)

        # The main module is kept by the thread, which is in it.
        string.last = Last()
    """
    process = program.start(code)
    said = process.communicate(timeout=60)
    assert (process.returncode, *said) == (0, "", "")


def test_calls_of_functions_that_run_at_exit_after_ours_are_counted(program: Program) -> None:
    program.run("""
        import atexit, requests
        atexit.register(lambda: [requests.get(SIM + "/scenario/ok") for _ in range(3)])
        import farcall
        farcall.install()
        requests.get(SIM + "/scenario/ok")
    """)
    assert program.ledger().calls() == {(200, "complete"): 4}
