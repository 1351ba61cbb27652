import gzip
import io
import json
import os
import shutil
from pathlib import Path
from runpy import run_path

import numpy as np
import pytest
import soundfile

from edgeasr.corpora.importing import import_corpus
from edgeasr.corpora.opening import Reading, open_source
from edgeasr.errors import ExtraMissingError, ManifestError
from edgeasr.manifest import read_manifest
from edgeasr.recording import DEMO_RECORDING

edgeasr = run_path(str(Path(__file__).with_name("scripted_model.py")))["edgeasr"]
RATE_HZ = 16_000
DEMO_S = round(soundfile.info(DEMO_RECORDING).duration, 4)


def noise(seconds: float, channels: int = 1, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-0.5, 0.5, (round(seconds * RATE_HZ), channels))


def imported(source, manifest, **options):
    """The rows of the manifest and what was left out, by reason."""
    tally = import_corpus(open_source(str(source), Reading(**options)), manifest, manifest.parent / "audio")
    return [json.loads(line) for line in manifest.read_text().splitlines()], dict(tally.left_out)


@pytest.fixture
def librispeech(tmp_path):
    chapter = tmp_path / "LibriSpeech" / "dev-clean" / "1272" / "128104"
    chapter.mkdir(parents=True)
    for i in range(5):
        shutil.copy(DEMO_RECORDING, chapter / f"1272-128104-000{i}.flac")
    (chapter / "1272-128104-0003.flac").write_bytes(b"no sound")
    (chapter / "1272-128104.trans.txt").write_text(
        "1272-128104-0000 MISTER QUILTER IS THE APOSTLE OF THE MIDDLE CLASSES\n"
        "1272-128104-0001 HE SAID IT\u2019S 3 O'CLOCK\n"
        "1272-128104-0002 NOR IS MISTER QUILTER'S MANNER LESS INTERESTING\n"
        "1272-128104-0003 HE TELLS US\n"
        "1272-128104-0009 NOBODY RECORDED THIS\n"
    )
    return tmp_path / "LibriSpeech" / "dev-clean"


def test_librispeech_becomes_a_manifest(librispeech, tmp_path):
    rows, left_out = imported(librispeech, tmp_path / "dev.jsonl")
    chapter = "LibriSpeech/dev-clean/1272/128104"
    more = {"speaker": "librispeech/1272", "source": "dev-clean", "duration": DEMO_S}
    assert rows == [
        {
            "audio_filepath": f"{chapter}/1272-128104-0000.flac",
            "text": "mister quilter is the apostle of the middle classes",
            **more,
        },
        {
            "audio_filepath": f"{chapter}/1272-128104-0002.flac",
            "text": "nor is mister quilter's manner less interesting",
            **more,
        },
    ]
    assert left_out == {
        "digits in the text": 1,
        "audio that cannot be read": 1,
        "no audio file for a text": 1,
        "no text for an audio file": 1,
    }
    (first, _) = read_manifest(tmp_path / "dev.jsonl")
    assert first.path.samefile(librispeech / "1272" / "128104" / "1272-128104-0000.flac")


def test_a_manifest_elsewhere_names_files_in_full(librispeech, tmp_path):
    (tmp_path / "lists").mkdir()
    rows, _ = imported(librispeech, tmp_path / "lists" / "dev.jsonl")
    assert rows[0]["audio_filepath"] == str(librispeech / "1272/128104/1272-128104-0000.flac")


def test_the_command_counts_names_and_writes_down(librispeech, tmp_path):
    manifest, names = tmp_path / "dev.jsonl", tmp_path / "left-out.tsv"
    done = edgeasr("corpus", "import", librispeech, "--output", manifest, "--left-out", names)
    assert (done.code, done.err) == (0, "")
    lines = done.out.splitlines()
    assert lines[0] == f"Wrote {manifest}: 2 utterances, 0.00 h"
    chapter = librispeech / "1272" / "128104"
    assert f"left out 1: digits in the text (such as {chapter / '1272-128104-0001.flac'})" in lines[1:]
    assert f"no audio file for a text\t{chapter / '1272-128104-0009.flac'}" in names.read_text().splitlines()
    report = json.loads(edgeasr("corpus", "import", librispeech, "--output", manifest, "--json").out)
    assert (report["utterances"], sum(report["left_out"].values())) == (2, 4)


