"""Where a rule keeps answers, every client hands them out, as responses like any other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from conftest import TARGET
from kept import DISK, FEW, FRESH, HEAD, Kept, has_header

if TYPE_CHECKING:
    from ruled import Rules


def test_a_fresh_answer_is_asked_for_once_and_says_where_it_comes_from(rules: Rules) -> None:
    kept = Kept(rules, "fresh", headers=FRESH)
    first, *others = kept.run("show(*[ask(AT) for _ in range(3)])")

    assert len(kept.asked()) == 1
    assert first[:2] == [200, ""]
    for status, says, headers, body in others:
        assert (status, body) == (200, first[3])
        assert says.startswith("farcall; hit; ttl=")
        assert int(headers["age"]) < 600
        assert {name: headers.get(name) for name in first[2]} == first[2], "every header of the vendor's"
    assert kept.outcomes() == {(200, "complete"): 1, (200, "cached"): 2}
    assert rules.total("calls", "attempts", "saved_bytes") == (3, 1, 2 * len(first[3]))


@pytest.mark.parametrize("rules", FEW, indirect=True)
def test_without_a_rule_nothing_is_kept_and_no_call_is_one_that_could_not_be(rules: Rules) -> None:
    kept = Kept(rules, "unruled", headers=FRESH)
    code = HEAD.format(name=rules.name, path=kept.path) + "ask(AT); ask(AT); print('null')"
    rules.run('[[cache]]\nname = "other"\nmatch = { vendor = "stripe" }\n', code)
    assert len(kept.asked()) == 2


@pytest.mark.parametrize("rules", FEW, indirect=True)
def test_no_call_goes_by_a_rule_that_its_client_could_not_follow(rules: Rules) -> None:
    kept = Kept(rules, "counted", headers=FRESH)
    counters = kept.run("ask(AT); ask(AT); print(json.dumps(farcall.status()))")
    assert counters["counters"]["uncached_calls"] == 0
    assert counters["faults"] == {}


def test_a_stale_answer_is_asked_about_and_stays_what_it_was(rules: Rules) -> None:
    kept = Kept(rules, "tagged")
    answers = kept.run("show(*[ask(AT) for _ in range(3)])", path="/scenario/etag")
    asked = kept.asked("/scenario/etag")[-3:]

    assert [status for status, *_ in answers] == [200, 200, 200]
    assert {body for *_, body in answers} == {"the same as ever"}
    assert [one["status"] for one in asked] == [200, 304, 304]
    assert [has_header(one, "if-none-match") for one in asked] == [False, True, True]
    assert answers[2][1].startswith("farcall; fwd=stale; fwd-status=304")
    assert len({one["connection"] for one in asked}) == 1, "an answer without a body leaves its connection open"
    assert kept.outcomes() == {(200, "complete"): 3}


DOWN = """
first = ask(AT)
kill()
show(first, ask(AT), ask(AT))
"""


def test_a_vendor_that_is_down_is_stood_in_for_by_a_stale_answer(rules: Rules, tmp_path: Any) -> None:
    kept = Kept(rules, "down")
    own = f"""
import subprocess
vendor = subprocess.Popen([{str(TARGET / "debug" / "vendor-sim")!r}, "--dir", {str(tmp_path)!r}],
                          stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True)
ready = json.loads(vendor.stdout.readline())
ask = keeping.CLIENTS[{rules.name!r}](ready["ca"])
AT = "https://localhost:" + ready["tls"].rpartition(":")[2] + "/scenario/etag"
def kill():
    vendor.kill()
    vendor.wait()
"""
    first, second, third = kept.run(own + DOWN, 'stale_if_error = "1h"\n')
    assert first[3] == second[3] == third[3] == "the same as ever"
    assert second[1].endswith("detail=stale-if-error")
    assert kept.outcomes() == {(200, "complete"): 1, (200, "stale"): 2}


@pytest.mark.parametrize("rules", FEW, indirect=True)
def test_an_answer_that_is_an_error_is_stood_in_for_too(rules: Rules) -> None:
    kept = Kept(rules, "broken")
    kept.script(count=1, headers={"cache-control": "max-age=0", "etag": '"1"'}, body="good")
    kept.script(status=503)
    first, second = kept.run("show(ask(AT), ask(AT))", 'stale_if_error = "1h"\n')
    assert (first[0], first[3], second[0], second[3]) == (200, "good", 200, "good")
    assert "fwd-status=503" in second[1]
    assert [one["status"] for one in kept.asked()] == [200, 503]


@pytest.mark.parametrize("rules", FEW, indirect=True)
def test_a_purge_makes_programs_forget(rules: Rules) -> None:
    kept = Kept(rules, "purged", headers=FRESH)
    cli = TARGET / "debug" / "farcall"
    assert cli.exists(), "build it first: cargo build -p farcall-cli"
    code = f"""
