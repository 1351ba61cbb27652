"""Files and folders that are written after a long run, tried before it."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import typer


def require_file(path: Path, option: str) -> None:
    """A file that is there stays as it is, another is made and taken away again, since permissions alone do not tell
    of a read-only disk. errors: a usage error of the option where it cannot be written"""
    is_new = not (path.exists() or path.is_symlink())
    try:
        with path.open("ab"):
            pass
        if is_new:
            path.unlink()
    except OSError as error:
        raise _refused(error, path, option, "a file in a folder that is there and may be written to") from error


def require_new_file(path: Path, inputs: Sequence[Path], option: str) -> None:
    """As `require_file`. errors: a usage error, too, for what is read to make it, and for what is no file"""
    if any(path.exists() and one.exists() and path.samefile(one) for one in inputs):
        raise typer.BadParameter(f"got {path}, which is read, too: name another file", param_hint=f"'{option}'")
    if path.exists() and not path.is_file():
        raise typer.BadParameter(f"got {path}, wanted a file: name one", param_hint=f"'{option}'")
    require_file(path, option)


def require_folder(path: Path, option: str) -> None:
    """Made where it is not there. errors: a usage error of the option where no file can be made in it"""
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise _refused(error, path, option, "a folder that may be written to") from error


def _refused(error: OSError, path: Path, option: str, wanted: str) -> typer.BadParameter:
    return typer.BadParameter(f"cannot write {path} ({error.strerror}): name {wanted}", param_hint=f"'{option}'")
