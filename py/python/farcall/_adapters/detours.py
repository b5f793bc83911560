"""Which calls reach their vendor in another way than a delivery from the outbox would.

A delivery goes straight to the call's URL, trusts what the system trusts, and has no certificate. A call that went
through a proxy or a Unix socket, or showed a certificate, is not the same call when it is made in the plain way: it
would reach somebody else, or nobody. So it is not parked, and this says why. Asked of calls that have failed, in
whatever thread hands them over: it may read files.
"""

from __future__ import annotations

import os
import ssl
import sys
from functools import lru_cache
from inspect import unwrap
from typing import Any

from farcall._faults import fault
from farcall._hook import is_hook

#: As the native half numbers them (agent/src/outbox/detour.rs), which has the words.
CERTIFICATE, PROXY, SOCKET, AUTHORITIES, UNVERIFIED, NAME, _HOST, OWN = range(1, 9)

# Certificates

_MARK = "_farcall_certified"
_METHOD = "load_cert_chain"


def watch() -> None:
    """Remembers which TLS contexts get a client certificate from now on: afterwards they do not tell."""
    original = ssl.SSLContext.load_cert_chain
    if _METHOD in vars(ssl.SSLContext):
        return

    def load_cert_chain(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        try:
            setattr(self, _MARK, True)
        except AttributeError as error:
            fault("certificate", error)

    setattr(load_cert_chain, _MARK, True)
    load_cert_chain.__doc__ = original.__doc__
    ssl.SSLContext.load_cert_chain = load_cert_chain  # type: ignore[method-assign]


def unwatch() -> None:
    """Does so no longer."""
    if getattr(vars(ssl.SSLContext).get(_METHOD), _MARK, False):
        # What it hid is inherited.
        del ssl.SSLContext.load_cert_chain


#: Where systems keep what they trust: some builds of OpenSSL know none of them.
_BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)
_FOLDER = "/etc/ssl/certs"


def _of_context(context: Any) -> int | None:
    if getattr(context, _MARK, False):
        return CERTIFICATE
    if not isinstance(context, ssl.SSLContext):
        # pyOpenSSL's, say.
        return OWN
    if context.verify_mode == ssl.CERT_NONE:
        return UNVERIFIED
    return None if _is_trusted(context) else AUTHORITIES


def _is_trusted(context: ssl.SSLContext) -> bool:
    """Whether all authorities of a context are the system's or certifi's; of a folder of them it does not tell."""
    return _common(os.environ.get("SSL_CERT_FILE")).issuperset(context.get_ca_certs(binary_form=True))


@lru_cache(maxsize=4)
def _common(named: str | None) -> frozenset[bytes]:
    """What everybody trusts: the system, which `SSL_CERT_FILE` may name another file for, and certifi."""
    context = ssl.create_default_context()
    certifi = sys.modules.get("certifi")
    for path in (named, None if certifi is None else certifi.where(), *_BUNDLES):
        try:
            context.load_verify_locations(path)
        except (OSError, TypeError):
            pass
    return frozenset(context.get_ca_certs(binary_form=True))


def _is_trusted_file(path: Any) -> bool:
    try:
        found = os.stat(path)
        return _is_file_trusted(path, (found.st_ino, found.st_mtime_ns, found.st_size), os.environ.get("SSL_CERT_FILE"))
    except (OSError, TypeError):
        return False


# To read a file of them takes 20 ms, and where one call fails others do.
@lru_cache(maxsize=16)
def _is_file_trusted(path: Any, _state: tuple[int, int, int], _named: str | None) -> bool:
    # Not by its folder, which does not tell.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(path)
    return _is_trusted(context)


# httpx

_POOLS = frozenset({"ConnectionPool", "AsyncConnectionPool"})
_METHODS = ("handle_request", "handle_async_request")


