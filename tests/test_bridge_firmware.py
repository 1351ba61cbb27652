"""The reference firmware in QEMU: its answers, its stream by value, the words of a clip through `edgeasr listen`."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from runpy import run_path

import numpy as np
import pytest

from edgeasr.config import FeatureConfig
from edgeasr.features import log_mel
from edgeasr.firmware_bridge import messages as wire
from edgeasr.firmware_bridge.codec import decode_audio, encode_ulaw
from edgeasr.firmware_bridge.feature_codec import decode_features
from edgeasr.firmware_bridge.frame import encode_frame
from edgeasr.firmware_bridge.tables import twiddles
from edgeasr.metrics import character_errors

emulator = run_path(str(Path(__file__).with_name("firmware_emulator.py")))
PATIENCE_S = emulator["PATIENCE_S"]
Host, emulated = emulator["Host"], emulator["emulated"]

CLIP = Path("edgeasr", "models", "demo.flac")
EDGEASR = (sys.executable, "-m", "edgeasr.cli.main")
AT_ONCE = "pace=0"  # as fast as the link takes it: nothing is lost, however slow the machine
FOREVER = "quiet_ms=600000"  # a test ends the firmware
TAIL_MS = 2000
TONE_SAMPLES = 8000


@pytest.fixture(scope="module")
def firmware(tmp_path_factory) -> Path:
    if (reason := emulator["missing_programs"]()) is not None:
        pytest.skip(reason)
    return emulator["build_firmware"](tmp_path_factory.mktemp("firmware"))


@pytest.fixture
def device(firmware, tmp_path):
    """A function that runs the firmware with settings and connects a host to it; both are gone at the end."""
    opened = []

    def run(*settings: str):
        running = emulated(firmware, tmp_path / "display.txt", *settings)
        host = Host(running.__enter__().port)
        opened.extend([(host.close,), (running.__exit__, None, None, None)])
        return host

    yield run
    for close, *arguments in opened:
        close(*arguments)


def tones() -> np.ndarray:
    """The clip that is built into the firmware: silence, a tone, silence, a softer tone."""
    half = np.array(twiddles(FeatureConfig())[::2])
    turn = np.concatenate([half, -half])
    clip = turn[np.arange(4 * TONE_SAMPLES) * 20 % 512]
    # As C divides, towards zero.
    loud, soft = (np.trunc(clip / divisor).astype(np.int16) for divisor in (2, 8))
    clip = np.zeros(4 * TONE_SAMPLES, np.int16)
    clip[TONE_SAMPLES : 2 * TONE_SAMPLES] = loud[TONE_SAMPLES : 2 * TONE_SAMPLES]
    clip[3 * TONE_SAMPLES :] = soft[3 * TONE_SAMPLES :]
    return clip


def start(host, codec, frame_ms=20, vad_mode=wire.VadMode.OFF):
    """Ask for a stream and wait until it is acknowledged."""
    host.greet()
    host.send(wire.Configure(codec, frame_ms, vad_mode, 300, 0), wire.Command(wire.CommandCode.START, 0))
    assert [host.next(wire.Ack).message.status for _ in range(2)] == [0, 0]


def heard(host, num_samples):
    """Samples of AUDIO with zeros for gaps, and the gaps; asserts that each message begins where the last ended."""
    parts, gaps, at = [], [], 0
    for frame in host.frames():
        message = frame.message
        if isinstance(message, wire.Gap):
            assert frame.time == at
            gaps.append((at, message.lost_samples, message.reason))
            parts.append(np.zeros(message.lost_samples, np.int16))
        elif isinstance(message, wire.Audio):
            assert frame.time == at
            parts.append(decode_audio(message))
        else:
            continue
        at += len(parts[-1])
        if at >= num_samples:
            break
    return np.concatenate(parts)[:num_samples], gaps


class TestAnswers:
    def test_hello_says_what_it_is(self, device):
        hello = device(FOREVER).greet()
        assert (hello.protocol_version, hello.sample_rate_hz, hello.num_mels) == (1, 16_000, 80)
        codecs = wire.Capability.S16 | wire.Capability.ULAW | wire.Capability.ADPCM | wire.Capability.FEATURES
        assert hello.capabilities == codecs | wire.Capability.VAD | wire.Capability.DISPLAY | wire.Capability.COMMANDS

    def test_commands_are_answered(self, device, tmp_path):
        host = device(FOREVER)
        host.greet()
        host.send(wire.Ping(0xDEADBEEF), wire.Command(wire.CommandCode.GET_INFO, 0))
        assert host.next(wire.Pong).message.token == 0xDEADBEEF
        info = host.next(wire.Info).message
        assert info.board == "mps2-an386"
        assert 8_000 < info.flash_bytes < 65_536
        assert 8_000 < info.ram_bytes < 65_536
        host.send_bytes(b"\x01\x02\0")
        host.send(wire.Command(wire.CommandCode.GET_STATS, 0))
        stats = host.next(wire.Stats).message
        assert (stats.frames_sent, stats.frames_received, stats.receive_errors, stats.overruns) == (3, 4, 1, 0)
        assert stats.free_bytes == 65_536 - info.ram_bytes
        host.send(wire.Command(wire.CommandCode.IDENTIFY, 0), wire.Command(99, 0))
        acks = [host.next(wire.Ack).message for _ in range(2)]
        assert [(ack.type, ack.status) for ack in acks] == [(wire.Command.TYPE, 0), (wire.Command.TYPE, 1)]
        assert (tmp_path / "display.txt").read_text() == "* here\n"

    @pytest.mark.parametrize(
        ("configure", "status"),
        [
            (wire.Configure(wire.Codec.ADPCM, 60, 0, 300, 0), wire.Status.OK),
            (wire.Configure(wire.Codec.FEATURES, 180, 1, 450, 0), wire.Status.OK),
            (wire.Configure(4, 20, 0, 300, 0), wire.Status.BAD_ARG),
            (wire.Configure(wire.Codec.S16, 61, 0, 300, 0), wire.Status.BAD_ARG),
            (wire.Configure(wire.Codec.S16, 0, 0, 300, 0), wire.Status.BAD_ARG),
            (wire.Configure(wire.Codec.FEATURES, 9, 0, 300, 0), wire.Status.BAD_ARG),
            (wire.Configure(wire.Codec.FEATURES, 190, 0, 300, 0), wire.Status.BAD_ARG),
            (wire.Configure(wire.Codec.S16, 20, 2, 300, 0), wire.Status.BAD_ARG),
            (wire.Configure(wire.Codec.S16, 20, 0, 300, 1), wire.Status.BAD_ARG),
            (wire.Configure(wire.Codec.S16, 20, 1, 600, 0), wire.Status.OVERFLOW),
        ],
    )
    def test_what_it_cannot_do_is_refused(self, device, configure, status):
        host = device(FOREVER)
        host.greet()
        host.send(configure)
        assert host.next(wire.Ack).message == wire.Ack(wire.Configure.TYPE, 1, status)

    def test_garbage_and_broken_frames_are_counted(self, device):
        host = device(FOREVER)
        host.greet()
        rng = np.random.default_rng(1)
        host.send_bytes(rng.integers(0, 256, 5000, np.uint8).tobytes() + b"\0")
        broken = bytearray(encode_frame(wire.Ping(1), 1))
        broken[4] ^= 0x10
        host.send_bytes(bytes(broken))
        host.send(wire.Ping(2))
        assert host.next(wire.Pong).message.token == 2
        host.send(wire.Command(wire.CommandCode.GET_STATS, 0))
        assert host.next(wire.Stats).message.receive_errors > 2

    def test_a_reset_starts_anew(self, device):
        host = device(FOREVER, AT_ONCE)
        start(host, wire.Codec.S16)
        assert host.next(wire.Audio).time == 0
        assert host.next(wire.Audio).time == 320
        host.send(wire.Reset(wire.ResetReason.USER))
        # Its clock begins at 0 again, and nothing streams until it is asked to.
        assert host.greet_until_answered().time == 0
        host.send(wire.Ping(3))
        assert host.next(wire.Pong).time == 0


class TestStream:
    def test_samples_come_as_they_were_heard(self, device):
        host = device(AT_ONCE, FOREVER)
        start(host, wire.Codec.S16)
        num_samples = 4 * TONE_SAMPLES + TAIL_MS * 16
        samples, gaps = heard(host, num_samples)
        assert gaps == []
        np.testing.assert_array_equal(samples, np.concatenate([tones(), np.zeros(TAIL_MS * 16, np.int16)]))
        assert host.reader.counts.lost == host.reader.counts.errors == 0

    def test_ulaw_and_adpcm_are_those_of_the_host(self, device):
        for codec, tolerance in ((wire.Codec.ULAW, 0), (wire.Codec.ADPCM, 2000)):
            host = device(AT_ONCE, FOREVER)
            start(host, codec, frame_ms=30)
            samples, gaps = heard(host, 4 * TONE_SAMPLES)
            assert gaps == []
            wanted = tones()
            if codec == wire.Codec.ULAW:
                wanted = decode_audio(wire.Audio(codec, len(wanted), encode_ulaw(wanted)))
            # ADPCM needs some samples to follow a tone that starts at once.
            settled = np.arange(len(wanted)) % TONE_SAMPLES > 50
            np.testing.assert_allclose(samples[settled], wanted[settled], atol=tolerance)

    def test_features_are_those_of_the_encoder(self, device):
        host = device(AT_ONCE, FOREVER)
        start(host, wire.Codec.FEATURES, frame_ms=160)
        wanted = log_mel(tones().astype(np.float32) / 32768, FeatureConfig())
        parts = []
        for frame in host.frames():
            if isinstance(frame.message, wire.Features):
                assert frame.time == 160 * sum(map(len, parts))
                parts.append(decode_features(frame.message))
            if sum(map(len, parts)) >= len(wanted):
                break
        features = np.concatenate(parts)[: len(wanted)]
        # int8 rounds to the nearest step; fixed point adds what the library allows for.
        half_step = wire.DEFAULT_FEATURE_STEP / wire.FEATURE_STEP_UNIT / 2
        lowest = wire.DEFAULT_FEATURE_OFFSET / wire.FEATURE_OFFSET_UNIT - 128 * 2 * half_step
        np.testing.assert_allclose(features, np.maximum(wanted, lowest), atol=half_step + 0.1)
        assert host.reader.counts.lost == host.reader.counts.errors == 0

    def test_a_line_that_is_too_slow_loses_samples_and_says_which(self, device):
        host = device("pace=1", "baud=115200", FOREVER)
        start(host, wire.Codec.S16)
        samples, gaps = heard(host, 3 * TONE_SAMPLES)
        assert {reason for _, _, reason in gaps} == {wire.GapReason.OVERRUN}
        # 115200 baud carry 44 % of the samples, and the ring holds a quarter of a second.
        assert 0.2 * len(samples) < sum(lost for _, lost, _ in gaps) < len(samples)
        came = np.ones(len(samples), bool)
        for at, lost, _ in gaps:
            came[at : at + lost] = False
        np.testing.assert_array_equal(samples[came], tones()[: len(samples)][came])
        assert host.reader.counts.lost == host.reader.counts.errors == 0

    def test_the_gate_sends_only_what_is_loud(self, device):
        host = device(AT_ONCE, FOREVER, "tail_ms=3000")
        start(host, wire.Codec.S16, vad_mode=wire.VadMode.GATE)
        events, at, gated = [], None, 0
        for frame in host.frames():
            if isinstance(frame.message, wire.Event):
                # What was heard before it ended has been sent before that is said.
                assert frame.message.kind == wire.EventKind.SPEECH_START or at == frame.time
                events.append((frame.message.kind, frame.time))
                if len(events) == 2:
                    break
            elif isinstance(frame.message, wire.Audio):
                assert at in (None, frame.time)
                at = frame.time + frame.message.num_samples
            elif isinstance(frame.message, wire.Gap):
                assert frame.message.reason == wire.GapReason.GATED
                assert frame.time == (at or 0)
                gated += frame.message.lost_samples
                at = frame.time + frame.message.lost_samples
        assert [kind for kind, _ in events] == [wire.EventKind.SPEECH_START, wire.EventKind.SPEECH_END]
        # 30 ms of the tone start it, 300 ms of pre-roll come too, and it stays open over half a second of silence.
        assert events[0][1] == TONE_SAMPLES + 480
        assert gated == TONE_SAMPLES - 4800
        assert 4 * TONE_SAMPLES + 16_000 < events[1][1] < 4 * TONE_SAMPLES + 24_000

    def test_a_pause_of_the_stream_is_a_gap(self, device):
        host = device(AT_ONCE, FOREVER, "tail_ms=60000")
        start(host, wire.Codec.S16)
        host.send(wire.Command(wire.CommandCode.STOP, 0))
        last = None
        for frame in host.frames():
            if isinstance(frame.message, wire.Ack):
                break
            if isinstance(frame.message, wire.Audio):
                last = frame
        host.send(wire.Command(wire.CommandCode.START, 0))
        gap, audio = host.next(wire.Gap), host.next(wire.Audio)
        assert gap.message.reason == wire.GapReason.RESTART
        assert gap.time == (0 if last is None else last.time + last.message.num_samples)
        assert audio.time == gap.time + gap.message.lost_samples

    def test_a_device_that_nobody_asks_streams_by_itself(self, device):
        host = device(AT_ONCE, "unasked=1", "quiet_ms=1000")
        samples, gaps = heard(host, 4 * TONE_SAMPLES)
        assert gaps == []
        np.testing.assert_array_equal(samples, tones())
        assert host.reader.counts.frames >= 4 * TONE_SAMPLES // 320


class TestEnd:
    def test_it_ends_when_the_host_has_sent_the_last_final(self, firmware, tmp_path):
        with emulated(firmware, tmp_path / "display.txt", AT_ONCE, FOREVER, "finals=2") as running:
            host = Host(running.port)
            start(host, wire.Codec.S16)
            heard(host, 4 * TONE_SAMPLES + TAIL_MS * 16)
            partial, final = wire.TranscriptKind.PARTIAL, wire.TranscriptKind.FINAL
            host.send(wire.Transcript(final, 0, 3, "one"), wire.Transcript(partial, 1, 0, "tw"))
            host.send(wire.Transcript(final, 1, 6, "zwölf"))
            assert list(host.frames()) == []
            assert running.wait() == 0
            host.close()
        assert (tmp_path / "display.txt").read_text(encoding="utf-8") == "> one\n~ tw\n> zwölf\n"

    def test_it_ends_when_the_host_says_nothing(self, firmware, tmp_path):
        with emulated(firmware, tmp_path / "display.txt", AT_ONCE, "quiet_ms=500") as running:
            host = Host(running.port)
            start(host, wire.Codec.S16)
            assert sum(isinstance(frame.message, wire.Audio) for frame in host.frames()) == 200
            assert running.wait() == 0
            host.close()


class TestSettings:
    @pytest.mark.parametrize(
        ("setting", "message"),
        [
            ("pace=fast", "got pace=fast, want pace=N"),
            ("speed=2", "got speed=2, want pace=N"),
            ("pcm=/nowhere/speech.pcm", "cannot read the file of pcm="),
        ],
    )
    def test_wrong_ones_end_it(self, firmware, tmp_path, setting, message):
        with emulated(firmware, tmp_path / "display.txt", setting) as running:
            host = Host(running.port)
            assert running.wait() == 2
            assert message in running.said()
            host.close()


@pytest.fixture(scope="module")
def transcribed(repository):
    """A function that gives the segments of a recording, a line each."""

    def transcribe(recording: Path) -> list[str]:
        command = [*EDGEASR, "transcribe", str(recording)]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()

    return transcribe


def listened(firmware: Path, folder: Path, recording: Path, segments: int, query: str = "") -> list[str]:
    """The segments that `edgeasr listen` prints of what the firmware hears; asserts that the display shows them."""
    pcm, display = folder / "speech.pcm", folder / "display.txt"
    emulator["write_pcm"](recording, pcm)
    with emulated(firmware, display, AT_ONCE, FOREVER, f"pcm={pcm}") as running:
        command = [*EDGEASR, "listen", "--source", running.url + query]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as listening:
            deadline = time.monotonic() + PATIENCE_S
            while len(running.shown()) < segments and listening.poll() is None and time.monotonic() < deadline:
                time.sleep(0.1)
            listening.send_signal(signal.SIGINT)
            out, err = listening.communicate(timeout=PATIENCE_S)
        assert (listening.returncode, err) == (0, "")
        assert running.shown() == out.splitlines()
    return out.splitlines()


class TestWords:
    def test_samples_give_the_transcript_of_the_file(self, firmware, transcribed, repository, tmp_path):
        wanted = transcribed(repository / CLIP)
        assert sum(len(line.split()) for line in wanted) > 15
        assert listened(firmware, tmp_path, repository / CLIP, len(wanted)) == wanted

    @pytest.mark.parametrize("query", ["?codec=ulaw", "?codec=adpcm", "?codec=features", "?codec=s16&vad=gate"])
    def test_what_the_codecs_leave_out_costs_few_letters(self, firmware, transcribed, repository, tmp_path, query):
        wanted = transcribed(repository / CLIP)
        found = listened(firmware, tmp_path, repository / CLIP, len(wanted), query)
        assert character_errors(" ".join(wanted), " ".join(found)).rate < 0.15, (wanted, found)

    def test_real_speech_gives_the_transcript_of_the_file(self, firmware, transcribed, speech, tmp_path):
        lines = [json.loads(line) for line in (speech / "dev.jsonl").read_text().splitlines()]
        # From an MP3, whose samples are no 16 bits: they are written as such, and both sides read the same.
        chosen = min(lines, key=lambda line: abs(line["duration"] - 5))
        pcm = emulator["write_pcm"](speech / chosen["audio_filepath"], tmp_path / "speech.raw")
        recording = tmp_path / "speech.wav"
        emulator["write_wav"](pcm, recording)
        wanted = transcribed(recording)
        assert wanted
        assert listened(firmware, tmp_path, recording, len(wanted)) == wanted
