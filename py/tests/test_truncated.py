"""An injected break of a body is to every client what a connection is that breaks there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from ruled import Rules

CUT = """allow_faults = true
[[fault]]
name = "broken"
match = { vendor = "sim" }
share = "100%"
expires = "2100-01-01T00:00:00Z"
truncate = "2500B"
"""

# By length, in ten chunks, to the connection's end, and encoded, in which form it is counted.
BODIES = ["bytes/10000", "chunked?bytes=10000&chunks=10", "gzip?lines=20000"]

ON_URLLIB3 = pytest.mark.parametrize("rules", ["requests", "urllib3"], indirect=True)

READ = """
try:
    client("GET", SIM + {path!r}, CA)
except Base as error:
    print(json.dumps(isinstance(error, farcall.Refused)))
"""


@pytest.mark.parametrize("body", BODIES)
def test_a_body_breaks_off_as_an_error_of_the_client(rules: Rules, body: str) -> None:
    assert rules.run(CUT, READ.format(path=f"/scenario/{body}")) is False
    assert rules.outcomes() == {(200, "reset"): 1}
    (received,) = rules.total("bytes_in")
    assert received <= 2500


@pytest.mark.parametrize("length", [0, 1, 2499, 2500])
def test_a_body_that_is_no_longer_comes_whole(rules: Rules, length: int) -> None:
    for path in (f"bytes/{length}", f"chunked?bytes={length}&chunks=3"):
        code = f'print(len(client("GET", SIM + "/scenario/{path}", CA).body))'
        assert rules.run(CUT, code) == length
    assert rules.outcomes() == {(200, "complete"): 2}
    assert rules.total("bytes_in") == (2 * length,)


PIECES = """
got = []
try:
    for piece in {pieces}:
        got.append(len(piece))
except {error} as error:
    print(json.dumps([got, type(error).__name__]))
"""


@ON_URLLIB3
@pytest.mark.parametrize("body", BODIES[:2])
@pytest.mark.parametrize("size", [1, 400, 2500, 10000])
def test_a_reader_of_pieces_gets_those_before_the_break(rules: Rules, body: str, size: int) -> None:
    ask = {
        "requests": ("requests.get(SIM + {path!r}, stream=True).iter_content({size})", "ChunkedEncodingError"),
        "urllib3": (
            "urllib3.PoolManager().request('GET', SIM + {path!r}, preload_content=False).stream({size})",
            "ProtocolError",
        ),
    }
    pieces, kind = ask[rules.name]
    error = "requests.RequestException" if rules.name == "requests" else "urllib3.exceptions.HTTPError"
    pieces = pieces.format(path=f"/scenario/{body}", size=size)
    got, raised = rules.run(CUT, PIECES.format(pieces=pieces, error=error))
    assert raised == kind
    # A piece that the break cuts short is lost with it, but where chunks come one by one.
    whole = 2500 if body.startswith("chunked") else 2500 - 2500 % size
    assert sum(got) == whole
    assert rules.outcomes() == {(200, "reset"): 1}
    assert rules.total("bytes_in") == (2500,)


@ON_URLLIB3
def test_a_connection_that_broke_is_not_used_again(rules: Rules) -> None:
    before = rules.sim.control("GET", "counts")["connections"]
    code = """
pool = urllib3.PoolManager(maxsize=1)
for _ in range(2):
    answer = pool.request("GET", SIM + "/scenario/bytes/10000", preload_content=False)
    try:
        answer.read()
    except urllib3.exceptions.ProtocolError:
        pass
    answer.release_conn()
"""
    rules.run(CUT, code)
    assert rules.sim.control("GET", "counts")["connections"] >= before + 2
    assert rules.outcomes() == {(200, "reset"): 2}
