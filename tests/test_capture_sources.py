"""Programs, connections and packets as sources of samples."""

import signal
import socket
import struct
import sys
import threading
import time

import numpy as np
import pytest
import soundfile

from edgeasr.capture.alsa import parse_parameters, record_command
from edgeasr.capture.channels import ChannelMix
from edgeasr.capture.feed import FeedSource
from edgeasr.capture.pcm import ENCODINGS, PcmFormat, decode_pcm
from edgeasr.capture.process import ProcessFeed, split_command
from edgeasr.capture.ring import MAX_MARKS, Ring
from edgeasr.capture.rtp import RtpSource
from edgeasr.capture.rtp_packet import MAX_WAITING, PacketCounts, Reordering, parse_packet
from edgeasr.errors import AudioFormatError, ConfigError, DeviceError
from edgeasr.firmware_bridge.transport import TcpClient, open_transport

RATE = 16_000


def ramp(num_samples, start=0):
    """Different everywhere, exact in 16 bits and in float32."""
    return ((np.arange(start, start + num_samples) % 30_000) / 32_768).astype(np.float32)


def s16(samples):
    return (samples * 32_768).astype("<i2").tobytes()


class TestPcm:
    @pytest.mark.parametrize(
        ("encoding", "subtype", "endian"),
        [
            ("s16", "PCM_16", "LITTLE"),
            ("s16be", "PCM_16", "BIG"),
            ("s24", "PCM_24", "LITTLE"),
            ("s32", "PCM_32", "LITTLE"),
            ("f32", "FLOAT", "LITTLE"),
            ("u8", "PCM_U8", "LITTLE"),
            ("ulaw", "ULAW", "LITTLE"),
            ("alaw", "ALAW", "LITTLE"),
        ],
    )
    def test_means_what_libsndfile_says(self, tmp_path, encoding, subtype, endian):
        path = tmp_path / "samples.raw"
        frames = np.random.default_rng(3).uniform(-1, 1, (4_000, 3)).astype(np.float32)
        form = {"format": "RAW", "subtype": subtype, "endian": endian}
        soundfile.write(path, frames, RATE, **form)
        wanted, _ = soundfile.read(path, channels=3, samplerate=RATE, dtype="float32", **form)
        got = decode_pcm(path.read_bytes(), PcmFormat(RATE, 3, encoding))
        np.testing.assert_allclose(got, wanted, atol=1e-6)

    def test_that_is_no_number_is_silence(self):
        data = np.array([np.nan, np.inf, -np.inf, 3.0, -0.5], "<f4").tobytes()
        assert decode_pcm(data, PcmFormat(RATE, 1, "f32"))[:, 0].tolist() == [0.0, 1.0, -1.0, 1.0, -0.5]

    def test_is_written_as_rate_channels_and_encoding(self):
        assert PcmFormat.parse("48000") == PcmFormat(48_000, 1, "s16")
        assert PcmFormat.parse("44100:2") == PcmFormat(44_100, 2, "s16")
        assert str(PcmFormat.parse("96000:8:s24")) == "96000:8:s24"
        assert PcmFormat.parse("96000:8:s24").frame_bytes == 24

    @pytest.mark.parametrize(
        "text", ["", "fast", "16000:", "16000:0", "16000:65", "500", "16000:1:mp3", "16000:1:s16:x", "-5"]
    )
    def test_of_another_kind_is_an_error(self, text):
        with pytest.raises(ConfigError, match="want"):
            PcmFormat.parse(text)

    def test_encodings_that_arecord_has(self):
        for encoding in ENCODINGS:
            assert record_command("hw:1,0", PcmFormat(48_000, 2, encoding))[:5] == [
                "arecord",
                "-q",
                "-D",
                "hw:1,0",
                "-t",
            ]


