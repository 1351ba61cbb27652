"""Speech data sets of Hugging Face, streamed with the package datasets (extra `corpora`)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from edgeasr.corpora.source import Found, LeftOut, Source
from edgeasr.errors import ExtraMissingError, ManifestError

PREFIX = "hf:"
_TEXTS = ("text", "sentence", "transcription", "transcript", "normalized_text")
_SPEAKERS = ("speaker_id", "client_id", "speaker")
_IDS = ("id", "segment_id", "file", "path")


def hugging_face(spec: str, text_column: str | None = None) -> Source:
    """The rows of hf:NAME:SPLIT or hf:NAME:CONFIG:SPLIT, as they come; NAME may be a folder here.

    raises: ManifestError for another form, a data set that cannot be opened, and one without audio or text;
        ExtraMissingError without the package
    """
    name, config, split = _parsed(spec)
    try:
        import datasets
    except ModuleNotFoundError as error:
        raise ExtraMissingError(
            "got no package datasets, wanted what edgeasr[corpora] brings: pip install edgeasr[corpora]"
        ) from error
    try:
        rows = datasets.load_dataset(name, config, split=split, streaming=True)
        columns = dict(rows.features or {})
        audio = _audio_column(columns, datasets.Audio, spec)
        # The file as it is: decoding is ours, and the package's wants torchcodec.
        rows = rows.cast_column(audio, datasets.Audio(decode=False))
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise ManifestError(f"cannot open {spec}: {error}: check its name, configuration and split") from error
    yield from _utterances(rows, audio, _named(columns, text_column, spec), spec)


def _parsed(spec: str) -> tuple[str, str | None, str]:
    parts = spec.removeprefix(PREFIX).split(":")
    if len(parts) not in (2, 3) or not all(parts):
        raise ManifestError(f"got {spec}, wanted hf:NAME:SPLIT or hf:NAME:CONFIG:SPLIT: say which split to read")
    return parts[0], parts[1] if len(parts) == 3 else None, parts[-1]


def _audio_column(columns: Mapping[str, Any], kind: type, spec: str) -> str:
    found = [name for name, feature in columns.items() if isinstance(feature, kind)]
    if len(found) != 1:
        raise ManifestError(
            f"{spec} has {len(found)} columns of audio among {', '.join(columns) or 'none'}: "
            "give a data set that has one"
        )
    return found[0]


def _named(columns: Iterable[str], text_column: str | None, spec: str) -> str:
    wanted = (text_column,) if text_column else _TEXTS
    columns = list(columns)
    if text := _first(wanted, columns):
        return text
    raise ManifestError(
        f"{spec} has the columns {', '.join(columns)}, none of them {' or '.join(wanted)}: name it with --text-column"
    )


def _first(wanted: Sequence[str], columns: Iterable[str]) -> str:
    present = set(columns)
    return next((name for name in wanted if name in present), "")


def _utterances(rows: Iterable[Mapping[str, Any]], audio: str, text: str, spec: str) -> Source:
    title = spec.removeprefix(PREFIX)
    for number, row in enumerate(_read(rows, spec)):
        name = str(row.get(_first(_IDS, row)) or f"{spec}, row {number}")
        held, words = row[audio] or {}, row[text]
        speaker = row.get(_first(_SPEAKERS, row))
        content, path = held.get("bytes"), held.get("path")
        if words is None:
            yield LeftOut(name, "no text")
        elif not content and not (path and Path(path).is_file()):
            yield LeftOut(name, "no audio")
        else:
            said_by = "" if speaker is None else f"{title.split(':')[0]}/{speaker}"
            yield Found(name, content or Path(str(path)), str(words), said_by, title)


def _read(rows: Iterable[Mapping[str, Any]], spec: str) -> Iterable[Mapping[str, Any]]:
    """The rows, up to where a file is damaged or a server does not answer."""
    try:
        yield from rows
    except (OSError, ValueError) as error:
        raise ManifestError(f"cannot read {spec} any further: {error}: try again later") from error
