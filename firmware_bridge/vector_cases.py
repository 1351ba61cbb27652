"""The test vectors that both languages pass: plain text, one case a line.

The first line names the fields, which are separated by one space. Bytes are in hex, "-" where there are none; numbers
are decimal, check sums hex; a status is the name of a `Status`. Samples are int16, little-endian.
"""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

import edgeasr
from edgeasr.config import FeatureConfig
from edgeasr.features import analysis_window, mel_filterbank
from edgeasr.firmware_bridge import cobs, codec, feature_codec, frame, messages
from edgeasr.firmware_bridge.frame import FrameReader, Packet, encode_packet
from edgeasr.firmware_bridge.messages import MESSAGES, Message, Status, TailField

Case = tuple[str | int | bytes, ...]

CHECK_INPUT = b"123456789"  # of the published check values of CRCs
_SPEECH_START, _SPEECH_SAMPLES = 2720, 4000  # of the bundled clip: silence, then the beginning of a word
_PRECISE_SCALE = feature_codec.FeatureScale(step=128, offset=-1280)
_LOGMEL_TOLERANCE = 1  # levels of _PRECISE_SCALE


def vector_files() -> dict[str, str]:
    """The text of each file by its name."""
    return {name: _text(fields, cases()) for name, (fields, cases) in _FILES.items()}


def _text(fields: str, cases: Iterable[Case]) -> str:
    lines = [" ".join(_word(value) for value in case) for case in cases]
    return "\n".join([f"# {fields}", *lines]) + "\n"


def _word(value: str | int | bytes) -> str:
    return value.hex() or "-" if isinstance(value, bytes) else str(value)


def _crc_inputs() -> Iterator[tuple[str, bytes]]:
    yield "nothing", b""
    yield "check", CHECK_INPUT
    yield "zero", bytes(1)
    yield "zeros", bytes(32)
    yield "ones", b"\xff" * 32
    yield "all", bytes(range(256))
    yield "random", random.Random(1).randbytes(1024)


def _crc16() -> Iterator[Case]:
    return ((name, data, f"{frame.crc16(data):04x}") for name, data in _crc_inputs())


def _crc32() -> Iterator[Case]:
    return ((name, data, f"{zlib.crc32(data):08x}") for name, data in _crc_inputs())


def _cobs() -> Iterator[Case]:
    run = bytes(range(1, 256))
    yield "nothing", b"", cobs.encode(b"")
    # The packet of figure 3 of the paper, an IP header, and the examples that Wikipedia lists.
    paper = bytes.fromhex("4500002c4c79000040064f37")
    examples = ("00", "0000", "001100", "11220033", "11223344", "11000000")
    cases = [("paper", paper), *((f"example{i}", bytes.fromhex(text)) for i, text in enumerate(examples))]
    cases += [(f"run{size}", run[:size]) for size in (253, 254, 255)]
    cases += [(f"run{size}zero", run[:size] + b"\0") for size in (253, 254, 255)]
    cases += [("zerorun254", b"\0" + run[:254]), ("run253zeroone", run[2:] + b"\0\1")]
    cases += [(f"ones{size}", b"\1" * size) for size in (507, 508, 509, 762)]
    cases += [("ones508zero", b"\1" * 508 + b"\0"), ("zeros600", bytes(600))]
    cases += [("random", random.Random(2).randbytes(1030))]
    for name, data in cases:
        yield name, data, cobs.encode(data)


def _cobs_malformed() -> Iterator[Case]:
    yield "nothing", b""
    yield "zero", b"\0"
    yield "zero_within", b"\x03\x11\0"
    yield "zero_code", b"\x02\x11\0"
    yield "beyond_the_end", b"\x05\x11\x22\x33"
    yield "full_block_beyond_the_end", b"\xff" + b"\1" * 253