class TestRing:
    def test_gives_what_was_put_in_and_where_something_is_missing(self):
        ring = Ring(1_000, position=7)
        ring.write(ramp(100))
        ring.skip(30)
        ring.skip(3)
        ring.write(ramp(50, 100))
        first, second = ring.read(500), ring.read(500)
        assert (first.start_sample, first.skipped, second.start_sample, second.skipped) == (7, 0, 140, 33)
        np.testing.assert_array_equal(np.concatenate([first.samples, second.samples]), ramp(150))
        assert ring.read(500) is None
        assert (ring.waiting, ring.room) == (0, 1_000)

    def test_counts_every_sample_however_it_is_read_and_written(self):
        random = np.random.default_rng(11)
        ring, written, heard, position = Ring(2_000), 0, 0, 0
        for _ in range(3_000):
            if random.random() < 0.1:
                skipped = int(random.integers(1, 500))
                ring.skip(skipped)
                written += skipped
            length = int(random.integers(1, 700))
            ring.write(ramp(length, written))
            written += length
            while random.random() < 0.5 and (piece := ring.read(int(random.integers(1, 900)))) is not None:
                assert piece.start_sample == position + piece.skipped + piece.dropped
                np.testing.assert_array_equal(piece.samples, ramp(len(piece.samples), piece.start_sample))
                position = piece.start_sample + len(piece.samples)
                heard += len(piece.samples)
        assert 0.3 * written < heard < written

    def test_bounds_what_it_remembers_of_gaps(self):
        ring = Ring(100_000)
        for _ in range(3 * MAX_MARKS):
            ring.skip(2)
            ring.write(ramp(10))
        pieces = []
        while (piece := ring.read(100_000)) is not None:
            pieces.append(piece)
        assert len(pieces) == MAX_MARKS
        ring.write(ramp(10))
        assert sum(piece.skipped for piece in pieces) + ring.read(10).skipped == 3 * MAX_MARKS * 2

    def test_survives_a_writer_that_overtakes_the_reader_on_another_thread(self):
        ring, total = Ring(4_000), 400_000
        writer = threading.Thread(target=lambda: [ring.write(ramp(317, at)) for at in range(0, total, 317)])
        writer.start()
        position, heard = 0, 0
        while writer.is_alive() or ring.waiting:
            if (piece := ring.read(997)) is not None:
                assert piece.start_sample == position + piece.dropped
                np.testing.assert_array_equal(piece.samples, ramp(len(piece.samples), piece.start_sample))
                position, heard = piece.start_sample + len(piece.samples), heard + len(piece.samples)
        writer.join()
        assert 0 < heard <= position


class TestChannels:
    def noise(self, *gains):
        sound = np.random.default_rng(5).normal(0, 0.1, 640)
        return np.stack([gain * sound for gain in gains], axis=1).astype(np.float32)

    def mixed(self, *gains):
        mix = ChannelMix(len(gains))
        for _ in range(80):
            samples = mix.mix(self.noise(*gains))
        return samples

    @pytest.mark.parametrize("gains", [(1,), (1, 0), (0, 0, 0, 0, 1, 0, 0, 0), (1, 1), (1, -1), (1e-3, 1)])
    def test_those_that_carry_sound_are_heard_in_full(self, gains):
        np.testing.assert_allclose(abs(self.mixed(*gains)), abs(self.noise(1)[:, 0]), rtol=2e-3, atol=1e-6)

    def test_a_quieter_one_counts_too(self):
        np.testing.assert_allclose(self.mixed(1, 0.5), self.noise(0.75)[:, 0], rtol=1e-3)

    def test_silence_changes_nothing(self):
        mix = ChannelMix(2)
        for _ in range(50):
            assert not mix.mix(np.zeros((640, 2), np.float32)).any()
        np.testing.assert_array_equal(mix.weights, [0.5, 0.5])

    def test_an_offset_is_no_sound(self):
        frames = self.noise(1, 0) + np.array([0, 0.5], np.float32)
        mix = ChannelMix(2)
        for _ in range(80):
            mix.mix(frames)
        np.testing.assert_allclose(mix.weights, [1, 0], atol=1e-3)


