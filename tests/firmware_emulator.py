"""The reference firmware in QEMU, for tests; as a program it measures what the C encoders cost in words.

python tests/firmware_emulator.py ../shared/speech/dev.jsonl --count 50

Each recording goes through the firmware, an emulated UART and TCP, and has to fit into them: a second or more each.
`bridge_wer.py` measures the same link with the Python encoders and no emulator, many times as fast, and the bits.
"""

from __future__ import annotations

import argparse
import json
import re
import select
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from runpy import run_path

import numpy as np
import soundfile

from edgeasr.audio import AudioBlock, FileSource, Resampler
from edgeasr.features import FeatureBlock
from edgeasr.firmware_bridge.frame import Frame, FrameReader, FrameWriter
from edgeasr.firmware_bridge.messages import Hello, Message
from edgeasr.firmware_bridge.source import HOP_LENGTH, BridgeSource
from edgeasr.metrics import ErrorCounts, word_errors
from edgeasr.recognizer import Recognizer, load_model
from edgeasr.transcript import Final

RATE_HZ = 16_000
PATIENCE_S = 120.0
PROGRAMS = ("make", "qemu-system-arm", "arm-none-eabi-gcc")
SOURCE = Path(__file__).resolve().parents[1] / "firmware_bridge" / "c" / "firmware"


def missing_programs() -> str | None:
    """What has to be installed to build and run the firmware, if anything."""
    missing: Callable[..., str | None] = run_path(str(Path(__file__).with_name("toolchain.py")))["missing"]
    return missing(*PROGRAMS)


