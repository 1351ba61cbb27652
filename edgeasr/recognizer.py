"""The whole chain, from samples to events. Read this file first.

    with FileSource("talk.flac") as source:
        for event in Recognizer().stream(source):
            print(event.text)

`stream` is a loop over the verbs, for callers who have audio and no source:

    recognizer.accept_waveform(waveform, 16_000)   # any number of times, blocks of any length
    while recognizer.is_ready():
        events = recognizer.step()
    recognizer.input_finished()                    # then step again while ready: the last words come out
    recognizer.reset()                             # and on to the next stream
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from edgeasr.audio import AudioBlock, AudioSource, Resampler, Waveform, check_sample_rate
from edgeasr.bundle import Bundle, default_bundle
from edgeasr.decoder import CtcGreedyDecoder, Decoder, Word
from edgeasr.endpoint import EndpointConfig, Endpointer
from edgeasr.errors import AudioFormatError, DeviceError
from edgeasr.features import LogMel
from edgeasr.memory import MemoryPolicy, store_everything
from edgeasr.model import AcousticModel
from edgeasr.transcript import Event, TranscriptBuilder

# A causal model emits letters late, so that the end of a recording is heard only in the silence after it.
TAIL_S = 0.48
# Silence that is run for a gap, at most a second more; time is moved on by the rest.
MAX_GAP_S = 4.0


class Recognizer:
    """One stream at a time through resampler, features, acoustic model, decoder, endpointer and transcript.

    model:         a bundle or its path, None for the one that ships with the package, or a loaded model:
                   recognisers may share one
    backend:       as for AcousticModel, of which a bundle makes one; so is threads
    endpoint:      where segments end; None for the default rules
    memory_policy: what the encoder keeps of the past
    errors:        BundleError for a model that cannot be used

    Memory and the time of a step do not grow with the stream.
    """

    def __init__(
        self,
        model: AcousticModel | Bundle | str | Path | None = None,
        *,
        backend: str | None = None,
        threads: int = 1,
        endpoint: EndpointConfig | None = None,
        memory_policy: MemoryPolicy = store_everything,
    ) -> None:
        self.model = load_model(model, backend=backend, threads=threads)
        self._endpointer = Endpointer(endpoint or EndpointConfig())
        self._memory_policy = memory_policy
        self.reset()

    def reset(self) -> None:
        """Forget everything heard: a new stream begins, at 0 s and segment 0."""
        config = self.model.config
        self._resampler: Resampler | None = None
        self._source_hz = 0
        self._samples = _SampleQueue()
        self._log_mel = LogMel(config.features)
        self._state = self.model.init_state()
        self._decoder: Decoder = CtcGreedyDecoder(self.model.tokenizer, config.frame_s)
        self._builder = TranscriptBuilder()
        # The first window reaches beyond the first hop; after it, chunks of features need chunks of samples.
        self._needed = config.chunk_samples + config.features.win_length - config.features.hop_length
        self._next_frame = 0
        self._jumps: deque[_Jump] = deque()
        self._skipped_s = 0
        self._input_end_s = math.inf

    def accept_waveform(self, waveform: Waveform, sample_rate_hz: int) -> None:
        """Take samples, copied where they have to wait.

        waveform: (num_samples,) float32 in [-1, 1]
        errors:   AudioFormatError for what is empty, misshapen or not finite, an impossible rate, and
                  after input_finished()
        """
        if self._finished:
            raise AudioFormatError("got a waveform after the input was finished: call reset() before a new stream")
        resampler = self._resampler_from(sample_rate_hz)
        samples = resampler.process(waveform)
        self._samples.put(samples.copy() if samples is waveform else samples)

    def accept_gap(self, num_samples: int, sample_rate_hz: int) -> None:
        """Take time in which nothing was heard, such as a microphone's overflow, as silence of that length.

        Of a long gap only the beginning and the end are run; a segment that is still open then ends.
        """
        check_sample_rate(sample_rate_hz, "the gap")
        skipped_s = max(0, int(num_samples / sample_rate_hz - MAX_GAP_S))
        silent = num_samples - skipped_s * sample_rate_hz
        self._accept_silence(silent // 2, sample_rate_hz)
        if skipped_s:
            self._skipped_s += skipped_s
            num_frames = round(skipped_s / self.model.config.frame_s)
            self._jumps.append(_Jump(self._samples.num_put, num_frames))
        self._accept_silence(silent - silent // 2, sample_rate_hz)

    def input_finished(self) -> None:
        """No more samples come: what the chain delays can now be stepped through."""
        if self._finished:
            return
        self._flush_resampler()
        heard, model_hz = self._samples.num_put, self.model.config.features.sample_rate_hz
        self._input_end_s = self._skipped_s + heard / model_hz
        if heard:
            wanted = len(self._samples) + round(TAIL_S * model_hz)
            chunks = max(0, math.ceil((wanted - self._needed) / self.model.config.chunk_samples))
            padding = self._needed + chunks * self.model.config.chunk_samples - len(self._samples)
            self._samples.put(np.zeros(padding, np.float32))

    def is_ready(self) -> bool:
        """Whether there are samples for a step."""
        return len(self._samples) >= self._needed

    def step(self) -> list[Event]:
        """Run the next chunk. The last one after input_finished() ends the last segment."""
        if not self.is_ready():
            raise RuntimeError("step() without samples for a chunk: ask is_ready() first")
        config = self.model.config
        features = self._log_mel.accept_waveform(self._samples.take(self._needed))
        self._needed = config.chunk_samples
        log_probs, self._state = self.model.step(features, self._state, self._memory_policy)
        self._next_frame += len(log_probs)
        self._decoder.accept(log_probs)
        events = self._segment_events()
        if self._jumps and self._jumps[0].at_sample <= self._samples.num_taken:
            events += self._end_segment(in_speech=False)
            self._next_frame += self._jumps.popleft().num_frames
            self._decoder.reset(self._next_frame)
        if self._finished and not self.is_ready():
            events += self._end_segment(in_speech=False)
        return events

    def stream(self, source: AudioSource, on_block: Callable[[AudioBlock], None] | None = None) -> Iterator[Event]:
        """The events of a source from here to its end, as a new stream.

        on_block: called when a block's events are out
        errors:   the source's AudioFormatError or DeviceError, after the events of what was heard before it
        """
        self.reset()
        try:
            for block in source.blocks():
                self.accept_gap(block.gap_samples, source.sample_rate_hz)
                self.accept_waveform(block.samples, source.sample_rate_hz)
                yield from self._ready_events()
                if on_block:
                    on_block(block)
        except (AudioFormatError, DeviceError):
            self.input_finished()
            yield from self._ready_events()
            raise
        self.input_finished()
        yield from self._ready_events()

    @property
    def _finished(self) -> bool:
        return self._input_end_s < math.inf

    def _ready_events(self) -> Iterator[Event]:
        while self.is_ready():
            yield from self.step()

    def _resampler_from(self, sample_rate_hz: int) -> Resampler:
        """The resampler of this rate; samples of another are complete when it changes."""
        if self._resampler is None or sample_rate_hz != self._source_hz:
            resampler = Resampler(sample_rate_hz, self.model.config.features.sample_rate_hz)
            self._flush_resampler()
            self._resampler, self._source_hz = resampler, sample_rate_hz
        return self._resampler

    def _flush_resampler(self) -> None:
        if self._resampler is not None:
            self._samples.put(self._resampler.flush())

    def _accept_silence(self, num_samples: int, sample_rate_hz: int) -> None:
        if num_samples > 0:
            self.accept_waveform(np.zeros(num_samples, np.float32), sample_rate_hz)

    def _segment_events(self) -> list[Event]:
        decoder = self._decoder
        segment_s = decoder.num_frames * self.model.config.frame_s
        rule = self._endpointer.fired(decoder.has_speech, decoder.trailing_silence_s, segment_s)
        if rule is not None:
            return self._end_segment(in_speech=rule.interrupts_speech)
        words = decoder.hypothesis()
        partial = self._builder.partial(
            words,
            stable_words=decoder.stable_words,
            start=decoder.start_s,
            end=self._heard_until(decoder.end_s, words),
        )
        return [partial] if partial else []

    def _end_segment(self, *, in_speech: bool) -> list[Event]:
        """Begin the next segment; one without words leaves no event."""
        decoder = self._decoder
        start_s, words = decoder.start_s, decoder.hypothesis()
        if in_speech:
            words = decoder.cut()
        else:
            decoder.reset()
        if not words:
            return []
        end_s = self._heard_until(decoder.start_s, words)
        return [self._builder.final(words, start=start_s, end=end_s)]

    def _heard_until(self, end_s: float, words: tuple[Word, ...]) -> float:
        """The end of a segment: silence added to the input does not count, words emitted late, in it, do."""
        if end_s <= self._input_end_s or not words:
            return end_s
        return max(self._input_end_s, words[-1].end)


def load_model(
    model: AcousticModel | Bundle | str | Path | None = None,
    *,
    backend: str | None = None,
    threads: int = 1,
) -> AcousticModel:
    """The acoustic model of a bundle, of the shipped one for None; a loaded model is returned as it is."""
    if model is None:
        model = default_bundle()
    if isinstance(model, str | Path):
        model = Bundle.load(model)
    if isinstance(model, Bundle):
        return AcousticModel(model, backend=backend, threads=threads)
    return model


class _Jump(NamedTuple):
    """Time moves on by num_frames encoder frames once the first at_sample samples were run."""

    at_sample: int
    num_frames: int


class _SampleQueue:
    """Samples that wait for a step: blocks in, chunks out, and no copy that grows."""

    def __init__(self) -> None:
        self._blocks: deque[Waveform] = deque()
        self._offset = 0  # samples already taken of the first block
        self.num_put = 0
        self.num_taken = 0

    def __len__(self) -> int:
        return self.num_put - self.num_taken

    def put(self, samples: Waveform) -> None:
        if len(samples):
            self._blocks.append(samples)
            self.num_put += len(samples)

    def take(self, num_samples: int) -> Waveform:
        """The oldest samples, as many as asked for; there must be that many."""
        self.num_taken += num_samples
        parts = []
        while num_samples:
            part = self._blocks[0][self._offset : self._offset + num_samples]
            parts.append(part)
            num_samples -= len(part)
            self._offset += len(part)
            if self._offset == len(self._blocks[0]):
                self._blocks.popleft()
                self._offset = 0
        return parts[0] if len(parts) == 1 else np.concatenate(parts)
