import json
import os
import pty
import subprocess
from pathlib import Path
from runpy import run_path

import numpy as np
import pytest
import soundfile

SCRIPTED = run_path(str(Path(__file__).with_name("scripted_model.py")))
edgeasr, program, tone, silence = (SCRIPTED[name] for name in ("edgeasr", "program", "tone", "silence"))
RATE = 16_000
LINES = ["so it goes", "and then it ended"]
TEXT = "so it goes\nand then it ended\n"


def spoken(rate=RATE):
    parts = [tone(LINES[0], rate_hz=rate), silence(1.52, rate), tone(LINES[1], rate_hz=rate)]
    return np.concatenate(parts)


@pytest.fixture
def talk(tmp_path):
    path = tmp_path / "talk.wav"
    soundfile.write(path, spoken(), RATE)
    return path


class TestTranscript:
    def test_is_a_line_for_each_segment(self, talk):
        assert edgeasr("transcribe", talk) == (0, TEXT, "")

    @pytest.mark.parametrize(("name", "rate"), [("talk.flac", 44_100), ("talk.ogg", 48_000), ("talk.mp3", 22_050)])
    def test_does_not_depend_on_the_kind_of_file(self, tmp_path, name, rate):
        mono = spoken(rate)
        soundfile.write(tmp_path / name, np.stack([mono, mono], axis=1), rate)
        assert edgeasr("transcribe", tmp_path / name) == (0, TEXT, "")

    def test_of_several_files_has_their_names(self, talk):
        lines = [f"{talk}: {line}" for line in LINES]
        assert edgeasr("transcribe", talk, talk).out.splitlines() == lines + lines

    def test_shows_a_name_that_would_rule_the_terminal(self, talk):
        odd = talk.rename(talk.with_name("a\n\x1b[2J.wav"))
        out = edgeasr("transcribe", odd, odd).out
        assert out.splitlines()[0] == f"{talk.parent}/a\\n\\u001b[2J.wav: {LINES[0]}"

    def test_of_silence_is_empty(self, tmp_path):
        soundfile.write(tmp_path / "silence.wav", silence(2.0), RATE)
        assert edgeasr("transcribe", tmp_path / "silence.wav") == (0, "", "")

    def test_as_json_has_the_file_and_finals(self, talk):
        code, out, _ = edgeasr("transcribe", talk, "--json")
        events = [json.loads(line) for line in out.splitlines()]
        assert code == 0
        assert [(event["type"], event["file"], event["text"]) for event in events] == [
            ("final", str(talk), line) for line in LINES
        ]
        assert list(events[0]) == ["type", "segment", "start", "end", "text", "stable", "words", "endpoint", "file"]
        assert events[0]["words"][1] == {"word": "it", "start": 0.24, "end": 0.4, "conf": 0.9}

    def test_as_json_can_have_partials(self, talk):
        _, out, _ = edgeasr("transcribe", talk, "--json", "--partials")
        events = [json.loads(line) for line in out.splitlines()]
        assert [event["text"] for event in events if event["segment"] == 0] == [
            *("so", "so i", "so it", "so it go", "so it goes"),
            "so it goes",
        ]

    def test_as_srt(self, talk):
        assert edgeasr("transcribe", talk, "--srt").out == (
            "1\n00:00:00,000 --> 00:00:01,000\nso it goes\n\n2\n00:00:02,320 --> 00:00:03,680\nand then it ended\n\n"
        )

    def test_as_vtt(self, talk):
        assert edgeasr("transcribe", talk, "--vtt").out.startswith(
            "WEBVTT\n\n00:00:00.000 --> 00:00:01.000\nso it goes\n\n"
        )


class TestOutputFolder:
    @pytest.mark.parametrize(("flags", "name"), [((), "talk.txt"), (("--srt",), "talk.srt"), (("--vtt",), "talk.vtt")])
    def test_holds_what_would_be_printed(self, talk, tmp_path, flags, name):
        printed = edgeasr("transcribe", talk, *flags).out
        folder = tmp_path / "new" / "folder"
        assert edgeasr("transcribe", talk, *flags, "--output-dir", folder) == (0, "", "")
        assert [path.name for path in folder.iterdir()] == [name]
        assert (folder / name).read_text() == printed

    def test_has_a_file_for_each(self, talk, tmp_path):
        other = talk.with_name("other.wav")
        loop = talk.with_name("loop.wav")
        loop.symlink_to(loop)
        other.write_bytes(talk.read_bytes())
        folder = tmp_path / "texts"
        assert edgeasr("transcribe", talk, loop, other, "--output-dir", folder).code == 2
        assert {path.name: path.read_text() for path in folder.iterdir()} == {"talk.txt": TEXT, "other.txt": TEXT}


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--json", "--srt"), "choose one of --json, --srt and --vtt"),
        (("--partials",), "--partials is for --json"),
        (("again.wav", "--srt"), "--srt of several files needs --output-dir"),
        (("other/talk.mp3", "--output-dir", "texts"), "would both be written to texts/talk.txt"),
    ],
)
def test_what_makes_no_sense_is_refused(talk, flags, message):
    code, out, err = edgeasr("transcribe", talk, *flags)
    assert (code, out) == (2, "")
    assert message in err
    assert not Path("texts").exists()


