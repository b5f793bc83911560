"""Attaching: at once, later, twice, not at all, and off again; and what `status()` says of it."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING

import farcall
import httpx2
import pytest
import requests

if TYPE_CHECKING:
    from conftest import Ledger, Program, Sim


def test_install_imports_no_client_library(program: Program) -> None:
    loaded = program.run("""
        import farcall
        farcall.install()
        print([name for name in ("requests", "urllib3", "httpx", "httpx2", "httpcore") if name in sys.modules])
    """)
    assert loaded == "[]"


@pytest.mark.parametrize("library", ["requests", "urllib3", "httpx", "httpx2"])
@pytest.mark.parametrize("first", ["farcall", "library"])
def test_it_does_not_matter_which_is_imported_first(program: Program, library: str, first: str) -> None:
    install, load = "import farcall; farcall.install()", f"import {library}"
    order = [install, load] if first == "farcall" else [load, install]
    call = (
        "urllib3.request('GET', SIM + '/scenario/ok').data"
        if library == "urllib3"
        else f"{library}.get(SIM + '/scenario/ok')"
    )
    program.run("\n".join([*order, call]))
    assert program.ledger().calls() == {(200, "complete"): 1}


def test_from_imports_of_a_submodule_are_hooked_too(program: Program) -> None:
    program.run("""
        import farcall
        farcall.install()
        from urllib3.connectionpool import HTTPConnectionPool
        from urllib3.util import parse_url
        url = parse_url(SIM)
        HTTPConnectionPool(url.host, url.port).request("GET", "/scenario/ok")
    """)
    assert program.ledger().calls() == {(200, "complete"): 1}


def test_a_watched_import_leaves_the_module_as_it_would_be(program: Program) -> None:
    show = "\n".join(
        [
            "import httpx2",
            "spec = httpx2.__spec__",
            "print(type(spec.loader).__name__, spec.origin, 'exec_module' in vars(spec.loader))",
        ]
    )
    plain = program.run(show)
    assert program.run("import farcall; farcall.install()\n" + show) == plain
    assert plain.endswith("False")


def test_a_failing_import_fails_as_it_would(program: Program) -> None:
    out = program.run("""
        import tempfile, pathlib
        import farcall
        farcall.install()
        folder = tempfile.mkdtemp()
        pathlib.Path(folder, "httpx.py").write_text("raise ValueError('broken')")
        sys.path.insert(0, folder)
        for _ in range(2):
            try:
                import httpx
            except ValueError as error:
                print(error)
        sys.path.remove(folder)
        import httpx
        httpx.get(SIM + "/scenario/ok")
        print(farcall.status()["faults"])
    """)
    assert out.splitlines() == ["broken", "broken", "{}"]
    assert program.ledger().calls() == {(200, "complete"): 1}


def test_httpx2_in_the_place_of_httpx_counts_once(program: Program) -> None:
    program.run("""
        import farcall
        farcall.install()
        import httpx2
        httpx2.alias_httpx()
        import httpx
        assert httpx is httpx2
        httpx.get(SIM + "/scenario/ok")
    """)
    assert program.ledger().calls() == {(200, "complete"): 1}


def test_installing_twice_counts_once(sim: Sim, ledger: Ledger) -> None:
    farcall.install()
    farcall.install(adapters=["requests", "httpx2"])
    with farcall.customer(ledger.customer):
        requests.get(f"{sim.plain}/scenario/ok", timeout=60)
        httpx2.get(f"{sim.plain}/scenario/ok")
    assert ledger.calls() == {(200, "complete"): 2}


def test_after_uninstall_nothing_is_counted_and_nothing_is_left(program: Program) -> None:
    out = program.run("""
        import requests, urllib3, httpx
        before = [vars(c).copy() for c in (urllib3.HTTPConnectionPool, urllib3.HTTPResponse, httpx.HTTPTransport)]
        import farcall
        farcall.install()
        requests.get(SIM + "/scenario/ok")
        stream = requests.get(SIM + "/scenario/bytes/3000", stream=True)
        farcall.uninstall()
        requests.get(SIM + "/scenario/ok")
        httpx.get(SIM + "/scenario/ok")
        assert len(stream.content) == 3000
        after = [vars(c).copy() for c in (urllib3.HTTPConnectionPool, urllib3.HTTPResponse, httpx.HTTPTransport)]
        print(before == after, any(type(f).__module__.startswith("farcall") for f in sys.meta_path))
        farcall.install()
        httpx.get(SIM + "/scenario/ok")
    """)
    assert out == "True False"
    assert program.ledger().calls() == {(200, "complete"): 2, (200, "abandoned"): 1}


def test_a_hook_that_somebody_wrapped_stays_and_sees_nothing(program: Program) -> None:
    program.run("""
        import farcall, httpx
        farcall.install()
        ours = httpx.HTTPTransport.handle_request
        httpx.HTTPTransport.handle_request = lambda self, request: ours(self, request)
        farcall.uninstall()
        httpx.get(SIM + "/scenario/ok")
        farcall.install()
        httpx.get(SIM + "/scenario/ok")
    """)
    assert program.ledger().calls() == {(200, "complete"): 1}


@pytest.mark.parametrize("first", ["opentelemetry", "farcall"])
@pytest.mark.parametrize("library", ["httpx", "requests"])
def test_opentelemetry_beside_it_changes_nothing(program: Program, library: str, first: str) -> None:
    kind = {"httpx": "HTTPXClientInstrumentor", "requests": "RequestsInstrumentor"}
    traces = f"""
        from opentelemetry.instrumentation.{library} import {kind[library]}
        {kind[library]}().instrument(tracer_provider=provider)
    """
    installs = """
        import farcall
        farcall.install()
    """
    calls = {
        "httpx": """
            import asyncio
            import httpx

            async def call():
                async with httpx.AsyncClient() as client:
                    return (await client.get(SIM + "/scenario/ok")).text

            assert asyncio.run(call()) == httpx.get(SIM + "/scenario/ok").text != ""
        """,
        "requests": """
            import requests
            assert requests.get(SIM + "/scenario/ok").text == requests.get(SIM + "/scenario/ok").text != ""
        """,
    }
    steps = [traces, installs] if first == "opentelemetry" else [installs, traces]
    parts = (
        """
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor
        from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
        exporter = InMemorySpanExporter()
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        """,
        *steps,
        calls[library],
        "print(len(exporter.get_finished_spans()))",
    )
    spans = program.run("\n".join(map(textwrap.dedent, parts)))
    assert spans == "2"
    assert program.ledger().calls() == {(200, "complete"): 2}


def test_only_the_chosen_libraries_are_attached(program: Program) -> None:
    status = json.loads(
        program.run("""
            import farcall, json, requests, httpx
            farcall.install(adapters=["httpx"])
            requests.get(SIM + "/scenario/ok")
            httpx.get(SIM + "/scenario/ok")
            print(json.dumps(farcall.status()))
        """)
    )
    assert {name: one["state"] for name, one in status["adapters"].items()} == {
        "requests": "off",
        "urllib3": "off",
        "httpx": "attached",
        "httpx2": "off",
    }
    assert program.ledger().calls() == {(200, "complete"): 1}


def test_an_unknown_library_is_an_error_that_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match="no adapter for curl; there are urllib3, requests, httpx, httpx2"):
        farcall.install(adapters=["curl"])


def test_status_tells_never_attached_from_no_calls(program: Program) -> None:
    before, after = map(
        json.loads,
        program.run("""
            import farcall, json
            farcall.install()
            print(json.dumps(farcall.status()))
            import requests, httpx
            requests.get(SIM + "/scenario/ok")
            print(json.dumps(farcall.status()))
        """).splitlines(),
    )
    assert before["installed"]
    assert {one["state"] for one in before["adapters"].values()} == {"waiting"}
    seen = {name: (one["state"], one["calls"]) for name, one in after["adapters"].items()}
    assert seen == {
        "requests": ("attached", 1),
        "urllib3": ("attached", 1),
        "httpx": ("attached", 0),
        "httpx2": ("waiting", 0),
    }
    assert after["adapters"]["requests"]["version"] == requests.__version__
    assert after["home"] == str(program.home)


def test_a_library_that_looks_different_works_and_shows_as_failed(program: Program) -> None:
    status = json.loads(
        program.run("""
            import httpx, json
            del httpx.AsyncHTTPTransport
            import farcall
            farcall.install()
            assert httpx.get(SIM + "/scenario/ok").status_code == 200
            print(json.dumps(farcall.status()["adapters"]["httpx"]))
        """)
    )
    assert status["state"] == "failed"
    assert "AsyncHTTPTransport" in status["problem"]


def test_the_service_is_named_after_the_script(program: Program, tmp_path: object) -> None:
    script = program.home.parent / "billing.py"
    script.write_text("import farcall, httpx, os\nfarcall.install()\nhttpx.get(os.environ['SIM'] + '/scenario/ok')\n")
    environment = {key: value for key, value in program.environment.items() if key != "OTEL_SERVICE_NAME"}
    subprocess.run([sys.executable, script], env=environment, check=True)
    assert program.ledger().services() == ["billing"]


def test_switched_off_it_hooks_nothing(program: Program) -> None:
    program.environment["FARCALL_DISABLED"] = "1"
    out = program.run("""
        import farcall, httpx
        before = httpx.HTTPTransport.handle_request
        farcall.install()
        httpx.get(SIM + "/scenario/ok")
        print(before is httpx.HTTPTransport.handle_request, farcall.status()["problem"])
    """)
    assert out == "True switched off by FARCALL_DISABLED"
    assert not (program.home / "ledger.db").exists()


def test_without_the_native_module_the_application_goes_on(program: Program) -> None:
    process = program.start("""
        sys.modules["farcall._farcall"] = None
        import warnings
        warnings.simplefilter("always")
        import farcall, httpx
        farcall.install()
        with farcall.customer("acme"), farcall.tags(a="b"):
            assert httpx.get(SIM + "/scenario/ok").status_code == 200
        farcall.flush()
        print(farcall.status()["problem"])
    """)
    out, err = process.communicate(timeout=180)
    assert process.returncode == 0, err
    assert "cannot be loaded" in out
    assert "farcall counts nothing" in err


def test_a_hook_is_copied_and_pickled_by_its_name_and_looks_like_the_method_it_stands_for(program: Program) -> None:
    out = program.run("""
        import copy, functools, inspect, pickle
        import httpx, urllib3
        methods = [
            (httpx.HTTPTransport, "handle_request"),
            (httpx.AsyncHTTPTransport, "handle_async_request"),
            (urllib3.HTTPConnectionPool, "_make_request"),
        ]
        looks = lambda: [
            (inspect.signature(f), inspect.iscoroutinefunction(f), f.__name__, f.__qualname__, f.__module__)
            for f in (getattr(*method) for method in methods)
        ]
        before = looks()
        import farcall
        farcall.install()
        assert looks() == before
        for owner, name in methods:
            hook = vars(owner)[name]
            assert copy.copy(hook) is copy.deepcopy(hook) is pickle.loads(pickle.dumps(hook)) is hook
            assert functools.wraps(hook)(lambda: None).__wrapped__ is hook
        print("alike")
    """)
    assert out == "alike"


def test_calls_through_the_hook_of_httpx_leave_nothing_behind(program: Program) -> None:
    out = program.run("""
        import farcall, gc, httpx
        class Known(httpx.HTTPTransport):
            pass
        httpx.HTTPTransport.handle_request = lambda self, request: httpx.Response(
            200, stream=httpx.ByteStream(b"known"))
        farcall.install()
        client = httpx.Client(transport=Known())
        def calls(times):
            for _ in range(times):
                assert client.get("https://known.example/a").content == b"known"
            gc.collect()
            return len(gc.get_objects())
        calls(100)
        before = calls(100)
        print(calls(2_000) - before < 500)
    """)
    assert out == "True"
    assert program.ledger().calls() == {(200, "complete"): 2_200}


def test_a_program_under_valgrind_is_counted_and_ends_as_ever(program: Program) -> None:
    """There the kernel's own page is not where /proc says that it is."""
    process = program.start(
        """
        import farcall
        farcall.install()
        from urllib3 import PoolManager
        print(PoolManager().request("GET", SIM + "/scenario/ok").status)
        """,
        under=["valgrind", "--quiet", "--tool=none"],
    )
    out, err = process.communicate(timeout=300)
    assert (process.returncode, out.strip()) == (0, "200"), err
    assert program.ledger().calls() == {(200, "complete"): 1}


