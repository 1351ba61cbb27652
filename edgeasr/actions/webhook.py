"""A web hook: every final is posted as JSON."""

from __future__ import annotations

import http.client
import json
import secrets
import socket
import ssl
from collections.abc import Mapping
from typing import Any
from urllib.parse import SplitResult, urlsplit

from edgeasr import __version__
from edgeasr.actions.action import Action
from edgeasr.actions.hosts import HostPolicy
from edgeasr.errors import ActionError, ConfigError

# Answers after which the same request may be taken later; others of the client's errors are for good.
_LATER = (408, 425, 429)


class Webhook(Action):
    """Posts to one URL. Redirects are not followed, and proxies of the environment are not used.

    hosts:     which may be called
    timeout_s: for a connection, and for each wait of an answer
    errors:    ConfigError for a URL that cannot be called

    A final that is tried again carries the same Idempotency-Key, since an answer may be lost after it was taken.
    """

    def __init__(self, url: str, hosts: HostPolicy, timeout_s: float = 5.0) -> None:
        self._url, self._hosts, self._timeout_s = _parsed(url), hosts, timeout_s
        self._host = str(self._url.hostname)
        hosts.check(self._host)
        self._secure = self._url.scheme == "https"
        self._port = self._url.port or (443 if self._secure else 80)
        # The path of a hook is as good as a password.
        self.name = f"--webhook {self._url.scheme}://{self._url.netloc}"
        self._run = secrets.token_hex(8)

    def deliver(self, event: Mapping[str, Any]) -> None:
        status = self._post(json.dumps(event).encode(), f"{self._run}-{event.get('segment')}")
        if 200 <= status < 300:
            return
        hint = ", and redirects are not followed" if 300 <= status < 400 else ""
        raise ActionError(f"answered {status}{hint}", again=status >= 500 or status in _LATER)

    def close(self) -> None:
        """Nothing is open between two calls."""

    def _post(self, body: bytes, key: str) -> int:
        """The status of the answer, of which nothing else is read."""
        kind = http.client.HTTPSConnection if self._secure else http.client.HTTPConnection
        connection = kind(self._host, self._port, timeout=self._timeout_s)
        headers = {
            "Content-Type": "application/json",
            "User-Agent": f"edgeasr/{__version__}",
            "Idempotency-Key": key,
            "Connection": "close",
        }
        target = f"{self._url.path or '/'}{'?' if self._url.query else ''}{self._url.query}"
        try:
            connection.sock = self._connected()
            connection.request("POST", target, body, headers)
            return connection.getresponse().status
        except (OSError, http.client.HTTPException) as error:
            reason = str(error) or type(error).__name__
            raise ActionError(f"cannot be reached ({reason})", again=True) from error
        finally:
            connection.close()

    def _connected(self) -> socket.socket:
        """To an address that was checked, not to a name that is looked up again."""
        failure: OSError | None = None
        for address in self._hosts.addresses(self._host, self._port):
            try:
                plain = socket.create_connection((str(address), self._port), self._timeout_s)
            except OSError as error:
                failure = error
                continue
            if not self._secure:
                return plain
            try:
                return ssl.create_default_context().wrap_socket(plain, server_hostname=self._host)
            except OSError:
                plain.close()
                raise
        raise failure or OSError("no address")


def _parsed(url: str) -> SplitResult:
    """errors: ConfigError"""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        usable = False
    if not usable or not url.isascii() or any(char.isspace() or not char.isprintable() for char in url):
        raise ConfigError(f"got --webhook {url!r}, wanted http://HOST[:PORT]/PATH or https://")
    if parts.username is not None or parts.fragment:
        raise ConfigError("got --webhook with a user's name or a fragment in it, wanted http://HOST[:PORT]/PATH")
    return parts
