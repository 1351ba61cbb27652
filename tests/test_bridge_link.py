import itertools

import numpy as np
import pytest

from edgeasr.errors import ConfigError, DeviceError
from edgeasr.firmware_bridge import cobs
from edgeasr.firmware_bridge.frame import Frame, FrameReader, FrameWriter, crc16
from edgeasr.firmware_bridge.link import REPORT_S, Link
from edgeasr.firmware_bridge.messages import (
    Ack,
    Audio,
    Codec,
    Command,
    CommandCode,
    Configure,
    Gap,
    GapReason,
    Hello,
    Ping,
    Pong,
    Status,
    Transcript,
    VadMode,
)
from edgeasr.firmware_bridge.session import LinkConfig, Session
from edgeasr.firmware_bridge.timeline import MAX_SUDDEN_GAP_S, TimedBlock, Timeline
from edgeasr.firmware_bridge.transport import Transport, TransportEnded, TransportLostError, TransportResetError

ALL_CODECS = 0b1111
RATE = 16_000


def hello(capabilities=ALL_CODECS, num_mels=80, rate=RATE, name="board"):
    return Hello(1, rate, 4096, capabilities, num_mels, name)


def audio(num_samples=320):
    return Audio(Codec.S16, num_samples, bytes(2 * num_samples))


class Board:
    """A session, and the device's side of its stream as a test plays it."""

    def __init__(self, config=None, bytes_per_s=None):
        self.said = []
        self.session = Session("board", config or LinkConfig(), self.said.append, bytes_per_s)
        self.writer, self._reader = FrameWriter(), FrameReader()
        self.session.begin(0.0)

    def heard(self):
        """What the host has sent since the last call."""
        return [item.message for item in self._reader.accept(self.session.take_outgoing()) if isinstance(item, Frame)]

    def says(self, *messages, at_s=0.1, time=0):
        data = b"".join(self.writer.encode(message, time) for message in messages)
        return [received.frame.message for received in self.session.accept(data, at_s)]

    def passes(self, until_s, since_s=0.0, step_s=0.05):
        for now_s in np.arange(since_s, until_s, step_s):
            self.session.tick(float(now_s))

    def starts(self):
        """The device does all that is asked of it."""
        self.says(hello())
        self.says(Ack(Configure.TYPE, 1, Status.OK), Ack(Command.TYPE, 2, Status.OK))
        assert self.session.is_settled
        self.heard()


def codec_of(board):
    (configure,) = [message for message in board.heard() if isinstance(message, Configure)]
    return Codec(configure.codec)


