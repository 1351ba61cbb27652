import itertools

import numpy as np
import pytest

from edgeasr.audio import FileSource
from edgeasr.errors import DeviceError
from edgeasr.features import FeatureBlock, LogMel
from edgeasr.firmware_bridge.feature_codec import decode_features, encode_features
from edgeasr.firmware_bridge.frame import FrameWriter
from edgeasr.firmware_bridge.link import Link
from edgeasr.firmware_bridge.messages import (
    Ack,
    Audio,
    Codec,
    Command,
    Configure,
    EventKind,
    Gap,
    GapReason,
    Hello,
    Log,
    LogLevel,
    TranscriptKind,
    VadMode,
)
from edgeasr.firmware_bridge.messages import Event as DeviceEvent
from edgeasr.firmware_bridge.selftest import FAULTS, SoundSource, hear
from edgeasr.firmware_bridge.session import LinkConfig
from edgeasr.firmware_bridge.source import BridgeSource, transcript_message
from edgeasr.firmware_bridge.transport import Transport, TransportEnded
from edgeasr.firmware_bridge.virtual_device import (
    FEATURES,
    DeviceConfig,
    FaultConfig,
    FaultyLine,
    LoopTransport,
    VirtualDevice,
)
from edgeasr.recognizer import Recognizer
from edgeasr.transcript import Final, Partial

CLIP = "edgeasr/models/demo.flac"
RATE = 16_000


class FrameTransport(Transport):
    """Frames from a list, then the end; `clock` tells when each is read."""

    name, bytes_per_s, may_return = "board", None, False

    def __init__(self, frames, spacing_s=0.02):
        self._frames = iter(frames)
        self._spacing_s = spacing_s
        self.now_s = 0.0

    def clock(self):
        return self.now_s

    def read(self, timeout_s):
        frame = next(self._frames, None)
        if frame is None:
            raise TransportEnded
        self.now_s += self._spacing_s
        return frame

    def write(self, data, timeout_s):
        return True

    def close(self):
        pass


def blocks_of(frames, spacing_s=0.02):
    """(blocks, what was said, report) of a device that only talks."""
    transport, said = FrameTransport(frames, spacing_s), []
    with BridgeSource(Link(transport, LinkConfig(), said.append, transport.clock), said.append) as source:
        return list(source.blocks()), said, source.report()


def ramp(start, num_samples=320):
    return Audio(Codec.S16, num_samples, np.arange(start, start + num_samples).astype("<i2").tobytes())


def placed(blocks):
    """Samples by the index that they carry, and the gaps: where each block is must be what it holds."""
    for block in blocks:
        np.testing.assert_array_equal(
            np.rint(block.samples * 32_768), np.arange(block.start_sample, block.start_sample + len(block.samples))
        )
    return [block.gap_samples for block in blocks if block.gap_samples]