def test_an_import_that_is_stopped_leaves_the_old_manifest(librispeech, tmp_path):
    manifest = tmp_path / "dev.jsonl"
    manifest.write_text("what was there")

    def stop(tally):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        import_corpus(open_source(str(librispeech)), manifest, tmp_path / "audio", stop)
    assert manifest.read_text() == "what was there"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["LibriSpeech", "dev.jsonl"]


@pytest.fixture
def common_voice(tmp_path):
    (tmp_path / "clips").mkdir()
    for name in ("a", "b", "c", "d", "e"):
        soundfile.write(tmp_path / "clips" / f"{name}.mp3", noise(1.5), 32_000, format="MP3")
    columns = "client_id\tpath\tsentence\tup_votes\tdown_votes\n"
    rows = [
        ("f" * 128, "a.mp3", "\u201eIt\u2019s a caf\u00e9,\u201d she said \u2014 twice.", 2, 0),
        ("f" * 128, "b.mp3", 'He said "no', 2, 2),
        ("e" * 128, "c", "Well-known words.", 3, 1),
        ("e" * 128, "d.mp3", "\u041f\u0440\u0438\u0432\u0435\u0442 there", 2, 0),
        ("e" * 128, "e.mp3", "...", 2, 0),
        ("e" * 128, "gone.mp3", "Nothing", 2, 0),
    ]
    lines = ["\t".join(map(str, row)) + "\n" for row in rows]
    (tmp_path / "train.tsv").write_text(columns + "".join(lines), encoding="utf-8")
    return tmp_path / "train.tsv"


def test_common_voice_becomes_a_manifest(common_voice, tmp_path):
    rows, left_out = imported(common_voice, tmp_path / "train.jsonl")
    said = [(row["audio_filepath"], row["text"], row["speaker"], row["source"]) for row in rows]
    assert said == [
        ("clips/a.mp3", "it's a cafe she said twice", f"common-voice/{'f' * 16}", "common-voice"),
        ("clips/c.mp3", "well known words", f"common-voice/{'e' * 16}", "common-voice"),
    ]
    assert rows[0]["duration"] == pytest.approx(0.75, abs=0.1)  # an MP3 is padded
    assert left_out == {
        "too few votes": 1,
        "letters other than a to z": 1,
        "no words in the text": 1,
        "no audio file for a text": 1,
    }
    rows, left_out = imported(common_voice, tmp_path / "train.jsonl", votes=0)
    assert rows[1]["text"] == "he said no"
    assert "too few votes" not in left_out


def test_a_folder_of_recordings_and_texts_becomes_a_manifest(tmp_path):
    folder = tmp_path / "own"
    (folder / "anna").mkdir(parents=True)
    for name, text in (("a.wav", "Turn it on."), ("anna/b.FLAC", "Off!"), ("anna/c.wav", None)):
        soundfile.write(folder / name, noise(0.5), RATE_HZ, format=name[-4:].strip(".").upper())
        if text:
            (folder / name).with_suffix(".txt").write_text(text)
    (folder / "anna" / "notes.txt").write_text("by nobody")
    rows, left_out = imported(folder, tmp_path / "own.jsonl")
    assert rows == [
        {"audio_filepath": "own/a.wav", "duration": 0.5, "text": "turn it on", "source": "own"},
        {"audio_filepath": "own/anna/b.FLAC", "duration": 0.5, "text": "off", "speaker": "own/anna", "source": "own"},
    ]
    assert left_out == {"no text for an audio file": 1, "no audio file for a text": 1}


def test_a_name_that_is_no_text_is_found_again(tmp_path):
    folder = tmp_path / "own"
    folder.mkdir()
    for name in (b"\xff.wav", b"new\nline.wav"):
        path = folder / os.fsdecode(name)
        soundfile.write(os.fsencode(path), noise(0.5), RATE_HZ)
        path.with_suffix(".txt").write_text("off")
    (folder / os.fsdecode(b"\xff\t.txt")).write_text("by nobody")
    import_corpus(open_source(str(folder)), tmp_path / "own.jsonl", tmp_path, left_out=tmp_path / "left-out.tsv")
    assert all(utterance.path.is_file() for utterance in read_manifest(tmp_path / "own.jsonl"))
    assert (tmp_path / "left-out.tsv").read_text() == f"no audio file for a text\t{folder}/\\udcff\\t.txt\n"