def test_a_recording_is_never_overwritten(talk, tmp_path):
    recording = talk.rename(talk.with_name("talk.txt"))
    before = recording.read_bytes()
    code, out, err = edgeasr("transcribe", recording, "--output-dir", tmp_path)
    assert (code, out) == (2, "")
    assert f"would overwrite {recording}" in err
    assert recording.read_bytes() == before


def write_truncated(path):
    soundfile.write(path, spoken(), RATE)
    path.write_bytes(path.read_bytes()[:-2_000])


def write_nan(path):
    samples = spoken()
    samples[-5_000] = np.nan
    soundfile.write(path, samples, RATE, subtype="FLOAT")


BAD_FILES = {
    "missing": (lambda path: None, "cannot open"),
    "folder": (lambda path: path.mkdir(), "cannot open"),
    "empty": (lambda path: path.touch(), "is empty"),
    "text": (lambda path: path.write_text("hello\n" * 100), "cannot be decoded"),
    "truncated": (write_truncated, "ends early"),
    "nan": (write_nan, "NaN"),
    "no samples": (lambda path: soundfile.write(path, np.zeros(0), RATE), "holds no samples"),
}


@pytest.mark.parametrize("kind", BAD_FILES)
def test_a_bad_file_is_one_line_and_the_others_are_done(talk, tmp_path, kind):
    write, message = BAD_FILES[kind]
    bad = tmp_path / "bad.wav"
    write(bad)
    code, out, err = edgeasr("transcribe", bad, talk)
    assert code == 2
    assert [line for line in out.splitlines() if line.startswith(str(talk))] == [f"{talk}: {line}" for line in LINES]
    assert err.count("\n") == 1
    assert err.startswith("edgeasr: error: ")
    assert message in err
    assert str(bad) in err


@pytest.mark.parametrize("kind", ["truncated", "nan"])
def test_words_before_the_damage_are_printed(tmp_path, kind):
    BAD_FILES[kind][0](tmp_path / "bad.wav")
    out = edgeasr("transcribe", tmp_path / "bad.wav").out
    assert out.startswith("so it goes\nand then it e")


def test_a_missing_bundle_is_one_line(talk, tmp_path):
    done = subprocess.run(
        [*program()[:1], "-m", "edgeasr.cli.main", "transcribe", talk, "--model", tmp_path / "none"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"edgeasr: error: bundle {tmp_path / 'none'}: ")
    assert done.stderr.count("\n") == 1


def test_a_reader_that_leaves_is_no_error(talk):
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(program("transcribe", *[talk] * 3), stdout=writing, stderr=subprocess.PIPE, check=False)
    os.close(writing)
    assert done.stderr == b""


class TestProgress:
    def shown(self, *arguments):
        """What the program writes to a terminal on standard error, and to a pipe on standard output."""
        control, terminal = pty.openpty()
        running = subprocess.Popen(program(*arguments), stdout=subprocess.PIPE, stderr=terminal)
        os.close(terminal)
        shown = b""
        try:
            while part := os.read(control, 65_536):
                shown += part
        except OSError:  # Linux's way to tell that the other side is closed
            pass
        os.close(control)
        out, _ = running.communicate()
        return shown.decode(), out.decode()

    def test_is_shown_on_a_terminal_and_erased(self, tmp_path):
        soundfile.write(tmp_path / "long.flac", np.tile(spoken(), 100), RATE)
        shown, out = self.shown("transcribe", tmp_path / "long.flac")
        assert "long.flac  [" in shown
        assert " of 0:06:08  " in shown
        assert shown.endswith("\r\x1b[K")
        assert "\n" not in shown
        assert out.splitlines()[0] == LINES[0]

    def test_leaves_room_for_errors(self, tmp_path):
        shown, out = self.shown("transcribe", tmp_path / "missing.wav")
        assert shown.startswith("edgeasr: error: cannot open")
        assert out == ""
