"""`edgeasr lm`: language models made of text, put into bundles and weighed on speech."""

from __future__ import annotations

import json as jsonlib
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgeasr.cli.source_options import Licences, Sources, sources_of
from edgeasr.cli.terminal import StatusLine, print_note, write_out
from edgeasr.wording import counted

if TYPE_CHECKING:
    from edgeasr.lm_tuning import Trial

_TOLD_EVERY = 1000
_FEW_UTTERANCES = 100

lm = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Language models: build, add to a bundle, tune.")

Bundle = Annotated[Path, typer.Argument(metavar="BUNDLE", help="Folder or .edgeasr file; the model stays as it is.")]
Output = Annotated[
    Path | None, typer.Option(metavar="BUNDLE", help="Where to write the new bundle instead of in the old one's place.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


@lm.command()
def text(
    sources: Annotated[
        list[Path],
        typer.Argument(
            metavar="SOURCE...", help="Dumps of Wikipedia's articles, .xml or .xml.bz2, or the folder of WordNet."
        ),
    ],
    output: Annotated[Path, typer.Option(metavar="FILE", help="The text to write, one sentence a line.")],
) -> None:
    """Take sentences out of what others publish, in the form of transcripts, for `edgeasr lm build`.

    Needs edgeasr[text].
    """
    from edgeasr.cli.destinations import require_new_file
    from edgeasr.corpora.texts import sentences

    require_new_file(output, sources, "--output")
    texts = [sentences(source) for source in sources]
    count = words = 0
    partial = output.with_name(output.name + ".partial")
    try:
        with StatusLine(sys.stderr) as status, partial.open("w", encoding="utf-8") as file:
            for source, said in zip(sources, texts, strict=True):
                for sentence in said:
                    file.write(sentence + "\n")
                    count, words = count + 1, words + len(sentence.split())
                    if count % _TOLD_EVERY == 0:
                        status.show(f"{source.name}: {count:,} sentences")
        partial.replace(output)
    finally:
        partial.unlink(missing_ok=True)
    write_out(f"Wrote {output}: {count:,} sentences, {words:,} words\n")


@lm.command()
def build(
    texts: Annotated[
        list[Path], typer.Argument(metavar="TEXT...", help="Sentences, one a line, in UTF-8; also .gz, .bz2 and .xz.")
    ],
    output: Annotated[Path, typer.Option(metavar="FILE", help="The file to write, such as books.lm.")],
    order: Annotated[int, typer.Option(min=1, max=4, help="Words in the longest n-grams.")] = 3,
    dictionary: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Pronunciations, as in the CMU dictionary; otherwise those of the bundled model's words.",
        ),
    ] = None,
    frequencies: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Words and how often each is said, one a line: for the vocabulary, and words without a history.",
        ),
    ] = None,
    max_words: Annotated[int, typer.Option(min=1, help="Vocabulary: the most frequent words.")] = 60_000,
    max_ngrams: Annotated[
        int, typer.Option(min=1, help="Prune to so many n-grams, of 2 to 3 bytes each in the file.")
    ] = 3_000_000,
    json: Json = False,
) -> None:
    """Count a text into a language model, and prune it.

    Words that the dictionary has not are said by the rules of flite where it is installed, else never heard.

    Text is brought into the form of transcripts: lower case, no digits (spell numbers out first), no
    punctuation but apostrophes. Takes a minute and 1 GB of memory for ten million words.
    """
    from edgeasr.bundle_language_model import bundled_dictionary
    from edgeasr.cli.destinations import require_new_file
    from edgeasr.language_model_file import packed
    from edgeasr.letter_to_sound import completed
    from edgeasr.ngram_estimation import Frequencies, estimate, read_sentences
    from edgeasr.ngram_tables import SPECIAL_WORDS
    from edgeasr.phones import read_dictionary

    require_new_file(output, [*texts, *filter(None, [frequencies, dictionary])], "--output")
    began_s = time.monotonic()
    with StatusLine(sys.stderr) as status:
        status.show(f"counting {', '.join(map(str, texts))}")
        said_today = Frequencies.read(frequencies) if frequencies else None
        ngrams = estimate(
            read_sentences(texts), order=order, max_words=max_words, max_ngrams=max_ngrams, frequencies=said_today
        )
        status.show("looking up pronunciations")
        known = read_dictionary(dictionary) if dictionary else bundled_dictionary()
        said = completed(ngrams.words[len(SPECIAL_WORDS) :], known)
    unsaid = len(ngrams.words) - len(SPECIAL_WORDS) - len(said)
    if unsaid:
        print(f"{unsaid} words have no pronunciation and will not be heard: apt-get install flite", file=sys.stderr)
    content = packed(ngrams, said)
    output.write_bytes(content)
    report = {
        "file": str(output),
        "ngrams": [len(table.keys) for table in ngrams.tables],
        "unpronounced": unsaid,
        "bytes": len(content),
        "seconds": round(time.monotonic() - began_s, 1),
    }
    write_out(jsonlib.dumps(report) + "\n" if json else _built(report))


