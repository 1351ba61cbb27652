import threading
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edgeasr.audio import AudioBlock, Waveform
from edgeasr.capture import live, sound_system
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

    def __init__(self, options: dict[str, Any], start_error: Exception | None = None) -> None:
        self.options = options
        self.running = False
        self.start_error = start_error

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
    """Stands in for the sounddevice module. plugged: what is there the next time that PortAudio begins."""

    PortAudioError = PortAudioError

    def __init__(self, devices: list[dict[str, Any]] | None = None, default: int = 3) -> None:
        self.devices = self.plugged = DEVICES if devices is None else devices
        self.default = default
        self.open_error: Exception | None = None
        self.start_error: Exception | None = None
        self.streams: list[FakeStream] = []
        self.num_looks = 0

    @property
    def stream(self) -> FakeStream:
        return self.streams[-1]

    def query_devices(self, kind: str | None = None) -> Any:
        if kind is None:
            return self.devices
        if self.default < 0:
            raise PortAudioError("Error querying device -1")
        return self.devices[self.default]

    def InputStream(self, **options: Any) -> FakeStream:  # noqa: N802 - sounddevice's name
        if self.open_error:
            raise self.open_error
        self.streams.append(FakeStream(options, self.start_error))
        return self.stream

    def _terminate(self) -> None:
        assert not any(stream.running for stream in self.streams)

    def _initialize(self) -> None:
        self.num_looks += 1
        self.devices = self.plugged


class Script:
    """What happens while a microphone is heard, one thing after another as soon as nothing is left to be taken.

    Its clock stands still but for `wait`; it asks to stop after the last thing.
    """

    def __init__(self) -> None:
        self.now_s = 1_000.0
        self.said: list[str] = []
        self.mic: Microphone | None = None
        self._things: Iterator[None] = iter(())

    def clock(self) -> float:
        return self.now_s

    def stopped(self) -> bool:
        if self.mic is not None and self.mic.backlog_s == 0:
            return next(self._things, "end") == "end"
        return False

    def run(self, mic: Microphone, *things: Callable[[], object]) -> list[AudioBlock]:
        """The blocks."""

        def happen() -> Iterator[None]:
            for thing in things:
                thing()
                yield from [None] * 3  # time to notice, and to do something about it

        self.mic, self._things = mic, happen()
        return list(mic.blocks())

    def wait(self, seconds: float) -> Callable[[], None]:
        def pass_time() -> None:
            self.now_s += seconds

        return pass_time


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Script:
    monkeypatch.setattr(live, "POLL_S", 0.0005)
    return Script()


def scripted(script: Script, sound: FakeSound, device: int | str | None = None, *, wait: bool = False) -> Microphone:
    options = {"say": script.said.append, "stopped": script.stopped, "clock": script.clock}
    return Microphone(device, wait=wait, sound=sound, **options)


def frames(*values: float, channels: int = 1) -> Waveform:
    """One block for each value, constant."""
    return np.repeat(np.array(values, np.float32), BLOCK)[:, None].repeat(channels, axis=1)


def hear(sound: FakeSound, *values: float) -> None:
    for value in values:
        sound.stream.hear(frames(value))


def outline(blocks: Iterable[AudioBlock]) -> list[tuple[float, int, int]]:
    """(value, start_sample, gap_samples) of the blocks that were heard, of BLOCK samples, each constant."""
    found = []
    for block in blocks:
        assert len(block.samples) % BLOCK == 0
        for at in range(0, len(block.samples), BLOCK):
            part = block.samples[at : at + BLOCK]
            assert np.ptp(part) == 0
            found.append((float(part[0]), block.start_sample + at, 0 if at else block.gap_samples))
    return found


def sounding(blocks: Iterable[AudioBlock]) -> list[AudioBlock]:
    """Those that are no silence."""
    return [block for block in blocks if block.samples.any()]


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
            heard += [next(blocks)]
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
            hear(sound, 0.25)
            heard = [next(mic.blocks())]
            hear(sound, 0.5)
            heard.append(next(mic.blocks()))
        assert outline(heard) == [(0.25, 0, 0), (0.5, 640, 0)]

    def test_are_longer_for_who_is_behind(self) -> None:
        sound = FakeSound()
        with Microphone(sound=sound) as mic:
            hear(sound, *[0.5] * 60)
            blocks = mic.blocks()
            backlogs = [mic.backlog_s]
            lengths = [len(next(blocks).samples)]
            backlogs.append(mic.backlog_s)
            lengths += [len(next(blocks).samples), len(next(blocks).samples)]
        assert lengths == [RATE, RATE, 60 * BLOCK - 2 * RATE]
        assert backlogs == [pytest.approx(2.4), pytest.approx(1.4)]


