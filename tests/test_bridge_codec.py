import io
import struct
import warnings
from importlib.util import find_spec

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from edgeasr.firmware_bridge.codec import (
    STEP_SIZES,
    ULAW_SAMPLES,
    AdpcmState,
    AudioEncoder,
    decode_adpcm,
    decode_audio,
    encode_adpcm,
    encode_audio,
    encode_ulaw,
)
from edgeasr.firmware_bridge.messages import Audio, Codec, ProtocolError, Status

ALL_SAMPLES = np.arange(-32768, 32768).astype(np.int16)
IMA_WAV = 0x11  # the format's number in a WAV file


@pytest.fixture
def audioop():
    if find_spec("audioop") is None:
        pytest.skip("no audioop: Python 3.13 dropped it")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        import audioop
    return audioop


def vectors(repository, name):
    lines = (repository / "firmware_bridge" / "vectors" / f"{name}.txt").read_text().splitlines()
    return [line.split(" ") for line in lines if not line.startswith("#")]


def unhex(word):
    return b"" if word == "-" else bytes.fromhex(word)


def samples(word):
    return np.frombuffer(unhex(word), "<i2").astype(np.int16)


def speech(repository, seconds=4):
    pcm, rate = soundfile.read(repository / "edgeasr" / "models" / "demo.flac", dtype="int16")
    return pcm[: seconds * rate]


def snr_db(wanted, got):
    error = np.mean((wanted.astype(float) - got) ** 2)
    return 10 * np.log10(np.mean(wanted.astype(float) ** 2) / error)


def raw(pcm, subtype):
    """The bytes that libsndfile makes of samples."""
    file = io.BytesIO()
    soundfile.write(file, pcm, 16000, format="RAW", subtype=subtype)
    return file.getvalue()


# The same vectors as in C.


def test_vectors_of_ulaw(repository):
    for _, pcm, data, decoded in vectors(repository, "ulaw"):
        assert encode_ulaw(samples(pcm)) == unhex(data)
        assert (decode_audio(Audio(Codec.ULAW, len(unhex(data)), unhex(data))) == samples(decoded)).all()


def test_vectors_of_adpcm(repository):
    for _, predictor, step_index, pcm, block, decoded in vectors(repository, "adpcm"):
        state = AdpcmState(int(predictor), int(step_index))
        assert encode_adpcm(samples(pcm), state)[0] == unhex(block)
        assert (decode_audio(Audio(Codec.ADPCM, len(samples(pcm)), unhex(block))) == samples(decoded)).all()
    for _, num_samples, block, status in vectors(repository, "adpcm_malformed"):
        with pytest.raises(ProtocolError) as caught:
            decode_audio(Audio(Codec.ADPCM, int(num_samples), unhex(block)))
        assert caught.value.status.name == status


# Against sources that are not ours.


def test_ulaw_is_that_of_libsndfile_for_every_sample():
    assert encode_ulaw(ALL_SAMPLES) == raw(ALL_SAMPLES, "ULAW")
    file = io.BytesIO(bytes(range(256)))
    decoded, _ = soundfile.read(file, dtype="int16", format="RAW", subtype="ULAW", samplerate=8000, channels=1)
    assert (decoded == ULAW_SAMPLES).all()


def test_ulaw_is_that_of_audioop_but_for_its_rounding_of_negative_samples(audioop):
    theirs = np.frombuffer(audioop.lin2ulaw(ALL_SAMPLES.tobytes(), 2), np.uint8).astype(int)
    ours = np.frombuffer(encode_ulaw(ALL_SAMPLES), np.uint8).astype(int)
    assert (ours == theirs)[ALL_SAMPLES >= 0].all()
    # audioop drops two bits towards minus infinity: samples just above a boundary fall one code lower.
    assert set((ours - theirs).tolist()) == {0, 1}
    assert np.count_nonzero(ours != theirs) == 381
    assert audioop.ulaw2lin(bytes(range(256)), 2) == ULAW_SAMPLES.tobytes()


def test_adpcm_is_that_of_audioop(audioop, repository):
    noise = np.random.default_rng(1).integers(-32768, 32768, 4000).astype(np.int16)
    for pcm in (speech(repository), noise, ALL_SAMPLES[::8]):
        theirs, (predictor, step_index) = audioop.lin2adpcm(pcm.tobytes(), 2, None)
        block, state = encode_adpcm(pcm, AdpcmState())
        # audioop puts the first code into the high half of a byte.
        assert bytes(code >> 4 | (code & 15) << 4 for code in theirs) == block[4:]
        assert state == (predictor, step_index)
        decoded, _ = audioop.adpcm2lin(theirs, 2, None)
        assert decode_adpcm(block, len(pcm)).tobytes() == decoded


