import json

import numpy as np
import pytest
import soundfile

from edgeasr.errors import ManifestError
from edgeasr.firmware_bridge.messages import Codec
from edgeasr.firmware_bridge.rates import audio_sender, feature_sender, hear, main, measure
from edgeasr.metrics import character_errors
from edgeasr.recognizer import Recognizer


@pytest.fixture(scope="module")
def clip(repository):
    waveform, _ = soundfile.read(repository / "edgeasr" / "models" / "demo.flac", dtype="float32")
    return waveform


@pytest.fixture(scope="module")
def recognizer():
    return Recognizer()


def test_samples_over_the_link_are_heard_as_the_file_is(recognizer, clip):
    text, num_bytes = hear(recognizer, clip, None)
    assert (len(text.split()) > 15, num_bytes) == (True, 0)
    heard, num_bytes = hear(recognizer, clip, audio_sender(Codec.S16, 16000))
    assert heard == text
    # AUDIO has three bytes of its own in each of 388 frames; COBS takes one to three.
    assert 2 * len(clip) + 388 * 13 < num_bytes <= 2 * len(clip) + 388 * 15


@pytest.mark.parametrize(("sender", "kbits"), [("ulaw", 134), ("adpcm", 71), ("features", 16)])
def test_compressed_speech_is_heard_nearly_as_the_file_is(recognizer, clip, sender, kbits):
    features = recognizer.model.config.features
    send = feature_sender(1.5, features) if sender == "features" else audio_sender(Codec[sender.upper()], 16000)
    text, _ = hear(recognizer, clip, None)
    heard, num_bytes = hear(recognizer, clip, send)
    assert 8 * num_bytes / (len(clip) / 16000) / 1000 < kbits
    assert character_errors(text, heard).rate < 0.1
    measured, wer, cer = measure(recognizer, [(heard, clip)], send)
    assert measured == pytest.approx(8 * num_bytes / (len(clip) / 16000) / 1000)
    assert (wer, cer) == (0, 0)


def test_the_table_has_a_row_for_each_way(tmp_path, capsys):
    soundfile.write(tmp_path / "tone.wav", 0.1 * np.sin(np.arange(16000) / 5), 16000)
    line = json.dumps({"audio_filepath": "tone.wav", "duration": 1.0, "text": "a tone"})
    (tmp_path / "dev.jsonl").write_text(f"{line}\n")
    assert main([str(tmp_path / "dev.jsonl")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "| sent as | kbit/s | WER | CER |"
    assert [line.split(" | ")[0] for line in lines[2:6]] == ["| the file itself", "| s16", "| u-law", "| IMA ADPCM"]
    assert len(lines) == 2 + 4 + 1 + 6
    assert float(lines[3].split(" | ")[1]) == pytest.approx(8 * (640 + 15) * 50 / 1000, rel=0.005)


def test_a_manifest_without_utterances_is_an_error(tmp_path):
    (tmp_path / "none.jsonl").write_text("")
    with pytest.raises(ManifestError):
        main([str(tmp_path / "none.jsonl")])
