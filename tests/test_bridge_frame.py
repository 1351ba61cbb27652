import random
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeasr.firmware_bridge import cobs
from edgeasr.firmware_bridge.codec import decode_audio
from edgeasr.firmware_bridge.frame import (
    Counts,
    Fault,
    Frame,
    FrameReader,
    FrameWriter,
    Packet,
    crc16,
    decode_packet,
    encode_frame,
    encode_packet,
)
from edgeasr.firmware_bridge.messages import Audio, Codec, Hello, Log, Ping, ProtocolError, Status, decode

DAMAGES = ("drop", "repeat", "swap", "truncate", "insert", "flip", "join")


def vectors(repository: Path, name: str) -> list[list[str]]:
    """The fields of the cases in a file of vectors."""
    lines = (repository / "firmware_bridge" / "vectors" / f"{name}.txt").read_text().splitlines()
    return [line.split(" ") for line in lines if not line.startswith("#")]


def unhex(word: str) -> bytes:
    return b"" if word == "-" else bytes.fromhex(word)


def ping_frames(*sequences: int) -> bytes:
    return b"".join(encode_frame(Ping(n), n % 256) for n in sequences)


def read(wire: bytes, reader: FrameReader | None = None) -> tuple[list, Counts]:
    reader = reader or FrameReader()
    return reader.accept(wire), reader.counts


# The same vectors as in C.


def test_vectors_of_check_sums(repository):
    for _, data, crc in vectors(repository, "crc16"):
        assert f"{crc16(unhex(data)):04x}" == crc
    for _, data, crc in vectors(repository, "crc32"):
        assert f"{zlib.crc32(unhex(data)):08x}" == crc
    published = {file: {c[0]: c[2] for c in vectors(repository, file)}["check"] for file in ("crc16", "crc32")}
    assert published == {"crc16": "29b1", "crc32": "cbf43926"}


def test_vectors_of_cobs(repository):
    for _, data, encoded in vectors(repository, "cobs"):
        assert cobs.encode(unhex(data)) == unhex(encoded)
        assert cobs.decode(unhex(encoded)) == unhex(data)
    for _, encoded in vectors(repository, "cobs_malformed"):
        with pytest.raises(ProtocolError):
            cobs.decode(unhex(encoded))


def test_vectors_of_messages(repository):
    for _, number, payload, *fields in vectors(repository, "message"):
        message = decode(int(number), unhex(payload))
        assert message.encode() == unhex(payload)
        found = [getattr(message, name) for name in message.wire_fields()]
        assert [v if isinstance(v, int) else (v.encode() if isinstance(v, str) else v) for v in found] == [
            unhex(word) if not isinstance(value, int) else int(word) for word, value in zip(fields, found, strict=True)
        ]
    for _, number, payload, status in vectors(repository, "message_malformed"):
        with pytest.raises(ProtocolError) as caught:
            decode(int(number), unhex(payload))
        assert caught.value.status.name == status


def test_vectors_of_frames(repository):
    for _, _, number, sequence, time, payload, wire in vectors(repository, "frame"):
        packet = Packet(int(number), int(sequence), int(time), unhex(payload))
        assert encode_packet(packet) == unhex(wire)
        items, counts = read(unhex(wire))
        assert items == [Frame(decode(packet.type, packet.payload), packet.sequence, packet.time, 0)]
        assert counts == Counts(frames=1)


def test_vectors_of_malformed_frames(repository):
    kinds = {
        "BAD_CRC": "crc",
        "BAD_LENGTH": "length",
        "BAD_VERSION": "version",
        "BAD_TYPE": "type",
        "MALFORMED": "cobs",
    }
    for name, status, wire in vectors(repository, "frame_malformed"):
        (fault,), counts = read(unhex(wire))
        assert isinstance(fault, Fault), name
        assert (name, fault.kind, counts.errors) == (name, kinds[status], 1)


def test_vectors_of_streams(repository):
    names = ("frames", "cobs", "crc", "length", "version", "type", "duplicate", "late", "lost")
    for name, *numbers, wire in vectors(repository, "stream"):
        _, counts = read(unhex(wire))
        assert counts == Counts(**dict(zip(names, map(int, numbers), strict=True))), name


# Against sources that are not ours.


