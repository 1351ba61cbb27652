import json
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from itertools import product
from pathlib import Path
from types import SimpleNamespace

# Before anything starts threads: on a busy machine those of several processes wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
import soundfile
from hypothesis import settings

from edgeasr.backends.native.kernels import native_library
from edgeasr.config import FeatureConfig
from edgeasr.errors import NativeCodeError
from edgeasr.lexicon_native import search_library
from edgeasr.log_mel_native import NativeLogMel
from edgeasr.transducer_native import transducer_library

# The same examples everywhere, and no test that fails because a machine is slow.
settings.register_profile("repeatable", derandomize=True, deadline=None, database=None)
settings.load_profile("repeatable")


@pytest.fixture(scope="session", autouse=True)
def user_folders(tmp_path_factory) -> Iterator[None]:
    """Nothing is kept in the cache folder of whoever runs the tests, and nothing that they configured counts."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patched.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("config")))
        with suppress(NativeCodeError):
            # Compiled here, no program says in the middle of a test that it is.
            native_library()
            search_library()
            transducer_library()
            NativeLogMel(FeatureConfig())
        yield


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the source tree."""
    return Path(__file__).parents[1]


@pytest.fixture(scope="session")
def speech(repository: Path) -> Path:
    """The folder with the manifests of real speech, which lies beside the source tree."""
    folder = repository.parent / "shared" / "speech"
    if not (folder / "dev.jsonl").is_file():
        pytest.skip("no real speech: put its manifests into ../shared/speech")
    return folder


# What training and export are tested on: a language of tones, and encoders that learn it in seconds.

TOY_HZ = {"a": 400, "b": 800, "c": 1600, "d": 3200, " ": 0}
TOY_PHONES = {"a": "AA1", "b": "B", "c": "K", "d": "D"}
TOY_ENCODER = {
    "d_model": 24,
    "num_heads": 2,
    "lower_blocks": 1,
    "upper_blocks": 1,
    "ff_dim": 32,
    "conv_kernel": 3,
    "conv_channels": 4,
    "left_context": 8,
    "chunk_frames": 4,
    "summary_strides": (8,),
    "memory_capacities": (4,),
    "dropout": 0.1,
}


def toy_speech(text: str, rng: np.random.Generator) -> np.ndarray:
    """Each letter as 0.12 s of its tone, over some noise."""
    time = np.arange(1920) / 16000
    tones = [0.3 * np.sin(2 * np.pi * TOY_HZ[letter] * time) for letter in text]
    waveform = np.concatenate(tones)
    return waveform + 0.003 * rng.standard_normal(len(waveform))


def write_toy_manifest(path: Path, count: int, seed: int) -> None:
    """A manifest of `count` utterances and their recordings beside it."""
    rng = np.random.default_rng(seed)
    lines = []
    for i in range(count):
        words = ["".join(rng.choice(list("abcd"), rng.integers(1, 4))) for _ in range(rng.integers(1, 4))]
        name, text = f"{path.stem}{i}.wav", " ".join(words)
        waveform = toy_speech(text, rng)
        soundfile.write(path.with_name(name), waveform, 16000)
        lines.append(json.dumps({"audio_filepath": name, "duration": len(waveform) / 16000, "text": text}))
    path.write_text("\n".join(lines))


def write_toy_dictionary(path: Path) -> None:
    """How words of up to four letters are said: each letter is a phone."""
    words = ["".join(letters) for length in range(1, 5) for letters in product(TOY_PHONES, repeat=length)]
    path.write_text("".join(f"{word} {' '.join(TOY_PHONES[letter] for letter in word)}\n" for word in words))


@pytest.fixture(scope="session")
def toy_folder(tmp_path_factory) -> Path:
    """Manifests train.jsonl and dev.jsonl of the language of tones, its words.dict, and a folder of noise."""
    folder = tmp_path_factory.mktemp("toy")
    write_toy_manifest(folder / "train.jsonl", 20, seed=1)
    write_toy_manifest(folder / "dev.jsonl", 4, seed=2)
    write_toy_dictionary(folder / "words.dict")
    (folder / "noise").mkdir()
    noise = 0.1 * np.random.default_rng(3).standard_normal(8000)
    soundfile.write(folder / "noise" / "white.wav", noise, 16000)
    return folder


@pytest.fixture(scope="session")
def toy_model():
    """The configuration of an encoder that learns the language of tones; keys of the encoder may be changed."""
    from edgeasr.config import EncoderConfig, FeatureConfig, ModelConfig

    def model(vocabulary_size: int = 29, **encoder):
        return ModelConfig(FeatureConfig(num_mels=20), EncoderConfig(**(TOY_ENCODER | encoder)), vocabulary_size)

    return model


