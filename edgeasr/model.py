"""The acoustic model as it runs on a device: graphs of a bundle on a backend, and explicit state."""

from __future__ import annotations

import copy
import hashlib
import math
import re
from collections.abc import Callable, Mapping
from functools import cached_property, partial
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgeasr.backends import Array, Graph, load_graph
from edgeasr.backends.choice import NATIVE, backends_of, chosen_artefact
from edgeasr.bundle import Bundle
from edgeasr.bundle_manifest import LanguageModelEntry, TensorSpec
from edgeasr.config import ModelConfig
from edgeasr.errors import BundleError, ConfigError, NativeCodeError, UnsupportedGraphError
from edgeasr.lexicon_search import WordGraph
from edgeasr.memory import MemoryKeeper, Rules, Slots
from edgeasr.tokenizer import Tokenizer
from edgeasr.transducer import PieceFinder
from edgeasr.word_tables import keep_tables, word_graph

Floats = NDArray[np.float32]
State = Mapping[str, Array]

STEP, MEMORY = "step", "memory"
_STEP_PART = re.compile(rf"{STEP}\.([1-9][0-9]{{1,4}})")


def step_part(chunk_ms: int) -> str:
    """The part of a bundle that is its step for chunks of another length than its config has."""
    return f"{STEP}.{chunk_ms}"


def chunk_of_part(part: str) -> int | None:
    """The length of the chunks, in ms, of such a part; None for any other."""
    found = _STEP_PART.fullmatch(part)
    return int(found[1]) if found else None


class Emissions(NamedTuple):
    """Log-probabilities of tokens and, from a model that has them, of phones."""

    tokens: Floats  # (T, V)
    phones: Floats | None = None  # (T, P)

    @property
    def speech(self) -> float:
        """Share of the frames that is not blank."""
        heard = self.tokens if self.phones is None else self.phones
        # For the few frames of a chunk numpy would take ten times as long.
        blanks = heard[:, 0].tolist()
        return 1 - sum(map(math.exp, blanks)) / len(blanks)


