"""Steps of two processes in turns: a stream's last hour beside the first hour of a fresh one.

A machine that others share is twice as fast in one hour as in another. In turns, on one processor, both processes meet
the same machine, so that what differs between them is what the hours before left behind.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

_GO = b"."


@dataclass
class Turns:
    """One of two processes that step in turns, until one of them ends; the other then goes on alone.

    read, write: descriptors of pipes, each from the other process
    """

    read: int
    write: int
    begins: bool
    _alone: bool = False

    def take(self) -> None:
        """Wait until it is this one's turn."""
        if self.begins:
            self.begins = False
        elif not self._alone:
            self._alone = os.read(self.read, 1) != _GO

    def give(self) -> None:
        """It is the other's turn."""
        try:
            os.write(self.write, _GO)
        except BrokenPipeError:
            self._alone = True

    def end(self) -> None:
        """This one steps no more."""
        os.close(self.write)
        os.close(self.read)

    @classmethod
    def parsed(cls, descriptors: str | None) -> Turns | None:
        """Of a process that a Twin started, from its `--turns`."""
        if descriptors is None:
            return None
        read, write = map(int, descriptors.split(","))
        return cls(read, write, begins=False)


@dataclass
class Twin:
    """A fresh process of a script, which hears its first hour in turns with this one. arguments: of the script"""

    arguments: Sequence[str]
    turns: Turns = field(init=False)

    def __post_init__(self) -> None:
        for task in Path("/proc/self/task").iterdir():
            os.sched_setaffinity(int(task.name), {max(os.sched_getaffinity(0))})  # what is started then has the same
        there_read, here_write = os.pipe()
        here_read, there_write = os.pipe()
        self.turns = Turns(here_read, here_write, begins=True)
        command = [sys.executable, *self.arguments, "--turns", f"{there_read},{there_write}"]
        self._process = subprocess.Popen(
            command, pass_fds=(there_read, there_write), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        os.close(there_read)
        os.close(there_write)

    def report(self) -> str:
        """What it printed, once it is through."""
        self.turns.end()
        printed = self._process.communicate()[0]
        assert not self._process.returncode, "the fresh stream did not get through its hour"
        return printed.decode()


def over(ours: float, theirs: float) -> float:
    """A ratio for a report."""
    return round(ours / theirs, 3)
