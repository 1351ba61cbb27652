"""`edgeasr bench search`: whether what was said in a store of speech is found, by text and by sound."""

from __future__ import annotations

import json as jsonlib
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgeasr.cli.columns import columns
from edgeasr.cli.extras import needs_extra
from edgeasr.cli.options import DecoderName, Model, Threads
from edgeasr.cli.terminal import StatusLine, write_out

if TYPE_CHECKING:
    from edgeasr.store.search_benchmark import SearchRow


def search(
    manifest: Annotated[Path, typer.Argument(metavar="MANIFEST", help="Speech, as for `edgeasr evaluate`.")],
    phrases: Annotated[int, typer.Option(min=0, metavar="N", help="Phrases of each length, looked for by text.")] = 100,
    cuts: Annotated[int, typer.Option(min=0, metavar="N", help="Cuts of each channel, looked for by sound.")] = 30,
    limit: Annotated[int | None, typer.Option(min=1, metavar="N", help="Only the first N utterances.")] = None,
    seed: Annotated[int, typer.Option(metavar="N", help="Of what is looked for.")] = 0,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    decoder: DecoderName = None,
    model: Model = None,
    threads: Threads = 1,
) -> None:
    """How often a phrase or a sound is found within 2 s of where it was said, first or among five.

    The speech is heard into a store of its own. Phrases are taken from the transcripts of the manifest, cuts of 4.5 to
    6 s from its recordings. Needs edgeasr[memory].
    """
    with needs_extra("memory"):
        from edgeasr.store.memory_store import MemoryStore
        from edgeasr.store.search_benchmark import by_sound, by_text, remember
    import numpy as np

    from edgeasr.manifest import read_manifest
    from edgeasr.recognizer import load_model

    utterances = read_manifest(manifest)[:limit]
    loaded, rng = load_model(model, threads=threads), np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as folder, StatusLine(sys.stderr) as status:
        path = Path(folder, "memory.db")
        said = remember(loaded, utterances, path, decoder, status.show)
        with MemoryStore.open(path) as store:
            vectors, merged = store.stats().vectors, store.stats().merged
            text = list(by_text(store, said, phrases, rng))
            sound = list(by_sound(store, loaded, said, cuts, rng, status.show))
    report = {"model": loaded.name, "audio_s": round(sum(one.utterance.duration_s for one in said), 1)}
    report |= {"vectors": vectors, "merged": merged, "text": [asdict(row) for row in text]}
    report |= {"sound": [asdict(row) for row in sound]}
    write_out(jsonlib.dumps(report) + "\n" if json else _table({"text": text, "sound": sound}))


def _table(found: dict[str, list[SearchRow]]) -> str:
    rows: list[tuple[object, ...]] = [("by", "looked for", "of", "first", "among five")]
    rows += [(kind, row.asked, row.of, row.first, row.among_five) for kind, some in found.items() for row in some]
    return "".join(f"{line}\n" for line in columns(rows, "<<>>>"))
