"""Complete a pronunciation dictionary for the words of manifests by the letter-to-sound rules of flite.

python -m edgeasr.train.pronunciations cmudict.dict train.jsonl --output words.dict
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from edgeasr.letter_to_sound import letters_to_sounds
from edgeasr.manifest import read_manifest
from edgeasr.phones import missing_words, read_dictionary
from edgeasr.tokenizer import normalize_text


def complete(dictionary: Path, manifests: Sequence[Path], output: Path) -> int:
    """Write the dictionary with the missing words of the manifests behind it. returns: how many were missing

    raises: ConfigError, ManifestError
    """
    texts = (normalize_text(u.text) for path in manifests for u in read_manifest(path))
    missing = missing_words(texts, read_dictionary(dictionary))
    said = letters_to_sounds(missing)
    # A lone apostrophe says nothing; the neutral vowel keeps it a word.
    lines = [f"{word} {' '.join(said.get(word, ('AX',)))}\n" for word in missing]
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(dictionary.read_text(encoding="utf-8").rstrip("\n") + "\n" + "".join(lines), encoding="utf-8")
    return len(missing)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("dictionary", type=Path, help="in the format of the CMU dictionary")
    parser.add_argument("manifests", type=Path, nargs="+")
    parser.add_argument("--output", type=Path, required=True)
    given = parser.parse_args()
    count = complete(given.dictionary, given.manifests, given.output)
    print(f"{count} words added to {given.output}")  # noqa: T201 - a command line


if __name__ == "__main__":
    main()