def read(source):
    """All samples, and the error at the end if there is one."""
    parts, error = [], None
    try:
        with source:
            for block in source.blocks():
                assert block.gap_samples == 0
                parts.append(block.samples)
    except (AudioFormatError, DeviceError) as raised:
        error = raised
    return np.concatenate(parts) if parts else np.zeros(0, np.float32), error


def piped(program, *arguments, pcm=None):
    return FeedSource(ProcessFeed("pipe", [sys.executable, "-c", program, *map(str, arguments)]), pcm or PcmFormat())


class TestProcess:
    WRITE = "import sys; sys.stdout.buffer.write(open(sys.argv[1], 'rb').read())"

    def test_gives_all_that_a_program_writes_however_fast(self, tmp_path):
        (tmp_path / "samples").write_bytes(s16(ramp(500_001)))  # three times what waits at most
        samples, error = read(piped(self.WRITE, tmp_path / "samples"))
        np.testing.assert_array_equal(samples, ramp(500_001))
        assert error is None

    def test_that_fails_says_how_after_its_samples(self, tmp_path):
        (tmp_path / "samples").write_bytes(s16(ramp(1_000)))
        fail = f"{self.WRITE}; sys.stdout.flush(); sys.stderr.write('x' * 200000 + '\\nno sound card\\n'); sys.exit(7)"
        samples, error = read(piped(fail, tmp_path / "samples"))
        np.testing.assert_array_equal(samples, ramp(1_000))
        assert isinstance(error, DeviceError)
        assert "ended with exit status 7 (no sound card)" in str(error)

    def test_that_ends_in_half_a_frame_is_an_error(self, tmp_path):
        (tmp_path / "samples").write_bytes(bytes(10 * 8 + 3))
        samples, error = read(piped(self.WRITE, tmp_path / "samples", pcm=PcmFormat(48_000, 4)))
        assert len(samples) == 10
        assert "ended in half a frame, after 83 bytes, want 48000:4:s16" in str(error)

    def test_that_writes_nothing_is_an_error(self):
        assert "ended before the first sample" in str(read(piped("pass"))[1])

    def test_that_is_not_there_is_an_error(self):
        with pytest.raises(DeviceError, match="cannot run no-such-program"):
            ProcessFeed("pipe", ["no-such-program"])

    def test_is_ended_with_the_source(self):
        program = "import time; print('a' * 2000, flush=True); time.sleep(60)"
        feed = ProcessFeed("pipe", [sys.executable, "-c", program])
        source = FeedSource(
            feed, PcmFormat(encoding="u8"), stopped=lambda: source.backlog_s == 0 < source._ring.position
        )
        began = time.monotonic()
        samples, error = read(source)
        assert len(samples) > 0
        assert error is None
        assert feed._process.returncode == -signal.SIGTERM
        assert time.monotonic() - began < 50

    @pytest.mark.parametrize("text", ["", "  ", "ffmpeg 'x"])
    def test_without_a_command_is_an_error(self, text):
        with pytest.raises(ConfigError, match="want"):
            split_command(text)

    def test_needs_no_shell(self):
        assert split_command("play 'a b' $HOME | x; rm *") == ["play", "a b", "$HOME", "|", "x;", "rm", "*"]


