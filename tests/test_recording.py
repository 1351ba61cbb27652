import numpy as np
import pytest
import soundfile

from edgeasr.errors import AudioFormatError
from edgeasr.recording import read_recording, resampled


def test_a_recording_is_read_whole_at_the_rate_asked_for(tmp_path):
    tone = np.sin(np.arange(48_000) * 2 * np.pi * 440 / 48_000).astype(np.float32) / 2
    soundfile.write(tmp_path / "tone.wav", tone, 48_000, "FLOAT")
    found = read_recording(tmp_path / "tone.wav", 16_000)
    assert len(found) == 16_000
    expected = np.sin(np.arange(16_000) * 2 * np.pi * 440 / 16_000) / 2
    np.testing.assert_allclose(found[500:-500], expected[500:-500], atol=1e-3)


def test_what_comes_before_the_damage_is_given(tmp_path):
    soundfile.write(tmp_path / "cut.wav", np.full(16_000, 0.25), 16_000)
    whole = (tmp_path / "cut.wav").read_bytes()
    (tmp_path / "cut.wav").write_bytes(whole[: len(whole) // 2])
    heard = []
    with pytest.raises(AudioFormatError, match=r"cut\.wav ends early"):
        heard.extend(resampled(tmp_path / "cut.wav", 16_000))
    assert 7_900 < sum(map(len, heard)) <= 8_000
