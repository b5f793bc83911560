"""urllib3, and so requests, where rules decide: an exchange may wait, be changed, be made again, or not at all."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from farcall import _acting, _errors
from farcall._acting import FAIL, INSTEAD, REFUSE, RESPOND, SEND, WAIT, refused_as
from farcall._adapters import channels
from farcall._adapters.urllib3_cut import Cut
from farcall._adapters.urllib3_reuse import connection_of, drained, pool_to
from farcall._adapters.urllib3_stored import maker
from farcall._faults import fault
from farcall._hook import scope
from farcall._native import native
from farcall._parking import PARK, park_exchange

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from farcall._farcall import Call


#: By which urllib3 2 tells a response its connection. 1.26 does so afterwards: its connections elsewhere are closed.
_RESPONSE_CONN = "response_conn"


class Held:
    """A call that began above urllib3, where an answer that is kept needs no connection, until its exchange begins.

    Whatever the rules are by then: as long as a call is held, hooks of urllib3 look for it before they begin one.
    """

    __slots__ = ("call", "channel", "step")

    def __init__(self, call: Call, step: tuple[Any, ...], channel: bytes | None) -> None:
        self.call: Call | None = call
        self.step = step
        self.channel = channel
        _acting.hold(call, True)

    def take(self) -> Call | None:
        """The call, for who goes on with it; None the second time."""
        call, self.call = self.call, None
        if call is not None:
            _acting.hold(call, False)
        return call


#: What requests holds while urllib3 works for it.
held: ContextVar[Held | None] = ContextVar("farcall_urllib3_held", default=None)


class Acting:
    """The loop over what the engine says, for one urllib3."""

    def __init__(
        self, module: ModuleType, number: int, upload: Callable[[Any, Any], Any], count: Callable[[Any], int]
    ) -> None:
        self._module: Any = module
        self._number = number
        self._upload = upload
        self._count = count
        self._refused = refused_as(module.exceptions.HTTPError)
        self._closed = module.exceptions.ClosedPoolError
        self._stored = maker(module)
        below = module.connectionpool
        self._pools = (below.HTTPConnectionPool, below.HTTPSConnectionPool)

    def begin(
        self, pool: Any, method: Any, url: Any, kwargs: dict[str, Any]
    ) -> tuple[Call | None, tuple[Any, ...] | None]:
        """Begins a call, or takes over one that is held, with its first step.

        None between `uninstall()` and `install()`, and where we fail.
        """
        holder = held.get()
        if holder is not None:
            taken = holder.take()
            if taken is not None:
                return taken, holder.step
        try:
            body, headers = kwargs.get("body"), kwargs.get("headers") or {}
            content = bytes_of(body)
            announced = str(headers.get("Content-Length", ""))
            length = len(content) if content is not None else int(announced) if announced.isdecimal() else None
            call = _acting.begin_deciding(
                self._number,
                method,
                pool.scheme,
                pool.host,
                pool.port,
                url,
                scope(),
                list(headers.items()),
                length,
                content,
                content is not None,
                channels.of_pool(pool, self._pools) if holder is None else holder.channel,
                patience_of(pool._get_timeout(kwargs.get("timeout"))),
                False,
            )
        except Exception as error:
            fault("urllib3.begin", error)
            return None, None
        return call, None

    def send(
        self,
        call: Call,
        step: tuple[Any, ...] | None,
        original: Any,
        pool: Any,
        conn: Any,
        method: Any,
        url: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        """Makes the exchange as the engine says; the response is unread."""
        response: Any = None
        failure: Exception | None = None
        attempt: _Attempt | None = None
        while True:
            if step is None:
                step = _acting.step(call, response is not None or failure is not None)
            kind = step[0]
            if attempt is not None and kind in INSTEAD:
                # What follows takes its place.
                attempt.let_go(response)
                response = None
            if kind == SEND:
                failure = None
                attempt = _Attempt(pool, conn, url, kwargs, self._closed, again=attempt is not None)
                attempt.change(step)
                body = kwargs.get("body")
                if body is not None and not isinstance(body, (bytes, str)):
                    body = self._upload(body, attempt.kwargs)
                try:
                    attempt.dial()
                    response = original(attempt.pool, attempt.conn, method, attempt.url, *args, **attempt.kwargs)
                except Exception as error:
                    failure = error
                    _acting.failed(call, error, self._count(body))
                except BaseException as error:
                    _acting.failed(call, error, self._count(body))
                    _acting.end(call)
                    attempt.let_go(None)
                    raise
                else:
                    attempt.restore()
                    _acting.answered(call, response, response.status, headers_of, self._count(body))
            elif kind == WAIT:
                _acting.wait(call, step[1])
            elif kind == PARK:
                body = bytes_of(kwargs.get("body"))
                park_exchange(call, pool, self._pools, method, url, kwargs.get("headers"), body)
            elif kind == REFUSE:
                raise self._refused(step[1]).told(step)
            elif kind == RESPOND:
                if kwargs.get("response_conn") is not None:
                    # Nobody will give it back for this response.
                    pool._put_conn(conn)
                return self._stored(*step[1:], kwargs)
            elif kind == FAIL:
                raise self._error(step[1], pool, conn, url)
            elif failure is not None:
                _acting.end(call)
                if attempt is not None and attempt.conn is not conn:
                    attempt.let_go(None)
                raise failure
            else:
                return self._hand_out(call, response, attempt, kwargs)
            step = None

    def _hand_out(self, call: Call, response: Any, attempt: Any, kwargs: dict[str, Any]) -> Any:
        try:
            response._farcall_call = None
            if _acting.opened(call, response.status):
                response._farcall_call = call
                if getattr(response, "length_remaining", None) == 0:
                    call.end(0)
                elif attempt.limit is not None:
                    # urllib3 1.26 returns http.client's response here.
                    Cut(getattr(response, "_fp", response), attempt.limit)
        except Exception as error:
            fault("urllib3.head", error)
        if kwargs.get("preload_content", True) and hasattr(response, "_body"):
            # As its constructor would have done. urllib3 1.26 returns http.client's response here, and reads later.
            response._body = response.read(decode_content=kwargs.get("decode_content", True))
        attempt.hand_out()
        return response

    def _error(self, number: int, pool: Any, conn: Any, url: str) -> Exception:
        errors = self._module.exceptions
        reset = ConnectionResetError(104, "Connection reset by peer")
        made: dict[int, Callable[[], Any]] = {
            _errors.DNS: lambda: errors.NewConnectionError(conn, "[Errno -2] Name or service not known"),
            _errors.CONNECT: lambda: errors.NewConnectionError(conn, "[Errno 111] Connection refused"),
            _errors.TLS: lambda: errors.SSLError("TLS handshake failed"),
            _errors.TIMEOUT: lambda: errors.ReadTimeoutError(pool, url, "Read timed out."),
            _errors.PROTOCOL: lambda: errors.ProtocolError("Server sent an illegal response"),
        }
        error: Exception = made.get(number, lambda: errors.ProtocolError("Connection aborted.", reset))()
        return error


class _Attempt:
    """One exchange on the wire: with what it changes in the application's own."""

    def __init__(self, pool: Any, conn: Any, url: Any, kwargs: dict[str, Any], closed: Any, *, again: bool) -> None:
        self.pool, self.conn, self.url = pool, conn, url
        self.kwargs = dict(kwargs)
        # Read by its constructor, a response could not be let go of.
        self.kwargs["preload_content"] = False
        self._own_pool, self._own_conn, self._own_kwargs = pool, conn, kwargs
        self._again = again
        self._closed = closed
        self._let_go = False
        self._patience: float | None = None
        self.limit: int | None = None

    def change(self, step: tuple[Any, ...]) -> None:
        """Changes what the engine says."""
        _, host, prefix, headers, model, self._patience, self.limit = step[:7]
        try:
            if host is not None:
                self._go_to(host)
            if prefix is not None:
                self._put_before_path(prefix)
            if headers:
                self._set(headers)
            if model is not None:
                self._ask_for(model)
            if self._patience is not None:
                self._hurry(self._patience)
        except Exception as error:
            fault("urllib3.change", error)

    def dial(self) -> None:
        """Has a connection ready that urllib3 did not: it dials where it must, but not for tunnels through a proxy."""
        if not self._again and self.conn is self._own_conn:
            return
        if self.conn.sock is not None and not getattr(self.conn, "is_connected", True):
            # The other end left while nobody used it.
            self.conn.close()
        if self.conn.sock is None and self.pool.proxy is not None and self.pool.scheme == "https":
            self.conn.timeout = self.pool._get_timeout(self.kwargs.get("timeout")).connect_timeout
            self.pool._prepare_proxy(self.conn)

    def restore(self) -> None:
        """The response began: the application's own timeout holds again, for the body."""
        if self._patience is None:
            return
        try:
            timeout = self.pool._get_timeout(self._own_kwargs.get("timeout")).clone()
            timeout.start_connect()
            if self.conn.sock is not None:
                read = timeout.read_timeout
                self.conn.sock.settimeout(read if read is None or isinstance(read, (int, float)) else None)
        except Exception as error:
            fault("urllib3.restore", error)

    def let_go(self, response: Any) -> None:
        """Another attempt takes this one's place; its connection may be another call's from then on."""
        if self._let_go:
            return
        self._let_go = True
        try:
            if response is not None:
                # This must not put the connection back: it is sent on, or closed by urllib3.
                response._connection = None
                if self.limit is None and drained(self.conn, response):
                    if self.conn is not self._own_conn:
                        self.pool._put_conn(self.conn)
                    return
                response.close()
            self.conn.close()
        except Exception as error:
            fault("urllib3.close", error)

    def hand_out(self) -> None:
        """The application gets the response."""
        if self.conn is self._own_conn:
            return
        if _RESPONSE_CONN not in self.kwargs:
            self.conn.close()
        elif self._own_kwargs[_RESPONSE_CONN] is not None:
            # The response has the connection to the other host, and this one nobody gives back.
            self._own_pool._put_conn(self._own_conn)

    def _go_to(self, host: str) -> None:
        name, port = _acting.split_host(host)
        default = 443 if self.pool.scheme == "https" else 80
        if self.url.startswith("/"):
            self.pool = pool_to(self.pool, name, port or default)
            self.conn = connection_of(self.pool, self._closed)
            if _RESPONSE_CONN in self.kwargs:
                # Read to its end, it gives the connection back to where it came from.
                self.kwargs[_RESPONSE_CONN] = self.conn
        else:
            # To a proxy: the connection stays.
            scheme, _, rest = self.url.partition("://")
            _, slash, path = rest.partition("/")
            self.url = f"{scheme}://{host}{slash}{path}"
        if any(str(field).lower() == "host" for field in self.kwargs.get("headers") or ()):
            self._set([("Host", host)])

    def _put_before_path(self, prefix: str) -> None:
        if self.url.startswith("/"):
            self.url = prefix + self.url
            return
        scheme, _, rest = self.url.partition("://")
        host, slash, path = rest.partition("/")
        self.url = f"{scheme}://{host}{prefix}{slash}{path}"

    def _set(self, headers: list[tuple[str, str]]) -> None:
        changed = dict((self.kwargs.get("headers") or {}).items())
        for name, value in headers:
            for field in [field for field in changed if _text(field).lower() == name.lower()]:
                del changed[field]
            changed[name] = value
        self.kwargs["headers"] = changed

    def _ask_for(self, model: str) -> None:
        content = bytes_of(self.kwargs.get("body"))
        cheaper = None if content is None else native.replace_model(content, model)
        if cheaper is None:
            return
        self.kwargs["body"] = cheaper
        if any(_text(field).lower() == "content-length" for field in self.kwargs.get("headers") or ()):
            self._set([("Content-Length", str(len(cheaper)))])

    def _hurry(self, patience: float) -> None:
        timeout = self.pool._get_timeout(self.kwargs.get("timeout"))
        patience = max(patience, 0.001)
        connect, read = (
            min(own, patience) if isinstance(own, (int, float)) else patience
            for own in (timeout._connect, timeout._read)
        )
        self.kwargs["timeout"] = type(timeout)(connect=connect, read=read)


def headers_of(response: Any) -> Any:
    """The response's headers as pairs; urllib3's own mapping is slower to walk than what it was made from."""
    message = getattr(getattr(response, "_original_response", response), "msg", None)
    pairs = getattr(message, "_headers", None)
    return list(response.headers.items()) if pairs is None else pairs


def patience_of(timeout: Any) -> float | None:
    """How many seconds a client that was told so waits for an answer; None where it does for ever, or nobody knows."""
    if isinstance(timeout, tuple):
        timeout = timeout[-1]
    if isinstance(timeout, (int, float)):
        return timeout
    # urllib3's own kind; what it was not told is no number.
    parts = (getattr(timeout, "_read", None), getattr(timeout, "total", None))
    return min((part for part in parts if isinstance(part, (int, float))), default=None)


def bytes_of(body: Any) -> bytes | None:
    """A request's body, where it is in memory and can be sent again."""
    if body is None:
        return b""
    if isinstance(body, str):
        return body.encode()
    return body if isinstance(body, bytes) else None


def _text(field: Any) -> str:
    return field.decode("latin-1") if isinstance(field, bytes) else str(field)