def test_cobs_examples_of_the_paper_and_its_encyclopedia_article():
    run = bytes(range(1, 256))
    known = {
        bytes.fromhex("4500002c4c79000040064f37"): bytes.fromhex("024501042c4c79010540064f37"),
        b"\0": b"\1\1",
        b"\0\0": b"\1\1\1",
        b"\0\x11\0": b"\1\2\x11\1",
        bytes.fromhex("11220033"): bytes.fromhex("0311220233"),
        bytes.fromhex("11223344"): bytes.fromhex("0511223344"),
        bytes.fromhex("11000000"): bytes.fromhex("0211010101"),
        run[:254]: b"\xff" + run[:254],
        b"\0" + run[:254]: b"\1\xff" + run[:254],
        run: b"\xff" + run[:254] + b"\2\xff",
        run[1:] + b"\0": b"\xff" + run[1:] + b"\1\1",
        run[2:] + b"\0\1": b"\xfe" + run[2:] + b"\2\1",
    }
    assert {data: cobs.encode(data) for data in known} == known


@given(st.lists(st.tuples(st.sampled_from([0, 1, 255]), st.integers(1, 600)), max_size=6))
def test_cobs_is_that_of_the_package_of_this_name(runs):
    library = pytest.importorskip("cobs.cobs", reason="the comparison needs the extra `dev`")
    data = b"".join(bytes([value]) * count for value, count in runs)
    encoded = cobs.encode(data)
    assert encoded == library.encode(data)
    assert cobs.decode(encoded) == data
    assert len(encoded) <= cobs.max_encoded_size(len(data))


@given(st.binary(min_size=1, max_size=400))
def test_cobs_decodes_what_the_package_of_this_name_decodes(encoded):
    library = pytest.importorskip("cobs.cobs", reason="the comparison needs the extra `dev`")
    try:
        wanted = library.decode(encoded)
    except library.DecodeError:
        with pytest.raises(ProtocolError):
            cobs.decode(encoded)
    else:
        assert cobs.decode(encoded) == wanted


@given(st.binary(max_size=300))
def test_crc16_is_the_division_by_its_polynomial(data):
    remainder = 0xFFFF
    for byte in data:
        remainder ^= byte << 8
        for _ in range(8):
            remainder = (remainder << 1) ^ (0x1021 if remainder & 0x8000 else 0)
            remainder &= 0xFFFF
    assert crc16(data) == remainder


# Frames.


def test_framing_of_20_ms_takes_less_than_2_percent():
    worst = [len(encode_frame(Audio(Codec.S16, 320, random.Random(i).randbytes(640)), 0, 2**31)) for i in range(50)]
    longest = encode_packet(Packet(Audio.TYPE, 1, 2**32 - 1, b"\1" * 640))
    assert len(longest) == 652 < 1.02 * 640
    # The codec and the number of samples, three bytes, are AUDIO's own.
    assert max(worst) <= 652 + 3


@pytest.mark.parametrize(("size", "check"), [(1018, 2), (1019, 4)])
def test_long_frames_carry_a_longer_check_sum(size, check):
    packet = cobs.decode(encode_packet(Packet(Log.TYPE, 0, 0, b"\1" + bytes(size - 1)))[:-1])
    assert len(packet) == 6 + size + check


@given(st.integers(0, 31), st.integers(0, 255), st.integers(0, 2**32 - 1), st.binary(max_size=4096))
def test_a_packet_comes_back(number, sequence, time, payload):
    packet = Packet(number, sequence, time, payload)
    wire = encode_packet(packet)
    assert wire.index(0) == len(wire) - 1
    assert decode_packet(wire[:-1]) == packet


@pytest.mark.parametrize("packet", [Packet(32, 0, 0, b""), Packet(1, 256, 0, b""), Packet(1, 0, -1, b"")])
def test_what_no_header_can_say_is_not_encoded(packet):
    with pytest.raises(ProtocolError, match="of a frame is") as caught:
        encode_packet(packet)
    assert caught.value.status == Status.BAD_ARG


def test_too_long_a_payload_is_not_encoded():
    with pytest.raises(ProtocolError, match="got a payload of 4097 bytes, a frame holds 4096"):
        encode_packet(Packet(1, 0, 0, bytes(4097)))


def test_a_writer_numbers_its_frames_and_wraps_numbers_and_time():
    writer, reader = FrameWriter(), FrameReader()
    items = reader.accept(b"".join(writer.encode(Ping(n), (1 << 32) - 100 + n) for n in range(300)))
    assert [item.sequence for item in items] == [n % 256 for n in range(300)]
    assert [item.time for item in items[99:101]] == [2**32 - 1, 0]
    assert reader.counts == Counts(frames=300)