def test_a_wrapper_on_the_kind_for_tls_does_not_hide_its_calls(program: Program) -> None:
    """New Relic's agent puts one there; installed again, there is one of ours on each side of it."""
    code = """
        import farcall, os
        from urllib3 import PoolManager
        from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

        def wrap():
            wrapped = HTTPSConnectionPool._make_request
            HTTPSConnectionPool._make_request = lambda self, *args, **kwargs: wrapped(self, *args, **kwargs)

        pool = PoolManager(ca_certs=os.environ["SIM_CA"])
        WRAP
        for url in (os.environ["SIM_TLS"], SIM):
            pool.request("GET", url + "/scenario/ok")
    """
    program.run(code.replace("WRAP", "wrap(); farcall.install()"))
    assert program.ledger().calls() == {(200, "complete"): 2}
    program.run(code.replace("WRAP", "farcall.install(); wrap(); farcall.uninstall(); farcall.install()"))
    assert program.ledger().calls() == {(200, "complete"): 4}


def test_a_method_that_somebody_put_back_bare_is_hooked_again(program: Program) -> None:
    """As a mock does that was there before Farcall and ends after it."""
    program.run("""
        import farcall, urllib3
        from unittest import mock
        from urllib3.connectionpool import HTTPConnectionPool
        patch = mock.patch.object(HTTPConnectionPool, "_make_request", autospec=True)
        patch.start()
        farcall.install()
        patch.stop()
        farcall.uninstall()
        farcall.install()
        urllib3.PoolManager().request("GET", SIM + "/scenario/ok")
    """)
    assert program.ledger().calls() == {(200, "complete"): 1}