class TestGreeting:
    def test_goes_from_hello_to_start(self):
        board = Board()
        sent = board.session.take_outgoing()
        assert sent[0] == 0
        (first,) = FrameReader().accept(sent)
        assert first.message == Hello(1, RATE, 4096, ALL_CODECS, 80, "edgeasr")
        assert board.says(hello()) == [hello()]
        assert board.heard() == [Configure(Codec.S16, 20, VadMode.OFF, 300, 0)]
        board.says(Ack(Configure.TYPE, 1, Status.OK))
        assert board.heard() == [Command(CommandCode.START, 0)]
        assert not board.session.is_settled
        board.says(Ack(Command.TYPE, 2, Status.OK))
        assert board.session.is_settled
        assert board.said == []

    @pytest.mark.parametrize(
        ("bytes_per_s", "codec"),
        [(None, Codec.S16), (92_160, Codec.S16), (23_040, Codec.ULAW), (11_520, Codec.ADPCM), (5_760, Codec.FEATURES)],
    )
    def test_chooses_the_best_codec_that_the_line_carries(self, bytes_per_s, codec):
        board = Board(bytes_per_s=bytes_per_s)
        board.says(hello())
        assert codec_of(board) == codec

    def test_asks_for_longer_frames_of_features(self):
        board = Board(LinkConfig(codec=Codec.FEATURES, vad_mode=VadMode.GATE, preroll_ms=200))
        board.says(hello())
        assert board.heard()[-1] == Configure(Codec.FEATURES, 160, VadMode.GATE, 200, 0)

    def test_does_not_ask_for_features_that_the_model_cannot_use(self):
        board = Board(bytes_per_s=5_760)
        board.says(hello(num_mels=40))
        assert codec_of(board) == Codec.ADPCM

    def test_refuses_a_codec_that_the_device_does_not_know(self):
        board = Board(LinkConfig(codec=Codec.ADPCM))
        with pytest.raises(DeviceError, match="board cannot send adpcm, it knows s16, ulaw"):
            board.says(hello(capabilities=0b11))

    def test_takes_the_next_codec_where_one_is_refused(self):
        board = Board()
        board.says(hello())
        assert codec_of(board) == Codec.S16
        board.says(Ack(Configure.TYPE, 1, Status.BAD_ARG))
        assert codec_of(board) == Codec.ULAW
        board.says(Ack(Configure.TYPE, 2, Status.BAD_ARG), Ack(Configure.TYPE, 3, Status.BAD_ARG))
        with pytest.raises(DeviceError, match="accepts no codec"):
            board.says(Ack(Configure.TYPE, 4, Status.BAD_ARG))

    def test_takes_a_device_that_only_talks_after_two_seconds(self):
        board = Board()
        board.says(audio(), at_s=0.5)
        board.passes(1.99)
        assert not board.session.is_settled
        board.passes(2.2, 1.99)
        assert board.session.is_settled
        assert board.session.sample_rate_hz == RATE
        board.passes(60, 2.2)
        assert board.said == ["board: the device does not say what it is: taking what it sends, at 16000 Hz"]

    def test_is_repeated_while_nothing_comes(self):
        board = Board()
        board.passes(5.01)
        assert [type(message) for message in board.heard()] == [Hello] * 7  # 0, 0.5 ... 2, 3, 4, and 5 is not over
        assert not board.session.is_settled

    def test_goes_on_where_nothing_is_acknowledged(self):
        board = Board()
        board.says(hello(), at_s=0.0)
        board.passes(10)
        sent = board.heard()
        assert sent.count(Configure(Codec.S16, 20, 0, 300, 0)) == 3
        assert sent.count(Command(CommandCode.START, 0)) == 3
        assert board.session.is_settled
        assert board.said == ["board: the device acknowledges nothing: going on with what it sends"]

    def test_is_over_when_speech_comes(self):
        board = Board()
        board.says(hello(), Ack(Configure.TYPE, 1, Status.OK), audio())
        assert board.session.is_settled

    def test_knows_the_rate_of_the_device(self):
        board = Board()
        board.says(hello(rate=8_000))
        assert board.session.sample_rate_hz == 8_000

    def test_begins_again_when_the_device_restarts(self):
        board = Board()
        board.starts()
        board.writer = FrameWriter()
        board.says(hello(), at_s=30.0)
        assert codec_of(board) == Codec.S16
        assert board.said == ["board: the device started anew"]

    def test_takes_a_second_answer_for_what_it_is(self):
        board = Board()
        board.starts()
        board.says(hello(), at_s=0.9)
        assert board.session.is_settled
        assert board.said == []

    @pytest.mark.parametrize(
        "options", [{"codec": "mp3"}, {"vad": "maybe"}, {"frame_ms": "x"}, {"frame_ms": "1"}, {"colour": "red"}]
    )
    def test_refuses_options_that_make_no_sense(self, options):
        with pytest.raises(ConfigError, match="want"):
            LinkConfig.from_options(options)

    def test_takes_its_options_from_a_url(self):
        options = {"codec": "features", "vad": "gate", "frame_ms": "80", "preroll_ms": "100"}
        assert LinkConfig.from_options(options) == LinkConfig(Codec.FEATURES, 80, VadMode.GATE, 100)


class TestKeepingAlive:
    def test_answers_a_ping(self):
        board = Board()
        board.starts()
        board.says(Ping(77))
        assert board.heard() == [Pong(77)]

    def test_measures_the_round_trip(self):
        board = Board()
        board.starts()
        board.session.tick(6.0)
        (ping,) = board.heard()
        board.says(Pong(ping.token), at_s=6.004)
        assert board.session.round_trip_s == pytest.approx(0.004)

    def test_greets_a_silent_device_anew(self):
        board = Board()
        board.starts()
        board.passes(15.2, 0.1)
        assert Hello in map(type, board.heard())
        assert board.said == ["board: nothing from the device for 15 s: greeting it anew"]


class TestFaults:
    def of_version(self, version, message):
        """A good frame of another version of the protocol."""
        body = bytearray(cobs.decode(FrameWriter().encode(message)[:-1])[:-2])
        body[0] = version << 5 | body[0] & 31
        return cobs.encode(bytes(body) + crc16(bytes(body)).to_bytes(2, "little")) + b"\0"

    def test_another_version_is_said_once_and_not_decoded(self):
        board = Board()
        for _ in range(5):
            assert board.session.accept(self.of_version(2, audio()), 0.1) == []
        (line,) = board.said
        assert "version 2 of the protocol, this one 1" in line
        assert board.session.counts.version == 5
        board.passes(30)
        assert len(board.said) == 1

    def test_garbage_alone_is_said_once_after_some_seconds(self):
        board = Board()
        noise = np.random.default_rng(0).integers(0, 256, 1000, dtype=np.uint8).tobytes()
        board.session.accept(noise, 0.1)
        board.passes(3.0)
        assert board.said == []
        board.session.accept(noise, 3.1)
        board.passes(30, 3.1)
        assert board.said == [
            "board: nothing understood, 2000 bytes without a frame: check the baud rate and the firmware"
        ]

    def test_are_counted_over_reconnections(self):
        board = Board()
        board.session.accept(b"\1\2\3\0", 0.1)
        board.session.begin(1.0)
        board.session.accept(b"\1\2\3\0", 1.1)
        assert board.session.counts.errors == 2

    def test_in_the_middle_of_a_frame_is_known(self):
        board = Board()
        frame = FrameWriter().encode(audio())
        board.session.accept(frame, 0.1)
        assert not board.session.is_within_frame
        board.session.accept(frame[:-1], 0.1)
        assert board.session.is_within_frame


