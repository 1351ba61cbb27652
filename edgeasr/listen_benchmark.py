"""What `edgeasr listen` takes before it hears, and the memory that it holds: the program itself, from outside."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from edgeasr.errors import EdgeasrError
from edgeasr.metrics import peak_rss_mb_of


@dataclass(frozen=True)
class Listening:
    """One run of the program over a recording, which it gets as fast as it reads.

    first_words_s: from its start to its first words, which hearing the recording up to there is part of
    wall_s:        from its start to its end
    peak_rss_mb:   most resident memory up to the last words, in MB (10^6 bytes); None where /proc does not tell
    """

    first_words_s: float
    wall_s: float
    peak_rss_mb: float | None


def listen_to(recording: Path, *arguments: str) -> Listening:
    """Run `edgeasr listen` over a recording.

    arguments: more options of it
    errors:    EdgeasrError with what it said, if it fails or hears no word
    """
    command = [sys.executable, "-m", "edgeasr.cli.main", "listen", "--source", str(recording), "--json", *arguments]
    began_s = time.monotonic()
    first_words_s, peak_mb = None, None
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        assert program.stderr is not None
        for line in program.stdout:
            if first_words_s is None and json.loads(line).get("text"):
                first_words_s = time.monotonic() - began_s
            peak_mb = peak_rss_mb_of(program.pid) or peak_mb
        said = program.stderr.read().strip().removeprefix("edgeasr: error: ")
    if program.returncode or first_words_s is None:
        reason = said or f"it heard no word, exit code {program.returncode}"
        raise EdgeasrError(f"edgeasr listen --source {recording}: {reason}")
    return Listening(first_words_s, time.monotonic() - began_s, peak_mb)
