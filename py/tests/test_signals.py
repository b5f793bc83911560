"""Signals of the program's: blocked, waited for, raised, and sent to children that were forked a moment ago."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conftest import Program

BLOCKED = """
    import os, signal, time
    import farcall
    farcall.install()
    signals = {{signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1}}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    os.kill(os.getpid(), signal.{sent})
    time.sleep(0.3)
    print("alive", signal.{sent} in signal.sigpending())
    print(signal.sigwait(signals).name)
"""


@pytest.mark.parametrize("sent", ["SIGTERM", "SIGHUP", "SIGUSR1"])
def test_a_blocked_signal_waits_for_the_program(program: Program, sent: str) -> None:
    """None of the agent's threads takes it."""
    assert program.run(BLOCKED.format(sent=sent)).splitlines() == ["alive True", sent]


def test_a_handler_does_not_run_where_its_signal_is_blocked(program: Program) -> None:
    said = program.run("""
        import os, signal, time
        import farcall
        signal.signal(signal.SIGUSR1, lambda *_: print("handled"))
        farcall.install()
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
        os.kill(os.getpid(), signal.SIGUSR1)
        time.sleep(0.3)
        print("undisturbed")
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1})
    """)
    assert said.splitlines() == ["undisturbed", "handled"]


def test_a_program_that_raises_a_blocked_sigterm_goes_on(program: Program) -> None:
    said = program.run("""
        import signal
        import farcall
        farcall.install()
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        signal.raise_signal(signal.SIGTERM)
        print(signal.SIGTERM in signal.sigpending())
        signal.sigwait({signal.SIGTERM})
    """)
    assert said == "True"


# As a server does that is written in C: nobody of Python's hears of it.
FORKS_IN_C = """
    import ctypes, os, signal, time
    import farcall, urllib3
    farcall.install()
    fork = ctypes.PyDLL(None).fork
    pool = urllib3.PoolManager()
"""


def test_sigterm_ends_a_child_that_has_no_agent_yet(program: Program) -> None:
    said = program.run(
        FORKS_IN_C
        + """
    child = fork()
    if child == 0:
        time.sleep(60)
        os._exit(1)
    os.kill(child, signal.SIGTERM)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    """
    )
    assert said == "-15"


def test_sigterm_ends_children_of_python_s_own_whenever_it_comes(program: Program) -> None:
    said = program.run("""
        import os, signal, time
        import farcall
        farcall.install()
        ended = []
        for n in range(20):
            child = os.fork()
            if child == 0:
                time.sleep(60)
                os._exit(1)
            time.sleep(n / 1000)
            os.kill(child, signal.SIGTERM)
            ended.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        print(set(ended))
    """)
    assert said == "{-15}"


def test_a_worker_that_is_forked_in_c_is_counted_from_its_first_call_on(program: Program) -> None:
    program.run(
        FORKS_IN_C
        + """
    pool.request("GET", SIM + "/scenario/ok")
    child = fork()
    if child == 0:
        for _ in range(5):
            urllib3.PoolManager().request("GET", SIM + "/scenario/ok")
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    """
    )
    assert program.ledger().calls() == {(200, "complete"): 6}