def _sample_messages() -> Iterator[tuple[str, Message]]:
    """At least one of each type, with the extremes of its fields."""
    m = messages
    yield "hello", m.Hello(m.PROTOCOL_VERSION, 16000, m.MAX_PAYLOAD, 0xFF, 80, "Küche")
    yield "hello_without_name", m.Hello(7, 2**32 - 1, 0, 0, 0, "")
    yield "configure", m.Configure(m.Codec.ADPCM, 20, m.VadMode.GATE, 300, 0)
    yield "audio_s16", codec.encode_audio(_speech()[:320], m.Codec.S16)
    yield "audio_ulaw", codec.encode_audio(_speech()[:320], m.Codec.ULAW)
    yield "audio_adpcm", codec.encode_audio(_speech()[:321], m.Codec.ADPCM)
    yield "audio_empty", m.Audio(m.Codec.S16, 0, b"")
    yield "audio_largest", m.Audio(m.Codec.ULAW, 4093, random.Random(3).randbytes(4093))
    levels = _random_levels(4, 80)
    yield "features", feature_codec.encode_levels(levels, feature_codec.DEFAULT_SCALE, m.FeatureCoding.RICE)
    yield "features_raw", feature_codec.encode_levels(levels, feature_codec.DEFAULT_SCALE, m.FeatureCoding.RAW)
    yield "event", m.Event(m.EventKind.WAKE, 2, -32768)
    yield "event_loud", m.Event(m.EventKind.CLIPPING, 0, 32767)
    yield "gap", m.Gap(2**32 - 1, m.GapReason.OVERRUN)
    yield "log", m.Log(m.LogLevel.WARNING, "microphone missing")
    yield "stats", m.Stats(1, 2, 3, 4, 5, 1000, 65535)
    yield "ping", m.Ping(0x01020304)
    yield "pong", m.Pong(0xFFFEFDFC)
    yield "transcript", m.Transcript(m.TranscriptKind.PARTIAL, 513, 5, "hello world")
    yield "transcript_final", m.Transcript(m.TranscriptKind.FINAL, 0, 4, "naïv")
    yield "command", m.Command(m.CommandCode.CALIBRATE, 0x80000000)
    yield "reset", m.Reset(m.ResetReason.RECOVERY)
    yield "info", m.Info(1, 2, 3, 65536, 20480, "mps2-an386")
    yield "ack", m.Ack(m.Configure.TYPE, 255, Status.OK)


def _messages() -> Iterator[Case]:
    for name, message in _sample_messages():
        yield name, message.TYPE, message.encode(), *_values(message)


def _values(message: Message) -> Iterator[str | int | bytes]:
    for name, field in message.wire_fields().items():
        value = getattr(message, name)
        if isinstance(field, TailField):
            yield value.encode() if field.text else value
        else:
            yield int(value)


def _messages_malformed() -> Iterator[Case]:
    for number, message in MESSAGES.items():
        size = message.fixed_size()
        yield f"{message.title().lower()}_nothing", number, b"", Status.TRUNCATED.name
        yield f"{message.title().lower()}_short", number, bytes(size - 1), Status.TRUNCATED.name
        if not any(isinstance(field, TailField) for field in message.wire_fields().values()):
            yield f"{message.title().lower()}_long", number, bytes(size + 1), Status.MALFORMED.name


def _frames() -> Iterator[Case]:
    for i, (name, message) in enumerate(_sample_messages()):
        packet = Packet(message.TYPE, (i * 37) % 256, (i * 0x3456789) % 2**32, message.encode())
        yield name, Status.OK.name, *packet[:3], packet.payload, encode_packet(packet)
    for size in (1018, 1019, 4096):
        packet = Packet(messages.Log.TYPE, 255, 2**32 - 1, b"\1" + b"x" * (size - 1))
        yield f"payload{size}", Status.OK.name, *packet[:3], packet.payload, encode_packet(packet)