@given(st.lists(st.integers(1, 40), min_size=1))
def test_frames_are_the_same_however_the_bytes_arrive(sizes):
    wire = ping_frames(0, 1, 1, 3) + b"\xff\0" + ping_frames(4)
    whole, counts = read(wire)
    reader, items, position = FrameReader(), [], 0
    for size in [*sizes, len(wire)]:
        items += reader.accept(wire[position : position + size])
        position += size
    assert (items, reader.counts) == (whole, counts)


def test_a_frame_says_how_many_are_missing_before_it():
    items, counts = read(ping_frames(7, 8, 12, 12, 10, 13))
    assert [(item.message.token, item.lost) for item in items] == [(7, 0), (8, 0), (12, 3), (13, 0)]
    assert counts == Counts(frames=4, lost=3, duplicate=1, late=1)
    assert str(counts) == "4 frames, 3 lost, 1 duplicate, 1 late"


@given(st.integers(0, 255), st.integers(0, 255), st.integers(-(2**31), 2**31), st.booleans())
def test_however_many_are_lost_at_most_one_more_is_dropped(last, lost, time, keeps_time):
    numbers = [0, *range(1 + lost, 6 + lost)]
    wire = [encode_frame(Ping(n), (last + n) % 256, (time + 320 * n * keeps_time) % 2**32) for n in numbers]
    items, counts = read(b"".join(wire))
    heard = [item.message.token for item in items]
    assert heard[0] == 0
    assert heard[-4:] == numbers[-4:]
    assert counts.late + counts.duplicate == 6 - len(heard)


def test_late_frames_are_late_by_their_time():
    wire = [encode_frame(Ping(n), n, 320 * n) for n in (1, 4, 2, 3, 5)]
    items, counts = read(b"".join(wire))
    assert [item.message.token for item in items] == [1, 4, 5]
    assert counts == Counts(frames=3, lost=2, late=2)


def test_a_restarted_peer_is_heard_from_its_hello_on():
    hello = encode_frame(Hello(1, 16000, 4096, 0, 0, ""), 0)
    items, counts = read(ping_frames(9) + hello + ping_frames(1))
    assert [item.sequence for item in items] == [9, 0, 1]
    assert counts == Counts(frames=3)


def test_a_refused_frame_counts_as_an_error_of_its_payload():
    reader = FrameReader()
    (frame,) = reader.accept(encode_frame(Audio(Codec.S16, 2, b"\0"), 0))
    with pytest.raises(ProtocolError) as caught:
        decode_audio(frame.message)
    assert reader.refuse(frame, caught.value) == Fault("payload", "frame 0: got 1 bytes for 2 samples of S16, wanted 4")
    assert reader.counts == Counts(payload=1)


def test_a_malformed_payload_counts_as_such_and_its_number_too():
    items, counts = read(ping_frames(0) + encode_packet(Packet(Ping.TYPE, 1, 0, b"\0")) + ping_frames(2))
    assert [type(item) for item in items] == [Frame, Fault, Frame]
    assert counts == Counts(frames=2, payload=1)


def test_a_reader_refuses_what_is_longer_than_it_was_told_and_keeps_no_more():
    reader = FrameReader(max_payload=16)
    items = reader.accept(encode_frame(Log(1, "x" * 16), 0) + encode_frame(Log(1, "x" * 15), 1))
    assert [type(item) for item in items] == [Fault, Frame]
    for _ in range(100):
        assert reader.accept(b"\xaa" * 10_000) == []
    assert len(reader._pending) < 64
    assert [item.kind for item in reader.accept(b"\0")] == ["length"]
    assert reader.counts == Counts(frames=1, length=2)
    with pytest.raises(ProtocolError, match="max_payload is 4097"):
        FrameReader(max_payload=4097)


# Faults.


@given(st.lists(st.binary(max_size=600), max_size=8))
def test_random_bytes_raise_nothing_and_the_frame_behind_the_next_is_heard(blocks):
    reader = FrameReader()
    for block in blocks:
        assert all(isinstance(item, Frame | Fault) for item in reader.accept(block))
    hello = encode_frame(Hello(1, 16000, 4096, 0, 0, ""), 0)
    items = reader.accept(hello + hello)
    assert items[-1] == Frame(Hello(1, 16000, 4096, 0, 0, ""), 0, 0, 0)


