"""A language model in a bundle: put in, taken out, its weights chosen for the acoustic model."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edgeasr.array_files import refuse_other_kind
from edgeasr.bundle import Bundle, default_bundle, replace_in_bundle
from edgeasr.errors import BundleError
from edgeasr.language_model import LanguageModel
from edgeasr.lexicon_search import SearchConfig
from edgeasr.lm_tuning import Trial, heard, tune
from edgeasr.manifest import Utterance
from edgeasr.model import AcousticModel
from edgeasr.phones import PHONES, Dictionary

_HASH_CHARS = 8


def add_language_model(path: Path, file: Path, sources: Sequence[Mapping[str, Any]], output: Path) -> Bundle:
    """Put a language model's file into a bundle; one that is there is replaced, and its weights are kept.

    sources: name and licence of each of its texts
    errors:  BundleError for a bundle or a file that is damaged, and for a model without phones
    """
    bundle = Bundle.load(path)
    if bundle.config.phone_vocabulary_size != len(PHONES):
        raise BundleError(
            f"bundle {path} has a model of {bundle.config.phone_vocabulary_size} phones, a language model wants "
            f"{len(PHONES)}: train with data.dictionary in the recipe"
        )
    refuse_other_kind(file, "language model")
    LanguageModel.load(file)
    search = bundle.language_model.search if bundle.language_model else SearchConfig()
    content = file.read_bytes()
    name = f"words.{hashlib.sha256(content).hexdigest()[:_HASH_CHARS]}.lm"
    return replace_in_bundle(path, output, {"language_model": _entry(name, search, sources)}, {name: content})


def remove_language_model(path: Path, output: Path) -> Bundle:
    """The bundle without its language model. errors: BundleError for one that has none"""
    if Bundle.load(path).language_model is None:
        raise BundleError(f"bundle {path} has no language model: nothing was taken out")
    return replace_in_bundle(path, output, {"language_model": None}, {})


def bundled_dictionary() -> Dictionary:
    """Pronunciations of the words of the model that ships with this package; empty where it has no language model."""
    bundle = Bundle.load(default_bundle())
    if bundle.language_model is None:
        return {}
    model = LanguageModel.from_bytes(bundle.content(bundle.language_model.file), bundle.language_model.file)
    return model.pronunciations.dictionary(model.words)


def tune_bundle(
    path: Path,
    utterances: Sequence[Utterance],
    output: Path,
    report: Callable[[Trial], None] = lambda _: None,
    progress: Callable[[str], None] = lambda _: None,
) -> tuple[Bundle, Trial]:
    """Choose the weights of a bundle's language model on speech, and write them into the bundle.

    report, progress: hear of every trial, and of what is being done
    errors:           BundleError for a bundle without a language model, AudioFormatError, ExtraMissingError
    """
    bundle = Bundle.load(path)
    entry = bundle.language_model
    if entry is None:
        raise BundleError(f"bundle {path} has no language model: put one into it with `edgeasr lm add`")
    language_model = LanguageModel.from_bytes(bundle.content(entry.file), entry.file)
    model = AcousticModel(bundle)
    speech = []
    for one in heard(model, utterances):
        speech.append(one)
        progress(f"{len(speech)} of {len(utterances)} utterances heard")
    best = tune(model, language_model, entry.search, speech, report)
    changed = _entry(entry.file, best.search, entry.sources)
    return replace_in_bundle(path, output, {"language_model": changed}, {}), best


def _entry(file: str, search: SearchConfig, sources: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {"file": file, "search": asdict(search), "sources": [dict(source) for source in sources]}
