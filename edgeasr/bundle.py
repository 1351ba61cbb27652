"""Model bundles: a folder, or the same files in a `.edgeasr` zip, whose manifest accounts for every byte.

    manifest.json      config, tokens, signature, training data and licences, WER, SHA-256 of every other file
    step.int8.onnx     the files of the artefacts, named by the manifest and never guessed
    ...

Loading checks all of it and raises BundleError for the first thing amiss; nothing is unpickled or extracted.
"""

from __future__ import annotations

import errno
import hashlib
import json
import struct
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from edgeasr.bundle_manifest import (
    FORMAT_VERSION,
    MANIFEST_NAME,
    BundleManifest,
    FileRecord,
    parse_manifest,
    plain_name,
)
from edgeasr.errors import BundleError, ConfigError

if TYPE_CHECKING:
    import zipfile

ARCHIVE_SUFFIX = ".edgeasr"

_SHIPPED_MODELS = Path(__file__).parent / "models"
_MAX_MANIFEST_BYTES = 1 << 20
_MAX_CHECKPOINT_HEAD = 1 << 27
_FETCH_AGAIN = "the bundle is damaged, fetch or export it again"
# Beside zipfile's own.
_ZIP_ERRORS = (zlib.error, struct.error, EOFError, RuntimeError, ValueError, OverflowError)


@dataclass(frozen=True, kw_only=True)
class Bundle(BundleManifest):
    """A manifest whose files were found to be what it says, and where they lie."""

    path: Path

    @classmethod
    def load(cls, path: str | Path) -> Bundle:
        """Read and check a bundle. Errors: BundleError, in one line that names the path."""
        path = Path(path)
        with _bundle_errors(path):
            storage = _open_storage(path)
            manifest = parse_manifest(_read_manifest(storage))
            _check_files(storage, manifest.files)
        return cls(**vars(manifest), path=path)

    def content(self, name: str) -> bytes:
        """One of the files. Errors: BundleError where it cannot be read any more"""
        with _bundle_errors(self.path):
            return _open_storage(self.path).read(name)

    def artefact(self, kind: str | None = None) -> dict[str, Path | bytes]:
        """The parts of one artefact: paths in a folder, contents in a zip.

        kind:   a key of `artefacts`; None is the default one
        errors: BundleError for another kind
        """
        kind = kind or self.default_artefact
        with _bundle_errors(self.path):
            if kind not in self.artefacts:
                known = ", ".join(sorted(self.artefacts))
                raise BundleError(f"got artefact {kind!r}, wanted one of {known}: choose one or export {kind!r}")
            storage = _open_storage(self.path)
            return {part: storage.loadable(name) for part, name in self.artefacts[kind].items()}


def replace_in_bundle(
    path: str | Path, output: str | Path, changes: Mapping[str, Any], files: Mapping[str, Path | bytes]
) -> Bundle:
    """Write a bundle again with some keys of its manifest changed and some files added or replaced.

    changes: new values; None takes a key out
    output:  where to; may be `path`
    errors:  BundleError as for `Bundle.load` and `write_bundle`
    """
    bundle = Bundle.load(path)
    with _bundle_errors(bundle.path):
        storage = _open_storage(bundle.path)
        manifest = cast(dict[str, Any], _read_manifest(storage))
        contents: dict[str, Path | bytes] = {name: storage.read(name) for name in bundle.files}
    del manifest["files"]
    unnamed = bundle.files.keys() - _named(manifest)  # a script, say, that goes with the rest
    manifest = {key: value for key, value in {**manifest, **changes}.items() if value is not None}
    contents |= files
    kept = _named(manifest) | unnamed
    return write_bundle(output, manifest, {name: contents[name] for name in contents if name in kept})


def _named(manifest: Mapping[str, Any]) -> set[str]:
    """The files that a manifest speaks of."""
    names = {name for parts in manifest["artefacts"].values() for name in parts.values()}
    return names | {entry["file"] for key in ("language_model", "transducer") if (entry := manifest.get(key))}


