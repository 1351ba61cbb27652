"""How many streams this machine hears at once, found by hearing one."""

from __future__ import annotations

from edgeasr.audio import FileSource
from edgeasr.measurement import hear
from edgeasr.recognizer import Recognizer
from edgeasr.recording import DEMO_RECORDING

# Of the time of the threads that recognise: the rest is for sockets and files, and for what else the machine does.
SHARE = 0.5
MOST_STREAMS = 256


def measured_rtf(recognizer: Recognizer) -> float:
    """Processor time for a second of speech, that of the bundled clip of 9 s."""
    with FileSource(DEMO_RECORDING) as source:
        heard = hear(recognizer, source)
    return heard.cpu_s / heard.audio_s


def streams_for(rtf: float, threads: int) -> int:
    """How many streams of this cost so many threads hear in real time, with some room."""
    return max(1, min(MOST_STREAMS, int(SHARE * threads / rtf)))
