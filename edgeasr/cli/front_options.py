"""The options that say where `edgeasr serve` listens and who may use it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import typer

from edgeasr.cli.extras import needs_extra
from edgeasr.cli.terminal import print_note
from edgeasr.errors import ServeError
from edgeasr.settings import is_open_to_others

if TYPE_CHECKING:
    from edgeasr.serve.server import ServerConfig
    from edgeasr.serve.wyoming_server import WyomingAddress

_PATHS = ("token_file", "certificate", "key")


@dataclass(frozen=True, kw_only=True)
class FrontOptions:
    """As the command has them, each by its name."""

    host: str
    port: int
    vosk_port: int | None
    token_file: Path | None
    token: str | None
    allow_host: Sequence[str] | None
    allow_origin: Sequence[str] | None
    certificate: Path | None
    key: Path | None
    wyoming: str | None
    wyoming_allow_remote: bool

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """Of all options of the command, as click has them, to whom a path is text."""
        given = {field.name: values[field.name] for field in fields(cls)}
        return cls(**given | {name: Path(given[name]) for name in _PATHS if given[name] is not None})

    def config(self) -> ServerConfig:
        """Errors: ServeError for what cannot be served, a usage error for two tokens"""
        with needs_extra("serve"):
            from edgeasr.serve.security import Access
            from edgeasr.serve.server import ServerConfig
        hosts, origins = self.allow_host or (), self.allow_origin or ()
        access = Access(self._known_token(), frozenset(map(str.lower, hosts)), frozenset(origins))
        return ServerConfig(access, self.host, self.port, self.vosk_port, self.certificate, self.key)

    def wyoming_address(self) -> WyomingAddress | None:
        """None for none. errors: ServeError for one that is none, or that others can reach"""
        from edgeasr.serve.wyoming_server import WyomingAddress

        if self.wyoming is None:
            return None
        address = WyomingAddress.parse(self.wyoming)
        address.check(allow_remote=self.wyoming_allow_remote)
        self._check_port(address)
        return address

    def _check_port(self, wyoming: WyomingAddress) -> None:
        from edgeasr.serve.listener import may_meet

        for option, port in (("--port", self.port), ("--vosk-port", self.vosk_port)):
            if wyoming.port and wyoming.port == port and may_meet(wyoming.host, self.host):
                raise ServeError(
                    f"got {option} {port} and the same port in --wyoming, wanted two ports: choose another"
                )

    def _known_token(self) -> str | None:
        from edgeasr.serve.security import checked_token, read_token

        if self.token_file and self.token:
            raise typer.BadParameter("give the token once, with --token-file or --token")
        if self.token_file is None:
            return checked_token(self.token, "--token") if self.token else None
        token = read_token(self.token_file)
        if is_open_to_others(self.token_file):
            print_note(f"others on this machine can read the token in {self.token_file}: chmod 600 {self.token_file}")
        return token
