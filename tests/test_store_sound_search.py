import json
from io import BytesIO

import numpy as np
import pytest
import soundfile
import soxr

pytest.importorskip("apsw", reason="the store needs the extra `memory`")

from edgeasr.audio import AudioBlock, AudioSource
from edgeasr.errors import AudioFormatError
from edgeasr.recognizer import Recognizer, load_model
from edgeasr.store.memory_store import MemoryStore
from edgeasr.store.records import ModelKey, Span, Summary
from edgeasr.store.sound_search import Query, QuerySummary, key_of, query_of, search_query, search_sound
from edgeasr.store.writer import StoreWriter

RATE = 16_000
WIDTH = 16
MODEL = ModelKey("a", WIDTH)


class Samples(AudioSource):
    """A waveform of 16 kHz as a source."""

    name, sample_rate_hz = "samples", RATE

    def __init__(self, waveform):
        self.duration_s = len(waveform) / RATE
        self._waveform = np.asarray(waveform, np.float32)

    def blocks(self):
        for start in range(0, len(self._waveform), RATE):
            yield AudioBlock(self._waveform[start : start + RATE], start)

    def close(self):
        pass


@pytest.fixture
def store(tmp_path):
    """A stream of 60 spans of 4 s; the one at 80 s was merged into the one at 8 s."""
    with MemoryStore.open(tmp_path / "memory.db", create=True) as opened:
        with opened.transaction():
            stream = opened.begin_stream("talk", MODEL)
            for i, vector in enumerate(VECTORS):
                if i == 20:
                    opened.merge(stream, 2, Summary(2, 20, Span(80, 84), vector))
                else:
                    opened.add_vector(stream, Summary(2, i, Span(4.0 * i, 4.0 * i + 4), vector))
        yield opened


VECTORS = np.random.default_rng(0).standard_normal((60, WIDTH)).astype(np.float32)


def query(numbers, *, first_s=0.0, noise=0.2, shift=0):
    """Summaries like the stored ones of these numbers, one after another; the first one's start in the recording."""
    rng = np.random.default_rng(1)
    return [
        QuerySummary(
            shift,
            first_s + 4 * i,
            first_s + 4 * i + 4,
            VECTORS[number] + noise * rng.standard_normal(WIDTH).astype(np.float32),
        )
        for i, number in enumerate(numbers)
    ]


class TestVotes:
    def test_tell_where_a_recording_would_begin(self, store):
        best, *_ = search_query(store, MODEL, Query(12.0, query([30, 31], first_s=1.5)))
        assert (best.span.start_s, best.span.end_s) == (118.5, 130.5)
        assert best.vectors == (30, 31)  # the ids are larger by one, and one is left out before
        assert best.score > 0.9

    def test_of_the_run_that_lies_best_win(self, store):
        rng = np.random.default_rng(2)
        between = [QuerySummary(1, -2.0, 2.0, rng.standard_normal(WIDTH).astype(np.float32)) for _ in range(2)]
        best, *_ = search_query(store, MODEL, Query(4.0, [*between, *query([40], noise=0.1)]))
        assert best.span.start_s == pytest.approx(160, abs=0.2)

    def test_that_agree_beat_a_single_one(self, store):
        # The first summary is most like 50, where nothing follows that is like the second.
        summaries = [
            QuerySummary(0, 0.0, 4.0, 0.6 * VECTORS[50] + 0.5 * VECTORS[10]),
            QuerySummary(0, 4.0, 8.0, VECTORS[11]),
        ]
        best, *_ = search_query(store, MODEL, Query(8.0, summaries))
        assert best.span.start_s == 40

    def test_reach_spans_that_were_merged(self, store):
        best, *_ = search_query(store, MODEL, Query(4.0, query([20])))
        assert best.span.start_s == pytest.approx(80)
        assert best.vectors == (3,)  # which stands for it

    def test_never_are_for_another_model(self, store):
        assert search_query(store, ModelKey("b", WIDTH), Query(4.0, query([3]))) == []

    def test_of_nothing_find_nothing(self, store):
        assert search_query(store, MODEL, Query(0.1, [])) == []


class TestARecording:
    def test_of_silence_is_not_looked_for(self, store):
        with pytest.raises(AudioFormatError, match="samples, which is silent"):
            search_sound(store, load_model(), Samples(np.full(RATE, 1e-4)))

    def test_has_every_summary_that_is_mostly_of_it(self):
        waveform = 0.1 * np.random.default_rng(0).standard_normal(5 * RATE).astype(np.float32)
        found = query_of(load_model(), waveform, RATE).summaries
        # Of 4 s, 3 at least of them in the 5 s of the recording: in steps of half a second, from -1 to 2.
        assert sorted({round(one.start_s, 1) for one in found}) == pytest.approx(np.arange(-1, 2.5, 0.5), abs=0.05)


@pytest.fixture(scope="module")
def heard(speech, tmp_path_factory):
    """A minute and a half of real speech in a store: utterances, where each begins, the model, and the path."""
    waveforms, begins_s, utterances, at = [], [], [], 0
    for line in (speech / "dev.jsonl").read_text().splitlines()[::9]:
        utterance = json.loads(line)
        samples, rate_hz = soundfile.read(speech / utterance["audio_filepath"], dtype="float32")
        waveform = np.concatenate([soxr.resample(samples, rate_hz, RATE), np.zeros(RATE // 2)]).astype(np.float32)
        waveforms.append(waveform)
        begins_s.append(at / RATE)
        utterances.append(utterance)
        at += len(waveform)
        if at > 90 * RATE:
            break
    model, warnings = load_model(), []
    path = tmp_path_factory.mktemp("heard") / "memory.db"
    with StoreWriter(path, key_of(model), warnings.append) as writer:
        recognizer = Recognizer(model, on_admission=writer.admitted)
        writer.begin_stream("speech")
        list(writer.heard(recognizer.stream(Samples(np.concatenate(waveforms)))))
    assert warnings == []
    return np.concatenate(waveforms), begins_s, utterances, model, path


def telephone(waveform):
    """Quiet, at 8 kHz, in 8 bits a sample (G.711)."""
    file = BytesIO()
    soundfile.write(file, soxr.resample(0.3 * waveform, RATE, 8_000), 8_000, format="WAV", subtype="ULAW")
    file.seek(0)
    return soxr.resample(soundfile.read(file, dtype="float32")[0], 8_000, RATE)


class TestRealSpeech:
    @pytest.mark.parametrize("channel", [lambda waveform: waveform, telephone], ids=["clean", "telephone"])
    def test_is_found_by_sound(self, heard, channel):
        waveform, begins_s, utterances, model, path = heard
        longest = sorted(range(len(utterances)), key=lambda i: -utterances[i]["duration"])[:2]
        with MemoryStore.open(path) as store:
            for i in longest:
                # A second into the utterance, which lies on no grid of the stream's.
                start_s = begins_s[i] + 1.0
                cut = waveform[round(start_s * RATE) : round((start_s + 5) * RATE)]
                hits = search_sound(store, model, Samples(channel(cut)))[:5]
                assert min(abs(hit.span.start_s - start_s) for hit in hits) <= 2
