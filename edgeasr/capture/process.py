"""A program that writes samples to its standard output."""

from __future__ import annotations

import contextlib
import os
import select
import shlex
import subprocess
from collections.abc import Sequence

from edgeasr.errors import ConfigError, DeviceError
from edgeasr.firmware_bridge.transport import TransportEnded, TransportLostError

_READ_BYTES = 65_536
_LAST_BYTES = 4_096  # of standard error that are kept, to say why a program failed
_SOON_S = 0.3  # in which a program ends that cannot do what it should
_END_S = 2.0  # that a program has to end once nobody listens, before it is killed


def split_command(text: str) -> list[str]:
    """The arguments in a line, quoted as for a shell, which there is none of. errors: ConfigError"""
    try:
        arguments = shlex.split(text)
    except ValueError as error:
        raise ConfigError(f"got command {text!r} ({error}), want words, quoted where they hold blanks") from error
    if not arguments:
        raise ConfigError(
            "got pipe: without a command, want one such as 'pipe:ffmpeg -i talk.mp3 -f s16le -ar 16000 -'"
        )
    return arguments


class ProcessFeed:
    """What a program writes; it is started at once and ended by close().

    returns: whether it is to be started again when it fails, as a recorder whose device was unplugged
    errors:  DeviceError for a program that cannot be started
    """

    def __init__(self, name: str, arguments: Sequence[str], *, returns: bool = False) -> None:
        self.name, self.may_return = name, returns
        self._arguments = list(arguments)
        self._last = bytearray()
        self._process = self._started()

    def read(self, timeout_s: float) -> bytes:
        out, err = self._pipes()
        for ready in select.select([out, err], [], [], timeout_s)[0]:
            data = os.read(ready, _READ_BYTES)
            if ready == err:
                self._keep(data)
            elif data:
                return data
            else:
                raise self._ended()
        return b""

    def reopen(self) -> bool:
        self._end()
        try:
            self._process = self._started()
        except DeviceError:
            return False
        # A recorder without its device ends at once; one that has it may take seconds to the first sample.
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_SOON_S)
        return self._process.poll() is None

    def close(self) -> None:
        self._end()

    def _started(self) -> subprocess.Popen[bytes]:
        try:
            return subprocess.Popen(
                self._arguments,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                start_new_session=True,  # Ctrl-C is for us: what the program heard before it still comes
            )
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise DeviceError(
                f"cannot run {self._arguments[0]} ({reason}), want a program: check its name, or install it"
            ) from error

    def _pipes(self) -> tuple[int, int]:
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        return self._process.stdout.fileno(), self._process.stderr.fileno()

    def _keep(self, data: bytes) -> None:
        self._last = (self._last + data)[-_LAST_BYTES:]

    def _ended(self) -> Exception:
        """Why there is no more: the end of a program that did well, or not."""
        try:
            code = self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            return TransportEnded()  # it closed its output and does something else
        error_pipe = self._pipes()[1]
        while select.select([error_pipe], [], [], 0)[0] and (data := os.read(error_pipe, _READ_BYTES)):
            self._keep(data)
        if code == 0 and not self.may_return:
            return TransportEnded()
        how = f"signal {-code}" if code < 0 else f"exit status {code}"
        lines = self._last.decode(errors="replace").split("\n")
        said = next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")
        hint = "" if self.may_return else f": try it by itself, {shlex.join(self._arguments)}"
        return TransportLostError(f"{self.name} ended with {how} ({said}){hint}")

    def _end(self) -> None:
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(_END_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        for pipe in (self._process.stdout, self._process.stderr):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
