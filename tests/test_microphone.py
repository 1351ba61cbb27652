import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edgeasr import microphone
from edgeasr.audio import AudioBlock, Waveform
from edgeasr.errors import AudioFormatError, DeviceError
from edgeasr.microphone import Microphone, list_input_devices

RATE = 16_000
BLOCK = 640  # samples in 40 ms


def device(index: int, name: str, channels: int = 1, rate: float = RATE) -> dict[str, Any]:
    return {"index": index, "name": name, "max_input_channels": channels, "default_samplerate": rate}


DEVICES = [
    device(0, "HDMI out", channels=0),
    device(1, "USB Audio", channels=2, rate=44_100.0),
    device(2, "USB Audio Pro", rate=48_000.0),
    device(3, "Built-in"),
]


class PortAudioError(Exception):
    pass


class FakeStream:
    """Stands in for sounddevice.InputStream: the test says what the device hears, and when."""

    def __init__(self, **options: Any) -> None:
        self.options = options
        self.running = False
        self.start_error: Exception | None = None

    def start(self) -> None:
        if self.start_error:
            raise self.start_error
        self.running = True

    def close(self) -> None:
        self.end()

    def end(self) -> None:
        self.running = False
        self.options["finished_callback"]()

    def hear(self, frames: Waveform, adc_s: float = 0.0, *, overflow: bool = False) -> None:
        clock = SimpleNamespace(inputBufferAdcTime=adc_s)
        self.options["callback"](frames, len(frames), clock, SimpleNamespace(input_overflow=overflow))


class FakeSound:
    """Stands in for the sounddevice module."""

    PortAudioError = PortAudioError

    def __init__(self, devices: list[dict[str, Any]] | None = None, default: int = 3) -> None:
        self.devices = DEVICES if devices is None else devices
        self.default = default
        self.open_error: Exception | None = None
        self.stream = FakeStream()

    def query_devices(self, kind: str | None = None) -> Any:
        if kind is None:
            return self.devices
        if self.default < 0:
            raise PortAudioError("Error querying device -1")
        return self.devices[self.default]

    def InputStream(self, **options: Any) -> FakeStream:  # noqa: N802 - sounddevice's name
        if self.open_error:
            raise self.open_error
        self.stream.options = options
        return self.stream


def frames(*values: float, channels: int = 1) -> Waveform:
    """One block for each value, constant."""
    return np.repeat(np.array(values, np.float32), BLOCK)[:, None].repeat(channels, axis=1)


def hear(sound: FakeSound, *values: float) -> None:
    for value in values:
        sound.stream.hear(frames(value))


def outline(blocks: list[AudioBlock]) -> list[tuple[float, int, int]]:
    """(value, start_sample, gap_samples) of blocks that are constant."""
    assert all(np.ptp(block.samples) == 0 and len(block.samples) == BLOCK for block in blocks)
    return [(float(block.samples[0]), block.start_sample, block.gap_samples) for block in blocks]


def message_of(call: Callable[[], object]) -> str:
    with pytest.raises(DeviceError) as error:
        call()
    assert "\n" not in str(error.value)
    assert error.value.exit_code == 3
    return str(error.value)


class TestBlocks:
    def test_come_in_order(self) -> None:
        sound = FakeSound()
        with Microphone(sound=sound) as mic:
            hear(sound, 0.25, 0.5)
            blocks = mic.blocks()
            heard = [next(blocks)]
            hear(sound, 0.75)
            heard += [next(blocks), next(blocks)]
        assert outline(heard) == [(0.25, 0, 0), (0.5, 640, 0), (0.75, 1280, 0)]

    def test_listening_begins_with_them(self) -> None:
        sound = FakeSound()
        with Microphone(sound=sound) as mic:
            hear(sound, 0.5)
            running = [sound.stream.running]
            next(mic.blocks())
            running.append(sound.stream.running)
        assert [*running, sound.stream.running] == [False, True, False]

    def test_channels_are_mixed_down(self) -> None:
        sound = FakeSound()
        left_right = np.stack([np.linspace(-1, 1, 10), np.linspace(0, 0.5, 10)], axis=1).astype(np.float32)
        with Microphone("usb audio", sound=sound) as mic:
            sound.stream.hear(left_right)
            block = next(mic.blocks())
        np.testing.assert_allclose(block.samples, left_right.mean(axis=1), atol=1e-7)
        assert block.samples.dtype == np.float32

    def test_do_not_share_the_buffer_of_portaudio(self) -> None:
        sound = FakeSound()
        buffer = frames(0.5)
        with Microphone(sound=sound) as mic:
            sound.stream.hear(buffer)
            buffer[:] = 0
            assert outline([next(mic.blocks())]) == [(0.5, 0, 0)]

    def test_go_on_where_they_stopped(self) -> None:
        sound = FakeSound()
        with Microphone(sound=sound) as mic:
            hear(sound, 0.25, 0.5)
            heard = [next(mic.blocks()), next(mic.blocks())]
        assert outline(heard) == [(0.25, 0, 0), (0.5, 640, 0)]