def build_firmware(folder: Path) -> Path:
    """The firmware, built in a folder."""
    command = ["make", "--silent", "-C", SOURCE, f"BUILD={folder}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"the firmware does not build: {done.stderr}")
    return folder / "edgeasr-mps2.elf"


class Emulator:
    """QEMU with the firmware: UART0 waits for one host at `url`, UART1 writes into a file."""

    def __init__(self, firmware: Path, display: Path, *settings: str) -> None:
        self._display = display
        words = ",".join(f"arg={word}" for word in ("firmware", *settings))
        command = (
            *("qemu-system-arm", "-machine", "mps2-an386", "-nodefaults", "-display", "none", "-kernel", str(firmware)),
            *("-serial", "tcp:127.0.0.1:0,server=on,wait=on", "-serial", f"file:{display}"),
            *("-semihosting-config", f"enable=on,target=native,{words}"),
        )
        self._process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        self.port = self._chosen_port()

    @property
    def url(self) -> str:
        return f"tcp://127.0.0.1:{self.port}"

    def wait(self) -> int:
        """The exit status of the firmware, when it has ended by itself."""
        return self._process.wait(PATIENCE_S)

    def said(self) -> str:
        """What it said on standard error after the port; waits for its end."""
        assert self._process.stderr is not None
        return self._process.stderr.read()

    def shown(self) -> list[str]:
        """The final segments on the display, which is there once a host is."""
        text = self._display.read_text(encoding="utf-8") if self._display.exists() else ""
        lines = text.split("\n")[:-1]
        return [line.removeprefix("> ") for line in lines if line.startswith("> ")]

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        if self._process.stderr is not None:
            self._process.stderr.close()

    def _chosen_port(self) -> int:
        """QEMU says where it waits for a connection."""
        assert self._process.stderr is not None
        for line in self._process.stderr:
            if match := re.search(r"waiting for connection on: \S*tcp:[0-9.]+:(\d+)", line):
                return int(match[1])
            sys.stderr.write(line)
        raise RuntimeError(f"QEMU ended with {self._process.wait()}")


@contextmanager
def emulated(firmware: Path, display: Path, *settings: str) -> Iterator[Emulator]:
    """An emulator that is gone at the end."""
    emulator = Emulator(firmware, display, *settings)
    try:
        yield emulator
    finally:
        emulator.close()


class Host:
    """A host that only speaks the protocol, on a TCP port."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), PATIENCE_S)
        self._writer = FrameWriter()
        self.reader = FrameReader()
        self._waiting: list[Frame] = []

    def send(self, *messages: Message) -> None:
        self._socket.sendall(b"".join(self._writer.encode(message) for message in messages))

    def send_bytes(self, data: bytes) -> None:
        self._socket.sendall(data)

    def greet(self) -> Hello:
        self.say_hello()
        return self.next(Hello).message

    def say_hello(self) -> None:
        self.send_bytes(b"\0")
        self.send(Hello(1, RATE_HZ, 4096, 15, 80, "test"))

    def greet_until_answered(self) -> Frame:
        """The first HELLO of a device that starts anew, and may have been cut off in the middle of a frame."""
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            self.say_hello()
            while select.select([self._socket], [], [], 0.5)[0]:
                for item in self.reader.accept(self._socket.recv(65_536)):
                    if isinstance(item, Frame) and isinstance(item.message, Hello):
                        return item
        raise TimeoutError(f"the device did not answer for {PATIENCE_S} s")

    def next(self, kind: type[Message] = Message) -> Frame:
        """The next frame with a message of this kind; others before it are forgotten."""
        for frame in self.frames():
            if isinstance(frame.message, kind):
                return frame
        raise EOFError(f"the device ended without {kind.__name__}")

    def frames(self) -> Iterator[Frame]:
        """Good frames until the device ends; asserts that there are no others."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            while self._waiting:
                yield self._waiting.pop(0)
            if time.monotonic() > deadline:
                raise TimeoutError(f"the device sent nothing for {PATIENCE_S} s")
            data = self._socket.recv(65_536)
            if not data:
                return
            items = self.reader.accept(data)
            assert all(isinstance(item, Frame) for item in items), items
            self._waiting += [item for item in items if isinstance(item, Frame)]
            deadline = time.monotonic() + PATIENCE_S

    def close(self) -> None:
        self._socket.close()


def write_pcm(recording: Path, path: Path) -> np.ndarray:
    """The samples of a recording, in 16 bits, as what the firmware reads."""
    with FileSource(recording) as source:
        resampler = Resampler(source.sample_rate_hz, RATE_HZ)
        parts = [resampler.process(block.samples) for block in source.blocks()]
        parts.append(resampler.flush())
    pcm = np.clip(np.rint(np.concatenate(parts) * 32768), -32768, 32767).astype(np.int16)
    pcm.astype("<i2").tofile(path)
    return pcm


def write_wav(pcm: np.ndarray, path: Path) -> None:
    """Samples of 16 bits as a file of their own."""
    soundfile.write(path, pcm, RATE_HZ, subtype="PCM_16")


def _through_the_link(recognizer: Recognizer, firmware: Path, pcm: Path, codec: str) -> list[str]:
    """The final segments of a recording that comes from the firmware, with a second of silence after it."""
    wanted = pcm.stat().st_size // 2 + RATE_HZ
    heard = 0

    def on_block(block: AudioBlock | FeatureBlock) -> None:
        nonlocal heard
        length = len(block.samples) if isinstance(block, AudioBlock) else len(block.features) * HOP_LENGTH
        assert block.gap_samples == 0, f"{block.gap_samples} samples are missing at {block.start_sample}"
        heard = block.start_sample + length

    with emulated(firmware, pcm.with_name("display"), "pace=0", f"pcm={pcm}") as emulator:
        source = BridgeSource.open(f"{emulator.url}?codec={codec}", lambda line: None, lambda: heard >= wanted)
        try:
            return [event.text for event in recognizer.stream(source, on_block) if isinstance(event, Final)]
        finally:
            source.close()


def measure(manifest: Path, count: int, codecs: list[str]) -> dict[str, ErrorCounts]:
    """Word errors by codec; `file` is the recording itself."""
    lines = [json.loads(line) for line in manifest.read_text(encoding="utf-8").splitlines()]
    chosen = lines[:: max(1, len(lines) // count)][:count]
    recognizer = Recognizer(load_model())
    totals: dict[str, list[ErrorCounts]] = {name: [] for name in ("file", *codecs)}
    with tempfile.TemporaryDirectory() as folder:
        firmware, pcm = build_firmware(Path(folder)), Path(folder, "speech.pcm")
        for number, line in enumerate(chosen, 1):
            recording = manifest.parent / line["audio_filepath"]
            write_pcm(recording, pcm)
            with FileSource(recording) as source:
                heard = [event.text for event in recognizer.stream(source) if isinstance(event, Final)]
            totals["file"].append(word_errors(line["text"], " ".join(heard)))
            for codec in codecs:
                heard = _through_the_link(recognizer, firmware, pcm, codec)
                totals[codec].append(word_errors(line["text"], " ".join(heard)))
            sys.stderr.write(f"\r{number} of {len(chosen)}")
    sys.stderr.write("\n")
    return {name: sum(errors[1:], errors[0]) for name, errors in totals.items()}


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--count", type=int, default=50, help="utterances, spread over the manifest")
    parser.add_argument("--codecs", default="s16,ulaw,adpcm,features")
    options = parser.parse_args()
    measured = measure(options.manifest, options.count, options.codecs.split(","))
    for name, errors in measured.items():
        difference = errors.rate - measured["file"].rate
        sys.stdout.write(f"{name:9} WER {errors.rate:7.2%}  {difference:+7.2%} absolute\n")


if __name__ == "__main__":
    main()
