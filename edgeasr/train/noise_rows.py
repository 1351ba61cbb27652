"""Noise without speech as the encoder hears it: in every frame of it nothing begins.

Texts have no noise, and what trains a transducer on texts alone teaches it to hear words everywhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from edgeasr.train.augment import WaveformAugmenter, some_noise
from edgeasr.train.data import batch_features
from edgeasr.train.frame_files import HeardRow
from edgeasr.train.unit_selection import Listener

_BLANK_ID = 0
_STRETCH_S = (5.0, 25.0)
_COLOURED = 0.15
# From what a microphone hears of a quiet room to a machine beside it.
_GAIN_DB = (-40.0, 0.0)
_TOGETHER = 8  # stretches of one length


def noise_rows(listener: Listener, augment: WaveformAugmenter, seed: int) -> Iterator[HeardRow]:
    """Stretches of the augmenter's noise, or of coloured noise, augmented as speech is; without end."""
    rate, rng = augment.sample_rate_hz, np.random.default_rng(seed)
    louder_or_not = WaveformAugmenter(replace(augment.config, gain_db=_GAIN_DB), augment.noise, rate)
    while True:
        length = int(rng.uniform(*_STRETCH_S) * rate)
        stretches = [some_noise(augment.noise, _COLOURED, length, rate, rng) for _ in range(_TOGETHER)]
        features, frames = batch_features([louder_or_not(one, rng) for one in stretches], listener.config)
        heard = listener.above(listener.lower(features))
        for row, count in enumerate(frames.tolist()):
            blanks = heard.log_probs[row, :count, _BLANK_ID].numpy()
            yield HeardRow(heard.outputs[row, :count].numpy(), np.full(count, _BLANK_ID), blanks)
