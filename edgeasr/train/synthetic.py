"""Synthetic speech by flite, for words that the real recordings lack: `python -m edgeasr.train.synthetic --help`.

It adds words, not voices: three readers, so a recipe should draw only a share of it.
"""

from __future__ import annotations

import argparse
import json
import lzma
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import soundfile

from edgeasr.errors import ConfigError
from edgeasr.tokenizer import normalize_text

VOICES = ("slt", "rms", "awb")
WORDS = range(4, 17)


def draw_sentences(path: Path, count: int, rng: np.random.Generator) -> list[str]:
    """Sentences of suitable length, drawn without replacement from a file (.xz or plain) of one a line."""
    text = lzma.decompress(path.read_bytes()) if path.suffix == ".xz" else path.read_bytes()
    lines = [normalize_text(line) for line in text.decode("utf-8").splitlines()]
    suitable = [line for line in lines if len(line.split()) in WORDS]
    if len(suitable) < count:
        raise ConfigError(f"{path} has {len(suitable)} sentences of 4 to 16 words, wanted {count}: ask for fewer")
    return [suitable[i] for i in rng.choice(len(suitable), count, replace=False)]


def speak(text: str, voice: str, stretch: float, path: Path) -> float:
    """Write one utterance as 16 kHz FLAC. returns: its length in seconds"""
    wav = path.with_suffix(".wav")
    settings = ("-voice", voice, "--setf", f"duration_stretch={stretch:.2f}")
    subprocess.run(["flite", *settings, "-t", text, "-o", str(wav)], check=True, stdout=subprocess.DEVNULL)
    samples, rate_hz = soundfile.read(wav, dtype="int16")
    soundfile.write(path, samples, rate_hz)
    wav.unlink()
    return float(len(samples) / rate_hz)


def synthesize(text: Path, output: Path, count: int, seed: int) -> Path:
    """Speak `count` sentences of a text file into a folder. returns: the manifest

    raises: ConfigError without flite or enough sentences
    """
    if shutil.which("flite") is None:
        raise ConfigError("flite is not installed: apt-get install flite")
    rng = np.random.default_rng(seed)
    output.mkdir(parents=True, exist_ok=True)
    sentences = draw_sentences(text, count, rng)
    stretches = rng.uniform(0.8, 1.25, count)

    def rows(i: int) -> dict[str, object]:
        voice = VOICES[i % len(VOICES)]
        name = f"{voice}-{i:05d}.flac"
        duration_s = speak(sentences[i], voice, float(stretches[i]), output / name)
        row = {"audio_filepath": name, "duration": round(duration_s, 3), "text": sentences[i]}
        return {**row, "speaker": f"flite/{voice}"}

    manifest = output / "manifest.jsonl"
    with ThreadPoolExecutor(2) as pool:
        manifest.write_text("".join(_lines(pool.map(rows, range(count)))), encoding="utf-8")
    return manifest


def _lines(rows: Iterator[dict[str, object]]) -> Iterator[str]:
    for row in rows:
        yield json.dumps(row) + "\n"


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("text", type=Path, help="one sentence a line, plain or .xz")
    parser.add_argument("--output", type=Path, required=True, help="folder for the recordings and manifest.jsonl")
    parser.add_argument("--utterances", type=int, default=1500, help="how many; %(default)s")
    parser.add_argument("--seed", type=int, default=1, help="%(default)s")
    given = parser.parse_args()
    synthesize(given.text, given.output, given.utterances, given.seed)


if __name__ == "__main__":
    main()