class TestGaps:
    def test_five_seconds_without_a_reader_lose_nothing(self) -> None:
        sound = FakeSound()
        with Microphone(sound=sound) as mic:
            values = [k / 256 for k in range(125)]
            hear(sound, *values)
            mic.close()
            assert outline(mic.blocks()) == [(value, k * BLOCK, 0) for k, value in enumerate(values)]
            assert mic.report() is None

    def test_without_a_reader_for_longer_the_oldest_samples_go(self) -> None:
        said: list[str] = []
        sound = FakeSound()
        with Microphone(sound=sound, say=said.append) as mic:
            values = [k / 512 for k in range(300)]  # 12 s; room for 10
            hear(sound, *values)
            mic.close()
            blocks = list(mic.blocks())
        assert (blocks[0].start_sample, blocks[0].gap_samples) == (72_000, 72_000)  # 2 s and a quarter of the room
        np.testing.assert_array_equal(np.concatenate([block.samples for block in blocks]), frames(*values)[72_000:, 0])
        assert said == ["Built-in: 4.5 s of audio lost because recognition was behind"]
        assert mic.report() == said[0]

    def test_what_portaudio_lost_is_measured_by_its_clock(self) -> None:
        sound = FakeSound()
        with Microphone(sound=sound) as mic:
            sound.stream.hear(frames(0.1), adc_s=50.0)
            sound.stream.hear(frames(0.2), adc_s=50.04)
            sound.stream.hear(frames(0.3), adc_s=50.105, overflow=True)  # due at 50.08: 25 ms lost
            sound.stream.hear(frames(0.4), adc_s=50.145)
            mic.close()
            heard = outline(mic.blocks())
        expected = [(0.1, 0, 0), (0.2, 640, 0), (0.3, 1280 + 400, 400), (0.4, 1280 + 400 + 640, 0)]
        assert heard == [pytest.approx(block) for block in expected]
        assert mic.report() == "Built-in: 25 ms of audio lost in the sound system"

    def test_jitter_without_an_overflow_is_no_gap(self) -> None:
        sound = FakeSound()
        with Microphone(sound=sound) as mic:
            sound.stream.hear(frames(0.5), adc_s=1.0)
            sound.stream.hear(frames(0.5), adc_s=1.2)
            mic.close()
            assert outline(mic.blocks()) == [(0.5, 0, 0), (0.5, 640, 0)]

    def test_an_overflow_shows_where_portaudio_has_no_clock(self) -> None:
        sound = FakeSound()
        with Microphone(sound=sound) as mic:
            sound.stream.hear(frames(0.5), overflow=True)  # before the first block nothing was due
            sound.stream.hear(frames(0.5), overflow=True)
            mic.close()
            assert outline(mic.blocks()) == [(0.5, 0, 0), (0.5, 641, 1)]

    def test_of_many_overflows_a_line_is_said_every_ten_seconds(self, script: Script) -> None:
        sound = FakeSound()

        def overflow(k: int) -> Callable[[], None]:
            return lambda: sound.stream.hear(frames(0.5), 1.0 + 0.14 * k, overflow=True)  # 100 ms lost each time

        waits = (script.wait(4), overflow(5), script.wait(4), overflow(6), script.wait(2), overflow(7))
        things = [*(overflow(k) for k in range(5)), *waits]
        script.run(scripted(script, sound), *things)
        assert script.said == [
            "Built-in: 100 ms of audio lost in the sound system",
            "Built-in: 600 ms of audio lost in the sound system",
        ]