class AcousticModel:
    """Features in, token log-probabilities out, one chunk at a time. Streams share a model; each has its state.

    bundle:  a checked bundle
    backend: one of edgeasr.backends, or an artefact; None takes what the bundle's default artefact asks for, but in
             the place of ONNX Runtime on one thread C of our own, if this machine has a compiler
    threads: of the backend's matrix products; one is best for chunks of this size
    errors:  BundleError for a bundle without an artefact for the backend, or whose files are not what its manifest says
    """

    def __init__(self, bundle: Bundle, *, backend: str | None = None, threads: int = 1) -> None:
        self.artefact, self.backend = chosen_artefact(bundle, backend)
        self.threads, self.name = threads, bundle.name
        self.config = bundle.config
        self._bundle = bundle
        self.tokenizer = Tokenizer(bundle.tokens)
        _check_signature(bundle)
        self._asked, self._usual = backend, self.backend
        if backend is None and self._fits_native() and _native_is_fast():
            self._usual = NATIVE
        self.backend = self._backend_for(threads)
        self._load_or_fall_back(self._load_all)
        self._initial = initial_state(bundle)

    @property
    def chunk_lengths_ms(self) -> tuple[int, ...]:
        """Lengths of the chunks that the bundle has step graphs for; the first is that of its config."""
        others = (config.chunk_ms for part, config in _step_configs(self._bundle).items() if part != STEP)
        return (self._bundle.config.chunk_ms, *sorted(others))

    def variant(self, *, threads: int, chunk_ms: int) -> AcousticModel:
        """The same model with other threads for its steps or chunks of another length; states of both are the same.

        errors: ConfigError for a length that the bundle has no step graph for
        """
        lengths = self.chunk_lengths_ms
        if chunk_ms not in lengths:
            raise ConfigError(
                f"got chunks of {chunk_ms} ms, the bundle {self.name} has {', '.join(map(str, lengths))} ms: "
                f"choose one of these, or export the model again with --chunk-ms {chunk_ms}"
            )
        other = copy.copy(self)
        part = STEP if chunk_ms == lengths[0] else step_part(chunk_ms)
        other.config, other.threads = _step_configs(self._bundle)[part], threads
        other.backend = self._backend_for(threads)
        other._load_or_fall_back(partial(other._load_step, part))
        return other

    def _fits_native(self) -> bool:
        return self.backend == "onnxruntime" and NATIVE in backends_of(self.artefact)

    def _backend_for(self, threads: int) -> str:
        """C of our own has one thread: on more ONNX Runtime runs in its place, unless it was asked for."""
        return "onnxruntime" if threads != 1 and self._usual == NATIVE != self._asked else self._usual

    def _load_or_fall_back(self, load: Callable[[], None]) -> None:
        """On ONNX Runtime where C of our own cannot be, unless it was asked for."""
        try:
            load()
        except (NativeCodeError, UnsupportedGraphError):
            if self._asked == NATIVE:
                raise
            self.backend = self._usual = "onnxruntime"
            load()

    def _load_step(self, part: str) -> None:
        self._step = self._load(part)

    def _load_all(self) -> None:
        self._step = self._load(STEP)
        self._kept = [
            (name, name.removeprefix("next_")) for name in self._step.outputs if name.startswith("next_state.")
        ]
        self._memory = self._load(MEMORY) if MEMORY in self._bundle.signature else None

    def _load(self, part: str) -> Graph:
        graph = load_graph(self.backend, self._bundle.artefact(self.artefact)[part], self.threads, part)
        _check_graph(graph, part, self._bundle)
        return graph

    @cached_property
    def word_graph(self) -> WordGraph | None:
        """The lexicon and language model for decoders of words, read when first asked for; None without one.

        errors: BundleError for a file that is damaged
        """
        entry = self._bundle.language_model
        if entry is None:
            return None
        return word_graph(*_file_of_words(self._bundle, entry), entry.search)

    @cached_property
    def transducer(self) -> PieceFinder | None:
        """What greedy decoding knows of the pieces before, read when first asked for; None without one.

        errors: BundleError for a file that is damaged
        """
        entry = self._bundle.transducer
        if entry is None:
            return None
        name = f"{entry.file} of {self._bundle.path}"
        from edgeasr.transducer_native import fastest_transducer  # brings the modules along that call a compiler

        return fastest_transducer(self._bundle.content(entry.file), name)

    @cached_property
    def fingerprint(self) -> str:
        """The same for models of the same weights, whichever artefact runs: only their summaries can be compared."""
        parts = [part for part in (STEP, MEMORY) if part in self._bundle.signature]
        names = sorted({files[part] for files in self._bundle.artefacts.values() for part in parts})
        hashes = "".join(self._bundle.files[name].sha256 for name in names)
        return hashlib.sha256(hashes.encode()).hexdigest()

    def init_state(self) -> State:
        """The state before the first chunk; the size of a state never changes."""
        return self._initial

    def step(self, features: Floats, state: State, keeper: MemoryKeeper | None = None) -> tuple[Emissions, State]:
        """One chunk.

        features: (chunk_features, num_mels) float32 log-mel
        keeper:   decides what becomes of a summary when one is complete; None for the model's own rules
        returns:  log-probabilities of chunk_frames frames, and the next state; `state` stays as it was
        """
        keeper = keeper or MemoryKeeper()
        outputs = self._step.run({"features": features[None], **state})
        next_state = dict(state)
        for given, kept in self._kept:
            next_state[kept] = outputs[given]
        phones = outputs["phone_log_probs"][0] if self.config.phone_vocabulary_size else None
        emissions = Emissions(outputs["log_probs"][0], phones)
        if self._memory is not None:
            keeper.heard(emissions.speech, len(self.config.encoder.summary_strides))
            if outputs["summary.number"][0, 0] >= 0:
                entries = self._memory.run({**state, **outputs})
                next_state = self._remember(entries, state, next_state, keeper)
        return emissions, MappingProxyType(next_state)

    def _remember(
        self, entries: Mapping[str, Array], state: State, next_state: dict[str, Array], keeper: MemoryKeeper
    ) -> dict[str, Array]:
        next_state |= next_values(entries)
        encoder = self.config.encoder
        for i, (span, capacity) in enumerate(zip(encoder.level_spans, encoder.memory_capacities, strict=True)):
            entry = _under(f"entry.{i}.", entries)
            bank = _under(f"state.bank.{i}.", state)
            rules = Rules(capacity, encoder.merge_similarity)
            admitted = keeper.admit(bank, entry, i + 2, rules, span * self.config.frame_s)
            next_state |= {f"state.bank.{i}.{name}": array for name, array in admitted.items()}
        return next_state


def _native_is_fast() -> bool:
    """Whether C of our own can be compiled and is faster than ONNX Runtime here."""
    try:
        from edgeasr.backends.native.kernels import native_library

        return native_library().is_fast
    except (ImportError, NativeCodeError):  # protobuf comes with ONNX Runtime, but Debian's may be without
        return False


def keep_words(bundle: Bundle) -> None:
    """Make what the first start makes of a bundle's language model, if it has one: best before the model is loaded.

    errors: BundleError for a file that is damaged
    """
    if bundle.language_model is not None:
        keep_tables(*_file_of_words(bundle, bundle.language_model))


def _file_of_words(bundle: Bundle, entry: LanguageModelEntry) -> tuple[Callable[[], bytes], str, str]:
    """What gives its content, its hash and its name."""
    name = f"{entry.file} of {bundle.path}"
    return partial(bundle.content, entry.file), bundle.files[entry.file].sha256, name


def next_values(outputs: Mapping[str, Array]) -> dict[str, Array]:
    """`next_state.x` becomes `state.x`."""
    return {name.removeprefix("next_"): a for name, a in outputs.items() if name.startswith("next_state.")}


