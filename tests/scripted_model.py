"""A stand-in for the acoustic model that hears tones: letter k is a tone in mel band 20 + 2 k.

As a program it is the command line with this model in the place of every bundle.
"""

from __future__ import annotations

import sys
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

import numpy as np

from edgeasr.cli.main import main
from edgeasr.config import ModelConfig
from edgeasr.features import mel_filterbank
from edgeasr.model import Emissions
from edgeasr.recognizer import load_model
from edgeasr.tokenizer import Tokenizer

RATE_HZ = 16_000
FRAME = 640  # samples of an encoder frame
BLANK_BELOW = -9.0
CONF = 0.9


class ScriptedModel:
    """Emits the letter of the tone in each frame, `delay` frames late, with posterior CONF."""

    name, artefact, backend, threads = "scripted", "scripted-fp32", "numpy", 1
    word_graph = transducer = None
    fingerprint = "scripted"
    chunk_lengths_ms = (160,)

    def __init__(self, delay: int = 0) -> None:
        self.config = ModelConfig()
        self.tokenizer = Tokenizer()
        self.num_steps = 0
        self._delay = delay

    def init_state(self) -> tuple[int, ...]:
        return (self.tokenizer.blank_id,) * self._delay

    def step(self, features, state, keeper=None):
        assert features.shape == (16, 80)
        assert features.dtype == np.float32
        self.num_steps += 1
        ids = [*state, *(self._heard(frame) for frame in features.reshape(4, 4, 80))]
        log_probs = np.full((4, len(self.tokenizer)), np.log((1 - CONF) / 28), np.float32)
        log_probs[range(4), ids[:4]] = np.log(CONF)
        return Emissions(log_probs), tuple(ids[4:])

    def _heard(self, frame) -> int:
        """The first two windows of a frame lie within it; the others reach into the next."""
        bands = frame[:2].mean(axis=0)
        if bands.max() < BLANK_BELOW:
            return self.tokenizer.blank_id
        return int(np.clip(round((int(bands.argmax()) - 20) / 2), 0, 27)) + 1


def tone(text: str, frames: int = 2, rate_hz: int = RATE_HZ) -> np.ndarray:
    """(num_samples,) float32: each letter for `frames` frames, a space too; "." is a frame of silence."""
    mel = mel_filterbank(ModelConfig().features)
    parts = []
    for char in text:
        length = (1 if char == "." else frames) * FRAME * rate_hz // RATE_HZ
        if char == ".":
            parts.append(np.zeros(length))
            continue
        band = 20 + 2 * (Tokenizer().encode(char)[0] - 1)
        hz = mel[:, band].argmax() * RATE_HZ / 512
        parts.append(0.3 * np.sin(2 * np.pi * hz * np.arange(length) / rate_hz))
    return np.concatenate(parts).astype(np.float32)


def silence(seconds: float, rate_hz: int = RATE_HZ) -> np.ndarray:
    return np.zeros(round(seconds * rate_hz), np.float32)


class Done(NamedTuple):
    code: int
    out: str
    err: str


def edgeasr(*arguments: str | Path, model: ScriptedModel | None = None, scripted: bool = True) -> Done:
    """Run the command line in this process; standard output and error are no terminals.

    scripted: whether every model is replaced by `model`
    """
    out, err = StringIO(), StringIO()
    with (
        patch("edgeasr.recognizer.load_model", (lambda *_, **__: model or ScriptedModel()) if scripted else load_model),
        patch("sys.argv", ["edgeasr", *map(str, arguments)]),
        redirect_stdout(out),
        redirect_stderr(err),
    ):
        try:
            main()
            code = 0
        except SystemExit as leaving:
            code = int(leaving.code or 0)
    return Done(code, out.getvalue(), err.getvalue())


def program(*arguments: str | Path) -> list[str]:
    """The command that runs the command line, with this model, in a process of its own."""
    return [sys.executable, __file__, *map(str, arguments)]


if __name__ == "__main__":
    with patch("edgeasr.recognizer.load_model", lambda *args, **options: ScriptedModel()):
        main()