def default_bundle() -> Path:
    """The folder of the model that ships with this package. Errors: BundleError unless there is one."""
    folders = sorted(manifest.parent for manifest in _SHIPPED_MODELS.glob(f"*/{MANIFEST_NAME}"))
    if len(folders) != 1:
        raise BundleError(
            f"got {len(folders)} bundles in {_SHIPPED_MODELS}, wanted one: install edgeasr again or name a bundle"
        )
    return folders[0]


def write_bundle(path: str | Path, manifest: Mapping[str, Any], files: Mapping[str, Path | bytes]) -> Bundle:
    """Check a new bundle, write it beside `path` and only then put it in the place of one that is there.

    path:     the folder to make, or a file whose name ends in .edgeasr
    manifest: JSON values; `format_version` and `files` are computed here
    files:    file name -> its content, or the file to copy
    errors:   BundleError for what `Bundle.load` would refuse, and for a path where something else is
    """
    path = Path(path).resolve()
    with _bundle_errors(path):
        if not _may_replace(path):
            raise BundleError("got a path where something else is, wanted a new one or a bundle: choose another")
        contents = {name: file if isinstance(file, bytes) else file.read_bytes() for name, file in files.items()}
        text = _manifest_text(manifest, contents)
        parsed = parse_manifest(json.loads(text))
        _put_in_place(path, {MANIFEST_NAME: text.encode(), **contents})
    return Bundle(**vars(parsed), path=path)


def _manifest_text(manifest: Mapping[str, Any], contents: Mapping[str, bytes]) -> str:
    records = {
        name: {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
        for name, content in sorted(contents.items())
    }
    return json.dumps({"format_version": FORMAT_VERSION, **manifest, "files": records}, indent=1)


def _may_replace(path: Path) -> bool:
    if not path.exists():
        return True
    if path.suffix == ARCHIVE_SUFFIX:
        return path.is_file()
    return path.is_dir() and ((path / MANIFEST_NAME).is_file() or not any(path.iterdir()))


def _put_in_place(path: Path, contents: Mapping[str, bytes]) -> None:
    """A reader sees the old bundle, the new one or (between two renames of folders) none, never a mixture."""
    import tempfile
    import zipfile

    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".edgeasr-", dir=path.parent) as staging:
        staged = Path(staging, path.name)
        if path.suffix == ARCHIVE_SUFFIX:
            with zipfile.ZipFile(staged, "w", zipfile.ZIP_DEFLATED) as archive:
                for name, content in contents.items():
                    archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
        else:
            staged.mkdir()
            for name, content in contents.items():
                (staged / name).write_bytes(content)
            if path.exists():
                path.rename(Path(staging, f"{path.name}.replaced"))
        staged.replace(path)


@contextmanager
def _bundle_errors(path: Path) -> Iterator[None]:
    """Make whatever a file can cause a BundleError that names the bundle."""
    try:
        yield
    except (BundleError, ConfigError) as error:
        raise BundleError(f"bundle {path}: {error}") from error
    except OSError as error:
        mend = "make room on its disk" if error.errno == errno.ENOSPC else "check the path and its rights"
        raise BundleError(f"bundle {path}: {error.strerror or error}: {mend}") from error


class _Storage(Protocol):
    """Where the files of a bundle lie."""

    def sizes(self) -> dict[str, int]:
        """Name and size in bytes of every file there."""

    def read(self, name: str) -> bytes:
        """The content of one file."""

    def sha256(self, name: str) -> str:
        """The hash of one file, read in pieces."""

    def loadable(self, name: str) -> Path | bytes:
        """One file in the form in which runtimes take it."""


class _Folder:
    def __init__(self, path: Path) -> None:
        self._path = path

    def sizes(self) -> dict[str, int]:
        entries = [entry for entry in self._path.iterdir() if not entry.name.startswith(".")]
        for entry in entries:
            if not entry.is_file():
                raise BundleError(f"got {entry.name!r}, which is no plain file, wanted only files: take it out")
        return {entry.name: entry.stat().st_size for entry in entries}

    def read(self, name: str) -> bytes:
        return self.loadable(name).read_bytes()

    def sha256(self, name: str) -> str:
        with self.loadable(name).open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()

    def loadable(self, name: str) -> Path:
        return self._path / name