def _under(prefix: str, arrays: Mapping[str, Array]) -> dict[str, Array]:
    return {name[len(prefix) :]: array for name, array in arrays.items() if name.startswith(prefix)}


def _check_signature(bundle: Bundle) -> None:
    """The parts and tensors that the config of the bundle asks for."""
    configs = _step_configs(bundle)
    parts = {MEMORY, *configs} if bundle.config.encoder.summary_strides else set(configs)
    if bundle.signature.keys() != parts:
        raise BundleError(
            f"bundle {bundle.path} has the parts {', '.join(sorted(bundle.signature))}, its config wants "
            f"{', '.join(sorted(parts))}: export the model again"
        )
    for part, config in configs.items():
        _check_step(bundle, part, config)


def _check_step(bundle: Bundle, part: str, config: ModelConfig) -> None:
    """What the config of its chunks asks for; between steps of different chunks the state must be the same."""
    encoder, step = config.encoder, bundle.signature[part]
    wanted = {
        "features": TensorSpec((1, encoder.chunk_features, config.features.num_mels), "float32"),
        "log_probs": TensorSpec((1, encoder.chunk_frames, len(bundle.tokens)), "float32"),
    }
    if phones := config.phone_vocabulary_size:
        wanted["phone_log_probs"] = TensorSpec((1, encoder.chunk_frames, phones), "float32")
    if encoder.summary_strides:
        wanted["summary.vector"] = TensorSpec((1, 1, encoder.d_model), "float32")
        wanted["summary.number"] = TensorSpec((1, 1), "int64")
    found = {"features": step.inputs.get("features"), **step.outputs}
    for name, spec in wanted.items():
        _require_same(bundle, part, name, found.get(name), spec, "its config")
    main = bundle.signature[STEP]
    for here, there in ((step.inputs, main.inputs), (step.outputs, main.outputs)):
        for name in sorted((here.keys() | there.keys()) - wanted.keys()):
            _require_same(bundle, part, name, here.get(name), there.get(name), STEP)


def _step_configs(bundle: Bundle) -> dict[str, ModelConfig]:
    """The config of each step graph by its part. errors: BundleError for a length that no chunk can have"""
    config, configs = bundle.config, {STEP: bundle.config}
    for part in filter(_STEP_PART.fullmatch, bundle.signature):
        try:
            configs[part] = config.with_chunk(int(part.removeprefix(f"{STEP}.")))
        except ConfigError as error:
            raise BundleError(f"bundle {bundle.path} has the part {part}: {error}") from error
    return configs


def _check_graph(graph: Graph, part: str, bundle: Bundle) -> None:
    """What the file reads and gives must be what the manifest says."""
    signature = bundle.signature[part]
    for found, wanted in ((graph.inputs, signature.inputs), (graph.outputs, signature.outputs)):
        for name in sorted(found.keys() | wanted.keys()):
            _require_same(bundle, part, name, found.get(name), wanted.get(name), "its manifest")


def _require_same(
    bundle: Bundle, part: str, name: str, found: TensorSpec | None, wanted: TensorSpec | None, who: str
) -> None:
    if found != wanted:
        raise BundleError(
            f"bundle {bundle.path}: {name!r} of {part} is {_plain(found)}, {who} wants {_plain(wanted)}: "
            "export the model again"
        )


def _plain(spec: TensorSpec | None) -> str:
    return f"{spec.dtype} {list(spec.shape)}" if spec else "nothing"


def initial_state(bundle: Bundle) -> State:
    """Empty caches, banks and pools, from the shapes in the bundle's signature."""
    inputs = {
        name: spec
        for part in bundle.signature.values()
        for name, spec in part.inputs.items()
        if name.startswith("state.")
    }
    # No graph reads what only admission does.
    encoder = bundle.config.encoder
    for i, capacity in enumerate(encoder.memory_capacities):
        for name, part in Slots.empty(capacity, encoder.d_model)._asdict().items():
            spec = TensorSpec((1, *part.shape), part.dtype.name, float(part.flat[0]))
            inputs.setdefault(f"state.bank.{i}.{name}", spec)
    return MappingProxyType(_fresh(inputs))


def _fresh(specs: Mapping[str, TensorSpec]) -> dict[str, Array]:
    """Arrays full of what each begins with, not to be written to; those that are full of the same share memory."""
    sizes: dict[tuple[str, float], int] = {}
    for spec in specs.values():
        kind = spec.dtype, spec.initial
        sizes[kind] = max(sizes.get(kind, 0), math.prod(spec.shape))
    full: dict[tuple[str, float], Array] = {}
    for (dtype, initial), size in sizes.items():
        full[dtype, initial] = np.full(size, initial, np.dtype(dtype))
        full[dtype, initial].flags.writeable = False
    return {
        name: full[spec.dtype, spec.initial][: math.prod(spec.shape)].reshape(spec.shape)
        for name, spec in specs.items()
    }
