"""The graphs of a model under the profiler, on real audio, and recurrent networks of its size beside them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeasr.audio import FileSource
from edgeasr.backends import load_graph
from edgeasr.bundle import Bundle
from edgeasr.errors import ProfileError
from edgeasr.front_end import WaveformFrontEnd
from edgeasr.measurement import BLOCK_MS
from edgeasr.model import AcousticModel, State, next_values
from edgeasr.profile import recurrent
from edgeasr.profile.counters import Counted, count
from edgeasr.profile.native_operators import profile_native
from edgeasr.profile.operators import QUICK, Effort, GraphProfile, profile_graph

# Vectors that recurrent networks are fed where they step once a feature frame.
FRAME_MS = 10
_CHUNKS_HEARD = 30
_COUNTED_STEPS = 20

Progress = Callable[[str, float], None]
Array = NDArray[np.generic]
# By the backends whose operators can be told apart.
_PROFILERS: dict[str, Callable[[Path | bytes, Mapping[str, Array], int, Effort], GraphProfile]]
_PROFILERS = {"native": profile_native, "onnxruntime": profile_graph}


@dataclass(frozen=True)
class ModelProfile:
    """The graph of a step; that of the memory where there is one, and how often it runs.

    counted: what the processor's counters said of a step, where there are any
    """

    step: GraphProfile
    memory: GraphProfile | None
    memory_every_s: float | None
    counted: Counted


@dataclass(frozen=True)
class Fed:
    """A network as it is fed: so many vectors of so many ms each in a step."""

    name: str
    graph: GraphProfile
    vector_ms: int
    vectors: int


def profile_model(
    model: AcousticModel, bundle: Bundle, recording: Path, *, quick: bool = False, progress: Progress | None = None
) -> ModelProfile:
    """Run the graphs of a bundle under the profiler, on features of a recording and the state that is reached there.

    model:  the bundle's, whose artefact and threads are profiled
    errors: ProfileError for an artefact that ONNX Runtime does not run, or not on the processor
    """
    if not model.artefact.startswith("onnx"):
        held = ", ".join(kind for kind in bundle.artefacts if kind.startswith("onnx"))
        mend = f"choose {held} with --backend" if held else "export one with --artefact onnx-int8"
        raise ProfileError(f"got artefact {model.artefact}, wanted one in ONNX: {mend}")
    if model.backend not in _PROFILERS:
        wanted = " or ".join(_PROFILERS)
        raise ProfileError(f"got backend {model.backend}, wanted {wanted}: operators are counted on the processor")
    report = progress or _unheard
    files = bundle.artefact(model.artefact)
    feed = _feed(model, recording)
    report("operators of a step", 0.0)
    profile = _PROFILERS[model.backend]
    step = profile(files["step"], feed, model.threads, QUICK if quick else Effort())
    report("counters of the processor", 0.8)
    counted = _counted(model.backend, files["step"], feed, model.threads)
    if "memory" not in files:
        return ModelProfile(step, None, None, counted)
    report("operators of the memory", 0.9)
    memory = profile(files["memory"], _memory_feed(bundle, feed), model.threads, QUICK)
    every_s = model.config.encoder.summary_strides[0] * model.config.frame_s
    return ModelProfile(step, memory, every_s, counted)


def profile_baselines(step: GraphProfile, model: AcousticModel, progress: Progress | None = None) -> list[Fed]:
    """LSTM, GRU and TCN with as many bytes of weights as a step: frame by frame, vector by vector, and by chunk."""
    report = progress or _unheard
    config = model.config
    mels, subsampling = config.features.num_mels, config.encoder.subsampling
    vector_ms = round(config.frame_s * 1000)
    outputs = config.vocabulary_size + config.phone_vocabulary_size
    ways = [(FRAME_MS, mels, 1), (vector_ms, mels * subsampling, 1)]
    ways += [(vector_ms, mels * subsampling, config.encoder.chunk_frames)]
    found: list[Fed] = []
    for kind in recurrent.KINDS:
        for each_ms, input_size, vectors in ways:
            report(f"{kind}, {vectors} x {each_ms} ms a step", len(found) / (len(ways) * len(recurrent.KINDS)))
            network = recurrent.baseline(kind, step.weight_bytes, input_size, outputs, vectors)
            graph = _PROFILERS[model.backend](network.model, network.feed, model.threads, QUICK)
            found.append(Fed(kind, graph, each_ms, vectors))
    return found


def _unheard(what: str, share: float) -> None:
    del what, share


def _feed(model: AcousticModel, recording: Path) -> dict[str, Array]:
    """A chunk of features, and the state after those before it, with full banks: then a step has most to read."""
    config = model.config
    front_end, state, left = WaveformFrontEnd(config), model.init_state(), _CHUNKS_HEARD
    features = np.zeros((config.encoder.chunk_features, config.features.num_mels), np.float32)
    with FileSource(recording, BLOCK_MS) as source:
        for block in source.blocks():
            front_end.accept(block.samples, source.sample_rate_hz)
            while left and front_end.is_ready():
                left -= 1
                features = front_end.take()
                state = model.step(features, state)[1]
            if not left:
                break
    return {"features": features[None], **state, **_full(state)}


def _full(state: State) -> dict[str, Array]:
    """What says of banks that every slot of them holds a summary."""
    said = [name for name in state if name.startswith("state.bank.") and name.endswith((".number", ".merged"))]
    return {name: np.ones_like(state[name]) for name in said}


def _memory_feed(bundle: Bundle, feed: dict[str, Array]) -> dict[str, Array]:
    """The state of the step, and a summary drawn at random."""
    rng = np.random.default_rng(0)
    made: dict[str, Array] = {}
    for name, spec in bundle.signature["memory"].inputs.items():
        zeros = np.zeros(spec.shape, np.dtype(spec.dtype))
        made[name] = rng.standard_normal(spec.shape).astype(np.float32) if spec.dtype == "float32" else zeros
    return made | {name: array for name, array in feed.items() if name in made}


def _counted(backend: str, model: Path | bytes, feed: dict[str, Array], threads: int) -> Counted:
    """Counters of one step, from several."""
    graph = load_graph(backend, model, threads)
    state = {**feed, **next_values(graph.run(feed))}

    def steps() -> None:
        for _ in range(_COUNTED_STEPS):
            state.update(next_values(graph.run(state)))

    found = count(steps)
    return Counted({name: value // _COUNTED_STEPS for name, value in found.values.items()}, found.missing)