class ScriptedTransport(Transport):
    """Gives bytes and raises outcomes from a list; then it is at its end."""

    name, bytes_per_s = "board", None

    def __init__(self, outcomes, may_return=False, reopens=()):
        self.may_return = may_return
        self.written = b""
        self.closed = False
        self.fails_to_write = None
        self._outcomes, self._reopens = iter(outcomes), iter(reopens)

    def read(self, timeout_s):
        outcome = next(self._outcomes, TransportEnded())
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def write(self, data, timeout_s):
        if self.fails_to_write:
            raise self.fails_to_write
        self.written += data
        return True

    def end(self):
        pass

    def reopen(self):
        return next(self._reopens)

    def close(self):
        self.closed = True


def run(transport, clock=None):
    """(messages, what was said, failure) of a link until its end."""
    said, messages, failure = [], [], None
    with Link(transport, LinkConfig(), said.append, **({"clock": clock} if clock else {})) as link:
        try:
            messages.extend(received.frame.message for received in link.received())
        except DeviceError as error:
            failure = error
    assert transport.closed
    return messages, said, failure


class TestLink:
    def test_gives_messages_until_the_end(self):
        writer = FrameWriter()
        frames = [writer.encode(Ping(i)) for i in range(1000)]
        messages, said, failure = run(ScriptedTransport(frames))
        assert messages == [Ping(i) for i in range(1000)]
        assert (said, failure) == ([], None)

    def test_ends_in_the_middle_of_a_frame_with_an_error(self):
        writer = FrameWriter()
        transport = ScriptedTransport([writer.encode(Ping(1)), writer.encode(audio())[:200]])
        messages, _, failure = run(transport)
        assert messages == [Ping(1)]
        assert str(failure) == "board ended in the middle of a frame, want a whole one: check the device"

    def test_that_is_lost_for_good_is_an_error_after_what_came(self):
        writer = FrameWriter()
        messages, _, failure = run(ScriptedTransport([writer.encode(Ping(1)), TransportLostError("board broke off")]))
        assert messages == [Ping(1)]
        assert str(failure) == "board broke off"

    def test_that_is_reset_between_two_frames_has_ended(self):
        messages, said, failure = run(ScriptedTransport([FrameWriter().encode(Ping(1)), TransportResetError("reset")]))
        assert (messages, failure) == ([Ping(1)], None)
        assert said == ["board: the connection was reset between two frames, which is taken as the end"]

    @pytest.mark.parametrize(
        "data", [b"", b"\1\2\0", FrameWriter().encode(Ping(1)) + FrameWriter().encode(audio())[:99]]
    )
    def test_that_is_reset_otherwise_is_an_error(self, data):
        _, said, failure = run(ScriptedTransport([data, TransportResetError("board broke off")]))
        assert str(failure) == "board broke off"
        assert not any("taken as the end" in line for line in said)

    @pytest.mark.parametrize(
        ("rest", "failure"), [([], None), ([FrameWriter().encode(audio())[:99]], "reset"), ([b""], None)]
    )
    def test_is_read_to_its_end_where_nothing_can_be_written(self, rest, failure):
        writer = FrameWriter()
        transport = ScriptedTransport([*[writer.encode(Ping(i)) for i in range(100)], *rest])
        transport.fails_to_write = TransportResetError("reset")
        messages, _, outcome = run(transport)
        assert messages == [Ping(i) for i in range(100)]
        assert (outcome and str(outcome)) == failure

    def test_goes_on_when_the_device_comes_back(self, monkeypatch):
        monkeypatch.setattr("edgeasr.firmware_bridge.link.REOPEN_S", 0.001)
        before, after = FrameWriter(), FrameWriter()
        outcomes = [
            before.encode(Ping(1)) + before.encode(audio())[:100],
            TransportLostError("board broke off"),
            after.encode(Ping(2)),
        ]
        transport = ScriptedTransport(outcomes, may_return=True, reopens=[False, False, True])
        messages, said, failure = run(transport)
        assert messages == [Ping(1), Ping(2)]
        assert failure is None
        assert said == [
            "board broke off (in the middle of a frame); waiting for it to come back",
            "board is back",
        ]
        assert sum(isinstance(item.message, Hello) for item in FrameReader().accept(transport.written)) == 2

    def test_reports_losses_at_most_every_ten_seconds(self):
        frames = [FrameWriter().encode(Ping(0)), *[b"\1\2\0"] * 100]
        ticks = itertools.count(0, REPORT_S / 40)
        _, said, _ = run(ScriptedTransport(frames), clock=lambda: next(ticks))
        assert said[0] == "board: 1 frames, 1 cobs so far"
        assert 2 <= len(said) <= 4

    def test_can_be_stopped_while_nothing_comes(self):
        transport = ScriptedTransport(itertools.repeat(b""))
        with Link(transport, LinkConfig(), print) as link:
            turns = iter([False, False, True])
            assert list(link.received(lambda: next(turns))) == []

    def test_sends_what_is_queued_and_a_stop_when_it_is_closed(self):
        writer = FrameWriter()
        transport = ScriptedTransport([writer.encode(hello())])
        with Link(transport, LinkConfig(), print) as link:
            list(link.received())
            link.send(Transcript(1, 0, 2, "so"))
        sent = [item.message for item in FrameReader().accept(transport.written)]
        assert sent[-2:] == [Transcript(1, 0, 2, "so"), Command(CommandCode.STOP, 0)]