class TestSamples:
    def frames(self, times):
        writer = FrameWriter()
        return [writer.encode(ramp(time), 70_000 + time) for time in times]

    def test_come_out_as_they_went_in(self):
        blocks, _, report = blocks_of(self.frames(range(0, 6400, 320)))
        assert placed(blocks) == []
        assert sum(len(block.samples) for block in blocks) == 6400
        assert report is None

    def test_that_are_lost_are_gaps(self):
        frames = self.frames(range(0, 6400, 320))
        del frames[3:5], frames[9]
        blocks, _, report = blocks_of(frames)
        assert placed(blocks) == [640, 320]
        assert report == "board: 17 frames, 3 lost, 60 ms of audio lost on the link"

    def test_that_are_damaged_are_gaps(self):
        frames = self.frames(range(0, 3200, 320))
        frames[4] = frames[4][:100] + bytes([frames[4][100] ^ 0x55]) + frames[4][101:]
        blocks, _, report = blocks_of(frames)
        assert placed(blocks) == [320]
        assert "20 ms of audio lost on the link" in report
        assert "1 lost" in report

    def test_come_once_from_duplicates_and_never_late(self):
        frames = self.frames(range(0, 3200, 320))
        frames[3:4] = [frames[3], frames[3]]
        frames[6], frames[7] = frames[7], frames[6]
        blocks, _, report = blocks_of(frames)
        assert placed(blocks) == [320]
        assert report == "board: 9 frames, 1 lost, 1 duplicate, 1 late, 20 ms of audio lost on the link"

    def test_that_the_device_could_not_send_are_its_own_loss(self):
        writer = FrameWriter()
        frames = [
            writer.encode(ramp(0), 0),
            writer.encode(Gap(640, GapReason.OVERRUN), 320),
            writer.encode(ramp(960), 960),
            writer.encode(Gap(320, GapReason.GATED), 1280),
            writer.encode(ramp(1600), 1600),
        ]
        blocks, _, report = blocks_of(frames)
        assert placed(blocks) == [640, 320]
        assert report == "board: 5 frames, 40 ms of audio lost in the device"

    def test_of_a_frame_that_makes_no_sense_are_not_handed_on(self):
        writer = FrameWriter()
        frames = [writer.encode(ramp(0), 0), writer.encode(Audio(Codec.S16, 320, b"\0" * 100), 320)]
        frames += [writer.encode(Audio(9, 320, bytes(320)), 640), writer.encode(ramp(960), 960)]
        blocks, _, report = blocks_of(frames)
        assert placed(blocks) == [640]
        assert "2 payload" in report

    def test_have_the_rate_of_the_device(self):
        writer = FrameWriter()
        frames = [writer.encode(Hello(1, 8_000, 4096, 1, 0, "board")), writer.encode(ramp(0), 0)]
        transport = FrameTransport(frames)
        with BridgeSource(Link(transport, LinkConfig(), print, transport.clock), print) as source:
            assert [len(block.samples) for block in source.blocks()] == [320 - 16, 16]
            assert source.sample_rate_hz == 8_000

    def test_are_stretched_to_the_time_of_the_host(self):
        """A device that is fast by 500 ppm, for a minute, without jitter."""
        writer = FrameWriter()
        frames = [writer.encode(Audio(Codec.S16, 1600, b"\1\2" * 1600), start) for start in range(0, 60 * RATE, 1600)]
        blocks, _, _ = blocks_of(frames, spacing_s=0.1 / 1.0005)
        end_s = (blocks[-1].start_sample + len(blocks[-1].samples)) / RATE
        assert end_s == pytest.approx(60 / 1.0005, abs=0.006)
        assert all(a.start_sample + len(a.samples) == b.start_sample for a, b in itertools.pairwise(blocks))

    def test_of_which_none_came_are_an_error(self):
        with pytest.raises(DeviceError, match="board ended before the first sample"):
            blocks_of([FrameWriter().encode(Log(LogLevel.INFO, "hello"))])

    def test_leave_warnings_of_the_device_readable(self):
        writer = FrameWriter()
        frames = [writer.encode(Log(level, level.name)) for level in LogLevel] + [writer.encode(ramp(0), 0)]
        _, said, _ = blocks_of(frames)
        assert said == [f"board: the device says: {name}" for name in ("WARNING", "ERROR", "FATAL")]


class GatedTransport(Transport):
    """Frames at their times by a clock that goes on by a fiftieth of a second where nothing comes."""

    name, bytes_per_s, may_return = "board", None, False

    def __init__(self, timed_frames, end_s):
        self._frames, self._end_s, self.now_s = list(timed_frames), end_s, 0.0

    def read(self, timeout_s):
        if self._frames and self._frames[0][0] <= self.now_s:
            return self._frames.pop(0)[1]
        if self.now_s >= self._end_s:
            raise TransportEnded
        self.now_s += 0.02
        return b""

    def write(self, data, timeout_s):
        return True

    def close(self):
        pass


class StepByStep(Link):
    """A link that reads when it is asked to, so that nothing waits."""

    def arrivals(self, stopped):
        self.session.begin(0.0)
        while not stopped():
            try:
                received = self.session.accept(self._transport.read(0), self._clock())
            except TransportEnded:
                return
            yield from received or [None]


def gated_blocks(messages, end_s):
    """(time at which it came, block) of a gated device, and its report. messages: (arrival, device's time, message)"""
    greeting = (Hello(1, RATE, 4096, 15, 80, "board"), Ack(Configure.TYPE, 1, 0), Ack(Command.TYPE, 2, 0))
    writer = FrameWriter()
    frames = [(0.0, writer.encode(message)) for message in greeting]
    frames += [(at_s, writer.encode(message, time)) for at_s, time, message in messages]
    transport = GatedTransport(frames, end_s)
    link = StepByStep(transport, LinkConfig(vad_mode=VadMode.GATE), print, lambda: transport.now_s)
    with BridgeSource(link, print) as source:
        return [(transport.now_s, block) for block in source.blocks()], source.report()


def seconds_of(block):
    length = len(block.samples) if hasattr(block, "samples") else 160 * len(block.features)
    return (block.gap_samples + length) / RATE


END = DeviceEvent(EventKind.SPEECH_END, 0, 0)


