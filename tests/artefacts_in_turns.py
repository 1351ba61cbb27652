"""Time of a step of several artefacts in turns: what else the machine does falls on all alike.

python tests/artefacts_in_turns.py BUNDLE ARTEFACT BUNDLE ARTEFACT ...
"""

import json
import sys
import time
from pathlib import Path

import numpy as np

from edgeasr.bundle import Bundle
from edgeasr.features import LogMel
from edgeasr.model import AcousticModel
from edgeasr.recording import read_recording

CLIP = Path(__file__).parents[1] / "edgeasr" / "models" / "demo.flac"
ROUNDS = 6  # of the clip
TURN = 25  # steps in a row: each finds its weights in the caches as it would alone


def main() -> None:
    """Print one JSON object: least and median in ms of each, and all over the first."""
    named = zip(sys.argv[1::2], sys.argv[2::2], strict=True)
    models = [AcousticModel(Bundle.load(bundle), backend=kind) for bundle, kind in named]
    config = models[0].config
    features = LogMel(config.features).accept_waveform(read_recording(CLIP, config.features.sample_rate_hz))
    size = config.encoder.chunk_features
    starts = [*range(0, len(features) - size + 1, size)] * ROUNDS
    states = [model.init_state() for model in models]
    times_ms: list[list[float]] = [[] for _ in models]
    for turn in range(0, len(starts), TURN):
        for i, model in enumerate(models):
            for start in starts[turn : turn + TURN]:
                began = time.perf_counter()
                _, states[i] = model.step(features[start : start + size], states[i])
                times_ms[i].append((time.perf_counter() - began) * 1e3)
    found: dict[str, object] = {"steps": len(starts)}
    for name, of in (("least", np.min), ("median", np.median)):
        each = [round(float(of(one)), 3) for one in times_ms]
        found |= {f"{name}_ms": each, f"{name}_over_first": [round(one / each[0], 2) for one in each]}
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
