from pathlib import Path

import numpy as np
import pytest
import soundfile

from edgeasr.errors import AudioFormatError
from edgeasr.manifest import Utterance
from edgeasr.sessions import Session, SessionSource, joined, sessions


def spoken(name, duration_s=1.0, speaker="a", folder=Path()):
    return Utterance(folder / f"{name}.wav", duration_s, f"text {name}", speaker, "somewhere")


def names(made):
    return [[u.path.stem for u in session.utterances] for session in made]


def test_neighbours_of_a_speaker_are_joined_up_to_the_limit():
    utterances = [spoken(n, 1.0, speaker) for n, speaker in enumerate("aaaaabbac")]
    # Two with their pause last 2.5 s, three 4 s.
    assert names(sessions(utterances, 3.9)) == [["0", "1"], ["2", "3"], ["4"], ["5", "6"], ["7"], ["8"]]
    assert names(sessions(utterances, 4.0)) == [["0", "1", "2"], ["3", "4"], ["5", "6"], ["7"], ["8"]]
    assert names(sessions(utterances, 3.9, pause_s=0.0)) == [["0", "1", "2"], ["3", "4"], ["5", "6"], ["7"], ["8"]]


def test_what_is_longer_than_the_limit_stays_alone():
    assert names(sessions([spoken(0, 9.0), spoken(1), spoken(2)], 3.0)) == [["0"], ["1", "2"]]


def test_utterances_of_nobody_are_not_joined():
    assert names(sessions([spoken(n, speaker="") for n in range(3)], 100.0)) == [["0"], ["1"], ["2"]]
    assert sessions([], 10.0) == []


def test_a_session_stands_for_its_utterances():
    session = Session((spoken("x", 1.5), spoken("y", 2.0)), pause_s=0.25)
    assert (session.path, session.duration_s, session.text) == (Path("x.wav"), 3.75, "text x text y")
    assert (session.speaker, session.source) == ("a", "somewhere")


def test_pauses_are_silence():
    one, two = np.ones(2, np.float32), np.full(3, 2, np.float32)
    assert joined([one, two, one], [1, 0]).tolist() == [1, 1, 0, 2, 2, 2, 1, 1]
    assert joined([one], []).tolist() == [1, 1]


@pytest.mark.parametrize("block_ms", [7, 100, 10_000])
def test_a_session_is_heard_as_one_stream(tmp_path, block_ms):
    rng = np.random.default_rng(0)
    waveforms = [rng.uniform(-0.5, 0.5, n).astype(np.float32) for n in (1600, 800, 2400)]
    for i, waveform in enumerate(waveforms):
        soundfile.write(tmp_path / f"{i}.wav", waveform, 16_000, "FLOAT")
    session = Session(tuple(spoken(i, folder=tmp_path) for i in range(3)), pause_s=0.01)
    with SessionSource(session, block_ms) as source:
        blocks = list(source.blocks())
    expected = joined(waveforms, [160, 160])
    np.testing.assert_allclose(np.concatenate([b.samples for b in blocks]), expected, atol=1e-6)
    assert [b.start_sample for b in blocks] == list(range(0, len(expected), 16 * block_ms))


def test_recordings_of_other_rates_are_resampled(tmp_path):
    for i, rate in enumerate((8000, 48_000)):
        soundfile.write(tmp_path / f"{i}.wav", np.zeros(rate), rate)
    with SessionSource(Session((spoken(0, folder=tmp_path), spoken(1, folder=tmp_path)))) as source:
        assert sum(len(b.samples) for b in source.blocks()) == 16_000 + 8000 + 16_000


def test_what_comes_before_a_bad_recording_is_heard(tmp_path):
    soundfile.write(tmp_path / "0.wav", np.zeros(1600), 16_000)
    (tmp_path / "1.wav").write_bytes(b"no audio")
    heard = []

    def hear(source):
        heard.extend(len(block.samples) for block in source.blocks())

    session = Session((spoken(0, folder=tmp_path), spoken(1, folder=tmp_path)))
    with SessionSource(session) as source, pytest.raises(AudioFormatError, match=r"1\.wav"):
        hear(source)
    assert sum(heard) == 9600
