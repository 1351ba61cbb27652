import json
from pathlib import Path

import pytest

from edgeasr.errors import ManifestError
from edgeasr.manifest import Utterance, read_manifest
from edgeasr.tokenizer import normalize_text

ROW = {"audio_filepath": "a.wav", "duration": 1.5, "text": "hello"}


def write(folder: Path, *lines: object) -> Path:
    path = folder / "some.jsonl"
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines), "utf-8")
    return path


def refusal(path: Path) -> str:
    with pytest.raises(ManifestError) as caught:
        read_manifest(path)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_paths_are_relative_to_the_manifest(tmp_path):
    absolute = {**ROW, "audio_filepath": "/elsewhere/b.flac", "duration": 2, "speaker": "ann"}
    nested = {**ROW, "audio_filepath": "deep/c.mp3", "speaker": None, "lang": "en"}
    assert read_manifest(write(tmp_path, ROW, absolute, nested)) == [
        Utterance(tmp_path / "a.wav", 1.5, "hello", ""),
        Utterance(Path("/elsewhere/b.flac"), 2.0, "hello", "ann", "/elsewhere"),
        Utterance(tmp_path / "deep" / "c.mp3", 1.5, "hello", "", "deep"),
    ]


@pytest.mark.parametrize(
    ("row", "source"),
    [
        ({}, ""),
        ({"audio_filepath": "audio/books/a.wav"}, "audio/books"),
        ({"audio_filepath": "audio/books/a.wav", "source": "librivox"}, "librivox"),
        ({"audio_filepath": "audio/books/a.wav", "source": None}, "audio/books"),
    ],
)
def test_the_source_is_a_key_or_the_folder(tmp_path, row, source):
    assert read_manifest(write(tmp_path, ROW | row))[0].source == source


def test_empty_lines_a_byte_order_mark_and_windows_line_ends_are_no_errors(tmp_path):
    path = tmp_path / "some.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + b"\r\n".join([json.dumps(ROW).encode(), b"", b"  ", json.dumps(ROW).encode()]))
    assert len(read_manifest(path)) == 2


@pytest.mark.parametrize("separator", ["\u2028", "\x85"], ids=["line separator", "next line"])
def test_a_line_separator_inside_a_text_does_not_end_the_line(tmp_path, separator):
    line = json.dumps({**ROW, "text": f"one{separator}two"}, ensure_ascii=False)
    (utterance,) = read_manifest(write(tmp_path, line))
    assert utterance.text == f"one{separator}two"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "not a JSON object (Expecting property name enclosed in double quotes)"),
        ("[" * 100_000, "not a JSON object (maximum recursion depth exceeded"),
        ('{"duration": 1' + "0" * 5000 + "}", "not a JSON object (Exceeds the limit"),
        ("[1]", "got list, wanted a JSON object"),
        ('"text"', "got str, wanted a JSON object"),
        ({"audio_filepath": "a.wav", "duration": 1.0}, "the key 'text' is missing"),
        ({"duration": 1.0, "text": "a"}, "the key 'audio_filepath' is missing"),
        ({"audio_filepath": "a.wav", "text": "a"}, "the key 'duration' is missing"),
        ({**ROW, "duration": 0}, "duration is 0, wanted seconds above 0"),
        ({**ROW, "duration": -1.5}, "duration is -1.5, wanted seconds above 0"),
        ({**ROW, "duration": "2"}, "duration is '2', wanted seconds above 0"),
        ({**ROW, "duration": True}, "duration is True, wanted seconds above 0"),
        ({**ROW, "duration": float("nan")}, "duration is nan, wanted seconds above 0"),
        ({**ROW, "duration": float("inf")}, "duration is inf, wanted seconds above 0"),
        ({**ROW, "duration": 10**400}, "wanted seconds above 0"),
        ({**ROW, "text": 5}, "text 5, wanted strings"),
        ({**ROW, "audio_filepath": None}, "audio_filepath is None"),
        ({**ROW, "audio_filepath": ""}, "audio_filepath is ''"),
    ],
    ids=range(18),
)
def test_a_bad_line_is_named_by_its_number(tmp_path, line, message):
    path = write(tmp_path, ROW, "", line, ROW)
    assert refusal(path).startswith(f"{path}, line 3: ")
    assert message in refusal(path)


def test_a_missing_file_a_folder_and_what_is_no_text_are_refused(tmp_path):
    assert "No such file" in refusal(tmp_path / "missing.jsonl")
    assert "Is a directory" in refusal(tmp_path)
    (tmp_path / "sound.wav").write_bytes(b"RIFF\xff\xfe\x00\x80")
    assert "UTF-8" in refusal(tmp_path / "sound.wav")


@pytest.mark.parametrize("content", ["", "\n \n"])
def test_an_empty_manifest_is_refused(tmp_path, content):
    assert refusal(write(tmp_path, content)) == (
        f"the manifest {tmp_path / 'some.jsonl'} is empty: wanted one JSON object a line"
    )


def test_the_manifests_of_real_speech_are_in_the_plain_form(speech):
    listed = {name: read_manifest(speech / f"{name}.jsonl") for name in ("train", "dev", "dev_other")}
    assert {name: len(rows) for name, rows in listed.items()} == {"train": 6880, "dev": 282, "dev_other": 100}
    assert all(u.text == normalize_text(u.text) for rows in listed.values() for u in rows)
    paths = {name: {u.path for u in rows} for name, rows in listed.items()}
    assert not paths["train"] & (paths["dev"] | paths["dev_other"])