class TestConnection:
    def test_gives_all_that_is_sent(self):
        with socket.create_server(("127.0.0.1", 0)) as server:
            frames = np.stack([ramp(30_000), ramp(30_000)], axis=1)

            def send():
                connection, _ = server.accept()
                with connection:
                    connection.sendall(s16(frames))

            sender = threading.Thread(target=send)
            sender.start()
            client = TcpClient("127.0.0.1", server.getsockname()[1])
            samples, error = read(FeedSource(client, PcmFormat(48_000, 2)))
            sender.join()
        np.testing.assert_allclose(samples, ramp(30_000), atol=1e-7)
        assert error is None

    def test_is_called_what_the_user_calls_it(self):
        listener, _ = open_transport("tcp-audio-listen://127.0.0.1:0", lambda line: None, "tcp-audio")
        client, _ = open_transport(f"tcp-audio://127.0.0.1:{listener.port}", print, "tcp-audio")
        assert listener.name == f"tcp-audio-listen://127.0.0.1:{listener.port}"
        assert client.name == f"tcp-audio://127.0.0.1:{listener.port}"
        client.close()
        listener.close()
        with pytest.raises(DeviceError, match=r"cannot connect to tcp-audio://127.0.0.1:\d+ \(Connection refused\)"):
            open_transport(client.name, print, "tcp-audio")
        with pytest.raises(ConfigError, match="want one of serial"):  # to a device nothing else is spoken
            open_transport(client.name, print)


class TestAlsa:
    def test_takes_what_the_device_has(self):
        usb = "ACCESS:  MMAP\nFORMAT:  S16_LE S24_3LE\nCHANNELS: 2\nRATE: [8000 44100]\nBUFFER_TIME: (7 9)\n"
        plug = "FORMAT:  U8 S16_LE\nCHANNELS: [1 32]\nRATE: [1 384000]\n"
        assert parse_parameters(usb) == PcmFormat(44_100, 2, "s16")
        assert parse_parameters(plug) == PcmFormat(48_000, 1, "s16")
        assert parse_parameters("FORMAT:  S32_LE\nCHANNELS: [2 8]\nRATE: 96000\n") == PcmFormat(96_000, 2, "s32")
        assert parse_parameters("arecord: main:831: audio open error: No such file or directory\n") is None


def datagram(sequence, time, payload, kind=11, source=1, first=0x80):
    return struct.pack(">BBHII", first, kind, sequence & 0xFFFF, time & 0xFFFF_FFFF, source) + payload


class TestRtpPackets:
    def ordered(self, sequences, flush=True):
        counts = PacketCounts()
        order, out = Reordering(counts), []
        for sequence in sequences:
            out += order.accept(parse_packet(datagram(sequence, 0, b"")))
        if flush:
            out += order.flush()
        return [packet.sequence for packet in out], [packet.lost for packet in out], counts

    def test_come_in_order_and_once(self):
        sequences, lost, counts = self.ordered([65_534, 65_535, 1, 0, 0, 2, 1, 4, 4, 3])
        assert sequences == [65_534, 65_535, 0, 1, 2, 3, 4]
        assert sum(lost) == 0
        assert (counts.late, counts.duplicate, counts.lost) == (2, 1, 0)

    def test_are_not_waited_for_longer_than_some_others(self):
        sequences, lost, counts = self.ordered([0, *range(3, 3 + MAX_WAITING)], flush=False)
        assert sequences == [0, *range(3, 3 + MAX_WAITING)]
        assert lost[:2] == [0, 2]
        assert counts.lost == 2

    def test_of_a_sender_that_began_anew_are_heard(self):
        sequences, _, counts = self.ordered([10, 11, 30_000, 12, 40_000, 40_001, 40_002])
        assert sequences == [10, 11, 12, 40_001, 40_002]
        assert counts.malformed == 2

    def test_have_extensions_sources_and_padding(self):
        body = struct.pack(">II", 7, 8) + struct.pack(">HHI", 0xBEDE, 1, 9) + b"samples" + b"\x00\x00\x03"
        assert parse_packet(datagram(1, 2, body, first=0x80 | 16 | 32 | 2)).payload == b"samples"
        assert parse_packet(datagram(1, 2, b"", kind=72)) is None

    @pytest.mark.parametrize(
        "data", [b"", b"\x80" * 11, datagram(1, 2, b"x", first=0x40), datagram(1, 2, b"\x09", first=0xA0)]
    )
    def test_that_are_none_are_errors(self, data):
        with pytest.raises(AudioFormatError):
            parse_packet(data)

    def test_of_random_bytes_do_no_harm(self):
        random = np.random.default_rng(17)
        for _ in range(5_000):
            data = bytes([0x80 | int(random.integers(64))]) + random.bytes(int(random.integers(0, 60)))
            try:
                packet = parse_packet(data)
            except AudioFormatError:
                continue
            assert packet is None or len(packet.payload) <= len(data) - 12


