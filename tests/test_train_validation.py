# ruff: noqa: E402 - torch is looked for before the modules that import it
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs the extra `train`")

from dataclasses import replace
from pathlib import Path

from edgeasr.encoder import Emissions
from edgeasr.manifest import Utterance
from edgeasr.tokenizer import Tokenizer
from edgeasr.train.processes import Place
from edgeasr.train.validation import DevSet, word_error_rate

TOKENIZER = Tokenizer()
# What is said, and what the encoder makes of it.
HEARD = [
    ("one two three", "one two three"),
    ("four five", "for five"),
    ("six", ""),
    ("Seven", "seven of nine"),
    *[("ten", "ten")] * 6,
]


class Scripted(torch.nn.Module):
    """Emits letter by letter what the loudness of a recording stands for, then junk behind its end."""

    def __init__(self, config):
        super().__init__()
        self.config = config

    def forward(self, features):
        rows = torch.full((len(features), features.shape[1] // 4, len(TOKENIZER)), -9.0)
        for row, loudness in zip(rows, features.mean(dim=(1, 2)), strict=True):
            number = int(torch.argmin((LOUDNESS - loudness).abs()))
            ids = [i for token in TOKENIZER.encode(HEARD[number][1]) for i in (token, token, 0)]
            ids += [0] * (lengths(number) - len(ids)) + [5] * len(row)
            row[range(len(row)), ids[: len(row)]] = 0.0
        return Emissions(rows, rows)


def lengths(number: int) -> int:
    return 60 + number


LOUDNESS = torch.zeros(len(HEARD))


@pytest.fixture
def dev(toy_model):
    from edgeasr.train.data import batch_features

    utterances = [Utterance(Path(f"{i}.wav"), 1.0 + i, text) for i, (text, _) in enumerate(HEARD)]
    rng = np.random.default_rng(0)
    cache = {}
    for i in range(len(HEARD)):
        samples = 640 * lengths(i) + 240
        cache[i] = (0.5**i * rng.standard_normal(samples)).astype(np.float32)
    return DevSet("dev", utterances, cache), Scripted(toy_model()), batch_features


def test_errors_are_counted_over_all_words(dev):
    dev_set, encoder, batch_features = dev
    groups = [range(8), range(8, 10)]
    for group in groups:
        features, frames = batch_features([dev_set.cache[i] for i in group], encoder.config)
        assert frames.tolist() == [lengths(i) for i in group]
        LOUDNESS[list(group)] = features.mean(dim=(1, 2))
    rate = word_error_rate(encoder, dev_set, TOKENIZER, Place(), bf16=False)
    # One substituted, one deleted, two inserted, of 13 words.
    assert rate == pytest.approx(4 / 13)


def test_sessions_are_heard_whole(dev):
    dev_set, _, _ = dev
    assert dev_set.rows() == [[i] for i in range(len(HEARD))]
    spoken = [replace(u, speaker="ab"[i > 3]) for i, u in enumerate(dev_set.utterances)]

    class Cache(dict):
        sample_rate_hz = 1000

    cache = Cache({i: np.full(2, i + 1, np.float32) for i in range(len(HEARD))})
    in_sessions = DevSet("dev", spoken, cache, session_s=7.0)
    # Utterance i lasts 1 + i seconds, pauses half a second.
    assert in_sessions.rows() == [[0, 1, 2], [3], *([i] for i in range(4, len(HEARD)))]
    waveform = in_sessions.waveform([0, 1])
    assert waveform.tolist() == [1, 1, *[0] * 500, 2, 2]