def of_transport(transport: Any, request: Any) -> int | None:
    """Why a call through this transport of httpx is not like a delivery; None where it is."""
    try:
        pool = transport._pool
        if type(pool).__name__ not in _POOLS:
            return PROXY if hasattr(pool, "_proxy_url") else OWN
        backend = type(pool._network_backend)
        if _package_of(backend) != _package_of(type(pool)) or "Mock" in backend.__name__:
            return OWN
        if _is_mocked(transport, pool):
            return OWN
        if getattr(pool, "_proxy", None) is not None:
            return PROXY
        if pool._uds is not None:
            return SOCKET
        if "target" in request.extensions:
            return OWN
        if request.url.scheme != "https":
            return None
        context = pool._ssl_context
        detour = _of_context(context)
        named = "sni_hostname" in request.extensions or not getattr(context, "check_hostname", True)
        return NAME if named and detour in (None, AUTHORITIES) else detour
    except AttributeError:
        return OWN


def _is_mocked(transport: Any, pool: Any) -> bool:
    """Whether a function of somebody else's stands where httpx or httpcore would go to the network.

    One above our hook does not matter: it came by here.
    """
    for name in _METHODS:
        if hasattr(pool, name) and not _is_own(getattr(pool, name), type(pool)):
            return True
        for kind in type(transport).__mro__:
            method = vars(kind).get(name)
            if is_hook(method) and not _is_own(method, kind):
                return True
    return False


def _is_own(method: Any, kind: type) -> bool:
    """Whether a method is what its class was written with, in however many wrappers that tell what they wrap.

    A mock may bear the name and the module of what it stands for, and not its globals.
    """
    home = getattr(unwrap(method), "__globals__", {}).get("__name__", "")
    return bool(home.partition(".")[0] == _package_of(kind))


def _package_of(kind: type) -> str:
    return kind.__module__.partition(".")[0]


# urllib3, requests

#: What a pool may be told of its connections without leading elsewhere.
_HARMLESS = frozenset({"proxy", "proxy_config", "socket_options", "source_address", "blocksize", "ssl_context"})
_REQUIRED = frozenset({"CERT_REQUIRED", "REQUIRED", str(int(ssl.CERT_REQUIRED))})


def of_pool(pool: Any, kinds: tuple[type, type]) -> int | None:
    """The same of a pool of urllib3, which of these kinds (plain and TLS) connects as urllib3 does."""
    try:
        if pool.proxy is not None or "_socks_options" in pool.conn_kw:
            return PROXY
        if type(pool) not in kinds:
            return SOCKET if "unix" in type(pool).__name__.lower() else OWN
        if _package_of(pool.ConnectionCls) != _package_of(type(pool)):
            # One that answers by itself, perhaps, from what was recorded.
            return OWN
        if "server_hostname" in pool.conn_kw:
            return NAME
        if not _HARMLESS.issuperset(pool.conn_kw):
            return OWN
        return _of_tls(pool) if pool.scheme == "https" else None
    except AttributeError:
        return OWN


def _of_tls(pool: Any) -> int | None:
    if pool.assert_hostname is not None or pool.assert_fingerprint is not None:
        return NAME
    if pool.cert_file is not None:
        return CERTIFICATE
    asked = pool.cert_reqs
    if asked is not None and str(getattr(asked, "value", asked)) not in _REQUIRED:
        return UNVERIFIED
    if getattr(pool, "ca_cert_data", None) is not None or not _is_trusted_folder(pool.ca_cert_dir):
        return AUTHORITIES
    if pool.ca_certs is not None and not _is_trusted_file(pool.ca_certs):
        return AUTHORITIES
    context = pool.conn_kw.get("ssl_context")
    return None if context is None else _of_context(context)


def _is_trusted_folder(folder: Any) -> bool:
    paths = ssl.get_default_verify_paths()
    known = (paths.capath, paths.openssl_capath, os.environ.get("SSL_CERT_DIR"), _FOLDER)
    return folder is None or os.path.realpath(folder) in {os.path.realpath(path) for path in known if path}
