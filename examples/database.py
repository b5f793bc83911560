"""A PostgreSQL for one example: in a directory of its own, reached by a socket in it, gone afterwards.

Standard library only.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote


@contextlib.contextmanager
def postgres() -> Iterator[str | None]:
    """The address of a database; None where there is no PostgreSQL on this machine."""
    programs = _programs()
    if programs is None:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="farcall-pg") as folder:
        # The server refuses to run as root.
        user = []
        if os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody")
            os.chown(folder, nobody.pw_uid, nobody.pw_gid)
            user = ["setpriv", f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}", "--clear-groups", "--"]
        data = f"{folder}/data"
        make = [
            "initdb",
            "--no-sync",
            "--auth=trust",
            "--username=farcall",
            "--encoding=UTF8",
            "--locale=C",
            "-D",
        ]
        subprocess.run(
            [*user, programs / make[0], *make[1:], data], check=True, cwd=folder, stdout=subprocess.DEVNULL
        )
        settings = ["-c", "listen_addresses=", "-c", "shared_buffers=16MB"]
        with Path(folder, "log").open("wb") as log:
            server = subprocess.Popen(
                [*user, programs / "postgres", "-D", data, "-k", folder, *settings],
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        url = f"postgres://farcall@{quote(folder, safe='')}/postgres"
        try:
            _wait(programs, folder)
            yield url
        finally:
            # "Fast": without waiting for its clients.
            server.send_signal(2)
            server.wait()


def _wait(programs: Path, folder: str) -> None:
    end = time.monotonic() + 120
    while subprocess.run([programs / "pg_isready", "-q", "-h", folder], check=False).returncode != 0:
        if time.monotonic() > end:
            raise SystemExit(Path(folder, "log").read_text())
        time.sleep(0.05)


def _programs() -> Path | None:
    """Debian has the server's programs in no `PATH`."""
    packaged = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    found = shutil.which("initdb")
    candidates = [Path(found).parent] if found else []
    for programs in [*packaged, *candidates]:
        if all((programs / name).exists() for name in ("initdb", "postgres", "pg_isready")):
            return programs
    return None
