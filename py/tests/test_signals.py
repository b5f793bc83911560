"""Signals of the program's: blocked, waited for, raised, and sent to children that were forked a moment ago."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path
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


@pytest.mark.parametrize("farcall", [True, False])
def test_the_first_process_of_a_namespace_lives_on_as_the_kernel_has_it(program: Program, farcall: bool) -> None:
    """As most containers run their program: SIGTERM kills nobody there who does not handle it."""
    namespace = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child"]
    if subprocess.run([*namespace, "true"], check=False).returncode != 0:
        pytest.skip("this user may not make a PID namespace")
    child = program.start(
        f"""
    import signal, time
    if {farcall}:
        import farcall, urllib3
        farcall.install()
        urllib3.PoolManager().request("GET", SIM + "/scenario/ok")
    print("ready", flush=True)
    sys.stdin.readline()
    signal.raise_signal(signal.SIGTERM)
    time.sleep(0.5)
    print(os.getpid(), "lives")
    """,
        under=namespace,
        stdin=subprocess.PIPE,
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    first = Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text(encoding="utf-8")
    os.kill(int(first), signal.SIGTERM)
    out, err = child.communicate("go\n", timeout=60)
    assert (out, child.returncode) == ("1 lives\n", 0), err
    if farcall:
        assert program.ledger().calls() == {(200, "complete"): 1}


def test_sigterm_kills_as_before_where_there_is_no_room_for_a_thread(program: Program) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can become somebody else, whose threads are counted")
    program.home.mkdir()
    program.home.chmod(0o777)
    child = program.start("""
    import resource, signal
    import farcall
    os.setgroups([])
    os.setresgid(65_534, 65_534, 65_534)
    os.setresuid(65_534, 65_534, 65_534)
    resource.setrlimit(resource.RLIMIT_NPROC, (1, 1))
    farcall.install()
    print(len(os.listdir("/proc/self/task")), flush=True)
    signal.pause()
    """)
    assert child.stdout is not None
    assert child.stdout.readline() == "1\n"
    child.terminate()
    assert child.wait(timeout=60) == -signal.SIGTERM