def _frames_malformed() -> Iterator[Case]:
    """Each is what a reader says to the bytes when they are the first of a stream."""
    good = cobs.decode(encode_packet(Packet(messages.Ping.TYPE, 1, 2, bytes(4)))[:-1])
    for name, packet, status in (
        ("crc", good[:-1] + bytes([good[-1] ^ 1]), Status.BAD_CRC),
        ("payload_bit", good[:7] + bytes([good[7] ^ 128]) + good[8:], Status.BAD_CRC),
        ("time_bit", good[:3] + bytes([good[3] ^ 4]) + good[4:], Status.BAD_CRC),
        ("byte_lost", good[:6] + good[7:], Status.BAD_CRC),
        ("seven_bytes", good[:7], Status.BAD_LENGTH),
        ("one_byte", b"\x29", Status.BAD_LENGTH),
        ("length1027", b"\1" * 1027, Status.BAD_LENGTH),
        ("length1028", b"\1" * 1028, Status.BAD_LENGTH),
        ("payload4097", _with_check(b"\x27\1" + bytes(4 + 4097)), Status.BAD_LENGTH),
        ("crc32", _with_check(b"\x27\1" + bytes(4 + 2000))[:-1] + b"\1", Status.BAD_CRC),
        ("version0", _with_check(b"\x09\1" + bytes(8)), Status.BAD_VERSION),
        ("version2", _with_check(b"\x49\1" + bytes(8)), Status.BAD_VERSION),
        ("type0", _with_check(b"\x20\1" + bytes(4)), Status.BAD_TYPE),
        ("type16", _with_check(b"\x30\1" + bytes(4)), Status.BAD_TYPE),
        ("type31", _with_check(b"\x3f\1" + bytes(4)), Status.BAD_TYPE),
    ):
        yield name, status.name, cobs.encode(packet) + frame.DELIMITER
    yield "cobs", Status.MALFORMED.name, b"\x09\1\2\3\0"
    yield "endless", Status.BAD_LENGTH.name, b"\xaa" * 5000 + frame.DELIMITER


def _with_check(body: bytes) -> bytes:
    if len(body) <= messages.CRC16_LIMIT:
        return body + struct.pack("<H", frame.crc16(body))
    return body + struct.pack("<I", zlib.crc32(body))


def _streams() -> Iterator[Case]:
    """Whole streams, and what a reader has counted at their ends."""

    def numbered(*sequences: int) -> list[bytes]:
        return [encode_packet(Packet(messages.Ping.TYPE, n % 256, 320 * n, bytes(4))) for n in sequences]

    def timeless(*sequences: int) -> list[bytes]:
        return [encode_packet(Packet(messages.Ping.TYPE, n % 256, 0, bytes(4))) for n in sequences]

    hello = messages.Hello(1, 16000, 4096, 1, 0, "restarted").encode()
    restart = encode_packet(Packet(messages.Hello.TYPE, 0, 0, hello))
    unknown = encode_packet(Packet(31, 2, 0, b"?"))
    garbage = random.Random(4).randbytes(700)
    ten = numbered(*range(10))
    yield from (
        _stream("in_order", *ten),
        _stream("starts_anywhere", *numbered(200, 201)),
        _stream("wraps", *numbered(254, 255, 256, 257)),
        _stream("empty_frames", b"\0\0\0", ten[0], b"\0\0", ten[1]),
        _stream("lost", *numbered(0, 1, 5, 6)),
        _stream("lost_at_wrap", *numbered(250, 260)),
        _stream("late_before_the_first", *numbered(0, 240)),
        _stream("duplicate", *numbered(0, 1, 1, 2)),
        _stream("late", *numbered(0, 1, 4, 2, 3, 5)),
        _stream("late16", *numbered(16, 0, 17)),
        _stream("back17", *numbered(17, 0, 1)),
        _stream("late_at_wrap", *numbered(255, 257, 256, 258)),
        _stream("late_then_duplicate", *numbered(3, 4), *numbered(3, 4, 5)),
        *[_stream(f"lost{lost}", *numbered(9, *range(10 + lost, 15 + lost))) for lost in (239, 240, 247, 254, 255)],
        _stream("lost240_timeless", *timeless(9, *range(250, 255))),
        _stream("lost254_timeless", *timeless(9, *range(264, 269))),
        _stream(
            "late_where_time_wraps",
            *[
                encode_packet(Packet(messages.Ping.TYPE, n, time % 2**32, bytes(4)))
                for n, time in ((9, -320), (5, -1600), (6, -1280), (10, 0), (2, 320), (3, 640), (4, 960))
            ],
        ),
        _stream("restart", *numbered(7, 8), restart, *numbered(1, 2)),
        _stream("restart_twice", restart, restart, *numbered(1)),
        _stream("unknown_type_moves_on", *numbered(0, 1), unknown, *numbered(3)),
        _stream("garbage_before", garbage, *ten),
        _stream("garbage_between", *ten[:5], garbage, *ten[5:]),
        _stream("truncated", *ten[:3], ten[3][:6], *ten[4:]),
        _stream("delimiter_lost", *ten[:3], ten[3][:-1], *ten[4:]),
        _stream("unfinished", *ten[:3], ten[3][:6]),
    )


_COUNTS = ("frames", "cobs", "crc", "length", "version", "type", "duplicate", "late", "lost")