def block(time, arrival_s=0.0, num_samples=320):
    return TimedBlock(time % 2**32, num_samples, arrival_s, time)


def places(timeline, *blocks, lost=False):
    return [
        (placed.block.data, placed.position, placed.gap_samples)
        for item in blocks
        for placed in timeline.place(item, frames_lost=lost)
    ]


class TestTimeline:
    def test_begins_wherever_the_device_is(self):
        assert places(Timeline(RATE), block(5_000_000), block(5_000_320)) == [(5_000_000, 0, 0), (5_000_320, 320, 0)]

    def test_goes_on_where_the_clock_wraps(self):
        timeline = Timeline(RATE)
        start = 2**32 - 320
        assert places(timeline, block(start), block(start + 320), block(start + 960)) == [
            (start, 0, 0),
            (start + 320, 320, 0),
            (start + 960, 960, 320),
        ]

    def test_counts_who_lost_what(self):
        timeline = Timeline(RATE)
        places(timeline, block(0))
        places(timeline, block(640), lost=True)
        timeline.announce(960, Gap(1000, GapReason.OVERRUN))
        places(timeline, block(1960))
        timeline.announce(2280, Gap(48_000, GapReason.GATED))
        places(timeline, block(50_280))
        assert timeline.missing == (320, 1000, 48_000)

    def test_does_not_believe_a_single_block_of_another_time(self):
        timeline = Timeline(RATE)
        blocks = [block(0), block(3_000_000_000), block(320), block(640)]
        assert places(timeline, *blocks) == [(0, 0, 0), (320, 320, 0), (640, 640, 0)]
        assert timeline.misplaced == 1

    def test_believes_two_blocks_after_a_long_silence(self):
        timeline = Timeline(RATE)
        far = 320 + round(MAX_SUDDEN_GAP_S * RATE) + 1
        assert places(timeline, block(0), block(far)) == [(0, 0, 0)]
        assert places(timeline, block(far + 320)) == [(far, far, far - 320), (far + 320, far + 320, 0)]
        assert timeline.misplaced == 0

    def test_believes_an_announced_silence_at_once(self):
        timeline = Timeline(RATE)
        places(timeline, block(0))
        timeline.announce(320, Gap(RATE * 3600, GapReason.GATED))
        assert places(timeline, block(320 + RATE * 3600)) == [(320 + RATE * 3600, 320 + RATE * 3600, RATE * 3600)]

    def test_goes_by_the_host_when_the_device_restarts(self):
        timeline = Timeline(RATE)
        places(timeline, block(1_000_000, arrival_s=10.0))
        assert places(timeline, block(0, arrival_s=13.0)) == []
        gap = 3 * RATE - 320
        assert places(timeline, block(320, arrival_s=13.02)) == [(0, 320 + gap, gap), (320, 640 + gap, 0)]

    def test_drops_what_was_heard_before(self):
        timeline = Timeline(RATE)
        blocks = [block(0), block(320), block(0), block(640)]
        assert [data for data, *_ in places(timeline, *blocks)] == [0, 320, 640]
        assert timeline.misplaced == 1
