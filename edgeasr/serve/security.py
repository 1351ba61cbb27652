"""Who may use the server: programs on the same machine, others with a token, and no web page of somebody else.

A browser sends requests for any page that it shows, to this machine too, and may have been told that another name is
this machine (DNS rebinding). So the Host header must be an address, a name of loopback or one that was allowed, and an
Origin header, which browsers send with whatever could do harm, that of the server's own page or one that was allowed.
"""

from __future__ import annotations

import hmac
import ipaddress
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler, Middleware

from edgeasr.errors import ServeError
from edgeasr.serve.http_errors import HttpError

HandlerT = TypeVar("HandlerT", bound=Callable[..., Awaitable[web.StreamResponse]])

_TOKEN = re.compile(r"[A-Za-z0-9._~-]{16,200}")  # characters that an URL, a header and a subprotocol can hold
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^/\s?#@]+")
_TOKEN_FROM = """(umask 077; python3 -c 'import secrets; print(secrets.token_urlsafe())' > FILE)"""

SUBPROTOCOL = "edgeasr"
_SUBPROTOCOL_TOKEN = "token."

_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cache-Control": "no-store",
}


@dataclass(frozen=True)
class Access:
    """token:   that clients must know; None for none
    hosts:   names, beside addresses and those of loopback, by which clients may call the server
    origins: of pages, such as "http://192.168.1.5:3000", that may use it beside its own
    errors:  ServeError for an origin that no browser would send
    """

    token: str | None = None
    hosts: frozenset[str] = frozenset()
    origins: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        for origin in sorted(self.origins):
            if not _ORIGIN.fullmatch(origin):
                raise ServeError(
                    f"got the origin {origin!r}, wanted scheme, host and port of a page alone: http://localhost:3000"
                )

    def admits(self, token: str | None) -> bool:
        """Whether this is the token, or none is needed; takes the same time for all that are wrong."""
        if self.token is None:
            return True
        return hmac.compare_digest(self.token.encode(), (token or "").encode(errors="replace"))

    def check(self, request: web.Request) -> None:
        """errors: HttpError for a request that is refused"""
        name = _name_of(request.host)
        if not (is_loopback(name) or _is_address(name) or name in self.hosts):
            raise HttpError(
                403, f"got the host name {name[:100]!r}, wanted one of this machine: allow it with --allow-host", "host"
            )
        origin = request.headers.get(hdrs.ORIGIN)
        if origin is not None and origin not in self.origins and not _is_own(origin, request.host):
            raise HttpError(
                403,
                f"got a request of a page from {origin[:100]!r}, wanted one of this server's pages: "
                "allow it with --allow-origin",
                "origin",
            )
        if not _is_open(request):
            self.require_token(request)

    def require_token(self, request: web.Request) -> None:
        """errors: HttpError for a request without the token"""
        if not self.admits(_token_of(request)):
            raise HttpError(
                401,
                "got no valid token, wanted the server's: send it as Authorization: Bearer TOKEN",
                "token",
                headers={hdrs.WWW_AUTHENTICATE: "Bearer"},
            )


def without_token(handler: HandlerT) -> HandlerT:
    """A handler that anybody may call, or that looks at the token itself (`Access.admits`)."""
    handler.without_token = True  # type: ignore[attr-defined]
    return handler


def guard(access: Access) -> Middleware:
    """The middleware that refuses what `access` does."""

    @web.middleware
    async def guarded(request: web.Request, handler: Handler) -> web.StreamResponse:
        access.check(request)
        return await handler(request)

    return guarded


async def add_security_headers(request: web.Request, response: web.StreamResponse) -> None:
    """For `app.on_response_prepare`; a handler's own headers stay."""
    del request
    secure(response)


def secure(response: web.StreamResponse) -> None:
    """The same for what no handler answers."""
    for name, value in _HEADERS.items():
        response.headers.setdefault(name, value)
    response.headers[hdrs.SERVER] = "edgeasr"


def is_loopback(host: str) -> bool:
    """Whether an address or a name can only mean this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _is_address(host: str) -> bool:
    """Whether this is an IP address, which nobody else can make point elsewhere, and not that of any machine."""
    try:
        return not ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False


def check_host(host: str, token: str | None) -> None:
    """errors: ServeError for an address that others can reach, without a token"""
    if not is_loopback(host) and token is None:
        raise ServeError(
            f"got the address {host} and no token, so anybody in the network could use this server: make a token with "
            f"{_TOKEN_FROM} and give it with --token-file FILE, or take the address 127.0.0.1"
        )


def checked_token(token: str, where: str) -> str:
    """A token without the white space around it. errors: ServeError for one that is too short or cannot be sent"""
    token = token.strip()
    if not _TOKEN.fullmatch(token):
        raise ServeError(
            f"got {len(token)} characters as the token from {where}, wanted 16 to 200 of A-Z a-z 0-9 . _ ~ -: "
            f"make one with {_TOKEN_FROM}"
        )
    return token


def read_token(path: Path) -> str:
    """The token in a file. errors: ServeError for one that cannot be read or is no token"""
    try:
        content = path.read_bytes()[:1000]
    except OSError as error:
        raise ServeError(f"cannot read the token from {path} ({error.strerror}): make it with {_TOKEN_FROM}") from error
    return checked_token(content.decode("ascii", "replace"), str(path))


def _is_open(request: web.Request) -> bool:
    return getattr(request.match_info.handler, "without_token", False)


def _name_of(host: str) -> str:
    """Without the port; brackets of IPv6 are taken off."""
    return (urlsplit(f"//{host}").hostname or "") if _is_plain(host) else host


def _is_plain(host: str) -> bool:
    return re.fullmatch(r"[\w.:\[\]-]+", host, re.ASCII) is not None and host.count("[") == host.count("]") <= 1


def _is_own(origin: str, host: str) -> bool:
    scheme, _, netloc = origin.partition("://")
    return scheme in ("http", "https") and netloc.lower() == host.lower()


def _token_of(request: web.Request) -> str | None:
    """From where clients can put it; browsers and simple clients cannot send headers with a web socket."""
    kind, _, token = request.headers.get(hdrs.AUTHORIZATION, "").partition(" ")
    if kind.lower() == "bearer":
        return token.strip()
    if request.headers.get(hdrs.UPGRADE, "").lower() != "websocket":
        return None
    for protocol in request.headers.get(hdrs.SEC_WEBSOCKET_PROTOCOL, "").split(","):
        if protocol.strip().startswith(_SUBPROTOCOL_TOKEN):
            return protocol.strip().removeprefix(_SUBPROTOCOL_TOKEN)
    return request.query.get("token")
