"""Time of a step of two artefacts in turns: what else the machine does falls on both alike.

python tests/artefacts_in_turns.py BUNDLE ARTEFACT BUNDLE ARTEFACT
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


def main() -> None:
    """Print one JSON object: least and median in ms of each, and the second over the first."""
    named = zip(sys.argv[1::2], sys.argv[2::2], strict=True)
    models = [AcousticModel(Bundle.load(bundle), backend=kind) for bundle, kind in named]
    config = models[0].config
    features = LogMel(config.features).accept_waveform(read_recording(CLIP, config.features.sample_rate_hz))
    size = config.encoder.chunk_features
    states = [model.init_state() for model in models]
    times_ms: list[list[float]] = [[] for _ in models]
    for start in [*range(0, len(features) - size + 1, size)] * ROUNDS:
        for i, model in enumerate(models):
            began = time.perf_counter()
            _, states[i] = model.step(features[start : start + size], states[i])
            times_ms[i].append((time.perf_counter() - began) * 1e3)
    least, median = ([round(float(of(one)), 3) for one in times_ms] for of in (np.min, np.median))
    ratios = {"least": round(least[1] / least[0], 2), "median": round(median[1] / median[0], 2)}
    found = {"steps": len(times_ms[0]), "least_ms": least, "median_ms": median, "second_over_first": ratios}
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
