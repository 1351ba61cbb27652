"""Pieces of words to recognise: found in the texts of manifests by byte-pair encoding, with sentencepiece.

    python -m edgeasr.train.pieces train.jsonl --size 500 --output pieces.tokens

The file has a token a line, in the order in which they are joined; a space at the beginning is part of the piece.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

from edgeasr.errors import ConfigError
from edgeasr.manifest import read_manifest
from edgeasr.tokenizer import BLANK, SPACE, Tokenizer, normalize_text

_SPACE_OF_SENTENCEPIECE = "\u2581"


def find_pieces(texts: Iterable[str], size: int) -> Tokenizer:
    """Tokens for plain texts: the blank, pieces and characters, `size` in all.

    raises: ConfigError without sentencepiece, or for a size that the texts cannot give
    """
    try:
        import sentencepiece
    except ImportError as error:
        raise ConfigError("sentencepiece is not installed: pip install 'edgeasr[train]'") from error
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(texts),
            model_writer=model,
            vocab_size=size,
            model_type="bpe",
            character_coverage=1.0,
            normalization_rule_name="identity",
            unk_id=0,
            bos_id=-1,
            eos_id=-1,
            pad_id=-1,
            num_threads=1,
            minloglevel=2,
        )
    except RuntimeError as error:
        raise ConfigError(f"cannot find {size} pieces in these texts ({error}): ask for another number") from error
    found = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    pieces = (found.id_to_piece(i).replace(_SPACE_OF_SENTENCEPIECE, SPACE) for i in range(1, size))
    return Tokenizer((BLANK, *pieces))


def write_tokens(path: Path, tokenizer: Tokenizer) -> None:
    """A token a line, the blank left out."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{token}\n" for token in tokenizer.tokens[1:]), encoding="utf-8")


def read_tokens(path: Path) -> Tokenizer:
    """Tokens of a file that `write_tokens` wrote. raises: ConfigError for a file that cannot be read, or is none"""
    try:
        return Tokenizer((BLANK, *path.read_text(encoding="utf-8").splitlines()))
    except (OSError, UnicodeDecodeError, ConfigError) as error:
        raise ConfigError(f"cannot use the tokens of {path}: {error}") from error


def pieces_of_manifests(manifests: Sequence[Path], size: int, output: Path) -> None:
    """Write the pieces of the texts of manifests. raises: ConfigError, ManifestError"""
    texts = [normalize_text(u.text) for path in manifests for u in read_manifest(path)]
    write_tokens(output, find_pieces([text for text in texts if text], size))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("manifests", type=Path, nargs="+")
    parser.add_argument("--size", type=int, default=500, help="tokens, the blank among them; %(default)s")
    parser.add_argument("--output", type=Path, required=True)
    given = parser.parse_args()
    pieces_of_manifests(given.manifests, given.size, given.output)


if __name__ == "__main__":
    main()
