"""A picture of the memory at work: what was stored, merged and skipped, and what each chunk attended to.

The runtime's graphs do not say what they attend to, so the attention is that of the checkpoint in torch, stepped over
the same features; decisions and words are those of the bundle.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from numpy.typing import NDArray
from torch import Tensor, nn

from edgeasr.audio import FileSource
from edgeasr.encoder import Encoder
from edgeasr.features import LogMel
from edgeasr.hierarchy import MemoryReader
from edgeasr.layers import split_heads
from edgeasr.memory import Admission, Decision
from edgeasr.recognizer import Recognizer
from edgeasr.recording import read_recording
from edgeasr.transcript import Final

Floats = NDArray[np.float32]

_CHARACTERS = 290  # of a small font, side by side over the whole axis
_COLOURS = {
    Decision.STORE: "tab:blue",
    Decision.PIN: "tab:purple",
    Decision.MERGE: "tab:orange",
    Decision.SKIP: "lightgrey",
}


@dataclass(frozen=True)
class MemoryTrace:
    """What a recording left in the memory, and what was read from it."""

    waveform: Floats  # (num_samples,) at sample_rate_hz
    sample_rate_hz: int
    finals: Sequence[Final]
    admissions: Sequence[Admission]  # of level 2
    attention: Floats  # (chunks, 1 + summaries): first the share of "nothing to recall", then by number of the summary
    chunk_s: float
    summary_s: float


def trace(recognizer: Recognizer, encoder: Encoder, recording: Path) -> MemoryTrace:
    """Hear a recording with a recogniser whose `on_admission` is not yet taken, and with the encoder beside it.

    errors: AudioFormatError for what is no recording
    """
    config = recognizer.model.config
    waveform = read_recording(recording, config.features.sample_rate_hz)
    admissions: list[Admission] = []
    watching = Recognizer(recognizer.model, decoder=recognizer.decoder, on_admission=admissions.append)
    with FileSource(recording) as source:
        finals = [event for event in watching.stream(source) if isinstance(event, Final)]
    return MemoryTrace(
        waveform=waveform,
        sample_rate_hz=config.features.sample_rate_hz,
        finals=finals,
        admissions=[admission for admission in admissions if admission.context.level == 2],
        attention=memory_attention(encoder, _features(waveform, encoder)),
        chunk_s=config.chunk_s,
        summary_s=config.encoder.level_spans[0] * config.frame_s,
    )


@torch.no_grad()
def memory_attention(encoder: Encoder, features: Floats) -> Floats:
    """What each chunk attends to in the bank of level 2, the mean over upper blocks, heads and frames.

    features: (T, num_mels), whole chunks
    returns:  (chunks, 1 + summaries) shares: of the empty slot, and of each summary of the recording by its number
    """
    config = encoder.config.encoder
    chunks = torch.split(torch.from_numpy(features)[None], config.chunk_features, dim=1)
    summaries = len(chunks) * config.chunk_frames // config.level_spans[0]
    shares = np.zeros((len(chunks), 1 + summaries), np.float32)
    state = encoder.init_state(1)
    with _watched(encoder) as reads:
        for row, chunk in zip(shares, chunks, strict=True):
            numbers = state.bank[0].number[0].tolist()
            reads.clear()
            _, state = encoder.step(chunk, state)
            read = torch.stack(reads).mean(dim=0)
            row[0] = read[0]
            for number, share in zip(numbers, read[1:].tolist(), strict=False):
                if number >= 0:
                    row[1 + number] = share
    return shares


@contextmanager
def _watched(encoder: Encoder) -> Iterator[list[Tensor]]:
    """The attention of every upper block, (1 + slots,) each time it reads."""
    reads: list[Tensor] = []

    def watch(reader: nn.Module, args: tuple[Tensor, Tensor, Tensor, Tensor], _: Tensor) -> None:
        assert isinstance(reader, MemoryReader)
        x, key, _, bias = args
        query = split_heads(reader.query(x), reader.num_heads)
        scores = query @ torch.cat([reader.empty_key, key], dim=2).mT / query.shape[-1] ** 0.5
        weights = (scores + nn.functional.pad(bias, (1, 0))[:, None]).softmax(dim=-1)
        reads.append(weights.mean(dim=(0, 1, 2)))

    handles = [block.reader.register_forward_hook(watch) for block in encoder.upper if block.reader is not None]
    try:
        yield reads
    finally:
        for handle in handles:
            handle.remove()


def draw(found: MemoryTrace, path: Path) -> None:
    """Waveform, words, decisions and attention over one axis of time; the name of the file says in which format."""
    figure, axes = plt.subplots(
        4, 1, sharex=True, figsize=(14, 9), height_ratios=(2, 1.3, 1.4, 5), layout="constrained"
    )
    _draw_waveform(axes[0], found)
    _draw_words(axes[1], found)
    _draw_decisions(axes[2], found)
    image = _draw_attention(axes[3], found)
    figure.colorbar(image, ax=axes[3], label="share of attention", pad=0.01)
    axes[3].set_xlabel("seconds")
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _draw_waveform(axis: Axes, found: MemoryTrace) -> None:
    step = max(1, len(found.waveform) // 4000)
    blocks = found.waveform[: len(found.waveform) // step * step].reshape(-1, step)
    time = np.arange(len(blocks)) * step / found.sample_rate_hz
    axis.fill_between(time, blocks.min(axis=1), blocks.max(axis=1), color="0.4", linewidth=0)
    axis.set_ylabel("waveform")
    axis.set_yticks([])
    axis.set_xlim(0, len(found.waveform) / found.sample_rate_hz)


def _draw_words(axis: Axes, found: MemoryTrace) -> None:
    total_s = len(found.waveform) / found.sample_rate_hz
    for i, final in enumerate(found.finals):
        axis.axvspan(final.start, final.end, ymin=0.05, ymax=0.95, color=("0.93", "0.88")[i % 2], linewidth=0)
        width = max(5, int(_CHARACTERS * (final.end - final.start) / total_s))
        axis.text(final.start, 0.5, textwrap.fill(final.text, width), va="center", fontsize=5, clip_on=True)
    axis.set_ylabel("words", rotation=0, ha="right", va="center")
    axis.set_yticks([])


def _draw_decisions(axis: Axes, found: MemoryTrace) -> None:
    for decision, colour in _COLOURS.items():
        spans = [a.context for a in found.admissions if a.decision is decision]
        bars = [(c.start_s, c.end_s - c.start_s) for c in spans]
        axis.broken_barh(bars, (0, 1), facecolor=colour, edgecolor="white", label=f"{decision.value} ({len(bars)})")
    line = [(a.context.end_s, a.similarity) for a in found.admissions[1:]]
    axis.plot([x for x, _ in line], [y for _, y in line], ".-", color="black", linewidth=0.8, label="similarity")
    axis.set_ylim(0, 1.02)
    axis.set_ylabel("summaries")
    axis.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=7, frameon=False)


def _draw_attention(axis: Axes, found: MemoryTrace) -> matplotlib.image.AxesImage:
    chunks, columns = found.attention.shape
    held_s = (columns - 1) * found.summary_s
    extent = (0, chunks * found.chunk_s, 0, max(held_s, found.summary_s))
    shares = found.attention[:, 1:].T if columns > 1 else np.zeros((1, chunks))
    image = axis.imshow(shares, origin="lower", aspect="auto", extent=extent, cmap="magma_r", interpolation="nearest")
    axis.set_ylabel("attends to what was heard at (s)")
    return image


def _features(waveform: Floats, encoder: Encoder) -> Floats:
    config = encoder.config
    chunks = max(1, -(-len(waveform) // config.chunk_samples))
    padded = chunks * config.chunk_samples + config.features.win_length - config.features.hop_length
    return LogMel(config.features).accept_waveform(np.pad(waveform, (0, padded - len(waveform))))