def _stream(name: str, *parts: bytes) -> Case:
    wire = b"".join(parts)
    reader = FrameReader()
    reader.accept(wire)
    return (name, *[getattr(reader.counts, count) for count in _COUNTS], wire)


def _ulaw() -> Iterator[Case]:
    ramp = np.arange(-32768, 32768, 97).astype(np.int16)
    ends = np.array([-32768, -32767, -1, 0, 1, 32767], np.int16)
    edges = np.array([sign * (4 * ((33 << s) - 33) + d) for sign in (-1, 1) for s in range(8) for d in (-1, 0, 1)])
    for name, pcm in (
        ("ramp", ramp),
        ("ends", ends),
        ("segments", np.clip(edges, -32768, 32767).astype(np.int16)),
        ("every_code", codec.ULAW_SAMPLES),
        ("speech", _speech()[800:1200]),
    ):
        data = codec.encode_ulaw(pcm)
        yield name, _pcm_bytes(pcm), data, _pcm_bytes(codec.decode_ulaw(data))


def _adpcm() -> Iterator[Case]:
    """Blocks; the state at the start of the second half of the speech is that behind the first."""
    speech, state = _speech(), codec.AdpcmState()
    square = np.repeat(np.array([-32768, 32767] * 4, np.int16), 20)
    noise = np.frombuffer(random.Random(5).randbytes(400), "<i2").astype(np.int16)
    yield _adpcm_case("nothing", state, speech[:0])
    yield _adpcm_case("one_sample", state, speech[1500:1501])
    yield _adpcm_case("zeros", state, np.zeros(64, np.int16))
    yield _adpcm_case("square", state, square)
    yield _adpcm_case("noise", codec.AdpcmState(-5, 40), noise)
    yield _adpcm_case("odd", codec.AdpcmState(100, 88), noise[:33])
    yield _adpcm_case("speech0", state, speech[:2000])
    _, state = codec.encode_adpcm(speech[:2000], state)
    yield _adpcm_case("speech1", state, speech[2000:])


def _adpcm_case(name: str, state: codec.AdpcmState, pcm: codec.Pcm) -> Case:
    block, _ = codec.encode_adpcm(pcm, state)
    return name, *state, _pcm_bytes(pcm), block, _pcm_bytes(codec.decode_adpcm(block, len(pcm)))


def _adpcm_malformed() -> Iterator[Case]:
    yield "nothing", 0, b"", Status.BAD_LENGTH.name
    yield "short", 8, bytes(7), Status.BAD_LENGTH.name
    yield "long", 8, bytes(9), Status.BAD_LENGTH.name
    yield "step_index", 2, bytes.fromhex("0000590000"), Status.MALFORMED.name
    yield "reserved", 2, bytes.fromhex("0000000100"), Status.MALFORMED.name


def _rice() -> Iterator[Case]:
    extremes = np.array([[-128, 127] * 8, [127, -128] * 8], np.int8)
    # A frame whose parameter is small meets a value that takes the escape.
    escape = np.zeros((3, 80), np.int8)
    escape[1, 40], escape[2, 79] = 127, -128
    levels = feature_codec.quantize(_log_mel(_speech()).astype(np.float32))
    for name, case in (
        ("one", np.array([[5]], np.int8)),
        ("no_frames", np.zeros((0, 80), np.int8)),
        ("one_mel", np.array([[-1], [0], [1], [100]], np.int8)),
        ("all_equal", np.full((10, 80), -7, np.int8)),
        ("extremes", extremes),
        ("escape", escape),
        ("random_walk", _random_levels(6, 80)),
        ("random", np.frombuffer(random.Random(6).randbytes(400), np.int8).reshape(5, 80)),
        ("speech", levels[:10]),
        ("speech_later", levels[10:]),
        ("speech_fine", feature_codec.quantize(_log_mel(_speech()).astype(np.float32), _PRECISE_SCALE)[:10]),
    ):
        yield name, *case.shape, case.tobytes(), feature_codec.rice_encode(case)


