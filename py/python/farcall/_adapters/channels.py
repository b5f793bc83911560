"""What keeps answers apart beside the request: the connection that they came over.

A client certificate says who asks, a connection whose other end nobody verified may lead anywhere, a socket of this
machine leads elsewhere than the URL says, and a proxy may stand in another network, or know who asks. A connection as
the library makes it by itself has no channel: then all clients share what is kept. What nothing is known of has one of
its own, that no other process has: processes may share what is kept, and a number or the path of a certificate stands
for something else in each.
"""

from __future__ import annotations

import hashlib
import os
import ssl
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

_UNVERIFIED = b"unverified"
_process = os.urandom(16)


def of_certificate(*files: Any) -> bytes:
    """The channel of connections that show this certificate."""
    return repr(files).encode() + _process


def own(thing: Any) -> bytes:
    """The channel of what is like nothing else: for as long as it lives, or, where none sticks, for now."""
    try:
        channel: bytes = thing._farcall_own
    except AttributeError:
        channel = os.urandom(16)
        try:
            thing._farcall_own = channel
        except AttributeError:
            pass
    return channel


def of_settings(verify: Any, cert: Any) -> bytes | None:
    """The channel of a client that was told so about TLS, as httpx and requests are."""
    if cert:
        return of_certificate(cert)
    if verify is True or isinstance(verify, str):
        return None
    return own(verify) if isinstance(verify, ssl.SSLContext) else _UNVERIFIED


def through(proxy: Any, channel: bytes | None) -> bytes | None:
    """The channel of connections that are like those of `channel`, through this proxy; None for none at all."""
    if proxy is None:
        return channel
    # It may hold a password.
    return (channel or b"") + b" through " + hashlib.sha256(repr(proxy).encode()).digest()


# httpx


def init_hook(original: Any) -> Callable[..., None]:
    """The constructor of a transport, which alone is told what its connections are like."""

    def __init__(self: Any, verify: Any = True, cert: Any = None, *args: Any, **kwargs: Any) -> None:  # noqa: N807
        original(self, verify, cert, *args, **kwargs)
        if kwargs.get("uds") is None and len(args) < _BEFORE_SOCKET:
            proxy = args[_PROXY] if len(args) > _PROXY else kwargs.get("proxy")
            self._farcall_channel = through(_of_proxy(proxy), of_settings(verify, cert))

    return __init__


#: What may stand between the certificate and the path of a socket.
_BEFORE_SOCKET = 6
#: Where the proxy is, behind the certificate.
_PROXY = 4


def _of_proxy(proxy: Any) -> Any:
    """What tells a proxy of httpx from others: a URL, or a `Proxy`."""
    if proxy is None:
        return None
    url = getattr(proxy, "url", None)
    if url is None:
        return str(proxy)
    context = getattr(proxy, "ssl_context", None)
    shown = None if context is None else own(context)
    return str(url), getattr(proxy, "raw_auth", None), list(proxy.headers.raw), shown


def of_transport(transport: Any, extensions: Any) -> bytes | None:
    """The channel of a transport. Of one that was made before `install()` nothing is known."""
    if "target" in extensions or "sni_hostname" in extensions:
        return own(object())
    try:
        channel: bytes | None = transport._farcall_channel
    except AttributeError:
        channel = own(transport)
    return channel


# urllib3, requests

#: What a pool may be told of its connections without leading elsewhere.
_HARMLESS = frozenset({"proxy", "proxy_config", "socket_options", "source_address", "blocksize", "ssl_context"})
_UNASKED = frozenset({"CERT_NONE", "NONE", "0"})


def of_pool(pool: Any, kinds: tuple[type, type]) -> bytes | None:
    """The channel of a pool of urllib3, which of these kinds (plain and TLS) is like all others."""
    channel = _of_pool(pool, kinds)
    if pool.proxy is None:
        return channel
    headers = sorted((pool.proxy_headers or {}).items())
    return through((str(pool.proxy), headers), channel)


def _of_pool(pool: Any, kinds: tuple[type, type]) -> bytes | None:
    if type(pool) not in kinds or not _HARMLESS.issuperset(pool.conn_kw):
        return own(pool)
    if pool.scheme != "https":
        return None
    if pool.assert_hostname is not None or pool.assert_fingerprint is not None:
        return own(pool)
    if pool.cert_file is not None:
        return of_certificate(pool.cert_file, pool.key_file)
    context = pool.conn_kw.get("ssl_context")
    if context is not None:
        return own(context)
    asked = pool.cert_reqs
    return _UNVERIFIED if asked is not None and (asked in _UNASKED or asked == ssl.CERT_NONE) else None


def of_adapter(adapter: Any, kind: Any, verify: Any, cert: Any, proxy: Any) -> bytes | None:
    """The channel of an adapter of requests; one of this kind that was told nothing of its pools is like all others.

    Of any other, calls through another proxy, or with other words on certificates, are apart from each other, too.
    """
    if type(adapter) is not kind or len(adapter.poolmanager.connection_pool_kw) > _OWN_SETTINGS:
        return through(proxy, own(adapter) + (of_settings(verify, cert) or b""))
    return through(proxy, None if verify is True and cert is None else of_settings(verify, cert))


#: `maxsize` and `block`.
_OWN_SETTINGS = 2
