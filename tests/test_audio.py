import ctypes
import io
import json
import math
import os
import struct
import sys
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr

from edgeasr import audio, soxr_stream
from edgeasr.audio import AudioBlock, AudioSource, FileSource, RawSource, Resampler, Waveform
from edgeasr.errors import AudioFormatError, ExtraMissingError

SPEECH = Path(__file__).resolve().parents[2] / "shared" / "speech"
needs_speech = pytest.mark.skipif(not SPEECH.is_dir(), reason="no recordings in ../shared/speech")

RATE = 16_000


def noise(num_samples: int, channels: int = 1) -> Waveform:
    shape = num_samples if channels == 1 else (num_samples, channels)
    samples: Waveform = np.random.default_rng(num_samples).uniform(-0.5, 0.5, shape).astype(np.float32)
    return samples


def tone(num_samples: int) -> Waveform:
    """Easier on the mp3 encoder than noise, whose frames overflow and make libmpg123 complain."""
    samples: Waveform = (0.4 * np.sin(np.arange(num_samples) * 0.1)).astype(np.float32)
    return samples


def written(path: Path, samples: Waveform, rate: int = RATE, **options: str) -> Path:
    soundfile.write(path, samples, rate, **options)
    return path


def cut(path: Path, fraction: float) -> Path:
    """Only the first bytes of a file, as an interrupted download leaves them."""
    content = path.read_bytes()
    short = path.with_name(f"cut_{path.name}")
    short.write_bytes(content[: int(len(content) * fraction)])
    return short


def patched(path: Path, offset: int, replacement: bytes) -> Path:
    content = bytearray(path.read_bytes())
    content[offset : offset + len(replacement)] = replacement
    path.write_bytes(content)
    return path


def joined(blocks: list[AudioBlock]) -> Waveform:
    """All samples, after a check that the blocks follow one another."""
    ends = np.cumsum([0, *(len(block.samples) for block in blocks)])
    assert [block.start_sample for block in blocks] == ends[:-1].tolist()
    assert all(block.gap_samples == 0 for block in blocks)
    return np.concatenate([np.zeros(0, np.float32), *(block.samples for block in blocks)])


def read(path: Path, block_ms: int = 100) -> Waveform:
    with FileSource(path, block_ms) as source:
        return joined(list(source.blocks()))


def read_until_error(source: AudioSource) -> tuple[Waveform, str]:
    """What comes before the AudioFormatError, and its message, which must be one line."""
    blocks = []

    def run() -> None:
        for block in source.blocks():
            blocks.append(block)  # noqa: PERF402 - the blocks before the error are wanted

    with source, pytest.raises(AudioFormatError) as error:
        run()
    assert "\n" not in str(error.value)
    return joined(blocks), str(error.value)


def message_of(call: Callable[[], object]) -> str:
    with pytest.raises(AudioFormatError) as error:
        call()
    assert "\n" not in str(error.value)
    return str(error.value)


class TestAudioBlock:
    def test_takes_one_channel_of_float32(self) -> None:
        block = AudioBlock(noise(5), start_sample=7)
        assert (block.start_sample, block.gap_samples, len(block.samples)) == (7, 0, 5)

    def test_empty_block_is_an_error(self) -> None:
        assert "0 samples" in message_of(lambda: AudioBlock(np.zeros(0, np.float32), 0))

    def test_two_channels_are_an_error(self) -> None:
        assert "(4, 2)" in message_of(lambda: AudioBlock(np.zeros((4, 2), np.float32), 0))

    def test_other_types_are_an_error(self) -> None:
        assert "int16" in message_of(lambda: AudioBlock(np.zeros(4, np.int16), 0))