def test_libsndfile_reads_our_adpcm(repository):
    pcm = speech(repository)[8000:8505]
    block, _ = encode_adpcm(pcm[1:], AdpcmState(int(pcm[0]), 20))
    size = len(block)
    # A WAV block holds its first sample in the header, as the predictor, and then the codes.
    form = struct.pack("<HHIIHHHH", IMA_WAV, 1, 16000, 16000 * size // len(pcm), size, 4, 2, len(pcm))
    chunks = b"fmt " + struct.pack("<I", len(form)) + form + b"fact" + struct.pack("<II", 4, len(pcm))
    chunks += b"data" + struct.pack("<I", size) + block
    wav = b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WAVE" + chunks
    theirs, _ = soundfile.read(io.BytesIO(wav), dtype="int16")
    assert theirs[0] == pcm[0]
    assert (theirs[1:] == decode_adpcm(block, len(pcm) - 1)).all()


# What the codecs do to speech, and to what does not fit.


@pytest.mark.parametrize(("codec", "bytes_per_s", "wanted_db"), [(Codec.ULAW, 16000, 36), (Codec.ADPCM, 8200, 20)])
def test_speech_is_near_to_what_it_was(repository, codec, bytes_per_s, wanted_db):
    pcm, encoder = speech(repository), AudioEncoder(codec)
    frames = [encoder.encode(pcm[i : i + 320]) for i in range(0, len(pcm), 320)]
    assert sum(len(frame.data) for frame in frames) / (len(pcm) / 16000) <= bytes_per_s
    assert snr_db(pcm, np.concatenate([decode_audio(frame) for frame in frames])) > wanted_db


def test_a_lost_adpcm_frame_harms_no_other(repository):
    pcm, encoder = speech(repository), AudioEncoder(Codec.ADPCM)
    frames = [encoder.encode(pcm[i : i + 320]) for i in range(0, 6400, 320)]
    whole, _ = encode_adpcm(pcm[:6400], AdpcmState())
    continuous = decode_adpcm(whole, 6400)
    for i in (19, 3, 11):
        assert (decode_audio(frames[i]) == continuous[320 * i : 320 * (i + 1)]).all()


@given(st.lists(st.integers(-32768, 32767), max_size=50))
def test_samples_come_back_as_they_were(values):
    pcm = np.array(values, np.int16)
    assert (decode_audio(encode_audio(pcm, Codec.S16)) == pcm).all()
    for codec in (Codec.ULAW, Codec.ADPCM):
        decoded = decode_audio(encode_audio(pcm, codec))
        assert (decoded.dtype, decoded.shape) == (np.int16, pcm.shape)
    # What was decoded from u-law is coded without further loss.
    once = decode_audio(encode_audio(pcm, Codec.ULAW))
    assert (decode_audio(encode_audio(once, Codec.ULAW)) == once).all()


@given(st.integers(0, 4), st.integers(0, 40), st.binary(max_size=40))
def test_any_data_is_decoded_to_its_length_or_refused(codec, num_samples, data):
    length = None
    try:
        length = len(decode_audio(Audio(codec, num_samples, data)))
    except ProtocolError as error:
        assert str(error)  # noqa: PT017 - the message is what matters
    assert length in (None, num_samples)


def test_audio_that_does_not_fit_says_what_was_wanted():
    with pytest.raises(ProtocolError, match="got 3 bytes for 2 samples of S16, wanted 4") as caught:
        decode_audio(Audio(Codec.S16, 2, bytes(3)))
    assert caught.value.status == Status.BAD_LENGTH
    with pytest.raises(ProtocolError, match="got audio with codec 3, wanted S16, ULAW or ADPCM"):
        decode_audio(Audio(Codec.FEATURES, 2, bytes(3)))
    with pytest.raises(ProtocolError, match="step index 89 and reserved byte 0"):
        decode_audio(Audio(Codec.ADPCM, 0, b"\0\0\x59\0"))
    with pytest.raises(ProtocolError, match="got codec 3 for samples"):
        encode_audio(ALL_SAMPLES, Codec.FEATURES)


def test_step_sizes_grow_by_a_tenth():
    assert len(STEP_SIZES) == 89
    sizes = np.array(STEP_SIZES)
    assert (sizes[-1], sizes[0]) == (32767, 7)
    assert np.allclose(sizes[20:] / sizes[19:-1], 1.1, atol=0.03)
