"""`edgeasr describe`: what a bundle is, and how far it looks back."""

from __future__ import annotations

import json as jsonlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgeasr.cli.terminal import write_out

if TYPE_CHECKING:
    from edgeasr.bundle import Bundle


def describe(
    bundle: Annotated[
        str | None, typer.Argument(metavar="[BUNDLE]", help="Folder or .edgeasr file; the bundled model without one.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Say what a bundle holds: its levels, how far each looks back in how many hops, sizes, training, licences."""
    from edgeasr.bundle import Bundle, default_bundle

    report = _report(Bundle.load(bundle or default_bundle()))
    write_out(jsonlib.dumps(report, allow_nan=False) + "\n" if json else _text(report))


def _report(bundle: Bundle) -> dict[str, Any]:
    encoder, frame_s = bundle.config.encoder, bundle.config.frame_s
    spans = (1, *encoder.level_spans)
    capacities = (encoder.left_context, *encoder.memory_capacities)
    levels = [
        {
            "level": level,
            "vectors": capacity,
            "frames_a_vector": span,
            "frames": span * capacity,
            "seconds": round(span * capacity * frame_s, 3),
            "hops": hops,
        }
        for level, (span, capacity, hops) in enumerate(zip(spans, capacities, encoder.hops, strict=True), 1)
    ]
    language_model, transducer = bundle.language_model, bundle.transducer
    return {
        "name": bundle.name,
        "path": str(bundle.path),
        "chunk_ms": bundle.config.chunk_ms,
        "other_chunks_ms": _other_chunks_ms(bundle),
        "frame_ms": round(frame_s * 1000),
        "levels": levels,
        "merge_similarity": encoder.merge_similarity,
        "write_gate": encoder.write_gate,
        "tokens": len(bundle.tokens),
        "phones": bundle.config.phone_vocabulary_size,
        "artefacts": {
            kind: sum(bundle.files[name].size_bytes for name in set(parts.values()))
            for kind, parts in bundle.artefacts.items()
        },
        "default_artefact": bundle.default_artefact,
        "language_model_bytes": bundle.files[language_model.file].size_bytes if language_model else None,
        "language_model_sources": [dict(source) for source in language_model.sources] if language_model else [],
        "transducer_bytes": bundle.files[transducer.file].size_bytes if transducer else None,
        "transducer_sources": [dict(source) for source in transducer.sources] if transducer else [],
        "state_bytes": _state_bytes(bundle),
        "wer": dict(bundle.wer),
        "licence": bundle.licence,
        "training": dict(bundle.training),
    }


def _other_chunks_ms(bundle: Bundle) -> list[int]:
    from edgeasr.model import chunk_of_part

    return sorted(filter(None, map(chunk_of_part, bundle.signature)))


def _state_bytes(bundle: Bundle) -> int:
    """What a stream carries from chunk to chunk; constant in its length."""
    from edgeasr.model import initial_state

    return sum(array.nbytes for array in initial_state(bundle).values())


def _text(report: dict[str, Any]) -> str:
    from edgeasr.cli.columns import columns

    rows = [("level", "vectors", "frames each", "looks back", "", "hops")]
    for one in report["levels"]:
        back = (f"{one['frames']:,} frames", f"{one['seconds']:,.0f} s")
        rows.append((str(one["level"]), str(one["vectors"]), f"{one['frames_a_vector']:,}", *back, str(one["hops"])))
    merging = "nothing is merged"
    if report["merge_similarity"] < 1:
        merging = f"merged above a cosine of {report['merge_similarity']:g}, so that it looks back farther still"
    gate = "; a learned gate skips summaries" if report["write_gate"] else ""
    sizes = ", ".join(f"{kind} {size / 1e6:.1f} MB" for kind, size in report["artefacts"].items())
    for what in ("language model", "transducer"):
        if size := report[f"{what.replace(' ', '_')}_bytes"]:
            sizes += f", {what} {size / 1e6:.1f} MB"
    sources = report["training"].get("data", [])
    chunks = " or ".join(str(length) for length in (report["chunk_ms"], *report["other_chunks_ms"]))
    lines = [
        f"{report['name']}: chunks of {chunks} ms, {report['tokens']} tokens and {report['phones']} phones",
        f"{sizes}; state {report['state_bytes'] / 1e3:.0f} kB for any length of stream",
        "",
        *columns(rows, "<>>>>>"),
        f"Summaries: {merging}{gate}.",
        "",
        f"Licence {report['licence']} of the weights. Trained on:",
        *_listed(sources),
    ]
    if report["language_model_sources"]:
        lines += ["Language model made of:", *_listed(report["language_model_sources"])]
    if others := [source for source in report["transducer_sources"] if source not in sources]:
        lines += ["Transducer taught by these, too:" if sources else "Transducer taught by:", *_listed(others)]
    return "".join(f"{line}\n" for line in lines)


def _listed(sources: Sequence[Mapping[str, Any]]) -> list[str]:
    return [f"  {source['name']}: {source['licence']}" for source in sources]
