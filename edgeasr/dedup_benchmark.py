"""What deduplication saves and costs, in vectors and in words, beside a memory that stores everything."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edgeasr.evaluation import Tally, evaluate
from edgeasr.manifest import Utterance
from edgeasr.memory import Admission, Decision, MemoryPolicy
from edgeasr.memory_policies import everything
from edgeasr.model import AcousticModel
from edgeasr.recognizer import Recognizer
from edgeasr.sessions import PAUSE_S, Session, sessions

LONGEST_SESSION_S = 600.0
HOUR_S = 3600.0

OnTally = Callable[[Tally], None]


@dataclass(frozen=True)
class Dedup:
    """One set of recordings, heard twice: with everything stored, and deduplicated."""

    audio_s: float
    summaries: int
    decisions: Counter[Decision]  # when deduplicated
    wer_all: float
    wer_dedup: float

    @property
    def stored(self) -> int:
        """Vectors stored when deduplicated."""
        return self.decisions[Decision.STORE] + self.decisions[Decision.PIN]

    def to_dict(self) -> dict[str, float | int]:
        """As `edgeasr bench dedup --json` prints it."""
        return {
            "audio_s": round(self.audio_s, 1),
            "summaries": self.summaries,
            "stored": self.stored,
            "merged": self.decisions[Decision.MERGE],
            "skipped": self.decisions[Decision.SKIP],
            "ratio": round(self.stored / max(1, self.summaries), 4),
            "wer_all": round(self.wer_all, 4),
            "wer_dedup": round(self.wer_dedup, 4),
        }


def dedup(
    model: AcousticModel,
    spoken: Sequence[Session],
    policy: MemoryPolicy | None,
    decoder: str | None = None,
    on_tally: OnTally | None = None,
) -> Dedup:
    """Hear recordings with a memory that stores every summary, and with one that admits by `policy`.

    policy: None for the model's own rules
    errors: those of `edgeasr.evaluation.evaluate`
    """
    in_all, _ = _heard(model, spoken, everything, decoder, on_tally)
    deduplicated, admissions = _heard(model, spoken, policy, decoder, on_tally)
    return Dedup(
        audio_s=in_all.audio_s,
        summaries=len(admissions),
        decisions=Counter(admission.decision for admission in admissions),
        wer_all=in_all.words.rate,
        wer_dedup=deduplicated.words.rate,
    )


def speaker_sessions(utterances: Sequence[Utterance]) -> list[Session]:
    """Minutes of one speaker each."""
    return sessions(utterances, LONGEST_SESSION_S)


def hour_with_pauses(utterances: Sequence[Utterance]) -> list[Session]:
    """All utterances as one recording of an hour, with pauses as long as that takes (half a second at least).

    Of less than half an hour of speech it is shorter, so that half of it is speech: of much silence there is little to
    store, whatever the memory does.
    """
    spoken_s = sum(utterance.duration_s for utterance in utterances)
    length_s = min(HOUR_S, 2 * spoken_s)
    return [Session(tuple(utterances), max(PAUSE_S, (length_s - spoken_s) / max(1, len(utterances) - 1)))]


def _heard(
    model: AcousticModel,
    spoken: Sequence[Session],
    policy: MemoryPolicy | None,
    decoder: str | None,
    on_tally: OnTally | None,
) -> tuple[Tally, list[Admission]]:
    admissions: list[Admission] = []
    recognizer = Recognizer(model, decoder=decoder, memory_policy=policy, on_admission=admissions.append)
    return evaluate(recognizer, spoken, on_tally), admissions