class TestAbsence:
    def test_is_waited_for_and_is_a_gap_of_its_length(self, script: Script) -> None:
        sound = FakeSound()
        mic = scripted(script, sound)
        blocks = script.run(
            mic,
            lambda: hear(sound, 0.25),
            sound.stream.end,
            script.wait(0.7),
            script.wait(0.8),
            script.wait(1.04),  # 2.54 s after the last block, the last 40 ms of it heard
            lambda: hear(sound, 0.5),
            lambda: hear(sound, 0.75),
        )
        assert [(block[0], block[1]) for block in outline(sounding(blocks))] == [
            (0.25, 0),
            (0.5, BLOCK + 40_000),
            (0.75, 2 * BLOCK + 40_000),
        ]
        silences = [(block.start_sample + len(block.samples), len(block.samples)) for block in blocks[1:-2]]
        assert silences == [(BLOCK + 16_000, 160), (BLOCK + 32_640, 160)]
        assert script.said == ["Built-in stopped: waiting for it", "Built-in is back after 2.5 s"]
        assert mic.report() == "Built-in: 2.5 s of audio lost while it was away"
        assert len(sound.streams) == 2

    def test_leaves_no_time_out(self, script: Script) -> None:
        sound = FakeSound()
        times = [script.wait(0.3 + 0.17 * k) for k in range(20)]
        blocks = script.run(
            scripted(script, sound),
            lambda: hear(sound, 0.25),
            sound.stream.end,
            *times,
            lambda: hear(sound, 0.5),
        )
        assert len(blocks) > 10
        for before, block in pairwise(blocks):
            assert block.start_sample - block.gap_samples == before.start_sample + len(before.samples)

    def test_counts_until_the_end_of_the_stream(self, script: Script) -> None:
        sound = FakeSound()
        mic = scripted(script, sound)
        script.run(mic, lambda: hear(sound, 0.25), sound.stream.end, script.wait(0.9))
        assert mic.report() == "Built-in: 900 ms of audio lost while it was away"

    def test_begins_where_a_device_gives_no_sound(self, script: Script) -> None:
        sound = FakeSound()
        script.run(
            scripted(script, sound),
            lambda: hear(sound, 0.25),
            script.wait(4.9),
            script.wait(0.2),
            script.wait(1.0),
            lambda: hear(sound, 0.5),
        )
        assert script.said == ["Built-in gave no sound for 5 s: waiting for it", "Built-in is back after 6.1 s"]

    def test_ends_with_the_same_device_at_another_place(self, script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
        nodes = ["as they were"]
        monkeypatch.setattr(sound_system, "_device_nodes", lambda: nodes[-1])
        before = [device(0, "Camera: USB (hw:1,0)"), device(1, "Headset: USB (hw:2,0)", rate=48_000.0)]
        after = [device(0, "Headset: USB (hw:1,0)", rate=48_000.0), device(1, "Camera: USB (hw:2,0)")]
        sound = FakeSound(before, default=1)

        def plug(devices: list[dict[str, Any]]) -> None:
            sound.plugged = devices
            nodes.append(f"changed {len(nodes)} times")

        script.run(
            scripted(script, sound),
            lambda: hear(sound, 0.25),
            lambda: (plug(before[:1]), sound.stream.end()),
            script.wait(1.0),
            script.wait(30.0),
            lambda: plug(after),
            script.wait(1.0),
            lambda: hear(sound, 0.5),
        )
        assert [stream.options["device"] for stream in sound.streams] == [1, 0]
        assert script.said[-1] == "Headset: USB (hw:1,0) is back after 32.0 s"

    def test_of_an_hour_costs_few_new_beginnings_of_portaudio(
        self, script: Script, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sound_system, "_device_nodes", lambda: None)
        sound = FakeSound()

        def unplug() -> None:
            sound.plugged = []
            sound.stream.end()

        script.run(scripted(script, sound), lambda: hear(sound, 0.25), unplug, *[script.wait(5)] * 720)
        assert 8 <= sound.num_looks <= 14

    def test_may_end_with_another_rate(self, script: Script) -> None:
        sound = FakeSound([device(0, "USB", rate=48_000.0)], default=0)
        mic = scripted(script, sound)
        rates: list[int] = []

        def plug_another() -> None:
            sound.plugged = sound.devices = [device(0, "USB", rate=RATE)]
            sound.stream.end()

        heard = sounding(
            script.run(
                mic,
                lambda: hear(sound, 0.25),
                lambda: rates.append(mic.sample_rate_hz),
                plug_another,
                script.wait(1.04),
                lambda: hear(sound, 0.5),
                lambda: rates.append(mic.sample_rate_hz),
            )
        )
        assert rates == [48_000, RATE]
        assert heard[0].start_sample == 0
        assert heard[1].start_sample / RATE == pytest.approx(BLOCK / 48_000 + 1.0, abs=1 / RATE)

    def test_at_the_start_can_be_waited_for(self, script: Script) -> None:
        sound = FakeSound([])
        mic = scripted(script, sound, "usb", wait=True)

        def plug() -> None:
            sound.plugged = [device(0, "USB Audio", rate=48_000.0)]

        blocks = script.run(mic, script.wait(2.0), plug, script.wait(4.0), lambda: hear(sound, 0.5))
        assert mic.name == "USB Audio"
        assert script.said == [
            "usb is not there (no microphone found: plug one in and check with `arecord -l` that the system sees it): "
            "waiting for it",
            "USB Audio is back after 6.0 s",
        ]
        assert outline(blocks[-1:])[0][:2] == (0.5, 6 * 48_000 - BLOCK)


class TestEnd:
    def test_close_gives_what_was_heard_and_ends(self) -> None:
        sound = FakeSound()
        mic = Microphone(sound=sound)
        hear(sound, 0.25)
        blocks = mic.blocks()
        first = next(blocks)
        hear(sound, 0.5)
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

    def test_is_possible_while_the_device_is_away(self, script: Script) -> None:
        sound = FakeSound()
        mic = scripted(script, sound)
        script.run(mic, lambda: hear(sound, 0.25), sound.stream.end, script.wait(0.3), mic.close)
        assert script.said == ["Built-in stopped: waiting for it"]


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
        sound.start_error = PortAudioError("Unanticipated host error")
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

        monkeypatch.setattr(sound_system, "import_module", no_library)
        assert "sudo apt install libportaudio2" in message_of(call)

    def test_a_sound_system_that_fails(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def failing() -> None:
            raise PortAudioError("PortAudio not initialized")

        sound = FakeSound()
        monkeypatch.setattr(sound, "query_devices", failing)
        message = message_of(lambda: list_input_devices(sound=sound))
        assert "the sound system does not answer (PortAudio not initialized)" in message