@pytest.fixture
def toy_model_toml():
    """The table `model` of a recipe file, for a model that trains in seconds."""
    sizes = {"d_model": 8, "num_heads": 2, "lower_blocks": 1, "upper_blocks": 1, "ff_dim": 8, "conv_kernel": 3}
    sizes |= {"conv_channels": 2, "left_context": 8, "summary_strides": [8], "memory_capacities": [4]}
    return "\n".join(["[model]", *(f"{name} = {size}" for name, size in sizes.items())])


@pytest.fixture(scope="session")
def toy_recipe(toy_folder, toy_model):
    """A recipe of that language that writes into `directory`; keys of its tables may be changed."""
    from edgeasr.train.recipe import AugmentConfig, DataConfig, OptimizerConfig, Recipe, RunConfig

    def recipe(directory: Path, *, model=None, data=None, augment=None, optimizer=None, run=None):
        sources = ({"name": "tones", "licence": "CC0-1.0"},)
        data = {"train": ("train.jsonl",), "dev": ("dev.jsonl",), "noise": ("noise",), "sources": sources} | (
            data or {}
        )
        data = {"max_duration_s": 3.0, "batch_s": 6.0} | data
        return Recipe(
            root=toy_folder,
            model=model or toy_model(),
            data=DataConfig(**data),
            augment=AugmentConfig(**({"codec": 0.2, "clean_steps": 2} | (augment or {}))),
            optimizer=OptimizerConfig(**({"steps": 8, "warmup_steps": 2, "peak_rate": 3e-3} | (optimizer or {}))),
            run=RunConfig(**({"directory": str(directory), "log_every": 1, "evaluate_every": 100} | (run or {}))),
        )

    return recipe


@pytest.fixture(scope="session")
def trained(toy_recipe, toy_model, tmp_path_factory) -> SimpleNamespace:
    """An encoder that has learnt the language of tones, letters and phones.

    Its recipe, what became of the run, the loss of each step.
    """
    pytest.importorskip("torch", reason="training needs the extra `train`")
    from edgeasr.phones import PHONES
    from edgeasr.train.loop import train

    untouched = dict.fromkeys(("noise", "reverb", "equalizer", "band_limit", "codec"), 0.0)
    recipe = toy_recipe(
        tmp_path_factory.mktemp("trained"),
        model=replace(toy_model(), phone_vocabulary_size=len(PHONES)),
        data={"dictionary": "words.dict"},
        augment={"speed": (1.0, 1.0), "gain_db": (-6.0, -6.0), "clean_steps": 10**6} | untouched,
        optimizer={"steps": 150, "warmup_steps": 10, "peak_rate": 1e-2, "ema_decay": 0.9, "bf16": False},
        run={"evaluate_every": 150},
    )
    losses: list[float] = []

    def watch(progress):
        if progress.what == "training":
            losses.append(float(progress.detail.removeprefix("loss ")))

    outcome = train(recipe, lambda line: None, watch=watch)
    return SimpleNamespace(recipe=recipe, outcome=outcome, losses=losses)


@pytest.fixture(scope="session")
def exported(trained, tmp_path_factory) -> SimpleNamespace:
    """The trained encoder as a bundle.

    checkpoint, encoder, recording: what was exported, and the speech it was checked on
    made, bundle, parities:         what export gave, and of it the bundle and the parities by artefact
    onnx:                           the graphs in fp32 as serialised models, by name
    """
    from edgeasr.converters import export as export_module
    from edgeasr.converters import raw_graph
    from edgeasr.train.checkpoint import Checkpoint

    checkpoint = Checkpoint.load(trained.recipe.directory / "best.safetensors")
    folder = tmp_path_factory.mktemp("exported")
    recording = folder / "speech.wav"
    soundfile.write(recording, toy_speech("abcd abca bdda c ccab dbca", np.random.default_rng(5)), 16000)
    graphs = {}

    def keep(graph):
        graphs[graph.name] = to_onnx(graph)
        return graphs[graph.name]

    to_onnx = raw_graph.to_onnx
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(raw_graph, "to_onnx", keep)
        made = export_module.export(checkpoint, folder / "toy-model", speech=recording)
    return SimpleNamespace(
        checkpoint=checkpoint,
        encoder=checkpoint.encoder(),
        recording=recording,
        made=made,
        bundle=made.bundle,
        parities={parity.artefact: parity for parity in made.parities},
        onnx=graphs,
    )
