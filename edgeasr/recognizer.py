"""The whole chain, from samples to events. Read this file first.

    with FileSource("talk.flac") as source:
        for event in Recognizer().stream(source):
            print(event.text)

`stream` is a loop over the verbs, for callers who have audio (or features, see accept_features) and no source:

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
from functools import partial
from pathlib import Path
from typing import NamedTuple

from edgeasr.audio import AudioBlock, BlockT, Source, Waveform, check_sample_rate
from edgeasr.bundle import Bundle, default_bundle
from edgeasr.decoder import Decoder, Word
from edgeasr.decoding import Decoding
from edgeasr.endpoint import Endpoint, EndpointConfig, Endpointer, EndpointRule, endpoint_config
from edgeasr.errors import AudioFormatError, BundleError, ConfigError, DeviceError
from edgeasr.features import FeatureBlock, Floats
from edgeasr.front_end import LONGEST_FLUSH_S, FeatureFrontEnd, FrontEnd, FrontEndT, WaveformFrontEnd, flush_s
from edgeasr.gate import Gate, GateConfig
from edgeasr.grammar import Grammar
from edgeasr.hotwords import Hotwords
from edgeasr.ladder import Rung
from edgeasr.memory import Admission, MemoryKeeper, MemoryPolicy, Recall
from edgeasr.model import AcousticModel, keep_words
from edgeasr.own_words import OwnWords, decoder_of, word_graph
from edgeasr.transcript import Event, TranscriptBuilder
from edgeasr.voice_activity import Activity, VoiceActivity

DECODERS = ("greedy", "lm")

# Silence that is run for a gap, at most a second more; time is moved on by the rest.
MAX_GAP_S = 4.0


class Recognizer:
    """One stream at a time through resampler, features, acoustic model, decoder, endpointer and transcript.

    model:         a bundle or its path, None for the one that ships with the package, or a loaded model:
                   recognisers may share one
    backend:       as for AcousticModel, of which a bundle makes one; so is threads
    decoder:       "lm" for words of the bundle's language model, "greedy" for pieces as they are heard; None for
                   "lm" where the bundle has one
    endpoint:      where segments end, as rules or as `edgeasr.endpoint.endpoint_config` takes them
    on_endpoint:   told why each segment ended, those without words too
    gate:          holds back silence, which then costs next to nothing; None to hear everything
    memory_policy: decides first what the encoder keeps of the past, see edgeasr.memory_policies; None for the model's
                   own rules
    on_admission:  told what became of every summary
    recall:        reads what was stored earlier into the memory again, see edgeasr.memory.Recall
    grammar:       sentences that alone are recognised, a file of JSGF or a Grammar; the decoder is "grammar" then
    grammar_threshold: what fits less is rejected, see `GrammarDecoder`; None for the bundle's
    hotwords:      phrases that are likelier than the language model thinks, or a file of them, see edgeasr.hotwords
    dictionary:    a file with pronunciations of words of the grammar or the hotwords
    errors:        BundleError for a model that cannot be used, or not with this decoder; ConfigError for another one

    Memory and the time of a step do not grow with the stream.
    """

    def __init__(  # noqa: PLR0913 - keywords, each a choice of its own
        self,
        model: AcousticModel | Bundle | str | Path | None = None,
        *,
        backend: str | None = None,
        threads: int = 1,
        decoder: str | None = None,
        endpoint: EndpointConfig | str | None = None,
        on_endpoint: Callable[[Endpoint], None] | None = None,
        gate: GateConfig | None = None,
        memory_policy: MemoryPolicy | None = None,
        on_admission: Callable[[Admission], None] | None = None,
        recall: Recall | None = None,
        grammar: Grammar | str | Path | None = None,
        grammar_threshold: float | None = None,
        hotwords: Hotwords | str | Path | None = None,
        dictionary: str | Path | None = None,
    ) -> None:
        if decoder not in (None, *DECODERS):
            raise ConfigError(f"got decoder {decoder!r}, wanted one of {', '.join(DECODERS)}")
        self.model = load_model(model, backend=backend, threads=threads, words=decoder != "greedy")
        own_words = OwnWords(grammar, grammar_threshold, hotwords, dictionary)
        self._word_graph = word_graph(self.model, decoder, own_words)
        if decoder == "lm" and self._word_graph is None:
            raise BundleError(
                f"got decoder 'lm' and the bundle {self.model.name}, which has no language model: "
                "put one into it with `edgeasr lm add`, or choose greedy"
            )
        self._own_model = self.model
        self._rung = Rung(decoder_of(self._word_graph), self.model.config.chunk_ms, self.model.threads)
        self._endpointer = Endpointer(endpoint_config(endpoint), on_endpoint)
        self._gate_config = gate
        self._new_memory = partial(MemoryKeeper, memory_policy, on_admission, recall)
        self.reset()

    def reset(self) -> None:
        """Forget everything heard: a new stream begins, at 0 s and segment 0."""
        self._front_end: FrontEnd | None = None  # made by what comes first, a waveform or features
        self._state = self.model.init_state()
        self._memory = self._new_memory()
        self._decoding = Decoding(self.model, self._word_graph, self._rung)
        self._builder = TranscriptBuilder()
        self._activity = VoiceActivity(self.model.config.features, self.model.config.chunk_s)
        self._gate = Gate(self._gate_config, self.model.config.features.hop_s)
        self._endpointer.begin()
        self._num_frames = 0
        self._next_frame = 0
        self._jumps: deque[_Jump] = deque()
        self._skipped_s = 0
        self._input_end_s = math.inf
        self._change_model()

    @property
    def decoder(self) -> str:
        """Which one decodes now, "lm", "greedy" or "grammar"."""
        return self._decoding.name

    @property
    def heard_s(self) -> float:
        """Time of the audio that this stream was stepped through, without what was left out of long gaps."""
        return self._num_frames * self.model.config.frame_s + self._gate.held_s + self._gate.passed_s

    @property
    def gated_s(self) -> float:
        """How much of it the gate did not let through."""
        return self._gate.passed_s

    @property
    def activity(self) -> Activity:
        """What the latest chunk sounded like: level, background, probability of speech."""
        return self._activity.last

    def use(self, rung: Rung) -> None:
        """Take more or less effort: from the next chunk on, and with another decoder from the next segment on.

        Nothing of the stream is lost by it. A segment of which nothing was understood yet counts as the next one. Ask
        is_ready() again afterwards: chunks may be longer now.

        errors: ConfigError for what the model does not have
        """
        own = decoder_of(self._word_graph)
        if rung.decoder not in (own, "greedy") or (rung.decoder != own == "grammar"):
            raise ConfigError(f"got decoder {rung.decoder!r} for a recogniser without it: make one with the other")
        if rung.exit_depth is not None:
            raise ConfigError(f"got exit_depth {rung.exit_depth}: no model leaves its encoder early yet, take None")
        lengths = self._own_model.chunk_lengths_ms
        if rung.chunk_ms not in lengths:
            raise ConfigError(f"got chunks of {rung.chunk_ms} ms, the model has {', '.join(map(str, lengths))} ms")
        self._rung = rung
        self._change_model()
        self._decoding.use(rung)

    def accept_waveform(self, waveform: Waveform, sample_rate_hz: int) -> None:
        """Take samples, copied where they have to wait.

        waveform: (num_samples,) float32 in [-1, 1]
        errors:   AudioFormatError for what is empty, misshapen or not finite, an impossible rate, in a stream
                  of features, and after input_finished()
        """
        self._begun(WaveformFrontEnd).accept(waveform, sample_rate_hz)

    def accept_features(self, features: Floats) -> None:
        """Take log-mel frames instead of samples, from a device that computes them as the model's config says.

        features: (T, num_mels) float32, one frame a hop; T may be 0, to say before a gap what stream this is
        errors:   AudioFormatError for what is misshapen or not finite, in a stream of samples, and after
                  input_finished()
        """
        self._begun(FeatureFrontEnd).accept(features)

    def accept_gap(self, num_samples: int, sample_rate_hz: int) -> None:
        """Take time in which nothing was heard, such as a microphone's overflow, as silence of that length.

        Of a long gap only the beginning and the end are run; a segment that is still open then ends. A stream
        that begins with a gap is one of samples.
        """
        check_sample_rate(sample_rate_hz, "the gap")
        skipped_s = max(0, int(num_samples / sample_rate_hz - MAX_GAP_S))
        silent = num_samples - skipped_s * sample_rate_hz
        of_features = isinstance(self._front_end, FeatureFrontEnd)
        front_end: FrontEnd = self._begun(FeatureFrontEnd) if of_features else self._begun(WaveformFrontEnd)
        front_end.accept_silence(silent // 2, sample_rate_hz)
        if skipped_s:
            self._skipped_s += skipped_s
            num_frames = round(skipped_s / self.model.config.frame_s)
            self._jumps.append(_Jump(front_end.num_put, num_frames))
        front_end.accept_silence(silent - silent // 2, sample_rate_hz)

    def input_finished(self) -> None:
        """No more input comes: what the chain delays can now be stepped through."""
        if self._finished:
            return
        self._input_end_s = self._skipped_s
        if self._front_end is not None:
            self._front_end.finish()
            self._input_end_s += self._front_end.heard_s
            if self._front_end.num_put:
                self._front_end.accept_tail()

    def is_ready(self) -> bool:
        """Whether there is input for a step."""
        return self._gate.is_ready or (self._front_end is not None and self._front_end.is_ready())

    def step(self) -> list[Event]:
        """Run the next chunk. The last one after input_finished() ends the last segment."""
        if self._front_end is None or not self.is_ready():
            raise RuntimeError("step() without input for a chunk: ask is_ready() first")
        features = self._let_through(self._front_end)
        events = [] if features is None else self._heard(features)
        if self._jumps and self._jumps[0].at <= self._front_end.num_taken and not self._gate.is_ready:
            events += self._end_segment("gap")
            self._gate.give_up()
            self._move_on(self._jumps.popleft().num_frames)
        if self._finished and not self.is_ready():
            if self._is_late(self._front_end):
                self._front_end.accept_silent_chunk()
            else:
                self._gate.give_up()
                self._move_on_by_passed()
                events += self._end_segment("end")
        self._change_model()
        self._decoding.change()
        return events

    def stream(self, source: Source[BlockT], on_block: Callable[[BlockT], None] | None = None) -> Iterator[Event]:
        """The events of a source of samples or features from here to its end, as a new stream.

        on_block: called when a block's events are out
        errors:   the source's AudioFormatError or DeviceError, after the events of what was heard before it
        """
        self.reset()
        try:
            for block in source.blocks():
                self._accept_block(block, source.sample_rate_hz)
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
    def _decoder(self) -> Decoder:
        return self._decoding.decoder

    def _let_through(self, front_end: FrontEnd) -> Floats | None:
        """What is to be heard next; None while silence is held back."""
        gate, config = self._gate, self.model.config
        if not gate.is_ready:
            chunk = front_end.take()
            end_s = self._next_frame * config.frame_s + gate.behind_s + len(chunk) * config.features.hop_s
            activity = self._activity.accept_features(chunk, end_s)
            gate.accept(chunk, activity, idle=not self._decoder.has_speech)
        if not gate.is_ready:
            return None
        self._move_on_by_passed()
        return gate.take()

    def _heard(self, features: Floats) -> list[Event]:
        """A chunk through model and decoder."""
        self._memory.voice = self.activity.speech
        emissions, self._state = self.model.step(features, self._state, self._memory)
        self._activity.accept_heard(emissions.speech)
        num_frames = self._decoding.accept(emissions)
        self._num_frames += num_frames
        self._next_frame += num_frames
        return self._segment_events(num_frames * self.model.config.frame_s)

    def _is_late(self, front_end: FrontEnd) -> bool:
        """Whether the model still emits what it heard before the input ended."""
        flushed_s = self._skipped_s + front_end.heard_s - self._input_end_s
        pause_s = self._decoder.trailing_silence_s
        return pause_s < flush_s(self.model.config) and flushed_s < LONGEST_FLUSH_S and not self._gate.closed

    def _move_on_by_passed(self) -> None:
        """Time goes on by what the gate did not let through since this was last asked; no word was open then."""
        if num_rows := self._gate.take_passed():
            self._move_on(num_rows // self.model.config.encoder.subsampling)

    def _move_on(self, num_frames: int) -> None:
        """Time goes on by frames that are not heard."""
        self._next_frame += num_frames
        self._memory.moved(num_frames * self.model.config.frame_s)
        self._decoder.reset(self._next_frame)
        self._endpointer.begin()

    def _change_model(self) -> None:
        """Step as is wanted, where chunks of that length begin and none of another is held back."""
        rung, own = self._rung, self._own_model
        if self._finished or (self.model.threads, self.model.config.chunk_ms) == (rung.threads, rung.chunk_ms):
            return
        if self._gate.held_s or self._num_frames % own.config.with_chunk(rung.chunk_ms).encoder.chunk_frames:
            return
        is_own = (own.threads, own.config.chunk_ms) == (rung.threads, rung.chunk_ms)
        self.model = own if is_own else own.variant(threads=rung.threads, chunk_ms=rung.chunk_ms)
        if self._front_end is not None:
            self._front_end.change_chunk(self.model.config)

    @property
    def _finished(self) -> bool:
        return self._input_end_s < math.inf

    def _ready_events(self) -> Iterator[Event]:
        while self.is_ready():
            yield from self.step()

    def _accept_block(self, block: AudioBlock | FeatureBlock, sample_rate_hz: int) -> None:
        if isinstance(block, AudioBlock):
            self.accept_gap(block.gap_samples, sample_rate_hz)
            self.accept_waveform(block.samples, sample_rate_hz)
            return
        wanted_hz = self.model.config.features.sample_rate_hz
        if sample_rate_hz != wanted_hz:
            raise AudioFormatError(
                f"got features of audio at {sample_rate_hz} Hz, the model wants {wanted_hz} Hz: "
                "compute them at that rate, or send samples"
            )
        self.accept_features(block.features[:0])
        self.accept_gap(block.gap_samples, sample_rate_hz)
        self.accept_features(block.features)

    def _begun(self, kind: type[FrontEndT]) -> FrontEndT:
        """The front end of this stream. errors: AudioFormatError where it is of another kind, or the input finished"""
        if self._finished:
            raise AudioFormatError("got input after the input was finished: call reset() before a new stream")
        if self._front_end is None:
            self._front_end = kind(self.model.config)
        if not isinstance(self._front_end, kind):
            raise AudioFormatError("got samples and features in one stream, want one of them: call reset() between")
        return self._front_end

    def _segment_events(self, chunk_s: float) -> list[Event]:
        decoder = self._decoder
        segment_s = decoder.num_frames * self.model.config.frame_s
        rule = self._endpointer.accept(self.activity.level_db, decoder, chunk_s, segment_s)
        if rule is not None:
            return self._end_segment(rule.name, rule)
        words = decoder.hypothesis()
        self._memory.text = " ".join(word.word for word in words)
        partial = self._builder.partial(
            words,
            stable_words=decoder.stable_words,
            start=decoder.start_s,
            end=self._heard_until(decoder.end_s, words),
        )
        return [partial] if partial else []

    def _end_segment(self, name: str, rule: EndpointRule | None = None) -> list[Event]:
        """Begin the next segment; one without words leaves no event, unless a grammar rejects what was said."""
        self._memory.text = ""
        decoder = self._decoder
        start_s = decoder.start_s
        self._endpointer.ended(name, rule, decoder, self.activity)
        words, sentence = self._decoding.end_segment(interrupted=rule is not None and rule.interrupts_speech)
        if not words and sentence is None:
            return []
        end_s = self._heard_until(decoder.start_s, words)
        return [self._builder.final(words, start=start_s, end=end_s, endpoint=name, sentence=sentence)]

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
    words: bool = False,
) -> AcousticModel:
    """The acoustic model of a bundle, of the shipped one for None; a loaded model is returned as it is.

    words: whether its language model will be asked for: what the first start makes of that is made then, before the
           model takes memory too
    """
    if model is None:
        model = default_bundle()
    if isinstance(model, str | Path):
        model = Bundle.load(model)
    if isinstance(model, Bundle):
        if words:
            keep_words(model)
        return AcousticModel(model, backend=backend, threads=threads)
    return model


class _Jump(NamedTuple):
    """Time moves on by num_frames encoder frames once the front end's first `at` rows were taken."""

    at: int
    num_frames: int