class TestGaps:
    def test_what_finds_no_room_is_a_gap(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(microphone, "QUEUE_S", 0.08)
        sound = FakeSound()
        with Microphone(sound=sound) as mic:
            hear(sound, 0.1, 0.2, 0.3, 0.4)  # room for two
            blocks = mic.blocks()
            heard = [next(blocks)]
            hear(sound, 0.5, 0.6)  # room for one
            heard += [next(blocks), next(blocks)]
            hear(sound, 0.7)
            heard.append(next(blocks))
        expected = [(0.1, 0, 0), (0.2, 640, 0), (0.5, 4 * 640, 2 * 640), (0.7, 6 * 640, 640)]
        assert outline(heard) == [pytest.approx(block) for block in expected]

    def test_the_queue_is_bounded(self) -> None:
        sound = FakeSound()
        with Microphone(sound=sound) as mic:
            hear(sound, *[0.5] * 300)
            mic.close()
            heard = list(mic.blocks())
        assert len(heard) == 250  # 10 s of 40 ms
        assert heard[-1].start_sample == 249 * 640

    def test_what_portaudio_lost_is_measured_by_its_clock(self) -> None:
        sound = FakeSound()
        with Microphone(sound=sound) as mic:
            sound.stream.hear(frames(0.1), adc_s=50.0)
            sound.stream.hear(frames(0.2), adc_s=50.04)
            sound.stream.hear(frames(0.3), adc_s=50.105, overflow=True)  # due at 50.08: 25 ms lost
            sound.stream.hear(frames(0.4), adc_s=50.145)
            mic.close()
            heard = outline(list(mic.blocks()))
        expected = [(0.1, 0, 0), (0.2, 640, 0), (0.3, 1280 + 400, 400), (0.4, 1280 + 400 + 640, 0)]
        assert heard == [pytest.approx(block) for block in expected]

    def test_jitter_without_an_overflow_is_no_gap(self) -> None:
        sound = FakeSound()
        with Microphone(sound=sound) as mic:
            sound.stream.hear(frames(0.5), adc_s=1.0)
            sound.stream.hear(frames(0.5), adc_s=1.2)
            mic.close()
            assert outline(list(mic.blocks())) == [(0.5, 0, 0), (0.5, 640, 0)]

    def test_an_overflow_shows_where_portaudio_has_no_clock(self) -> None:
        sound = FakeSound()
        with Microphone(sound=sound) as mic:
            sound.stream.hear(frames(0.5), overflow=True)  # before the first block nothing was due
            sound.stream.hear(frames(0.5), overflow=True)
            mic.close()
            assert outline(list(mic.blocks())) == [(0.5, 0, 0), (0.5, 641, 1)]

    def test_both_losses_add_up(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(microphone, "QUEUE_S", 0.04)
        sound = FakeSound()
        with Microphone(sound=sound) as mic:
            sound.stream.hear(frames(0.5), adc_s=1.0)
            sound.stream.hear(frames(0.5), adc_s=1.04)  # finds no room
            first = next(mic.blocks())
            sound.stream.hear(frames(0.5), adc_s=1.09, overflow=True)  # 10 ms lost
            second = next(mic.blocks())
        assert outline([first, second]) == [(0.5, 0, 0), (0.5, 640 + 640 + 160, 640 + 160)]


class TestEnd:
    def test_close_gives_what_was_heard_and_ends(self) -> None:
        sound = FakeSound()
        mic = Microphone(sound=sound)
        hear(sound, 0.25, 0.5)
        blocks = mic.blocks()
        first = next(blocks)
        mic.close()
        mic.close()
        assert outline([first, *blocks]) == [(0.25, 0, 0), (0.5, 640, 0)]
        assert list(mic.blocks()) == []
        assert not sound.stream.running

    def test_close_wakes_a_waiting_reader(self) -> None:
        mic = Microphone(sound=FakeSound())
        heard: list[list[AudioBlock]] = []
        reader = threading.Thread(target=lambda: heard.append(list(mic.blocks())))
        reader.start()
        mic.close()
        reader.join()
        assert heard == [[]]

    def test_a_device_that_falls_silent_is_an_error(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(microphone, "STALL_S", 0.001)
        sound = FakeSound()
        with Microphone(sound=sound) as mic:
            hear(sound, 0.5)
            blocks = mic.blocks()
            next(blocks)
            assert "the microphone Built-in gave no sound for 0.001 s" in message_of(lambda: next(blocks))

    def test_a_device_that_stops_is_an_error_at_once(self) -> None:
        sound = FakeSound()
        with Microphone(sound=sound) as mic:
            hear(sound, 0.5)
            blocks = mic.blocks()
            sound.stream.end()
            assert outline([next(blocks)]) == [(0.5, 0, 0)]
            assert "the microphone Built-in stopped" in message_of(lambda: next(blocks))


class TestOpening:
    @pytest.mark.parametrize(
        ("wanted", "found"),
        [(None, 3), (1, 1), ("1", 1), ("built", 3), ("BUILT-IN", 3), ("usb audio", 1), ("pro", 2)],
    )
    def test_finds_the_device(self, wanted: int | str | None, found: int) -> None:
        sound = FakeSound()
        with Microphone(wanted, sound=sound) as mic:
            assert mic.name == DEVICES[found]["name"]
            assert mic.duration_s is None
        assert sound.stream.options["device"] == found

    def test_uses_the_rate_and_the_channels_of_the_device(self) -> None:
        sound = FakeSound()
        with Microphone(1, block_ms=100, sound=sound) as mic:
            assert mic.sample_rate_hz == 44_100
        options = sound.stream.options
        assert (options["samplerate"], options["channels"], options["blocksize"]) == (44_100, 2, 4_410)
        assert options["dtype"] == "float32"

    def test_takes_two_of_the_many_channels_of_a_sound_server(self) -> None:
        sound = FakeSound([device(0, "pulse", channels=32)], default=0)
        Microphone(sound=sound).close()
        assert sound.stream.options["channels"] == 2

    @pytest.mark.parametrize("wanted", [0, 9, -1, "0", "webcam"])
    def test_no_such_input_lists_what_there_is(self, wanted: int | str) -> None:
        message = message_of(lambda: Microphone(wanted, sound=FakeSound()))
        assert f"no input device matches {wanted!r}" in message
        assert "1: USB Audio (2 ch, 44100 Hz); 2: USB Audio Pro (1 ch, 48000 Hz); 3: " in message
        assert "HDMI" not in message

    def test_a_name_of_several_inputs_lists_what_there_is(self) -> None:
        message = message_of(lambda: Microphone("usb", sound=FakeSound()))
        assert "several input devices match 'usb'" in message
        assert "2: USB Audio Pro" in message

    @pytest.mark.parametrize("devices", [[], [DEVICES[0]]])
    def test_no_microphone_at_all(self, devices: list[dict[str, Any]]) -> None:
        assert "no microphone found" in message_of(lambda: Microphone(sound=FakeSound(devices)))

    def test_no_default_lists_what_there_is(self) -> None:
        message = message_of(lambda: Microphone(sound=FakeSound(default=-1)))
        assert "no default microphone" in message
        assert "3: Built-in" in message

    def test_a_device_that_cannot_be_opened(self) -> None:
        sound = FakeSound()
        sound.open_error = PortAudioError("Error opening InputStream:\nDevice unavailable")
        message = message_of(lambda: Microphone(sound=sound))
        assert "cannot listen to Built-in at 16000 Hz (Error opening InputStream: Device unavailable)" in message
        assert "1: USB Audio" in message

    def test_a_device_that_cannot_be_started(self) -> None:
        sound = FakeSound()
        sound.stream.start_error = PortAudioError("Unanticipated host error")
        with Microphone(sound=sound) as mic:
            assert "(Unanticipated host error)" in message_of(lambda: next(mic.blocks()))

    def test_blocks_without_length_are_an_error(self) -> None:
        with pytest.raises(AudioFormatError, match="blocks of 0 ms"):
            Microphone(block_ms=0, sound=FakeSound())


class TestSoundSystem:
    def test_lists_the_inputs(self) -> None:
        assert list_input_devices(sound=FakeSound()) == [
            "1: USB Audio (2 ch, 44100 Hz)",
            "2: USB Audio Pro (1 ch, 48000 Hz)",
            "3: Built-in (1 ch, 16000 Hz)",
        ]

    @pytest.mark.parametrize("call", [Microphone, list_input_devices])
    def test_missing_portaudio_says_what_to_install(
        self, monkeypatch: pytest.MonkeyPatch, call: Callable[[], object]
    ) -> None:
        def no_library(name: str) -> None:
            raise OSError("PortAudio library not found")

        monkeypatch.setattr(microphone, "import_module", no_library)
        assert "sudo apt install libportaudio2" in message_of(call)

    def test_a_sound_system_that_fails(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def failing() -> None:
            raise PortAudioError("PortAudio not initialized")

        sound = FakeSound()
        monkeypatch.setattr(sound, "query_devices", failing)
        message = message_of(lambda: list_input_devices(sound=sound))
        assert "the sound system does not answer (PortAudio not initialized)" in message