def cut(path: Path, **fields):
    """A cut as lhotse 1.33 writes it."""
    source = {"type": "file", "channels": [0, 1], "source": str(path)}
    held = {"id": "r", "sources": [source], "sampling_rate": RATE_HZ, "num_samples": 48000, "duration": 3.0}
    supervision = {"id": "s", "recording_id": "r", "start": 0.0, "duration": 1.0, "channel": 1, "text": "a b"}
    return {
        "id": "c",
        "start": 0.5,
        "duration": 1.0,
        "channel": 1,
        "supervisions": [supervision],
        "recording": held | {"channel_ids": [0, 1]},
        "type": "MonoCut",
    } | fields


def test_cuts_of_lhotse_are_cut_out(tmp_path):
    samples = noise(3.0, channels=2)
    soundfile.write(tmp_path / "r.wav", samples, RATE_HZ)
    pair = [
        {"id": "s0", "start": 0.25, "duration": 0.5, "channel": 0, "text": "One", "speaker": "anna"},
        {"id": "s1", "start": 1.0, "duration": 1.0, "channel": 1, "text": "Two"},
        {"id": "s2", "start": 1.5, "duration": 1.0, "channel": 1, "text": "Three"},
    ]
    whole = cut(tmp_path / "r.wav")
    cuts = [
        whole,
        cut(tmp_path / "r.wav", start=1.0, duration=2.0, supervisions=pair),
        cut(tmp_path / "r.wav", type="MixedCut"),
        cut(tmp_path / "r.wav", recording=whole["recording"] | {"transforms": [{"name": "Speed"}]}),
        cut(tmp_path / "r.wav", recording=whole["recording"] | {"duration": 9.0}),
        cut(tmp_path / "r.wav", start=2.5),
        cut(tmp_path / "r.wav", supervisions=[]),
        cut(tmp_path / "r.wav", start="soon"),
    ]
    cuts[4]["recording"]["sources"] = whole["recording"]["sources"]
    with gzip.open(tmp_path / "cuts.jsonl.gz", "wt") as file:
        file.writelines(json.dumps(one) + "\n" for one in cuts)
    rows, left_out = imported(tmp_path / "cuts.jsonl.gz", tmp_path / "cuts.jsonl")
    assert [(row["text"], row["duration"], row.get("speaker")) for row in rows] == [
        ("a b", 1.0, None),
        ("one", 0.5, "anna"),
        ("two", 1.0, None),
    ]
    wanted = [samples[8000:24000, 1], samples[20000:28000, 0], samples[32000:48000, 1]]
    for row, want in zip(rows, wanted, strict=True):
        found, rate_hz = soundfile.read(tmp_path / row["audio_filepath"])
        assert rate_hz == RATE_HZ
        np.testing.assert_allclose(found, want, atol=2 / 32768)
    assert left_out == {
        "a supervision that its cut does not hold whole": 1,
        "a cut of the type MixedCut": 1,
        "a recording with transforms": 1,
        "audio of another length than is said": 1,
        "a part that the audio does not hold": 1,
        "a cut without text": 1,
        "a cut with fields missing or of a wrong kind": 1,
    }


def test_a_cut_of_a_whole_file_names_it(tmp_path):
    soundfile.write(tmp_path / "r.wav", noise(3.0), RATE_HZ)
    one = cut(tmp_path / "r.wav", start=0.0, duration=3.0, channel=0)
    one["recording"]["sources"][0]["channels"] = [0]
    (tmp_path / "cuts.jsonl").write_text(json.dumps(one))
    rows, _ = imported(tmp_path / "cuts.jsonl", tmp_path / "manifest.jsonl")
    assert rows == [{"audio_filepath": "r.wav", "duration": 3.0, "text": "a b"}]
    assert not (tmp_path / "audio").exists()