def test_ten_million_random_bytes_are_not_taken_for_messages():
    rng, reader = random.Random(1), FrameReader()
    frames = [item for _ in range(100) for item in reader.accept(rng.randbytes(100_000)) if isinstance(item, Frame)]
    assert frames == []
    assert reader.counts.cobs > 20_000
    reader.accept(encode_frame(Ping(5), 0))  # ends the garbage
    assert reader.accept(encode_frame(Ping(6), 1)) == [Frame(Ping(6), 1, 0, 0)]


def sent_frames(count: int, rng: random.Random) -> list[bytes]:
    """Frames of audio that can be told apart by their time."""
    return [encode_frame(Audio(Codec.ULAW, 160, rng.randbytes(160)), n % 256, n) for n in range(count)]


def assert_only_what_was_sent(items: list, sent: list[bytes]) -> list[int]:
    """Each good frame is one that was sent; returns their numbers."""
    numbers = []
    for item in items:
        if isinstance(item, Frame):
            assert encode_frame(item.message, item.sequence, item.time) == sent[item.time]
            numbers.append(item.time)
    return numbers


def test_bit_errors_never_pass_for_audio():
    rng = random.Random(2)
    sent = sent_frames(4000, rng)
    wire = bytearray(b"".join(sent))
    flips = sum(rng.random() < 1e-4 for _ in range(8 * len(wire)))
    for _ in range(flips):
        wire[rng.randrange(len(wire))] ^= 1 << rng.randrange(8)
    reader = FrameReader()
    heard = assert_only_what_was_sent(reader.accept(bytes(wire)), sent)
    assert heard == sorted(set(heard))
    counts = reader.counts
    assert counts.frames == len(heard)
    assert counts.frames + counts.lost >= 3995
    assert 0.8 * len(sent) < len(heard) < 0.95 * len(sent)
    assert counts.crc > 300
    assert counts.cobs > 10


def damage(frames: list[bytes], kind: str, at: int, rng: random.Random) -> None:
    """Do something to the frame at `at`, of which there is at least one before and two after."""
    if kind == "drop":
        frames[at] = b""
    elif kind == "repeat":
        frames[at] *= 2
    elif kind == "swap":
        frames[at], frames[at + 1] = frames[at + 1], frames[at]
    elif kind == "truncate":
        frames[at] = frames[at][: rng.randrange(len(frames[at]))]
    elif kind == "insert":
        frames[at] += rng.randbytes(rng.randrange(1, 400))
    elif kind == "join":
        frames[at] = frames[at][:-1]
    else:
        place = rng.randrange(len(frames[at]))
        flipped = frames[at][place] ^ (1 << rng.randrange(8))
        frames[at] = frames[at][:place] + bytes([flipped]) + frames[at][place + 1 :]


@given(st.lists(st.sampled_from(DAMAGES), min_size=1, max_size=4), st.integers(0, 2**32))
def test_damaged_streams_resynchronise_within_two_frames(kinds, seed):
    rng = random.Random(seed)
    sent = sent_frames(8 * len(kinds) + 4, rng)
    wire = list(sent)
    for i, kind in enumerate(kinds):
        damage(wire, kind, 8 * i + 2, rng)
    reader = FrameReader()
    heard = assert_only_what_was_sent(reader.accept(b"".join(wire)), sent)
    assert heard == sorted(set(heard))
    # The damaged frame and at most two after it are missing; the others are all there.
    missing = set(range(len(sent))) - set(heard)
    assert {n % 8 for n in missing} <= {2, 3, 4}
    assert reader.counts.lost >= len(missing) - 1
    assert reader.counts.duplicate == kinds.count("repeat")
    assert reader.counts.late == kinds.count("swap")


def test_another_speed_of_the_line_is_noise_that_is_counted():
    # The receiver samples half as often: of two bits it sees one.
    rng = random.Random(3)
    bits = "".join(f"{byte:08b}"[::-1] for byte in b"".join(sent_frames(50, rng)))
    seen = bits[::2]
    wire = bytes(int(seen[i : i + 8][::-1], 2) for i in range(0, len(seen) - 7, 8))
    items, counts = read(wire)
    assert not [item for item in items if isinstance(item, Frame)]
    assert counts.errors > 10


def test_a_reader_of_another_version_says_which():
    packet = bytearray(cobs.decode(encode_packet(Packet(Ping.TYPE, 0, 0, bytes(4)))[:-1]))
    packet[0] = 2 << 5 | Ping.TYPE
    body = bytes(packet[:-2])
    (fault,), _ = read(cobs.encode(body + crc16(body).to_bytes(2, "little")) + b"\0")
    assert fault == Fault("version", "the other side speaks version 2 of the protocol, this one 1: update the older")