class _Archive:
    def __init__(self, path: Path) -> None:
        self._path = path

    def sizes(self) -> dict[str, int]:
        with self._opened() as archive:
            entries = archive.infolist()
        sizes = {plain_name("a file of the zip", entry.filename): entry.file_size for entry in entries}
        if len(sizes) != len(entries):
            raise BundleError(f"got {len(entries)} files of {len(sizes)} names, wanted each once: {_FETCH_AGAIN}")
        return sizes

    def read(self, name: str) -> bytes:
        with self._opened() as archive:
            return archive.read(name)

    def sha256(self, name: str) -> str:
        with self._opened() as archive, archive.open(name) as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()  # type: ignore[arg-type]

    def loadable(self, name: str) -> bytes:
        return self.read(name)

    @contextmanager
    def _opened(self) -> Iterator[zipfile.ZipFile]:
        """The open zip; what zipfile raises for a damaged, encrypted or unknown kind is a BundleError."""
        import zipfile  # most bundles are folders, and it takes half a megabyte

        try:
            with zipfile.ZipFile(self._path) as archive:
                yield archive
        except (zipfile.BadZipFile, *_ZIP_ERRORS) as error:
            raise BundleError(f"the zip cannot be read ({error}): {_FETCH_AGAIN}") from error


def _open_storage(path: Path) -> _Storage:
    if path.is_dir():
        return _Folder(path)
    if path.is_file():
        if _is_checkpoint(path):
            raise BundleError(
                "got a checkpoint of training, wanted a bundle: make one of it with "
                f"`edgeasr export {path} --output {path.with_suffix(ARCHIVE_SUFFIX).name}`"
            )
        return _Archive(path)
    raise BundleError(f"got a path without a file, wanted a folder or a {ARCHIVE_SUFFIX} file: check the path")


def _is_checkpoint(path: Path) -> bool:
    """Whether a file begins as safetensors do: with the length of a description in JSON, and that."""
    with path.open("rb") as file:
        head = file.read(9)
    return head[8:] == b"{" and int.from_bytes(head[:8], "little") <= _MAX_CHECKPOINT_HEAD


def _read_manifest(storage: _Storage) -> object:
    size = storage.sizes().get(MANIFEST_NAME)
    if size is None:
        raise BundleError(f"got no {MANIFEST_NAME}, wanted one beside the artefacts: name a bundle")
    if size > _MAX_MANIFEST_BYTES:
        raise BundleError(f"{MANIFEST_NAME} has {size} bytes, wanted {_MAX_MANIFEST_BYTES} at most: {_FETCH_AGAIN}")
    content = storage.read(MANIFEST_NAME)
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{MANIFEST_NAME} is no JSON ({error}): {_FETCH_AGAIN}") from error


def _check_files(storage: _Storage, records: Mapping[str, FileRecord]) -> None:
    """Every file as the manifest has it, and no other."""
    sizes = storage.sizes()
    del sizes[MANIFEST_NAME]
    if missing := sorted(records.keys() - sizes.keys()):
        raise BundleError(f"{missing[0]} of the manifest is missing: {_FETCH_AGAIN}")
    if extra := sorted(sizes.keys() - records.keys()):
        raise BundleError(f"got {extra[0]!r}, wanted only the files of the manifest: take it out")
    for name, record in records.items():
        if sizes[name] != record.size_bytes:
            raise BundleError(f"{name} has {sizes[name]} bytes, wanted {record.size_bytes}: {_FETCH_AGAIN}")
        found = storage.sha256(name)
        if found != record.sha256:
            raise BundleError(f"{name} has SHA-256 {found[:12]}…, wanted {record.sha256[:12]}…: {_FETCH_AGAIN}")
