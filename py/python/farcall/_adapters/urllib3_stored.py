"""An answer that no vendor sent now, as a response of urllib3."""

from __future__ import annotations

import io
from http.client import responses
from inspect import signature
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


class _Original:
    """What stands below a response for those who look for cookies there: http.client's response, read to its end."""

    def __init__(self, headers: Any) -> None:
        self.msg = headers
        self._method = "GET"

    def isclosed(self) -> bool:
        return True

    def close(self) -> None:
        pass


class _Body(io.BytesIO):
    """What was read to its end is closed, for who reads until then, as it is with http.client's responses."""

    def isclosed(self) -> bool:
        return self.closed or self.tell() >= self.getbuffer().nbytes


def maker(module: Any) -> Callable[..., Any]:
    """What makes a response of a status, pairs of headers and a body as it was on the wire.

    Of the arguments of the exchange, which come last, it takes whether the body is to be read at once.
    """
    kind: Any = module.HTTPResponse
    mapping: Any = module.response.HTTPHeaderDict
    version = {"version_string": "HTTP/1.1"} if "version_string" in signature(kind.__init__).parameters else {}

    def make(status: int, headers: list[tuple[str, str]], body: bytes, kwargs: dict[str, Any]) -> Any:
        fields = mapping(headers)
        response = kind(
            body=_Body(body),
            headers=fields,
            status=status,
            version=11,
            **version,
            reason=responses.get(status),
            original_response=_Original(fields) if "set-cookie" in fields else None,
            preload_content=False,
            decode_content=kwargs.get("decode_content", True),
            retries=kwargs.get("retries"),
        )
        # There is no call to end.
        response._farcall_call = None
        if kwargs.get("preload_content", True):
            response._body = response.read(decode_content=kwargs.get("decode_content", True))
        return response

    return make
