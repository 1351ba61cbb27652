"""Files of a bundle that are zips of arrays (npz, nothing pickled)."""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from edgeasr.errors import BundleError

Arrays = Mapping[str, NDArray[Any]]
T = TypeVar("T")

# Beside zipfile's own.
_FILE_ERRORS = (
    zlib.error,
    ArithmeticError,  # of numbers and shapes that no file of ours has
    EOFError,
    LookupError,
    OSError,
    RuntimeError,  # zipfile's, for what it cannot unpack
    TypeError,
    ValueError,
)

# An array that only files of this kind have, and the command that puts them into bundles.
_KINDS = {
    "language model": ("said_words", "edgeasr lm add"),
    "transducer": ("predictor", "edgeasr transducer add"),
}


def refuse_other_kind(file: Path, wanted: str) -> None:
    """Before a file is read that a user named. What cannot be read, or is of no kind, is left to `read_arrays`.

    wanted: "language model" or "transducer"
    errors: BundleError for a file of the other kind
    """
    import zipfile  # see below

    try:
        with zipfile.ZipFile(file) as arrays:
            names = arrays.namelist()
    except (zipfile.BadZipFile, *_FILE_ERRORS):
        return
    for kind, (array, command) in _KINDS.items():
        if kind != wanted and f"{array}.npy" in names:
            raise BundleError(f"{file} is a {kind}, wanted a {wanted}: put it into a bundle with `{command}`")


def read_arrays(content: bytes, check: Callable[[Arrays], T], *, name: str, writer: str, mend: str) -> T:
    """What `check` makes of the arrays in a file.

    check:  raises LookupError, TypeError or ValueError for arrays that are not what it wants
    name:   what errors call the file; writer, mend: who writes such files, and what to do about one that is none
    errors: BundleError for one that is damaged or something else
    """
    import lzma
    import zipfile  # of the shipped bundle only greedy decoding reads such a file, and it takes a quarter of a megabyte

    if not zipfile.is_zipfile(io.BytesIO(content)):
        raise BundleError(f"{name}: not a file that {writer} wrote: {mend}")
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            return check(arrays)
    except (zipfile.BadZipFile, lzma.LZMAError, *_FILE_ERRORS) as error:
        raise BundleError(f"{name}: no readable model ({error}): {mend}") from error


def packed_arrays(arrays: Arrays) -> bytes:
    """A file of arrays; the same arrays give the same bytes.

    Its LZMA makes language models an eighth smaller than the deflate of `np.savez_compressed`.
    """
    import zipfile  # see above

    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_LZMA) as file:
        for name, array in arrays.items():
            one = io.BytesIO()
            np.save(one, array, allow_pickle=False)
            file.writestr(zipfile.ZipInfo(f"{name}.npy"), one.getvalue(), zipfile.ZIP_LZMA)
    return stream.getvalue()