class TestRtp:
    def heard(self, packets, pcm=None, pause_s=0.0):
        """What a source makes of datagrams, and its report. It is stopped once it has nothing left to hear."""
        source = RtpSource("rtp://127.0.0.1:0", pcm)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for packet in packets:
                sender.sendto(packet, ("127.0.0.1", source.port))
                time.sleep(pause_s)
        blocks, ends = [], time.monotonic() + 1.0
        source._stopped = lambda: time.monotonic() > ends
        with source:
            blocks = list(source.blocks())
        return blocks, source

    def test_lost_packets_are_a_gap_of_their_length(self):
        samples = ramp(4_410)
        payload = [(samples[at : at + 441] * 32_768).astype(">i2").tobytes() for at in range(0, 4_410, 441)]
        packets = [datagram(65_530 + k, 2**32 - 900 + 441 * k, payload[k]) for k in (0, 1, 3, 2, 2, 4, 7, 8, 9)]
        blocks, source = self.heard(packets)
        assert source.sample_rate_hz == 44_100
        np.testing.assert_array_equal(
            np.concatenate([block.samples for block in blocks]), np.delete(samples, range(5 * 441, 7 * 441))
        )
        assert [block.gap_samples for block in blocks if block.gap_samples] == [882]
        assert source.report() == ("rtp://127.0.0.1:0: 20 ms of audio lost on the network (packets: 2 lost, 1 late)")

    def test_a_pause_of_the_sender_is_no_loss(self):
        packets = [datagram(5, 0, b"\xff" * 160, kind=0), datagram(6, 8_000, b"\xff" * 160, kind=0)]
        blocks, source = self.heard(packets)
        assert blocks[-1].start_sample == 8_000
        assert source.report() == "rtp://127.0.0.1:0: 980 ms of audio lost while it was away"

    def test_what_is_no_audio_of_the_sender_is_counted(self):
        good = [datagram(k, 160 * k, b"\xff" * 160, kind=0) for k in range(3)]
        bad = [b"hello", datagram(3, 480, b"\xff" * 160, kind=0, source=2), datagram(3, 480, b"", kind=0)]
        blocks, source = self.heard([*good, *bad])
        assert sum(len(block.samples) for block in blocks) == 480
        assert source.report() == "rtp://127.0.0.1:0: packets: 2 malformed, 1 foreign"

    def test_dynamic_types_are_what_somebody_says(self):
        payload = (np.stack([ramp(480), -ramp(480)], 1) * 32_768).astype(">i2").tobytes()
        packets = [datagram(k, 480 * k, payload, kind=97) for k in range(3)]
        blocks, _ = self.heard(packets, PcmFormat(48_000, 2, "s16be"))
        assert sum(len(block.samples) for block in blocks) == 3 * 480
        with pytest.raises(DeviceError, match="is sent payload type 97, want L16, PCMU or PCMA"):
            self.heard(packets)

    @pytest.mark.parametrize("url", ["rtp://", "rtp://127.0.0.1", "rtp://:5004", "rtp://127.0.0.1:99999"])
    def test_without_an_address_is_an_error(self, url):
        with pytest.raises(ConfigError, match="want a host and a port"):
            RtpSource(url)

    def test_at_an_address_of_another_machine_is_an_error(self):
        with pytest.raises(DeviceError, match="cannot receive at"):
            RtpSource("rtp://192.0.2.1:5004")