@pytest.fixture
def hugging_face(tmp_path):
    """A data set in two Parquet files, as the hub serves them: audio as bytes of files."""
    datasets = pytest.importorskip("datasets", reason="data sets of Hugging Face need the extra `corpora`")
    import pyarrow.parquet

    def wav(seconds: float, seed: int) -> bytes:
        content = io.BytesIO()
        soundfile.write(content, noise(seconds, seed=seed), RATE_HZ, format="WAV")
        return content.getvalue()

    rows = [
        {"id": "x1", "sound": {"bytes": wav(0.5, 1), "path": "x1.wav"}, "sentence": "Hello, World", "speaker_id": 7},
        {"id": "x2", "sound": {"bytes": wav(0.4, 2), "path": "x2.wav"}, "sentence": "room 5", "speaker_id": 7},
        {"id": "x3", "sound": {"bytes": b"no sound", "path": "x3.wav"}, "sentence": "hum", "speaker_id": 8},
        {"id": "x4", "sound": {"bytes": wav(0.3, 4), "path": "x4.wav"}, "sentence": "Good-bye", "speaker_id": 8},
    ]
    features = datasets.Features(
        id=datasets.Value("string"),
        sound=datasets.Audio(decode=False),
        sentence=datasets.Value("string"),
        speaker_id=datasets.Value("int64"),
    )
    folder = tmp_path / "tones"
    folder.mkdir()
    for part in (0, 1):
        # The package's own writer wants torchcodec.
        held = pyarrow.Table.from_pylist(rows[2 * part : 2 * part + 2], schema=features.arrow_schema)
        pyarrow.parquet.write_table(held, folder / f"train-0000{part}-of-00002.parquet")
    return folder, [wav(0.5, 1), wav(0.3, 4)]


def test_a_data_set_of_hugging_face_is_streamed(hugging_face, tmp_path):
    folder, contents = hugging_face
    rows, left_out = imported(f"hf:{folder}:train", tmp_path / "hf.jsonl")
    assert [(row["text"], row["duration"], row["speaker"]) for row in rows] == [
        ("hello world", 0.5, f"{folder}/7"),
        ("good bye", 0.3, f"{folder}/8"),
    ]
    assert [(tmp_path / row["audio_filepath"]).read_bytes() for row in rows] == contents
    assert left_out == {"digits in the text": 1, "audio that cannot be read": 1}


@pytest.mark.parametrize(
    ("spec", "options", "message"),
    [
        ("hf:{}", {}, r"wanted hf:NAME:SPLIT or hf:NAME:CONFIG:SPLIT: say which split to read"),
        (
            "hf:{}:train",
            {"text_column": "words"},
            r"has the columns .*, none of them words: name it with --text-column",
        ),
        ("hf:{}:test", {}, r"cannot open hf:.*:test: .*: check its name, configuration and split"),
        ("hf:{}/none:train", {}, r"cannot open hf:.*none:train: .*: check its name, configuration and split"),
    ],
)
def test_a_data_set_that_is_not_there_is_named(hugging_face, tmp_path, spec, options, message):
    with pytest.raises(ManifestError, match=message):
        imported(spec.format(hugging_face[0]), tmp_path / "hf.jsonl", **options)
    assert not (tmp_path / "hf.jsonl").exists()


def test_without_the_package_datasets_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    with pytest.raises(ExtraMissingError, match=r"pip install edgeasr\[corpora\]"):
        imported("hf:some/name:train", tmp_path / "hf.jsonl")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none", None, "where nothing is, wanted a folder of LibriSpeech or"),
        ("a.mp4", b"", r"got the file .*a\.mp4, wanted a folder of"),
        ("a.tsv", b"client_id\tpath\n", r"got no folder .*clips beside a\.tsv"),
        ("a.jsonl.gz", b"not gzip", r"cannot read .*a\.jsonl\.gz: .*: give a whole file"),
        ("a.jsonl", b'{"type": "MonoCut"}\n[', r"a\.jsonl, line 2: not a JSON object"),
        ("a.jsonl", b"{}", r"a\.jsonl, line 1: the key 'audio_filepath' is missing"),
        (
            "a.jsonl",
            b'{"type": "MonoCut", "id": "c"}',
            r"no utterance that can be .* \(1 left out: a cut without a rec",
        ),
    ],
)
def test_what_is_no_corpus_is_one_clear_line(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ManifestError, match=message) as caught:
        imported(tmp_path / name, tmp_path / "out.jsonl")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out.jsonl").exists()


def test_a_table_of_common_voice_without_a_column_is_refused(common_voice, tmp_path):
    common_voice.write_text("client_id\tpath\tup_votes\nx\ta.mp3\t2\n")
    with pytest.raises(ManifestError, match=r"train\.tsv has no column 'sentence': give a table of a Common Voice"):
        imported(common_voice, tmp_path / "out.jsonl")


def test_an_empty_folder_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ManifestError, match=r"no utterance that can be trained on \(the source is empty\), wanted one"):
        imported(tmp_path / "empty", tmp_path / "out.jsonl")
