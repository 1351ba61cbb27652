"""`edgeasr bench grammar`: commands and orders of grammars, spoken by synthetic voices, and speech that is none."""

from __future__ import annotations

import json as jsonlib
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from edgeasr.cli.options import Model, Threads
from edgeasr.cli.own_word_options import GrammarThreshold
from edgeasr.cli.terminal import StatusLine, write_out

_MANY = 300
_HOTWORDS = 1000


def grammar(
    manifest: Annotated[
        Path | None,
        typer.Argument(metavar="[MANIFEST]", help="Real speech that is none of the commands, such as dev.jsonl."),
    ] = None,
    per_voice: Annotated[
        int, typer.Option(min=1, metavar="N", help="Commands, orders and other sentences that each voice says.")
    ] = 20,
    folder: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Where recordings are kept for the next time.")
    ] = None,
    grammar_threshold: GrammarThreshold = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    model: Model = None,
    threads: Threads = 1,
) -> None:
    """How many sentences of a grammar are heard right, how much other speech is rejected, and how fast.

    200 commands of a home (edgeasr/grammars/home.jsgf) and orders of a hundred long alternatives, spoken by the voices
    of flite and espeak-ng that are installed. Of flite, slt, rms and awb have also spoken in the training of the
    bundled model.
    """
    with tempfile.TemporaryDirectory() as kept, StatusLine(sys.stderr) as status:
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
        report = _measured(
            manifest, folder or Path(kept), per_voice, status, threshold=grammar_threshold, model=model, threads=threads
        )
    write_out(jsonlib.dumps(report, allow_nan=False) + "\n" if json else _table(report))


def _measured(
    manifest: Path | None,
    folder: Path,
    per_voice: int,
    status: StatusLine,
    *,
    threshold: float | None,
    model: str | None,
    threads: int,
) -> dict[str, Any]:
    from edgeasr import grammar_benchmark as bench
    from edgeasr.manifest import read_manifest
    from edgeasr.recognizer import Recognizer, load_model

    voices = bench.installed_voices()
    loaded = load_model(model, threads=threads)
    home, orders = bench.home_grammar(), bench.orders_grammar()
    commands = list(bench.sentences(home))
    compiled = {
        f"{len(commands)} commands": bench.compile_s(loaded, bench.home_grammar),
        "100 long alternatives": bench.compile_s(loaded, bench.orders_grammar),
        f"{_MANY} public rules": bench.compile_s(loaded, lambda: bench.many_rules_grammar(_MANY)),
    }
    if loaded.word_graph is not None:
        compiled[f"{_HOTWORDS:,} hotwords"] = bench.hotwords_s(loaded, _HOTWORDS)
    at_home = Recognizer(loaded, grammar=home, grammar_threshold=threshold)
    ordering = Recognizer(loaded, grammar=orders, grammar_threshold=threshold)
    drawn = bench.drawn_sentences(orders, per_voice * len(voices))

    def heard(recognizer: Recognizer, texts: Any, *, rejected: bool = False) -> dict[str, Any]:
        spoken = bench.shared_out(texts, voices, per_voice)
        return bench.hear_spoken(recognizer, spoken, folder, rejected=rejected, progress=status.show).report()

    figures = {
        "commands": heard(at_home, commands),
        "orders": heard(ordering, drawn),
        "other speech, commands": heard(at_home, bench.OTHER_SENTENCES, rejected=True),
        "other speech, orders": heard(ordering, bench.OTHER_SENTENCES, rejected=True),
    }
    if manifest is not None:
        speech = read_manifest(manifest)
        figures[f"{manifest.name}, commands"] = bench.hear_recorded(at_home, speech, status.show).report()
        figures[f"{manifest.name}, orders"] = bench.hear_recorded(ordering, speech, status.show).report()
    trained_on = [str(voice) for voice in voices if voice.trained_on]
    return {"model": loaded.name, "threads": threads, "trained_on": trained_on, "compile_s": compiled, "heard": figures}


def _table(report: Mapping[str, Any]) -> str:
    from edgeasr.cli.columns import columns

    heard = report["heard"]
    rows = [("", "right", "of", "CPU s / audio s")]
    rows += [(name, f"{one['share']:.1%}", str(one["utterances"]), f"{one['rtf']:.4f}") for name, one in heard.items()]
    names = [name for name, one in heard.items() if one["by_voice"].keys() == heard["commands"]["by_voice"].keys()]
    voices = [("voice", *names)]
    for voice in heard["commands"]["by_voice"]:
        mark = " *" if voice in report["trained_on"] else ""
        voices.append((voice + mark, *(f"{heard[name]['by_voice'][voice]:.1%}" for name in names)))
    times = [("compiled", "CPU s"), *((name, f"{seconds:.3f}") for name, seconds in report["compile_s"].items())]
    lines = [
        f"{report['model']}, threads: {report['threads']}; right is heard word for word, and of other speech rejected",
        "",
        *columns(rows, "<>>>"),
        "",
        *columns(voices, "<" + ">" * len(names)),
        "* has also spoken in the training of the bundled model",
        "",
        *columns(times, "<>"),
    ]
    return "".join(f"{line}\n" for line in lines)