import subprocess
answers = [ask(AT), ask(AT)]
farcall.flush()
subprocess.run([{str(cli)!r}, "cache", "purge", "vendor=sim"], check=True, stdout=subprocess.DEVNULL)
farcall.flush()
show(*answers, ask(AT), ask(AT))
"""
    answers = kept.run(code)
    assert [says != "" for _, says, *_ in answers] == [False, True, False, True]
    assert len(kept.asked()) == 2


@pytest.mark.parametrize("rules", FEW, indirect=True)
def test_a_program_can_have_answers_forgotten_by_what_they_are(rules: Rules) -> None:
    kept = Kept(rules, "purged-here", headers=FRESH)
    code = """
def told(**which):
    return farcall.purge_cache(**which)
def refused(**which):
    try:
        farcall.purge_cache(**which)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
with farcall.customer("acme"):
    answers = [ask(AT), ask(AT)]
    many = [told(customer="other", vendor="sim")]
    answers.append(ask(AT))
    many.append(told(customer="acme", vendor="sim", method="GET"))
    answers.append(ask(AT))
    many.append(told())
    answers.append(ask(AT))
why = [refused(vendor="sym"), refused(vendor="sim", home="/nowhere/at/all"), refused(status="200")]
print(json.dumps([[a.kept for a in answers], many, why]))
"""
    says, many, why = kept.run(code)
    assert [said != "" for said in says] == [False, True, True, False, False]
    assert many == [1, 1, 1], "this program"
    assert why[0].startswith("ValueError: the vendor `sym` is not known")
    assert [text.partition(":")[0] for text in why[1:]] == ["OSError", "TypeError"]
    assert len(kept.asked()) == 3


def test_an_answer_that_was_let_go_of_is_not_kept(rules: Rules) -> None:
    kept = Kept(rules, "half", headers=FRESH)
    path = f"/scenario/bytes/200000?of={rules.name}"
    answers = kept.run("show(ask(AT, part=True), ask(AT), ask(AT))", 'ttl = "1h"\n', path=path)
    assert [says != "" for _, says, *_ in answers] == [False, False, True]
    assert len(answers[2][3]) == 200_000


def test_an_answer_that_broke_off_is_not_kept(rules: Rules) -> None:
    kept = Kept(rules, "cut")
    kept.script(count=1, headers=FRESH, body="x" * 5000, truncate={"after_bytes": 2000})
    kept.script(headers=FRESH, body="x" * 5000)
    code = """
try:
    ask(AT)
except (Base, OSError):
    show(ask(AT), ask(AT))
"""
    answers = kept.run(code)
    assert [(len(body), says != "") for _, says, _, body in answers] == [(5000, False), (5000, True)]


@pytest.mark.parametrize("rules", FEW, indirect=True)
def test_streams_and_large_bodies_pass_and_are_not_kept(rules: Rules) -> None:
    kept = Kept(rules, "passing")
    code = f"""
one, other = TLS + "/scenario/sse?of={rules.name}", TLS + "/scenario/bytes/5000?of={rules.name}"
show(ask(one), ask(one), ask(other), ask(other))
"""
    answers = kept.run(code, 'ttl = "1h"\nmax_bytes = "4KiB"\n')
    assert [says for _, says, *_ in answers] == ["", "", "", ""]


@pytest.mark.parametrize("rules", FEW, indirect=True)
def test_a_change_makes_what_was_kept_of_its_path_useless(rules: Rules) -> None:
    kept = Kept(rules, "changed", headers=FRESH)
    kept.run("[ask(AT), ask(AT), ask(AT, method='DELETE'), ask(AT), ask(AT)]")
    assert [one["method"] for one in kept.asked()] == ["GET", "DELETE", "GET"]


@pytest.mark.parametrize("rules", ["requests"], indirect=True)
def test_a_restarted_program_finds_on_the_disk_what_was_kept_there(rules: Rules) -> None:
    kept = Kept(rules, "on-disk", headers=FRESH)
    shown = [kept.run("show(ask(AT))", top=DISK)[0] for _ in range(2)]
    assert [("hit" in status, body) for _, status, _, body in shown] == [(False, shown[0][3]), (True, shown[0][3])]
    assert len(kept.asked()) == 1