def _built(report: dict[str, Any]) -> str:
    numbers = ", ".join(f"{count:,} {n}-grams" for n, count in enumerate(report["ngrams"], 1))
    return f"Wrote {report['file']}: {numbers}, {report['bytes'] / 1e6:.2f} MB, in {report['seconds']:.0f} s\n"


@lm.command()
def add(
    bundle: Bundle,
    language_model: Annotated[Path, typer.Argument(metavar="FILE", help="What `edgeasr lm build` wrote.")],
    source: Sources,
    licence: Licences,
    output: Output = None,
) -> None:
    """Put a language model into a bundle, in the place of one that is there, whose weights are kept."""
    from edgeasr.bundle_language_model import add_language_model

    made = add_language_model(bundle, language_model, sources_of(source, licence), output or bundle)
    write_out(f"Wrote {made.path}; next: edgeasr lm tune {made.path} MANIFEST\n")


@lm.command()
def remove(bundle: Bundle, output: Output = None) -> None:
    """Take the language model out of a bundle."""
    from edgeasr.bundle_language_model import remove_language_model

    write_out(f"Wrote {remove_language_model(bundle, output or bundle).path}\n")


@lm.command()
def tune(
    bundle: Bundle,
    manifest: Annotated[Path, typer.Argument(metavar="MANIFEST", help="Speech with its text, not used for training.")],
    sample: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Only N utterances, spread evenly over the manifest.")
    ] = None,
    output: Output = None,
    json: Json = False,
) -> None:
    """Choose the weights of a bundle's language model on speech, and write them into the bundle.

    To do again for every new acoustic model: a better one wants to be trusted more. Needs edgeasr[evaluate].
    """
    from edgeasr.bundle_language_model import tune_bundle
    from edgeasr.manifest import read_manifest

    listed = read_manifest(manifest)
    count = min(sample or len(listed), len(listed))
    utterances = [listed[i * len(listed) // count] for i in range(count)]
    trials: list[Trial] = []
    if count < _FEW_UTTERANCES:
        print_note(f"{counted(count, 'utterance')} can hardly tell weights apart: take {_FEW_UTTERANCES} or more")

    def show(trial: Trial) -> None:
        trials.append(trial)
        if not json:
            write_out(_line(trial))

    with StatusLine(sys.stderr) as status:
        made, best = tune_bundle(bundle, utterances, output or bundle, show, status.show)
    if json:
        rows = [{**vars(trial.search), "wer": round(trial.errors.rate, 4)} for trial in trials]
        write_out(jsonlib.dumps({"bundle": str(made.path), "trials": rows}, allow_nan=False) + "\n")
    else:
        write_out(f"Wrote {made.path}, best:\n{_line(best)}")


def _line(trial: Trial) -> str:
    search = trial.search
    weights = f"lm_weight {search.lm_weight:.2f}  word_score {search.word_score:5.2f}  "
    return f"{weights}blank_penalty {search.blank_penalty:5.2f}  WER {trial.errors.rate:.4f}\n"