class TestSilenceBehindAGate:
    def speech(self, start_s, end_s, delay_s=0.05):
        """AUDIO of 100 ms at 16 kHz, each some time after it was heard."""
        starts = range(round(start_s * RATE), round(end_s * RATE), 1600)
        return [(0.1 + start / RATE + delay_s, start, ramp(start % 20_000, 1600)) for start in starts]

    def test_comes_while_nothing_else_does(self):
        gap = (5.4, RATE, Gap(4 * RATE, GapReason.GATED))
        messages = [*self.speech(0, 1), (1.06, RATE, END), gap, *self.speech(5, 6, delay_s=0.4)]
        blocks, report = gated_blocks(messages, 7.0)
        silent = [(at_s, block) for at_s, block in blocks if not block.samples.any()]
        # From the end of the pre-roll on, never more than has passed, and no more than two seconds.
        assert sum(map(seconds_of, [block for _, block in silent])) == pytest.approx(2.0)
        assert 1.5 < silent[0][0] < 1.8
        assert silent[-1][0] < 4.0
        # Altogether the stream is as long as time, and what came is in its place.
        assert sum(map(seconds_of, [block for _, block in blocks])) == pytest.approx(6.0)
        later = [block for _, block in blocks if block.start_sample >= 5 * RATE and block.samples.any()]
        assert later[0].start_sample == 5 * RATE
        assert later[0].gap_samples == 2 * RATE
        assert report is None

    def test_does_not_come_before_speech_that_may_be_on_its_way(self):
        messages = [*self.speech(0, 1), (1.06, RATE, END), *self.speech(1.2, 2, delay_s=0.3)]
        blocks, _ = gated_blocks(messages, 3.0)
        assert [round(seconds_of(block), 3) for _, block in blocks[:11]] == [0.099, *[0.1] * 9, 0.001]
        assert sum(block.gap_samples for _, block in blocks) == 0.2 * RATE

    def test_comes_at_once_where_a_gap_announces_it(self):
        messages = [*self.speech(0, 1), (1.2, RATE, Gap(RATE, GapReason.GATED)), *self.speech(2.5, 3)]
        blocks, _ = gated_blocks(messages, 4.0)
        (silence,) = [block for at_s, block in blocks if not block.samples.any()]
        assert (silence.start_sample, len(silence.samples)) == (RATE, RATE)
        assert sum(block.gap_samples for _, block in blocks) == 0.5 * RATE

    def test_is_not_believed_while_speech_goes_on(self):
        messages = [*self.speech(0, 1), (1.06, RATE, END), *self.speech(1, 4)]
        blocks, _ = gated_blocks(messages, 4.0)
        assert all(block.samples.any() and not block.gap_samples for _, block in blocks)

    def test_that_was_too_much_is_taken_from_the_next_gap(self):
        """A device whose time stood still while the host's went on."""
        late = [(at_s + 3, time, message) for at_s, time, message in self.speech(1.5, 2)]
        later = [(at_s + 3, time, message) for at_s, time, message in self.speech(5, 6)]
        blocks, _ = gated_blocks([*self.speech(0, 1), (1.06, RATE, END), *late, *later], 10.0)
        assert sum(map(seconds_of, [block for _, block in blocks])) == pytest.approx(6.0)
        assert blocks[-1][1].start_sample + len(blocks[-1][1].samples) == 6 * RATE

    def test_is_a_gap_for_features(self):
        frames = LogMel(FEATURES).accept_waveform(SoundSource(1.0).samples)[:96]
        sent = [(0.1 * i, 1600 * i, encode_features(frames[10 * i : 10 * i + 10])) for i in range(9)]
        blocks, _ = gated_blocks([*sent, (1.0, 9 * 1600, END)], 4.0)
        silent = [block for _, block in blocks if not len(block.features)]
        assert sum(block.gap_samples for block in silent) == 2 * RATE
        assert blocks[-1][1] is silent[-1]

    def test_lets_a_segment_end_before_the_next_one_begins(self, recognizer, repository):
        """All of a clip, then an end of speech, and nothing until the source is stopped."""
        with FileSource(repository / CLIP) as file:
            samples = np.concatenate([block.samples for block in file.blocks()])
        spoken = 37 * 1600  # up to the end of the first segment's words
        pcm = np.rint(samples[:spoken] * 32_767).astype("<i2")
        sent = [(t / RATE, t, Audio(Codec.S16, 1600, pcm[t : t + 1600].tobytes())) for t in range(0, spoken, 1600)]
        for tail, finals in (([(spoken / RATE + 0.1, spoken, END)], 1), ([], 0)):
            blocks, _ = gated_blocks([*sent, *tail], 9.0)
            recognizer.reset()
            events = []
            for _, block in blocks:
                recognizer.accept_gap(block.gap_samples, RATE)
                recognizer.accept_waveform(block.samples, RATE)
                while recognizer.is_ready():
                    events += recognizer.step()
            assert sum(isinstance(event, Final) for event in events) >= finals
            assert isinstance(events[-1], Final) == bool(finals)


