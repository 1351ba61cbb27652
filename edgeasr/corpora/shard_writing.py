"""Shards written of a source, and the index of shards that others wrote."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path

import soundfile

from edgeasr.corpora.checking import Checked, audio_file, plain_text
from edgeasr.corpora.importing import Tally, Watch, accepted
from edgeasr.corpora.shards import INDEX, Sample, Shard, open_shard, read_samples, write_index
from edgeasr.corpora.source import LeftOut, Source
from edgeasr.errors import ManifestError

_TAR_ALIGN = 512


def write_shards(source: Source, folder: Path, shard_mb: int, watch: Watch | None = None) -> Tally:
    """Write what can be trained on of a source into a folder: shards of up to shard_mb megabytes, and their index.

    The audio is decoded once, so that a damaged file is left out here. The index is written last: without it the
    folder is not finished.
    raises: ManifestError where nothing can be used, or the folder has shards
    """
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / INDEX).exists():
        raise ManifestError(f"the folder {folder} has shards: give another --output, or delete it")
    tally = Tally()
    writer = _Writer(folder, shard_mb * 1_000_000)
    try:
        for utterance in accepted(source, tally, None):
            written = audio_file(utterance)
            if isinstance(written, LeftOut):
                tally.leave(written, None)
                continue
            writer.add(utterance, *written)
            tally.take(utterance.duration_s)
            if watch:
                watch(tally)
        tally.require_some()
        writer.finish()
    finally:
        writer.abandon()
    return tally


class _Writer:
    """Shards that are written one after another."""

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        self._folder, self._limit_bytes = folder, limit_bytes
        self._shards: list[Shard] = []
        self._words: set[str] = set()
        self._archive: tarfile.TarFile | None = None
        self._count = 0
        self._durations_s: list[float] = []
        self._text_bytes: list[int] = []

    def add(self, utterance: Checked, audio: bytes, suffix: str) -> None:
        said = {"text": utterance.text, "duration": round(utterance.duration_s, 4)}
        said |= {"speaker": utterance.found.speaker, "source": utterance.found.source}
        described = json.dumps(said).encode()
        size = sum(_in_tar(len(content)) for content in (audio, described))
        if self._archive and self._archive.offset + size > self._limit_bytes:
            self._close(self._archive)
        if self._archive is None:
            self._archive = tarfile.open(self._partial, "w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115 - closed below
        name = f"{self._count:09d}"
        for content, kind in ((audio, suffix), (described, "json")):
            member = tarfile.TarInfo(f"{name}.{kind}")
            member.size, member.mode = len(content), 0o644
            self._archive.addfile(member, io.BytesIO(content))
        self._count += 1
        self._durations_s.append(round(utterance.duration_s, 4))
        self._text_bytes.append(len(utterance.text.encode()))
        self._words.update(utterance.text.split())

    @property
    def _partial(self) -> Path:
        return self._folder / f"shard-{len(self._shards):06d}.tar.partial"

    def _close(self, archive: tarfile.TarFile) -> None:
        archive.close()
        self._archive, partial = None, self._partial
        path = partial.with_suffix("")
        size, digest = _size_and_hash(partial)
        partial.replace(path)
        self._shards.append(Shard(path, size, digest, tuple(self._durations_s), tuple(self._text_bytes)))
        self._durations_s, self._text_bytes = [], []

    def finish(self) -> None:
        if self._archive:
            self._close(self._archive)
        write_index(self._folder, self._shards, self._words)

    def abandon(self) -> None:
        if self._archive:
            self._archive.close()
            self._partial.unlink(missing_ok=True)


def _in_tar(size: int) -> int:
    return _TAR_ALIGN + -(-size // _TAR_ALIGN) * _TAR_ALIGN


def _size_and_hash(path: Path) -> tuple[int, str]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return path.stat().st_size, digest


def index_shards(folder: Path, watch: Watch | None = None) -> Tally:
    """Index shards that others wrote: the .tar files of a folder, each read from start to end.

    raises: ManifestError for a damaged shard, and a sample that cannot be trained on, by name
    """
    paths = sorted(folder.glob("*.tar"))
    if not paths:
        raise ManifestError(f"got no .tar files in {folder}, wanted shards: check the path")
    tally, shards, words = Tally(), [], set()
    for path in paths:
        durations_s, text_bytes = [], []
        with open_shard(path) as file:
            for sample in read_samples(file, path):
                durations_s.append(_duration_s(sample, path))
                text_bytes.append(len(sample.text.encode()))
                words.update(_plain(sample, path).split())
                tally.take(durations_s[-1])
                if watch:
                    watch(tally)
        shards.append(Shard(path, *_size_and_hash(path), tuple(durations_s), tuple(text_bytes)))
    tally.require_some()
    write_index(folder, shards, words)
    return tally


def _plain(sample: Sample, path: Path) -> str:
    text, reason = plain_text(sample.text)
    if reason:
        raise ManifestError(f"the sample {sample.name} of the shard {path} has {reason}: make the shard without it")
    return text


def _duration_s(sample: Sample, path: Path) -> float:
    try:
        info = soundfile.info(io.BytesIO(sample.audio))
    except soundfile.LibsndfileError as error:
        raise ManifestError(
            f"cannot read the audio of the sample {sample.name} of the shard {path}: {error}: make it without it"
        ) from error
    if not info.frames:
        raise ManifestError(f"the sample {sample.name} of the shard {path} has no samples: make the shard without it")
    return float(round(info.frames / info.samplerate, 4))
