"""Frames as the encoder hears them, kept in files that are read where they lie: more than memory holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray

from edgeasr.errors import BundleError
from edgeasr.train.checkpoint import load_tensors, save_tensors

Halves = NDArray[np.float16]

_ENCODER, _LOWER = "outputs", "lower"


class HeardRow(NamedTuple):
    """A recording, or a sentence, as the encoder hears it."""

    outputs: NDArray[Any]  # (T, C), of the encoder, behind its last norm
    labels: NDArray[np.int64]  # (T,) token ids: what begins in the frame, else the blank
    blanks: NDArray[Any]  # (T,) log-probability of the blank
    lower: NDArray[Any] | None = None  # (T, C), of the lower blocks, where it is to be kept


class FrameWriter:
    """Rows to files beside `path`, which is written last, by `finish`: a kill leaves no file of that name.

    A context manager; left without `finish`, nothing was written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.num_frames = 0
        self._labels: list[NDArray[np.int64]] = []
        self._blanks: list[NDArray[Any]] = []
        self._open: dict[str, IO[bytes]] = {}

    def __enter__(self) -> Self:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for file in self._open.values():
            file.close()

    def add(self, row: HeardRow) -> None:
        """Write a row behind those before it. raises: OSError"""
        self._append(_ENCODER, row.outputs)
        if row.lower is not None:
            self._append(_LOWER, row.lower)
        self._labels.append(row.labels)
        self._blanks.append(row.blanks)
        self.num_frames += len(row.labels)

    def finish(self, width: int, **more: NDArray[Any]) -> None:
        """Put everything in its place. width: C; more: arrays to keep with the rows. raises: OSError"""
        for part, file in self._open.items():
            file.close()
            _partial(self.path, part).replace(_beside(self.path, part))
        arrays = {
            "labels": _joined(self._labels, np.int16),
            "blanks": _joined(self._blanks, np.float16),
            "ends": np.cumsum([len(labels) for labels in self._labels], dtype=np.int64),
            **more,
        }
        tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
        save_tensors(self.path, tensors, {"width": str(width)})

    def _append(self, part: str, frames: NDArray[Any]) -> None:
        if part not in self._open:
            self._open[part] = _partial(self.path, part).open("wb")
        self._open[part].write(np.ascontiguousarray(frames, np.float16).tobytes())


@dataclass(frozen=True)
class FrameFile:
    """Rows that `FrameWriter` wrote; N frames in all, of R rows.

    ends: (R,) one behind the last frame of each row
    more: the arrays that were kept with the rows
    """

    path: Path
    width: int
    labels: NDArray[np.int16]  # (N,)
    blanks: Halves  # (N,)
    ends: NDArray[np.int64]
    more: Mapping[str, NDArray[Any]]

    @classmethod
    def load(cls, path: Path) -> FrameFile:
        """raises: BundleError for a file that is missing, damaged or of another kind"""
        tensors, metadata = load_tensors(path)
        arrays: dict[str, NDArray[Any]] = {name: tensor.numpy() for name, tensor in tensors.items()}
        try:
            given = {name: arrays.pop(name) for name in ("labels", "blanks", "ends")}
            return cls(path, int(metadata["width"]), **given, more=arrays)
        except (KeyError, ValueError) as error:
            raise BundleError(f"{path} holds no frames ({error}): delete it, and it is made again") from error

    @property
    def starts(self) -> NDArray[np.int64]:
        """The first frame of each row, (R,)."""
        return np.concatenate([np.zeros(1, np.int64), self.ends[:-1]])[: len(self.ends)]

    def outputs(self) -> Halves:
        """Those of the encoder, (N, C), mapped. raises: BundleError where the file beside is not whole"""
        return self._mapped(_ENCODER)

    def lower(self) -> Halves:
        """Those of the lower blocks, (N, C), mapped. raises: as `outputs`"""
        return self._mapped(_LOWER)

    def _mapped(self, part: str) -> Halves:
        path, shape = _beside(self.path, part), (len(self.labels), self.width)
        if not len(self.labels):
            return np.zeros(shape, np.float16)
        size = path.stat().st_size if path.is_file() else 0
        if size != (wanted := 2 * shape[0] * shape[1]):
            raise BundleError(f"{path} has {size} bytes, wanted {wanted}: delete {self.path}, and both are made again")
        return np.asarray(np.memmap(path, np.float16, mode="r", shape=shape))


def _joined(parts: Sequence[NDArray[Any]], kind: type[np.generic]) -> NDArray[Any]:
    return np.concatenate([np.zeros(0, kind), *(part.astype(kind) for part in parts)])


def _beside(path: Path, part: str) -> Path:
    return path.with_name(f"{path.stem}.{part}.f16")


def _partial(path: Path, part: str) -> Path:
    return path.with_name(f"{path.stem}.{part}.f16.partial")