class TestFeatures:
    def test_come_out_as_the_codec_leaves_them(self):
        frames = LogMel(FEATURES).accept_waveform(SoundSource(2.0).samples)
        writer, wanted, sent = FrameWriter(), [], []
        for start in range(0, len(frames), 16):
            message = encode_features(frames[start : start + 16])
            wanted.append(decode_features(message))
            sent.append(writer.encode(message, start * 160))
        del sent[3]
        blocks, _, report = blocks_of(sent, spacing_s=0.16)
        assert {type(block) for block in blocks} == {FeatureBlock}
        np.testing.assert_array_equal(
            np.concatenate([block.features for block in blocks]), np.concatenate(wanted[:3] + wanted[4:])
        )
        assert [block.gap_samples for block in blocks if block.gap_samples] == [2560]
        assert blocks[3].start_sample == 4 * 2560
        assert report == f"board: {len(sent)} frames, 1 lost, 160 ms of audio lost on the link"


class TestFaults:
    @pytest.mark.parametrize("name", FAULTS)
    @pytest.mark.parametrize("seed", [1, 2])
    def test_never_hand_on_what_was_not_said(self, name, seed):
        source = SoundSource(5.0)
        faults = FaultConfig(**{**vars(FAULTS[name]), "seed": seed})
        heard = hear(source, Codec.S16, faults)
        there = np.flatnonzero(~np.isnan(heard.samples))
        np.testing.assert_array_equal(heard.samples[there], source.samples[there])
        assert len(there) > 0.4 * len(source.samples)
        assert heard.report.startswith("loop: ")

    def test_all_at_once_still_end(self):
        faults = FaultConfig(bit_errors=1e-4, drop=0.1, duplicate=0.1, reorder=0.1, truncate=0.1)
        source = SoundSource(5.0)
        heard = hear(source, Codec.ADPCM, faults)
        clean = hear(source, Codec.ADPCM, FaultConfig())
        there = np.flatnonzero(~np.isnan(heard.samples))
        np.testing.assert_array_equal(heard.samples[there], clean.samples[there])


@pytest.fixture(scope="module")
def recognizer():
    return Recognizer()


class TestRecognizer:
    def transcripts(self, recognizer, codec, **options):
        shown = []
        with FileSource(CLIP) as file:
            device = VirtualDevice(file, DeviceConfig(codec, **options), shown.append)
            link = Link(LoopTransport(device, FaultyLine(FaultConfig())), LinkConfig(), print)
            with BridgeSource(link, print) as source:
                events = list(source.shown(recognizer.stream(source)))
        return events, shown

    @pytest.fixture
    def wanted(self, recognizer, repository, monkeypatch):
        monkeypatch.chdir(repository)
        with FileSource(CLIP) as file:
            return [event for event in recognizer.stream(file) if isinstance(event, Final)]

    def test_hears_from_a_device_what_it_hears_from_the_file(self, recognizer, wanted):
        events, shown = self.transcripts(recognizer, Codec.S16)
        assert [event for event in events if isinstance(event, Final)] == wanted
        assert [text.text for text in shown if text.kind == TranscriptKind.FINAL] == [final.text for final in wanted]
        assert len(shown) == len(events)

    def test_hears_a_device_that_only_talks(self, recognizer, wanted):
        events, _ = self.transcripts(recognizer, Codec.S16, one_way=True)
        assert [event for event in events if isinstance(event, Final)] == wanted

    @pytest.mark.parametrize("codec", [Codec.ULAW, Codec.ADPCM, Codec.FEATURES])
    def test_hears_much_the_same_through_codecs(self, recognizer, wanted, codec):
        events, _ = self.transcripts(recognizer, codec)
        finals = [event for event in events if isinstance(event, Final)]
        assert [final.end for final in finals] == pytest.approx([final.end for final in wanted], abs=0.2)
        words = {word for final in finals for word in final.text.split()}
        assert {"first", "time", "that", "was", "man", "deal"} <= words


class TestDisplay:
    def test_gets_texts_that_fit_and_end_at_a_character(self):
        event = Partial(65_537, 0.0, 1.0, "grün grün grün", 9, ())
        assert transcript_message(event, 4096).text == "grün grün grün"
        assert transcript_message(event, 4096).stable_bytes == 11
        message = transcript_message(event, 5 + 8)
        assert (message.text, message.stable_bytes, message.segment) == ("grün gr", 8, 1)
        assert len(message.encode()) <= 13

    def test_is_left_alone_where_the_device_has_none(self):
        transport = FrameTransport([FrameWriter().encode(Hello(1, RATE, 4096, 1, 0, "board"))])
        link = Link(transport, LinkConfig(), print, transport.clock)
        list(link.received())
        source = BridgeSource(link, print)
        link.session.take_outgoing()
        source.show(Final(0, 0.0, 1.0, "so", 2, ()))
        assert link.session.take_outgoing() == b""