def _rice_malformed() -> Iterator[Case]:
    data = feature_codec.rice_encode(_random_levels(2, 80))
    yield "nothing", 1, 80, b"", Status.TRUNCATED.name
    yield "cut_off", 2, 80, data[:-1], Status.TRUNCATED.name
    yield "byte_too_many", 2, 80, data + b"\0", Status.BAD_LENGTH.name
    yield "bytes_without_frames", 0, 80, b"\0", Status.BAD_LENGTH.name
    yield "padding", 1, 1, b"\x01", Status.MALFORMED.name
    # k = 0 and an escape: 20 ones, then 511, which is -256, or 384, which is 192.
    yield "below_int8", 1, 1, bytes.fromhex("1fffffff"), Status.MALFORMED.name
    yield "above_int8", 1, 1, bytes.fromhex("1fffff80"), Status.MALFORMED.name
    yield "only_ones", 1, 1, b"\x1f\xff\xff", Status.TRUNCATED.name


def _logmel() -> Iterator[Case]:
    rng = random.Random(7)
    noise = np.array([rng.randrange(-3000, 3000) for _ in range(1200)], np.int16)
    phase = 2 * np.pi * 997 * np.arange(1040) / 16000
    for name, pcm in (
        ("too_short", noise[:399]),
        ("silence", np.zeros(560, np.int16)),
        ("full_scale_square", np.tile(np.repeat(np.array([-32768, 32767], np.int16), 8), 50)),
        ("tone", np.rint(16000 * np.sin(phase)).astype(np.int16)),
        ("faint_tone", np.rint(20 * np.sin(phase)).astype(np.int16)),
        ("noise", noise),
        ("speech", _speech()),
    ):
        levels = feature_codec.quantize(_log_mel(pcm).astype(np.float32), _PRECISE_SCALE)
        yield name, *_PRECISE_SCALE, _LOGMEL_TOLERANCE, _pcm_bytes(pcm), levels.tobytes()


def _random_levels(num_frames: int, num_mels: int) -> feature_codec.Levels:
    """Levels that go up and down from mel to mel and from frame to frame, as those of speech."""
    rng = random.Random(num_frames)
    rows, row = [], [rng.randrange(-8, 9) for _ in range(num_mels)]
    for _ in range(num_frames):
        row = [max(-128, min(127, level + rng.choice((-2, -1, -1, 0, 0, 0, 1, 1, 2)))) for level in row]
        rows.append(row)
    return np.array(rows, np.int8)


def _log_mel(pcm: codec.Pcm) -> NDArray[np.float64]:
    """`features.log_mel` in double precision, so that the vectors are the same on every machine."""
    config = FeatureConfig()
    if len(pcm) < config.win_length:
        return np.zeros((0, config.num_mels))
    frames = np.lib.stride_tricks.sliding_window_view(pcm / 32768, config.win_length)[:: config.hop_length]
    power = np.abs(np.fft.rfft(frames * analysis_window(config).astype(np.float64), config.fft_length)) ** 2
    energies: NDArray[np.float64] = np.log(power @ mel_filterbank(config).astype(np.float64) + config.floor)
    return energies


@lru_cache
def _speech() -> codec.Pcm:
    """A quarter of a second of the clip that ships with the package."""
    path = Path(edgeasr.__file__).parent / "models" / "demo.flac"
    pcm, _ = soundfile.read(path, _SPEECH_SAMPLES, _SPEECH_START, dtype="int16")
    return np.asarray(pcm, np.int16)


def _pcm_bytes(pcm: codec.Pcm) -> bytes:
    return pcm.astype("<i2").tobytes()


_FILES: dict[str, tuple[str, Callable[[], Iterable[Case]]]] = {
    "crc16": ("name data crc", _crc16),
    "crc32": ("name data crc", _crc32),
    "cobs": ("name data encoded", _cobs),
    "cobs_malformed": ("name encoded", _cobs_malformed),
    "message": ("name type payload fields...", _messages),
    "message_malformed": ("name type payload status", _messages_malformed),
    "frame": ("name status type sequence time payload wire", _frames),
    "frame_malformed": ("name status wire", _frames_malformed),
    "stream": (f"name {' '.join(_COUNTS)} wire", _streams),
    "ulaw": ("name pcm ulaw decoded", _ulaw),
    "adpcm": ("name predictor step_index pcm block decoded", _adpcm),
    "adpcm_malformed": ("name num_samples block status", _adpcm_malformed),
    "rice": ("name num_frames num_mels levels data", _rice),
    "rice_malformed": ("name num_frames num_mels data status", _rice_malformed),
    "logmel": ("name step offset tolerance pcm levels", _logmel),
}
