"""What a live page is told of a stream: words, what became of each summary, load.

    {"type": "partial", "segment": 0, ..., "latency_ms": 212.0}
    {"type": "final", ..., "cues": [{"start": 0.4, "end": 1.9, "text": "he had written"}]}
    {"type": "memory", "number": 3, "start": 12.0, "end": 16.0, "decision": "merge", "by": "similarity",
     "similarity": 0.91, "into": 1, "stored": 2, "merged": 2, "skipped": 0}
    {"type": "status", "rtf": 0.021, "waiting_s": 0.0}

Words are as in docs/protocol.md, with the time since their last word began to arrive, and finals with the subtitles
that they make. A summary comes with how many were stored, merged and skipped so far; the load is of the last seconds.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable
from typing import Any

from edgeasr.memory import Admission, Decision
from edgeasr.serve.mailbox import Message
from edgeasr.serve.stream import Stream
from edgeasr.transcript import Event, Final, cues

_STATUS_EVERY_S = 0.5
_LOAD_OVER = 10  # statuses

_KINDS = {Decision.STORE: "stored", Decision.PIN: "stored", Decision.MERGE: "merged", Decision.SKIP: "skipped"}


class LiveTeller:
    """Of one stream. put: takes the messages, in the event loop"""

    def __init__(self, put: Callable[[Message], None]) -> None:
        self._put = put
        self._totals: Counter[str] = Counter(dict.fromkeys(("stored", "merged", "skipped"), 0))

    def admitted(self, admission: Admission) -> None:
        """A summary was offered to the memory."""
        context = admission.context
        if context.level != 2:
            return
        self._totals[_KINDS[admission.decision]] += 1
        self._put(
            {
                "type": "memory",
                "number": context.number,
                "start": round(context.start_s, 3),
                "end": round(context.end_s, 3),
                "decision": admission.decision.value,
                "by": admission.by,
                "similarity": round(admission.similarity, 3),
                "into": admission.into,
                **self._totals,
            }
        )

    async def events(self, stream: Stream) -> None:
        """Its words, until it ends. errors: as Stream.events"""
        async for event in stream.events():
            self._put(_message(event, stream))

    async def status(self, stream: Stream) -> None:
        """Its load, for ever."""
        meter = stream.meter
        spent = deque([(0.0, 0.0)], maxlen=_LOAD_OVER)
        while True:
            await asyncio.sleep(_STATUS_EVERY_S)
            cpu_s, audio_s = meter.cpu_s - spent[0][0], meter.audio_s - spent[0][1]
            spent.append((meter.cpu_s, meter.audio_s))
            if audio_s > 0:
                self._put({"type": "status", "rtf": round(cpu_s / audio_s, 5), "waiting_s": round(stream.waiting_s, 3)})


def _message(event: Event, stream: Stream) -> dict[str, Any]:
    message = event.to_dict()
    if event.words:
        message["latency_ms"] = round(1000 * stream.meter.since_arrival_s(event.words[-1].start), 1)
    if isinstance(event, Final):
        message["cues"] = [
            {"start": round(cue.start, 3), "end": round(cue.end, 3), "text": cue.text} for cue in cues(event)
        ]
    return message
