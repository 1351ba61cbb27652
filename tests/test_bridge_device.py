"""The portable part of the firmware on the host, under sanitizers, with a host and a line that behave badly."""

import subprocess
from pathlib import Path
from runpy import run_path

import numpy as np
import pytest

from edgeasr.firmware_bridge import messages as wire
from edgeasr.firmware_bridge.codec import decode_audio
from edgeasr.firmware_bridge.feature_codec import decode_features
from edgeasr.firmware_bridge.frame import Frame, FrameReader, FrameWriter

missing = run_path(str(Path(__file__).with_name("toolchain.py")))["missing"]
C = Path(__file__).parents[1] / "firmware_bridge" / "c"

# A board whose microphone counts, and hears as much as a generator of random numbers says between two steps; whose line
# takes as much. Standard input is a script: a byte with the number of steps, then a length and bytes of the host.
DRIVER = """
#include <stdio.h>
#include <stdlib.h>
#include "board.h"
#include "device.h"

#define RING_SIZE 1024u
#define INCOMING_SIZE 65536u

static int16_t samples[RING_SIZE];
static edgeasr_ring_t ring;
static device_t device;
static uint8_t incoming[INCOMING_SIZE];
static size_t incoming_begin, incoming_end;
static bool on;
static size_t line_room;
static uint32_t heard, hear_most, line_most, steps, seed = 1;

static uint32_t chance(uint32_t below) {
    seed = seed * 1664525u + 1013904223u;
    return (seed >> 8) % below;
}

const board_info_t *board_info(void) {
    static const board_info_t info = {"a board whose name is longer than what a frame of this device holds", 1, 2, 3};
    return &info;
}
size_t board_read(uint8_t *bytes, size_t max) {
    size_t n = 0;
    while (n < max && incoming_begin < incoming_end) {
        bytes[n++] = incoming[incoming_begin++];
    }
    return n;
}
size_t board_write(const uint8_t *bytes, size_t n) {
    const size_t taken = n < line_room ? n : line_room;
    line_room -= taken;
    (void)fwrite(bytes, 1, taken, stdout);
    return taken;
}
uint32_t board_clock_ms(void) { return steps; }
uint16_t board_busy_permille(void) { return 7; }
void board_microphone(bool wanted) { on = wanted; }
void board_display(bool final, const char *text, size_t n) {
    fprintf(stderr, "%d ", final);
    (void)fwrite(text, 1, n, stderr);
    (void)fputc('\\n', stderr);
}
void board_identify(void) {}
void board_reset(void) { exit(3); }

static void step(void) {
    steps++;
    if (on) {
        int16_t block[512];
        const uint32_t n = chance(hear_most + 1u);
        for (uint32_t i = 0; i < n; i++, heard++) {
            // Loud for a second, silent for two.
            block[i] = (int16_t)(heard / 16000u % 3u == 0 ? (heard % 64u) * 500u : 0);
        }
        (void)edgeasr_ring_write(&ring, block, n);
    }
    line_room = chance(line_most + 1u);
    for (int i = 0; i < 8 && device_step(&device); i++) {
    }
}

int main(int argc, char **argv) {
    int most, length, byte;
    if (argc != 3) {
        return 2;
    }
    hear_most = (uint32_t)atoi(argv[1]);
    line_most = (uint32_t)atoi(argv[2]);
    (void)edgeasr_ring_init(&ring, samples, RING_SIZE);
    device_init(&device, &ring);
    while ((most = getchar()) >= 0 && (length = getchar()) >= 0) {
        incoming_begin = incoming_end = 0;
        while (length-- > 0 && (byte = getchar()) >= 0) {
            incoming[incoming_end++] = (uint8_t)byte;
        }
        for (int i = 0; i < 32 * (most + 1) || incoming_begin < incoming_end; i++) {
            step();
        }
    }
    on = false;
    line_most = 4096;
    for (int i = 0; i < 1000; i++) {
        step();
    }
    return 0;
}
"""


@pytest.fixture(scope="module")
def device(tmp_path_factory):
    """A function that runs a script (steps, bytes of the host) and gives what came over the line and the display."""
    if (reason := missing("gcc")) is not None:
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("device")
    (folder / "driver.c").write_text(DRIVER)
    sources = [folder / "driver.c", *(C / "src").glob("*.c"), *(C / "firmware" / "src").glob("*.c")]
    flags = ("-std=c99", "-Wall", "-Wextra", "-Werror", "-O1", "-g", "-fsanitize=address,undefined")
    includes = (f"-I{C / 'include'}", f"-I{C / 'firmware' / 'src'}")
    subprocess.run(["gcc", *flags, "-fno-sanitize-recover", *includes, "-o", folder / "device", *sources], check=True)

    def run(script, hear_most=320, line_most=1000):
        text = b"".join(bytes([steps, len(data)]) + data for steps, data in script)
        done = subprocess.run(
            [folder / "device", str(hear_most), str(line_most)], input=text, capture_output=True, check=False
        )
        assert done.returncode == 0, done.stderr.decode(errors="replace")
        return done.stdout, done.stderr.decode(errors="replace").splitlines()

    return run


