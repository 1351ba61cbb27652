"""Kills programs whose starter has ended, however it ended: by a second signal, by SIGKILL, by a crash."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterable

# Each line is all groups that there are; the end of the lines is the end of the starter.
_SCRIPT = 'while read -r line; do groups=$line; done; for one in $groups; do kill -9 "-$one"; done'
_END_S = 2.0


class Reaper:
    """A small shell that waits at a pipe whose other end only this process has, so that its end closes it.

    A handler of signals would not see SIGKILL, and the kernel's own way (prctl's PR_SET_PDEATHSIG) reaches a program
    but not what that started, and wants code of ours between fork and exec, where other threads may hold a lock.
    Where there is no shell, it does nothing.
    """

    def __init__(self) -> None:
        self._shell: subprocess.Popen[bytes] | None = None
        with contextlib.suppress(OSError):
            self._shell = subprocess.Popen(
                ["/bin/sh", "-c", _SCRIPT],
                bufsize=0,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd="/",
                env={},
                start_new_session=True,  # Ctrl-C is not for it
            )

    def watch(self, groups: Iterable[int]) -> None:
        """These process groups, and no others, are killed when this process ends."""
        if self._shell is not None and self._shell.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._shell.stdin.write(f"{' '.join(map(str, groups))}\n".encode())

    def close(self) -> None:
        """Kill what is watched."""
        if self._shell is None or self._shell.stdin is None:
            return
        self._shell.stdin.close()
        try:
            self._shell.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._shell.kill()
            self._shell.wait()
