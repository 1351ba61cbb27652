"""A transducer in a bundle: put in, taken out."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgeasr.array_files import refuse_other_kind
from edgeasr.bundle import Bundle, replace_in_bundle
from edgeasr.errors import BundleError
from edgeasr.transducer import Transducer

_HASH_CHARS = 8


def add_transducer(path: Path, file: Path, sources: Sequence[Mapping[str, Any]], output: Path) -> Bundle:
    """Put a transducer's file into a bundle; one that is there is replaced.

    sources: name and licence of each of what taught it
    errors:  BundleError for a bundle or a file that is missing or damaged, and for a transducer of other tokens
    """
    bundle = Bundle.load(path)
    refuse_other_kind(file, "transducer")
    try:
        content = file.read_bytes()
    except OSError as error:
        raise BundleError(f"cannot read the transducer {file}: {error}: name a file that training wrote") from error
    transducer = Transducer.unpacked(content, file.name)
    if transducer.vocabulary_size != len(bundle.tokens):
        raise BundleError(
            f"{file} is a transducer of {transducer.vocabulary_size} tokens, bundle {path} has {len(bundle.tokens)}: "
            "take one that was trained with the bundle's checkpoint"
        )
    name = f"transducer.{hashlib.sha256(content).hexdigest()[:_HASH_CHARS]}.npz"
    entry = {"file": name, "sources": [dict(source) for source in sources]}
    return replace_in_bundle(path, output, {"transducer": entry}, {name: content})


def remove_transducer(path: Path, output: Path) -> Bundle:
    """The bundle without its transducer. errors: BundleError for one that has none"""
    if Bundle.load(path).transducer is None:
        raise BundleError(f"bundle {path} has no transducer: nothing was taken out")
    return replace_in_bundle(path, output, {"transducer": None}, {})