class TestFileSource:
    @pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.aiff", "a.w64"])
    @pytest.mark.parametrize("rate", [8_000, 11_025, 44_100])
    def test_lossless_files_come_sample_by_sample(self, tmp_path: Path, name: str, rate: int) -> None:
        samples = noise(rate + 37)
        path = written(tmp_path / name, samples, rate)
        with FileSource(path) as source:
            assert (source.name, source.sample_rate_hz) == (str(path), rate)
            assert source.duration_s == pytest.approx((rate + 37) / rate)
            blocks = list(source.blocks())
        assert {len(block.samples) for block in blocks[:-1]} == {rate // 10}
        np.testing.assert_allclose(joined(blocks), samples, atol=2**-15)

    @pytest.mark.parametrize(
        ("name", "options"), [("a.ogg", {}), ("a.opus", {"format": "OGG", "subtype": "OPUS"}), ("a.mp3", {})]
    )
    def test_lossy_files_are_whole(self, tmp_path: Path, name: str, options: dict[str, str]) -> None:
        path = tmp_path / name
        soundfile.write(path, tone(24_000), RATE, **options)
        np.testing.assert_allclose(read(path), soundfile.read(path, dtype="float32")[0], atol=1e-6)
        assert len(read(path)) == 24_000

    @pytest.mark.parametrize("channels", [2, 6])
    def test_channels_are_mixed_down(self, tmp_path: Path, channels: int) -> None:
        samples = noise(5_000, channels)
        path = written(tmp_path / "a.wav", samples, subtype="FLOAT")
        np.testing.assert_allclose(read(path), samples.mean(axis=1), atol=1e-7)

    def test_block_size_changes_nothing(self, tmp_path: Path) -> None:
        path = written(tmp_path / "a.flac", noise(12_345))
        np.testing.assert_array_equal(read(path, block_ms=1), read(path, block_ms=10_000))

    def test_samples_beyond_full_scale_are_clipped(self, tmp_path: Path) -> None:
        path = written(tmp_path / "a.wav", np.array([0.5, 1.5, -3e38, 3e38], np.float32), subtype="FLOAT")
        np.testing.assert_array_equal(read(path), np.array([0.5, 1, -1, 1], np.float32))

    def test_blocks_go_on_where_they_stopped(self, tmp_path: Path) -> None:
        with FileSource(written(tmp_path / "a.wav", noise(4_000))) as source:
            first = next(source.blocks())
            rest = list(source.blocks())
        assert (first.start_sample, rest[0].start_sample) == (0, 1_600)
        assert len(joined([first, *rest])) == 4_000

    def test_close_ends_the_blocks(self, tmp_path: Path) -> None:
        source = FileSource(written(tmp_path / "a.wav", noise(4_000)))
        blocks = source.blocks()
        next(blocks)
        source.close()
        assert list(blocks) == []
        source.close()

    def test_memory_does_not_grow_with_the_file(self, tmp_path: Path) -> None:
        path = written(tmp_path / "a.flac", np.zeros(RATE * 300, np.float32))
        with FileSource(path) as source:
            tracemalloc.start()
            total = sum(len(block.samples) for block in source.blocks())
            _, peak_bytes = tracemalloc.get_traced_memory()
            tracemalloc.stop()
        assert total == RATE * 300
        assert peak_bytes < 200_000

    def test_a_pipe_can_be_read(self, tmp_path: Path) -> None:
        content = written(tmp_path / "a.wav", noise(2_000)).read_bytes()
        reader, writer = os.pipe()
        os.write(writer, content)
        os.close(writer)
        with FileSource(f"/dev/fd/{reader}") as source:
            assert source.duration_s is None
            assert len(joined(list(source.blocks()))) == 2_000
        os.close(reader)

    def test_real_time_waits_for_the_end_of_each_block(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        now_s = [100.0]
        monkeypatch.setattr(time, "monotonic", lambda: now_s[0])
        monkeypatch.setattr(time, "sleep", lambda wait_s: now_s.__setitem__(0, now_s[0] + wait_s))
        arrivals = []
        with FileSource(written(tmp_path / "a.wav", noise(5_600)), real_time=True) as source:
            for index, _ in enumerate(source.blocks()):
                arrivals.append(now_s[0] - 100.0)
                now_s[0] += 0.25 if index == 1 else 0.01  # a slow consumer makes up for it afterwards
        assert arrivals == pytest.approx([0.1, 0.2, 0.45, 0.46])


class TestBadFiles:
    def test_missing_file(self, tmp_path: Path) -> None:
        message = message_of(lambda: FileSource(tmp_path / "none.wav"))
        assert f"{tmp_path}/none.wav (No such file or directory), want a wav" in message

    def test_directory(self, tmp_path: Path) -> None:
        assert f"{tmp_path} (Is a directory), want a wav" in message_of(lambda: FileSource(tmp_path))

    def test_empty_file(self, tmp_path: Path) -> None:
        path = tmp_path / "empty.wav"
        path.touch()
        assert f"{path} is empty (0 bytes), want a wav" in message_of(lambda: FileSource(path))

    @pytest.mark.parametrize("name", ["letter.txt", "letter.wav", "letter.mp3"])
    def test_text_is_not_audio(self, tmp_path: Path, name: str) -> None:
        path = tmp_path / name
        path.write_text("To whom it may concern. " * 100)
        assert f"{path} cannot be decoded (Format not recognised)" in message_of(lambda: FileSource(path))

    def test_wav_of_no_samples(self, tmp_path: Path) -> None:
        source = FileSource(written(tmp_path / "a.wav", noise(0)))
        samples, message = read_until_error(source)
        assert len(samples) == 0
        assert "a.wav holds no samples" in message

    @pytest.mark.parametrize(("rate", "given"), [(0, "0 Hz or less"), (1, "1 Hz"), (2**31 - 1, "2147483647 Hz")])
    def test_impossible_sample_rate(self, tmp_path: Path, rate: int, given: str) -> None:
        path = patched(written(tmp_path / "a.wav", noise(100)), 24, struct.pack("<I", rate))
        message = message_of(lambda: FileSource(path))
        assert f"a.wav has a sample rate of {given}" in message
        assert "want 1000 to 768000 Hz" in message

    def test_blocks_without_length(self, tmp_path: Path) -> None:
        path = written(tmp_path / "a.wav", noise(100))
        assert "blocks of 0 ms" in message_of(lambda: FileSource(path, block_ms=0))

    @pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
    def test_sample_that_is_no_number(self, tmp_path: Path, value: float) -> None:
        samples = noise(RATE, channels=2)
        samples[8_000, 1] = value
        source = FileSource(written(tmp_path / "a.wav", samples, subtype="FLOAT"))
        heard, message = read_until_error(source)
        np.testing.assert_allclose(heard, samples[:8_000].mean(axis=1), atol=1e-7)
        assert "a.wav has a NaN or infinite sample at 0.500 s" in message


class TestIncompleteFiles:
    @pytest.mark.parametrize(
        ("name", "subtype"),
        [
            ("a.wav", "PCM_16"),
            ("a.wav", "PCM_24"),
            ("a.wav", "FLOAT"),
            ("a.aiff", "PCM_16"),
            ("a.au", "PCM_16"),
            ("a.w64", "PCM_16"),
            ("a.rf64", "PCM_16"),
        ],
    )
    def test_uncompressed_file_shorter_than_its_header_says(self, tmp_path: Path, name: str, subtype: str) -> None:
        samples = noise(48_000)
        source = FileSource(cut(written(tmp_path / name, samples, subtype=subtype), 0.6))
        heard, message = read_until_error(source)
        assert len(heard) == pytest.approx(0.6 * 48_000, abs=30)
        np.testing.assert_allclose(heard, samples[: len(heard)], atol=2**-15)
        assert f"{name} ends early, at {len(heard) / RATE:.3f} s: its header promises" in message

    def test_flac_cut_off(self, tmp_path: Path) -> None:
        samples = noise(48_000)
        source = FileSource(cut(written(tmp_path / "a.flac", samples), 0.5))
        assert source.duration_s == 3.0
        heard, message = read_until_error(source)
        assert len(heard) == 5 * 4_096  # all whole flac frames
        np.testing.assert_allclose(heard, samples[: len(heard)], atol=2**-15)
        assert "a.flac ends early, at 1.280 s: it is damaged or cut off (flac decoder lost sync)" in message

    def test_flac_damaged_in_the_middle(self, tmp_path: Path) -> None:
        source = FileSource(patched(written(tmp_path / "a.flac", noise(48_000)), 30_000, bytes(10)))
        heard, message = read_until_error(source)
        assert 0 < len(heard) < 24_000
        assert "it is damaged or cut off" in message

    @pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
    @pytest.mark.parametrize("fraction", [0.5, 0.9, 0.9999])
    def test_ogg_cut_off(self, tmp_path: Path, subtype: str, fraction: float) -> None:
        path = written(tmp_path / "a.ogg", noise(48_000), format="OGG", subtype=subtype)
        heard, message = read_until_error(FileSource(cut(path, fraction)))
        assert 8_000 < len(heard) <= 48_000
        assert "its last page is cut off" in message

    def test_ogg_without_its_last_page(self, tmp_path: Path) -> None:
        path = written(tmp_path / "a.ogg", noise(48_000))
        last_page = path.read_bytes().rfind(b"OggS")
        path.write_bytes(path.read_bytes()[:last_page])
        heard, message = read_until_error(FileSource(path))
        assert 8_000 < len(heard) < 48_000
        assert "its last page is missing" in message

    def test_ogg_recordings_joined(self, tmp_path: Path) -> None:
        first = written(tmp_path / "a.ogg", noise(16_000))
        second = written(tmp_path / "b.ogg", noise(8_000))  # libsndfile draws the serial number of each
        first.write_bytes(first.read_bytes() + second.read_bytes())
        heard, message = read_until_error(FileSource(first))
        assert len(heard) == 16_000
        assert "several recordings joined" in message

    def test_mp3_cut_off(self, tmp_path: Path) -> None:
        path = written(tmp_path / "a.mp3", tone(160_000))
        heard, message = read_until_error(FileSource(cut(path, 0.5)))
        assert 0.4 * 160_000 < len(heard) < 0.6 * 160_000
        assert "its header promises 10.000 s" in message

    def test_mp3_longer_than_its_header_says(self, tmp_path: Path) -> None:
        path = written(tmp_path / "a.mp3", tone(160_000))
        path.write_bytes(path.read_bytes() * 2)
        heard, message = read_until_error(FileSource(path))
        assert len(heard) == 160_000
        assert f"leaves {path.stat().st_size // 2} bytes of mp3 unread" in message

    @pytest.mark.parametrize("size", [0x7FFF_F000, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF])
    def test_placeholder_sizes_of_a_live_recorder_promise_nothing(self, tmp_path: Path, size: int) -> None:
        path = patched(written(tmp_path / "a.wav", noise(4_000)), 40, struct.pack("<I", size))
        assert len(read(path)) == 4_000

    def test_flac_of_unknown_length_is_whole(self, tmp_path: Path) -> None:
        path = written(tmp_path / "a.flac", noise(50_000))
        streaminfo = path.read_bytes()[21:26]  # 4 bits of sample size, 36 bits of length
        patched(path, 21, bytes([streaminfo[0] & 0xF0, 0, 0, 0, 0]))
        with FileSource(path) as source:
            assert source.duration_s is None
            assert len(joined(list(source.blocks()))) == 50_000

    def test_mp3_with_a_tag_before_and_behind_is_whole(self, tmp_path: Path) -> None:
        path = written(tmp_path / "a.mp3", tone(160_000))
        before = b"ID3\x03\x00\x00" + bytes([0, 0, 0x40, 0]) + bytes(0x2000)
        behind = b"APETAGEX" + bytes(20_000) + b"TAG" + bytes(125)
        path.write_bytes(before + path.read_bytes() + behind)
        assert len(read(path)) == 160_000
        tagged_and_cut = cut(path, 0.45)
        assert "its header promises 10.000 s" in read_until_error(FileSource(tagged_and_cut))[1]


class TestSpeech:
    @needs_speech
    @pytest.mark.parametrize(
        ("manifest", "suffix"), [("dev.jsonl", ".mp3"), ("dev_other.jsonl", ".mp3"), ("train.jsonl", ".opus")]
    )
    def test_real_recordings_are_whole(self, manifest: str, suffix: str) -> None:
        lines = (SPEECH / manifest).read_text(encoding="utf-8").splitlines()
        entries = [entry for entry in map(json.loads, lines) if entry["audio_filepath"].endswith(suffix)]
        for entry in entries[:: len(entries) // 8]:
            path = SPEECH / entry["audio_filepath"]
            samples = read(path)
            rate = soundfile.info(path).samplerate
            assert len(samples) / rate == pytest.approx(entry["duration"], abs=0.05)
            np.testing.assert_allclose(samples, soundfile.read(path, dtype="float32")[0].clip(-1, 1), atol=1e-6)

    @needs_speech
    @pytest.mark.parametrize("suffix", [".mp3", ".opus"])
    def test_real_recording_cut_off_gives_its_first_words(self, tmp_path: Path, suffix: str) -> None:
        original = next(iter(sorted(SPEECH.glob(f"audio/librispeech-*/*{suffix}"))))
        path = tmp_path / original.name
        path.write_bytes(original.read_bytes())
        heard, message = read_until_error(FileSource(cut(path, 0.7)))
        whole = read(path)
        assert 0.3 * len(whole) < len(heard) < 0.8 * len(whole)
        np.testing.assert_allclose(heard[: len(heard) // 2], whole[: len(heard) // 2], atol=1e-6)
        assert f"{path.name} ends early" in message


class Trickle(io.RawIOBase):
    """A pipe that gives a few bytes at a time."""

    def __init__(self, content: bytes) -> None:
        self._left = content

    def read(self, size: int = -1) -> bytes:
        part, self._left = self._left[: min(size, 7)], self._left[min(size, 7) :]
        return part


class TestRawSource:
    def test_samples_are_scaled(self) -> None:
        pcm = np.array([0, 1, -1, 32767, -32768, 16384], "<i2")
        with RawSource(io.BytesIO(pcm.tobytes())) as source:
            assert (source.sample_rate_hz, source.duration_s) == (RATE, None)
            samples = joined(list(source.blocks()))
        np.testing.assert_array_equal(samples, pcm.astype(np.float32) / 32768)

    @pytest.mark.parametrize("num_samples", [1, 799, 800, 801, 1_600])
    def test_blocks_have_the_length_asked_for(self, num_samples: int) -> None:
        source = RawSource(io.BytesIO(bytes(2 * num_samples)), sample_rate_hz=8_000)
        lengths = [len(block.samples) for block in source.blocks()]
        assert sum(lengths) == num_samples
        assert all(length == 800 for length in lengths[:-1])

    def test_a_stream_that_gives_little_at_a_time(self) -> None:
        pcm = np.arange(4_001, dtype="<i2")
        source = RawSource(Trickle(pcm.tobytes()))  # type: ignore[arg-type]
        np.testing.assert_array_equal(joined(list(source.blocks())) * 32768, pcm)

    @pytest.mark.parametrize("num_samples", [0, 5, 1_600])
    def test_odd_byte_is_an_error_after_all_whole_samples(self, num_samples: int) -> None:
        samples, message = read_until_error(RawSource(io.BytesIO(bytes(2 * num_samples + 1))))
        assert len(samples) == num_samples
        assert f"after {2 * num_samples + 1} bytes" in message
        assert "s16le" in message

    def test_empty_stream_is_an_error(self) -> None:
        _, message = read_until_error(RawSource(io.BytesIO()))
        assert "ended before the first sample" in message

    @pytest.mark.parametrize("magic", [b"RIFF", b"fLaC", b"OggS", b"ID3\x04"])
    def test_a_file_with_a_header_is_an_error(self, magic: bytes) -> None:
        samples, message = read_until_error(RawSource(Trickle(magic + bytes(10_000))))
        assert len(samples) == 0
        assert f"begins with {magic!r}" in message

    def test_sample_rate_of_zero_is_an_error(self) -> None:
        message = message_of(lambda: RawSource(io.BytesIO(bytes(2)), sample_rate_hz=0))
        assert "sample rate of 0 Hz" in message

    def test_close_ends_the_blocks_and_leaves_the_stream_open(self) -> None:
        stream = io.BytesIO(bytes(10_000))
        source = RawSource(stream)
        blocks = source.blocks()
        next(blocks)
        source.close()
        assert list(blocks) == []
        assert not stream.closed


@pytest.fixture(params=["package", "library"])
def libsoxr(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The package soxr, and the system's library where the package is not there."""
    if request.param == "library":
        try:
            ctypes.CDLL("libsoxr.so.0")
        except OSError as error:
            pytest.skip(f"no library of Debian's libsoxr0: {error}")
        monkeypatch.setitem(sys.modules, "soxr", None)
    return str(request.param)


def resampled(resampler: Resampler, blocks: list[Waveform]) -> Waveform:
    return np.concatenate([*(resampler.process(block) for block in blocks), resampler.flush()])


def ragged(samples: Waveform) -> list[Waveform]:
    """Blocks of 1 to 3,000 samples."""
    lengths = np.random.default_rng(1).integers(1, 3_000, len(samples))
    ends = np.cumsum(lengths)
    return np.split(samples, ends[ends < len(samples)])


class TestResampler:
    @pytest.mark.parametrize("rate", [8_000, 22_050, 44_100, 48_000, 96_000])
    def test_ragged_blocks_equal_the_whole_signal_at_once(self, rate: int, libsoxr: str) -> None:
        samples = noise(3 * rate + 11)
        streamed = resampled(Resampler(rate, RATE), ragged(samples))
        assert len(streamed) == pytest.approx(len(samples) * RATE / rate, abs=1)
        np.testing.assert_allclose(streamed, soxr.resample(samples, rate, RATE), atol=1e-4)

    @pytest.mark.parametrize("rate", [8_000, 22_050, 44_100, 48_000])
    def test_stereo_file_is_mixed_and_resampled(self, tmp_path: Path, rate: int) -> None:
        samples = noise(2 * rate, channels=2)
        with FileSource(written(tmp_path / "a.wav", samples, rate, subtype="FLOAT")) as source:
            resampler = Resampler(source.sample_rate_hz, RATE)
            streamed = resampled(resampler, [block.samples for block in source.blocks()])
        assert len(streamed) == pytest.approx(2 * RATE, abs=1)
        np.testing.assert_allclose(streamed, soxr.resample(samples.mean(axis=1), rate, RATE), atol=1e-4)

    def test_a_tone_keeps_its_pitch(self) -> None:
        seconds = np.arange(44_100) / 44_100
        streamed = resampled(Resampler(44_100, RATE), ragged(np.sin(2 * np.pi * 440 * seconds, dtype=np.float32)))
        expected = np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE)
        np.testing.assert_allclose(streamed[500:-500], expected[500:-500], atol=1e-3)

    def test_equal_rates_change_nothing(self) -> None:
        samples = noise(1_000)
        resampler = Resampler(RATE, RATE)
        np.testing.assert_array_equal(resampler.process(samples), samples)
        assert len(resampler.flush()) == 0

    def test_flush_begins_a_new_signal(self, libsoxr: str) -> None:
        samples = noise(9_000)
        resampler = Resampler(44_100, RATE)
        first = resampled(resampler, ragged(samples))
        assert len(resampler.flush()) == 0
        np.testing.assert_array_equal(resampled(resampler, ragged(samples)), first)

    @pytest.mark.parametrize("rate", [audio.MIN_SAMPLE_RATE_HZ, audio.MAX_SAMPLE_RATE_HZ])
    def test_the_rates_at_the_limits_work(self, rate: int, libsoxr: str) -> None:
        streamed = resampled(Resampler(rate, RATE), ragged(noise(rate // 4)))
        assert len(streamed) == pytest.approx(RATE / 4, abs=1)

    @pytest.mark.parametrize("rate", [0, -1, 999, 768_001])
    def test_impossible_rates_are_errors(self, rate: int) -> None:
        assert f"the source has a sample rate of {rate} Hz" in message_of(lambda: Resampler(rate, RATE))
        assert f"target has a sample rate of {rate} Hz" in message_of(lambda: Resampler(RATE, rate))

    def test_without_libsoxr_equal_rates_work_and_others_say_what_to_install(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def absent(name: str) -> None:
            raise OSError(f"{name}: cannot open shared object file")

        monkeypatch.setitem(sys.modules, "soxr", None)
        monkeypatch.setattr(soxr_stream.ctypes, "CDLL", absent)
        soxr_stream._loaded.cache_clear()
        samples = noise(1_000)
        np.testing.assert_array_equal(Resampler(RATE, RATE).process(samples), samples)
        with pytest.raises(ExtraMissingError, match=r"got audio at 48000 Hz, wanted 16000 Hz.* libsoxr0$"):
            Resampler(48_000, RATE)

    @pytest.mark.parametrize("rate", [RATE, 48_000])
    def test_bad_samples_are_errors(self, rate: int) -> None:
        resampler = Resampler(rate, RATE)
        resampler.process(noise(rate))
        spoilt = noise(rate)
        spoilt[rate // 2] = math.nan
        assert "NaN or infinite sample at 1.500 s" in message_of(lambda: resampler.process(spoilt))
        assert "0 samples" in message_of(lambda: resampler.process(spoilt[:0]))
        assert "float64" in message_of(lambda: resampler.process(spoilt.astype(np.float64)))
        assert "(8, 2)" in message_of(lambda: resampler.process(spoilt[:16].reshape(8, 2)))
