"""Every target on speech: exports what can be made here, hears with it, and writes the table of docs/targets.md.

    python tests/targets.py [--limit N]     `make targets`, LIMIT=N for the first utterances of dev alone

What needs an environment of its own is made there if that is set up (`make litert`); the other rows say why they are
empty. Bundles lie in .venv/targets afterwards. The exit code is 1 where an artefact is out of its bounds.
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from edgeasr.converters.artefacts import KINDS, ArtefactKind

REPOSITORY = Path(__file__).resolve().parents[1]
SPEECH = REPOSITORY.parent / "shared" / "speech"
DEV, TRAIN = SPEECH / "dev.jsonl", SPEECH / "train.jsonl"
CHECKPOINT = REPOSITORY / "edgeasr" / "models" / "tiny-en.safetensors"
FOLDER = REPOSITORY / ".venv" / "targets"
PAGE = REPOSITORY / "docs" / "targets.md"
BEGIN, END = "<!-- `make targets` writes from here -->\n", "<!-- to here -->\n"
EMULATED = REPOSITORY / ".venv" / "boards" / "heard.xml"  # what `make test-arm` wrote
_SAME_WORDS = re.compile(r"test_(\w+)_hears_what_this_machine_hears\[(.+)\]")

HERE = ".venv"
TFLITE = f"{HERE}/boards/tflite-here"  # made by `make test-arm`
# Artefacts whose own runtime is not what runs them in this environment.
STAND_INS = {"tensorrt": "ONNX Runtime", "tflite": "LiteRT"}

MOST_WER, MOST_SIZE = 0.005, 0.30  # of int8: more than that of fp32, and share of fp32


@dataclass(frozen=True)
class Row:
    """An artefact. exported, heard: what `edgeasr export` and `edgeasr evaluate` say of it; timed: in turns"""

    kind: ArtefactKind
    exported: dict[str, Any] = field(default_factory=dict)
    heard: dict[str, Any] = field(default_factory=dict)
    timed: dict[str, float] = field(default_factory=dict)
    environment: str = HERE
    bundle: Path = FOLDER
    why_not: str = ""


def run(program: str, environment: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """A program of an environment, with one thread."""
    command = [str(REPOSITORY / environment / "bin" / program), *map(str, arguments)]
    sys.stderr.write(f"{' '.join(command)}\n")
    return subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)


def reason(done: subprocess.CompletedProcess[str]) -> str:
    """The last line of what went wrong."""
    return (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1].removeprefix("edgeasr: error: ")


def environment_of(kind: ArtefactKind) -> str:
    """What has the packages of its extra: this one, or one that `make` sets up under the name of the extra."""
    return HERE if kind.extra == "train" else f"{HERE}-{kind.extra.removesuffix('-export')}"


def exported(environment: str, kinds: Sequence[ArtefactKind]) -> list[Row]:
    """Artefacts in one bundle, compared with torch on twenty utterances of dev; each by itself if one is refused."""
    name = kinds[0].name if len(kinds) == 1 else environment.removeprefix(".")
    rows = [Row(kind, bundle=FOLDER / name) for kind in kinds]
    if environment != HERE and not (REPOSITORY / environment / "is-set-up").exists():
        return [replace(row, why_not=f"`make {environment.removeprefix(HERE)[1:]}` was not run") for row in rows]
    arguments = ("export", CHECKPOINT, "--json", "--check", DEV, "--output", rows[0].bundle)
    arguments += ("--calibration", TRAIN) if any(kind.calibrated for kind in kinds) else ()
    done = run("edgeasr", environment, *arguments, *(f"--artefact={kind.name}" for kind in kinds))
    if done.returncode and len(kinds) > 1:
        return [row for kind in kinds for row in exported(environment, [kind])]
    if done.returncode:
        return [replace(row, why_not=reason(done)) for row in rows]
    return [replace(row, exported=made) for row, made in zip(rows, json.loads(done.stdout)["artefacts"], strict=True)]


def heard(row: Row, limit: Sequence[object]) -> Row:
    """All of dev, in the first environment that has its runtime."""
    arguments = (DEV, "--json", "--decoder", "greedy", "--model", row.bundle, "--backend", row.kind.name, *limit)
    for environment in run_in(row.kind):
        done = run("edgeasr", environment, "evaluate", *arguments)
        if done.returncode == 0:
            return replace(row, environment=environment, heard=json.loads(done.stdout))
    return replace(row, why_not=reason(done))


def run_in(kind: ArtefactKind) -> list[str]:
    """Environments that may have the runtime of an artefact, the likeliest first."""
    own = [TFLITE] if kind.name.startswith("tflite") and (REPOSITORY / TFLITE).exists() else []
    return list(dict.fromkeys([*own, HERE, environment_of(kind)]))


def timed(rows: Sequence[Row], reference: Row) -> list[Row]:
    """Those of one environment in turns, behind the reference, over which their times are given."""
    named = [reference, *(row for row in rows if row.kind != reference.kind)]
    arguments = [argument for row in named for argument in (row.bundle, row.kind.name)]
    done = run("python", rows[0].environment, REPOSITORY / "tests" / "artefacts_in_turns.py", *arguments)
    if done.returncode:
        return [replace(row, why_not=reason(done)) for row in rows]
    found = json.loads(done.stdout)
    columns = ("least_ms", "median_ms", "least_over_first")
    times = {row.kind.name: {key: found[key][i] for key in columns} for i, row in enumerate(named)}
    return [replace(row, timed=times[row.kind.name]) for row in rows]


def tried(limit: Sequence[object]) -> list[Row]:
    """Every artefact, as far as it can be made and run here."""
    by_environment = groupby(sorted(KINDS.values(), key=environment_of), key=environment_of)
    made = {row.kind.name: row for name, kinds in by_environment for row in exported(name, list(kinds))}
    rows = [made[name] for name in KINDS]
    rows = [row if row.why_not else heard(row, limit) for row in rows]
    reference = next(row for row in rows if row.kind.name == "onnx-int8")
    found = {row.kind.name: row for row in rows}
    for environment in {row.environment for row in rows}:
        together = [row for row in rows if not row.why_not and row.environment == environment]
        if together:
            found |= {row.kind.name: row for row in timed(together, reference)}
    return list(found.values())


def fp32_of(row: Row, rows: Iterable[Row]) -> Row | None:
    """The artefact in fp32 of the same format, or else of ONNX."""
    found = {one.kind.name: one for one in rows if one.heard}
    return found.get(f"{row.kind.name.split('-')[0]}-fp32") or found.get("onnx-fp32")


def out_of_bounds(rows: Sequence[Row]) -> list[str]:
    """What must hold of int8 and does not, a sentence each."""
    wrong = []
    found = {row.kind.name: row for row in rows if row.heard}
    for name in ("onnx-int8", "litert-int8"):
        row, exact = found.get(name), found.get(name.replace("int8", "fp32"))
        if row is None or exact is None:
            continue
        more = row.heard["wer"] - exact.heard["wer"]
        share = row.exported["size_mb"] / exact.exported["size_mb"]
        wrong += [f"{name} has a word error rate {more:.4f} above that of fp32"] if more > MOST_WER else []
        wrong += [f"{name} has {share:.1%} of the size of fp32"] if share > MOST_SIZE else []
    litert = found.get("litert-int8")
    if litert and litert.timed["least_over_first"] > 1:
        wrong.append(f"a chunk of litert-int8 takes {litert.timed['least_over_first']} of the time of onnx-int8")
    return wrong


def emulated(artefact: str) -> list[str]:
    """The cores of boards under emulation on which a test of words passed."""
    cases = ElementTree.parse(EMULATED).iter("testcase") if EMULATED.exists() else ()
    passed = [_SAME_WORDS.fullmatch(case.get("name", "")) for case in cases if not len(case)]
    return [found[2] for found in passed if found and found[1].replace("_", "-") == artefact]


def ran(row: Row) -> str:
    """Where it ran: here, and on which cores of boards under emulation."""
    by = STAND_INS.get(row.kind.name.split("-")[0]) if row.environment == HERE else None
    by = "tflite-runtime" if row.environment == TFLITE else by
    here = platform.machine() + (f", by {by}" if by else "")
    cores = emulated(row.kind.name)
    return f"{here}; same words on emulated {', '.join(cores)}" if cores else here


def line(row: Row, rows: Sequence[Row]) -> str:
    """Of the table."""
    made, cells = row.exported, [f"`{row.kind.name}`"]
    if not made:
        return f"| {cells[0]} | | | | | | | | not run: {row.why_not} |"
    exact = fp32_of(row, rows)
    share = f" ({made['size_mb'] / exact.exported['size_mb']:.0%})" if exact and exact is not row else ""
    cells.append(f"{made['size_mb']:.2f} MB{share}")
    cells.append("" if made["fp32_share"] is None else f"{made['fp32_share']:.1%}")
    near = f"{made['max_difference']:.1e}, {made['snr_db']:.0f} dB" if made["max_difference"] else "none"
    cells.append(f"{near}, {made['agreement']:.2%}")
    if row.why_not:
        return f"| {' | '.join(cells)} | | | | | not run: {row.why_not} |"
    cells.append(f"{row.heard['wer']:.4f}")
    cells.append(f"{row.timed['median_ms']:.2f} ({row.timed['least_ms']:.2f}) ms")
    cells += [f"{row.timed['least_over_first']:.2f}", f"{row.heard['peak_rss_mb']:.0f} MB", ran(row)]
    return f"| {' | '.join(cells)} |"


def table(rows: Sequence[Row]) -> str:
    """What stands between the marks of the page."""
    said = next(row.heard for row in rows if row.heard)
    words = said["word_errors"]["reference"]
    speech = f"`../shared/speech/dev.jsonl`: {said['utterances']} utterances, {words:,} words; greedy, one thread"
    head = (
        "artefact",
        "size, of fp32",
        "left in fp32",
        "largest difference of a probability, SNR, agreement (20 utterances)",
        "word error rate",
        "a chunk of 160 ms, median (least)",
        "least, of `onnx-int8`",
        "peak memory",
        "ran",
    )
    machine = f"{platform.machine()} ({processor()}), {time.strftime('%Y-%m-%d')}; `make targets`"
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|", *(line(row, rows) for row in rows)]
    return f"{speech}; {machine}.\n\n" + "\n".join(lines) + "\n"


def processor() -> str:
    """Its name, as the kernel has it."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [one.partition(":")[2].strip() for one in lines if one.startswith("model name")]
    return names[0] if names else "unknown"


def write_page(content: str) -> None:
    """Replace what stands between the marks."""
    before, _, rest = PAGE.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{BEGIN}{content}{END}{after}")


def main() -> None:
    """Try everything, write the page, and say what is out of its bounds."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--limit", type=int, help="only the first utterances of dev; the page is not written")
    given = parser.parse_args()
    rows = tried(("--limit", given.limit) if given.limit else ())
    content = table(rows)
    if given.limit:
        sys.stdout.write(content)
    else:
        write_page(content)
    if wrong := out_of_bounds(rows):
        sys.exit("targets.py: out of bounds: " + "; ".join(wrong))


if __name__ == "__main__":
    main()