def frames_of(data: bytes) -> list[Frame]:
    reader = FrameReader()
    items = reader.accept(data)
    assert all(isinstance(item, Frame) for item in items), items
    assert reader.counts.lost == reader.counts.late == reader.counts.duplicate == 0
    return items


def check_clock(frames: list[Frame], codec: wire.Codec) -> dict[int, int]:
    """Asserts that each message begins where the one before ended; returns samples by the reason of their gap."""
    at, lost = 0, dict.fromkeys(wire.GapReason, 0)
    for frame in frames:
        message = frame.message
        if not isinstance(message, wire.Audio | wire.Features | wire.Gap):
            continue
        assert frame.time == at
        if isinstance(message, wire.Gap):
            lost[message.reason] += message.lost_samples
            at += message.lost_samples
            continue
        assert codec in (wire.Codec.FEATURES, getattr(message, "codec", wire.Codec.FEATURES))
        at += len(decode_audio(message)) if isinstance(message, wire.Audio) else 160 * len(decode_features(message))
    return lost


HELLO = wire.Hello(1, 16_000, 4096, 15, 80, "test")
START, STOP = (wire.Command(code, 0) for code in (wire.CommandCode.START, wire.CommandCode.STOP))


@pytest.mark.parametrize("codec", wire.Codec)
@pytest.mark.parametrize("vad_mode", wire.VadMode)
@pytest.mark.parametrize("line_most", [40, 2000])
def test_whatever_is_lost_is_told(device, codec, vad_mode, line_most):
    writer = FrameWriter()
    frame_ms = 160 if codec == wire.Codec.FEATURES else 20
    begin = b"".join(map(writer.encode, (HELLO, wire.Configure(codec, frame_ms, vad_mode, 300, 0), START)))
    pauses = [(20, writer.encode(message)) for message in (STOP, START, wire.Ping(1), STOP, START)]
    data, _ = device([(60, begin), *pauses, (60, b"")], hear_most=200, line_most=line_most)
    frames = frames_of(data)
    lost = check_clock(frames, codec)
    assert lost[wire.GapReason.RESTART] > 0
    # A line of 20 bytes in the time of 100 samples is too slow for all but features; the gate saves two thirds.
    if line_most > 40 or (codec != wire.Codec.FEATURES and vad_mode == wire.VadMode.OFF):
        assert (lost[wire.GapReason.OVERRUN] > 0) == (line_most == 40)
    # Where most of the silence is lost too, the gate does not see enough of it to close.
    if line_most > 40 or vad_mode == wire.VadMode.OFF:
        assert (lost[wire.GapReason.GATED] > 0) == (vad_mode == wire.VadMode.GATE)
    assert any(isinstance(frame.message, wire.Audio | wire.Features) for frame in frames)


@pytest.mark.parametrize("seed", range(20))
def test_a_host_that_talks_nonsense_harms_nothing(device, seed):
    rng = np.random.default_rng(seed)
    writer, script = FrameWriter(), []
    for _ in range(60):
        kind = wire.MESSAGES[int(rng.integers(1, 16))]
        payload = rng.integers(0, 256, int(rng.integers(0, 30)), np.uint8).tobytes()
        configure = wire.Configure(
            int(rng.integers(0, 5)), int(rng.integers(0, 200)), int(rng.integers(0, 3)), int(rng.integers(0, 700)), 0
        )
        bad = [
            lambda kind=kind, payload=payload: raw_frame(kind.TYPE, payload),
            lambda configure=configure: writer.encode(configure),
            lambda: writer.encode(wire.Command(int(rng.integers(0, 7)), 0)),
            lambda payload=payload: payload,
            lambda: writer.encode(wire.Transcript(1, 0, 0, "words")) + writer.encode(HELLO),
        ]
        data = bad[int(rng.integers(0, len(bad)))]()
        if kind is not wire.Reset:
            script.append((int(rng.integers(0, 10)), data))
    script.append((50, b"\0" + writer.encode(HELLO) + writer.encode(wire.Ping(77))))
    data, _ = device(script, hear_most=int(rng.integers(1, 512)), line_most=int(rng.integers(30, 3000)))
    reader = FrameReader()
    items = reader.accept(data)
    assert all(isinstance(item, Frame) for item in items), items
    assert items[-1].message == wire.Pong(77)
    for frame in items:
        if isinstance(frame.message, wire.Audio):
            decode_audio(frame.message)
        elif isinstance(frame.message, wire.Features):
            decode_features(frame.message)


def raw_frame(message_type: int, payload: bytes) -> bytes:
    from edgeasr.firmware_bridge.frame import Packet, encode_packet

    return encode_packet(Packet(message_type, 0, 0, payload))


def test_a_display_gets_whole_transcripts(device):
    writer = FrameWriter()
    words = wire.Transcript(wire.TranscriptKind.FINAL, 0, 0, "zwölf Boxkämpfer")
    _, shown = device(
        [(1, writer.encode(HELLO) + writer.encode(words)), (1, writer.encode(wire.Transcript(0, 1, 0, "")))]
    )
    assert shown == ["1 zwölf Boxkämpfer", "0 "]
