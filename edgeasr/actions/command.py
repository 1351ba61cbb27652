"""A program that is run for every final: a list of arguments, never a shell."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from edgeasr.actions.action import Action
from edgeasr.actions.reaper import Reaper
from edgeasr.actions.scripts import script_with
from edgeasr.errors import ActionError, ConfigError

PLACEHOLDERS = ("text", "start", "end", "segment", "tags")
VARIABLE = "EDGEASR_EVENT"

_BRACES = re.compile(r"\{\{|\}\}|\{(\w*)\}")
# Of the service manager, which speaks with us alone.
_NOT_INHERITED = ("NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC")
_STDERR = 2


class Command(Action):
    """Runs a program with what was said among its arguments.

    template:  a command line as for a shell, whose words are split first and filled in afterwards: what was said
               stays within one argument, whatever it is. {text}, {start}, {end} (seconds), {segment} and {tags} (JSON)
               are filled in, {{ and }} are braces.
    timeout_s: after which the program, and what it started, is killed
    errors:    ConfigError for a template that cannot be run

    The program finds the event as JSON on its standard input and in EDGEASR_EVENT; its output goes to our standard
    error. However this process ends, the program and what it started do not outlive it.
    """

    def __init__(self, template: str, timeout_s: float = 10.0) -> None:
        self._arguments, self._timeout_s = _parsed(template), timeout_s
        self.name = f"--exec {PurePath(self._arguments[0]).name}"
        self._running: set[subprocess.Popen[bytes]] = set()
        self._reaper: Reaper | None = None
        self._lock = threading.Lock()

    def arguments(self, event: Mapping[str, Any]) -> list[str]:
        """What is run for an event."""
        return [_BRACES.sub(lambda found: _filled(found, event), one) for one in self._arguments]

    def deliver(self, event: Mapping[str, Any]) -> None:
        told = json.dumps(event)
        environment = {name: value for name, value in os.environ.items() if name not in _NOT_INHERITED}
        with tempfile.TemporaryFile() as stdin:
            stdin.write(f"{told}\n".encode())
            stdin.seek(0)
            with self._lock:
                self._reaper = self._reaper or Reaper()
            try:
                process = subprocess.Popen(
                    self.arguments(event),
                    stdin=stdin,
                    stdout=_STDERR,
                    env={**environment, VARIABLE: told},
                    start_new_session=True,  # so that Ctrl-C is ours to handle, and a kill reaches its children
                )
            except (OSError, ValueError) as error:
                raise ActionError(f"cannot be run ({getattr(error, 'strerror', None) or error})") from error
        self._wait(process)

    def close(self) -> None:
        with self._lock:
            for process in self._running:
                _kill(process)
            if self._reaper is not None:
                self._reaper.close()
                self._reaper = None

    def _wait(self, process: subprocess.Popen[bytes]) -> None:
        with self._lock:
            self._running.add(process)
            self._watch()
        try:
            code = process.wait(self._timeout_s)
        except subprocess.TimeoutExpired:
            raise ActionError(f"ran longer than {self._timeout_s:g} s and was killed") from None
        finally:
            if process.returncode is None:
                _kill(process)
                process.wait()
            with self._lock:
                self._running.discard(process)
                self._watch()
        if code:
            how = f"exit code {code}" if code > 0 else f"signal {signal.Signals(-code).name}"
            raise ActionError(f"ended with {how}")

    def _watch(self) -> None:
        """With the lock held."""
        if self._reaper is not None:
            self._reaper.watch(process.pid for process in self._running)


def _kill(process: subprocess.Popen[bytes]) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def _filled(found: re.Match[str], event: Mapping[str, Any]) -> str:
    name = found[1]
    if name is None:
        return found[0][0]
    value = event.get(name, "")
    return value if isinstance(value, str) else json.dumps(value)


def _parsed(template: str) -> tuple[str, ...]:
    """errors: ConfigError"""
    try:
        words = shlex.split(template)
    except ValueError as error:
        raise ConfigError(f"got --exec {template!r}, which cannot be split ({error}): correct its quotes") from error
    if not words:
        raise ConfigError("got --exec without a program, wanted one and its arguments, such as 'notify-send {text}'")
    for word in words:
        if set(_BRACES.sub("", word)) & {"{", "}"}:
            raise ConfigError(f"got a brace without its other one in --exec {word!r}; braces are written {{{{ and }}}}")
        for name in (found[1] for found in _BRACES.finditer(word)):
            if name is not None and name not in PLACEHOLDERS:
                known = ", ".join(f"{{{one}}}" for one in PLACEHOLDERS)
                raise ConfigError(f"got {{{name}}} in --exec, known are {known}; braces are written {{{{ and }}}}")
    _refuse_scripts(words)
    program = shutil.which(words[0])
    if program is None or _BRACES.search(words[0]):
        raise ConfigError(f"got --exec {words[0]!r}, which is no program here: check its path")
    return (program, *words[1:])


def _refuse_scripts(words: list[str]) -> None:
    """What was said must not become a part of a script: it could say `; rm`, or be made to."""
    name = script_with(words, lambda word: any(found[1] is not None for found in _BRACES.finditer(word)))
    if name is not None:
        raise ConfigError(
            f"got --exec with what was said inside the script of {name}, where it could run anything: "
            """give it as an argument, such as sh -c 'echo "$1"' sh {text}"""
        )
