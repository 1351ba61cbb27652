"""The manifest of a bundle: what it may say, checked key by key; see `bundle.py` for the files beside it."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Collection, Mapping, Set
from dataclasses import dataclass, field
from typing import Any

from edgeasr.config import ModelConfig
from edgeasr.errors import BundleError
from edgeasr.lexicon_search import SearchConfig
from edgeasr.phones import PHONES
from edgeasr.tokenizer import Tokenizer

FORMAT_VERSION = 1
MANIFEST_NAME = "manifest.json"

_DTYPES = ("float32", "float16", "int64", "int32", "int8", "uint8", "bool")
_PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_EXPORT_AGAIN = "export the model again with this version of edgeasr"


@dataclass(frozen=True)
class TensorSpec:
    """Shape and numpy dtype name of one input or output of an artefact; what a state is full of at first."""

    shape: tuple[int, ...]
    dtype: str
    initial: float = field(default=0.0, compare=False, repr=False)


@dataclass(frozen=True)
class PartSignature:
    """What one part of an artefact (its `step`, its `memory`) takes and gives, by tensor name."""

    inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]


@dataclass(frozen=True)
class FileRecord:
    """What the manifest says of one file."""

    sha256: str
    size_bytes: int


@dataclass(frozen=True)
class LanguageModelEntry:
    """The language model of a bundle, and how its search was tuned to the acoustic model. sources: name and licence"""

    file: str
    search: SearchConfig
    sources: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True)
class TransducerEntry:
    """The predictor and joiner of a bundle, for greedy decoding. sources: name and licence of what taught them"""

    file: str
    sources: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True)
class BundleManifest:
    """A model as its manifest describes it.

    artefacts: kind ("onnx-int8") -> part ("step") -> file name
    signature: part -> its tensors, the same for every kind
    training:  {"data": [{"name", "licence", ...}, ...], ...}
    """

    name: str
    config: ModelConfig
    tokens: tuple[str, ...]
    artefacts: Mapping[str, Mapping[str, str]]
    default_artefact: str
    signature: Mapping[str, PartSignature]
    training: Mapping[str, Any]
    wer: Mapping[str, Any]
    licence: str
    files: Mapping[str, FileRecord]
    language_model: LanguageModelEntry | None = None
    transducer: TransducerEntry | None = None


def parse_manifest(value: object) -> BundleManifest:
    """Check a manifest as read from JSON. Errors: BundleError or ConfigError for the first thing amiss."""
    version = _object(MANIFEST_NAME, value).get("format_version")
    if version != FORMAT_VERSION:
        raise BundleError(f"got format version {version!r}, wanted {FORMAT_VERSION}: {_EXPORT_AGAIN}")
    known = {field.name for field in dataclasses.fields(BundleManifest)}
    # A bundle without a language model or a transducer says nothing of it.
    whole = {"language_model": None, "transducer": None, **_object(MANIFEST_NAME, value)}
    values = _object(MANIFEST_NAME, whole, known | {"format_version"})
    config = _config(values["config"])
    signature = _signature(values["signature"])
    files = _files(values["files"])
    artefacts = _artefacts(values["artefacts"], signature.keys(), files.keys())
    return BundleManifest(
        name=plain_name("name", values["name"]),
        config=config,
        tokens=_tokens(values["tokens"], config.vocabulary_size),
        artefacts=artefacts,
        default_artefact=_one_of("default_artefact", values["default_artefact"], artefacts),
        signature=signature,
        training=_training(values["training"]),
        wer=_object("wer", values["wer"]),
        licence=_text("licence", values["licence"]),
        files=files,
        language_model=_language_model(values["language_model"], files.keys(), config),
        transducer=_transducer(values["transducer"], files.keys()),
    )


def plain_name(what: str, value: object) -> str:
    """`value` as a name that cannot lead out of a folder. Errors: BundleError for any other."""
    if not isinstance(value, str) or not _PLAIN_NAME.fullmatch(value):
        wanted = "letters, digits, '.', '_' and '-' after a letter or digit"
        raise BundleError(f"{what} is {_brief(value)}, wanted {wanted}: {_EXPORT_AGAIN}")
    return value


def _config(value: object) -> ModelConfig:
    """The whole configuration: a key left to its default today could mean something else tomorrow."""
    whole = ModelConfig().to_dict()
    given = _object("config", value, whole.keys())
    for key, part in whole.items():
        if isinstance(part, dict):
            _object(f"config.{key}", given[key], part.keys())
    return ModelConfig.from_dict(given)


def _tokens(value: object, vocabulary_size: int) -> tuple[str, ...]:
    tokens = Tokenizer(tuple(_text("a token", token) for token in _list("tokens", value))).tokens
    if len(tokens) != vocabulary_size:
        raise BundleError(f"got {len(tokens)} tokens, wanted {vocabulary_size} as in config: {_EXPORT_AGAIN}")
    return tokens


def _files(value: object) -> dict[str, FileRecord]:
    records = {}
    for name, entry in _object("files", value).items():
        if plain_name("a file of the manifest", name) == MANIFEST_NAME:
            raise BundleError(f"files has {MANIFEST_NAME}, wanted only the files beside it: {_EXPORT_AGAIN}")
        given = _object(f"files.{name}", entry, {"sha256", "bytes"})
        if not _SHA256.fullmatch(_text(f"files.{name}.sha256", given["sha256"])):
            raise BundleError(f"files.{name}.sha256 is {given['sha256']!r}, wanted 64 hex digits: {_EXPORT_AGAIN}")
        records[name] = FileRecord(given["sha256"], _count(f"files.{name}.bytes", given["bytes"]))
    return records


def _signature(value: object) -> dict[str, PartSignature]:
    signature = {}
    for part, sides in _object("signature", value).items():
        given = _object(f"signature.{part}", sides, {"inputs", "outputs"})
        signature[part] = PartSignature(
            inputs=_tensors(f"signature.{part}.inputs", given["inputs"]),
            outputs=_tensors(f"signature.{part}.outputs", given["outputs"]),
        )
        _check_state(part, signature[part])
    if "step" not in signature:
        raise BundleError(f"signature has the parts {sorted(signature)}, wanted 'step' among them: {_EXPORT_AGAIN}")
    return signature


def _tensors(what: str, value: object) -> dict[str, TensorSpec]:
    specs = {}
    for name, entry in _object(what, value).items():
        starts = {"initial"} if name.startswith("state.") else set()
        given = _object(f"{what}.{name}", entry, {"shape", "dtype"} | starts)
        dtype = _one_of(f"{what}.{name}.dtype", given["dtype"], _DTYPES)
        sizes = _list(f"{what}.{name}.shape", given["shape"])
        shape = tuple(_count(f"{what}.{name}.shape", size) for size in sizes)
        specs[name] = TensorSpec(shape, dtype, _number(f"{what}.{name}.initial", given.get("initial", 0.0)))
    return specs


def _check_state(part: str, signature: PartSignature) -> None:
    """What a part gives as `next_state.X` it must take as `state.X`."""
    for name, spec in signature.outputs.items():
        taken = signature.inputs.get(name.removeprefix("next_"))
        if name.startswith("next_state.") and taken != spec:
            raise BundleError(f"signature.{part} gives {name} as {spec}, takes it back as {taken}: {_EXPORT_AGAIN}")


def _artefacts(value: object, parts: Set[str], files: Collection[str]) -> dict[str, dict[str, str]]:
    """Every kind has a file for every part of the signature."""
    artefacts = {}
    for kind, entry in _object("artefacts", value).items():
        names = _object(f"artefacts.{kind}", entry, parts)
        artefacts[kind] = {part: _one_of(f"artefacts.{kind}.{part}", name, files) for part, name in names.items()}
    if not artefacts:
        raise BundleError(f"artefacts is {{}}, wanted one kind or more: {_EXPORT_AGAIN}")
    return artefacts


# Bundles that were made before them lack them.
_LATER_SEARCH_KEYS = frozenset({"min_fit", "sure_blank"})


def _language_model(value: object, files: Collection[str], config: ModelConfig) -> LanguageModelEntry | None:
    if value is None:
        return None
    if config.phone_vocabulary_size != len(PHONES):
        raise BundleError(f"got a language model beside a model without the {len(PHONES)} phones: {_EXPORT_AGAIN}")
    entry = _object("language_model", value, {"file", "search", "sources"})
    known = {field.name for field in dataclasses.fields(SearchConfig)}
    search = _object("language_model.search", entry["search"], known, _LATER_SEARCH_KEYS)
    numbers: dict[str, Any] = {key: _number(f"language_model.search.{key}", number) for key, number in search.items()}
    numbers["max_prefixes"] = _count("max_prefixes", search["max_prefixes"])
    return LanguageModelEntry(
        file=_one_of("language_model.file", entry["file"], files),
        search=SearchConfig(**numbers),
        sources=_sources("language_model.sources", entry["sources"]),
    )


def _transducer(value: object, files: Collection[str]) -> TransducerEntry | None:
    if value is None:
        return None
    entry = _object("transducer", value, {"file", "sources"})
    return TransducerEntry(
        file=_one_of("transducer.file", entry["file"], files), sources=_sources("transducer.sources", entry["sources"])
    )


def _training(value: object) -> Mapping[str, Any]:
    training = _object("training", value)
    _sources("training.data", training.get("data"))
    return training


def _sources(what: str, value: object) -> tuple[Mapping[str, Any], ...]:
    """Each with a name and a licence at least."""
    sources = tuple(_object(f"a source in {what}", source) for source in _list(what, value))
    for source in sources:
        for key in ("name", "licence"):
            _text(f"{key} of a source in {what}", source.get(key))
    return sources


def _object(
    what: str, value: object, keys: Set[str] | None = None, optional: Set[str] = frozenset()
) -> Mapping[str, Any]:
    """`value` as a JSON object, with exactly `keys` where they are given, of which some are `optional`."""
    if not isinstance(value, Mapping):
        raise BundleError(f"{what} is {_brief(value)}, wanted an object: {_EXPORT_AGAIN}")
    if keys is not None and (unknown := sorted(value.keys() - keys)):
        raise BundleError(
            f"{what} has the unknown key {unknown[0]!r}, wanted {', '.join(sorted(keys))}: {_EXPORT_AGAIN}"
        )
    if keys is not None and (missing := sorted(keys - optional - value.keys())):
        raise BundleError(f"{what} lacks the key {missing[0]!r}: {_EXPORT_AGAIN}")
    return value


def _number(what: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise BundleError(f"{what} is {_brief(value)}, wanted a number: {_EXPORT_AGAIN}")
    return float(value)


def _list(what: str, value: object) -> list[Any]:
    if not isinstance(value, list):
        raise BundleError(f"{what} is {_brief(value)}, wanted a list: {_EXPORT_AGAIN}")
    return value


def _text(what: str, value: object) -> str:
    if not isinstance(value, str) or not value:
        raise BundleError(f"{what} is {_brief(value)}, wanted text: {_EXPORT_AGAIN}")
    return value


def _count(what: str, value: object) -> int:
    if type(value) is not int or value < 0:
        raise BundleError(f"{what} has {_brief(value)}, wanted a whole number from 0: {_EXPORT_AGAIN}")
    return value


def _one_of(what: str, value: object, known: Collection[str]) -> str:
    text = _text(what, value)
    if text not in known:
        raise BundleError(f"{what} is {_brief(text)}, wanted one of {', '.join(known)}: {_EXPORT_AGAIN}")
    return text


def _brief(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:59]}…"
