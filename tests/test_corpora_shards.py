import io
import json
import tarfile
from pathlib import Path
from runpy import run_path

import numpy as np
import pytest
import soundfile

from edgeasr.corpora.importing import Tally
from edgeasr.corpora.opening import Reading, open_source, shuffled
from edgeasr.corpora.shard_writing import index_shards, write_shards
from edgeasr.corpora.shards import INDEX, find_shards, read_index
from edgeasr.errors import ManifestError

edgeasr = run_path(str(Path(__file__).with_name("scripted_model.py")))["edgeasr"]
RATE_HZ = 16_000
COUNT = 60


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """A manifest of 60 noises of their own and one damaged file."""
    folder = tmp_path_factory.mktemp("corpus")
    rows = []
    for i in range(COUNT):
        samples = np.random.default_rng(i).uniform(-0.5, 0.5, round((0.6 + 0.01 * i) * RATE_HZ))
        soundfile.write(folder / f"{i}.flac", samples, RATE_HZ)
        row = {"audio_filepath": f"{i}.flac", "duration": round(0.6 + 0.01 * i, 4), "text": f"{'a' * (i + 1)} b"}
        rows.append(row | {"speaker": f"s{i % 3}", "source": "noises"})
    damaged = bytearray((folder / "0.flac").read_bytes())
    damaged[3000:] = bytes(len(damaged) - 3000)
    (folder / "damaged.flac").write_bytes(damaged)
    rows.append({"audio_filepath": "damaged.flac", "duration": 0.6, "text": "c"})
    (folder / "all.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder / "all.jsonl"


@pytest.fixture(scope="module")
def shards(corpus, tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    source = shuffled([str(corpus)], Reading(), seed=1)
    return folder, write_shards(source, folder, 1)


def test_shards_give_back_what_was_put_in(corpus, shards):
    folder, tally = shards
    assert (tally.utterances, dict(tally.left_out)) == (COUNT, {"audio that cannot be decoded": 1})
    names = sorted(path.name for path in folder.iterdir())
    assert len(names) > 2
    assert names == [INDEX, *(f"shard-{i:06d}.tar" for i in range(len(names) - 1))]
    assert all((folder / name).stat().st_size <= 1_000_000 + 10_240 for name in names[1:])
    listed = find_shards([str(folder)], Path())
    samples = [(shard, i, sample) for shard in listed.shards for i, sample in enumerate(shard.samples())]
    numbers = [len(sample.text) - 3 for _, _, sample in samples]
    assert sorted(numbers) == list(range(COUNT)) != numbers
    for number, (shard, i, sample) in zip(numbers, samples, strict=True):
        assert sample.audio == (corpus.parent / f"{number}.flac").read_bytes()
        assert (sample.text, sample.speaker, sample.source) == (f"{'a' * (number + 1)} b", f"s{number % 3}", "noises")
        assert (shard.durations_s[i], shard.text_bytes[i]) == (round(0.6 + 0.01 * number, 4), number + 3)
    assert listed.words == {"b", *("a" * (i + 1) for i in range(COUNT))}


def test_files_of_every_kind_stay_as_they_are(tmp_path):
    kinds = {"flac": "PCM_16", "wav": "PCM_16", "mp3": "MPEG_LAYER_III", "ogg": "VORBIS", "opus": "OPUS"}
    for i, (suffix, subtype) in enumerate(kinds.items()):
        samples, container = np.random.default_rng(i).uniform(-0.5, 0.5, 12_000), suffix.replace("opus", "ogg").upper()
        soundfile.write(tmp_path / f"{suffix}.{suffix}", samples, RATE_HZ, format=container, subtype=subtype)
        (tmp_path / f"{suffix}.txt").write_text(suffix.replace("3", "three"))
    write_shards(open_source(str(tmp_path)), tmp_path / "shards", 1)
    (shard,) = find_shards(["shards"], tmp_path).shards
    contents = {sample.audio for sample in shard.samples()}
    assert contents == {(tmp_path / f"{suffix}.{suffix}").read_bytes() for suffix in kinds}
    with tarfile.open(shard.path) as archive:
        suffixes = {Path(name).suffix for name in archive.getnames()}
    assert suffixes == {".flac", ".wav", ".mp3", ".ogg", ".json"}  # Opus is in Ogg


def test_the_order_in_shards_is_a_function_of_the_seed(corpus):
    def names(seed):
        return [found.name for found in shuffled([str(corpus)], Reading(), seed)]

    assert names(1) == names(1) != names(2)
    assert sorted(names(1)) == sorted(found.name for found in open_source(str(corpus)))


def test_the_commands_write_and_index(corpus, shards, tmp_path):
    done = edgeasr("corpus", "shard", corpus, "--output", tmp_path / "made", "--shard-mb", 1)
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines()[0] == f"Wrote {tmp_path / 'made'}: {COUNT} utterances, 0.01 h"
    assert done.out.splitlines()[1].startswith("left out 1: audio that cannot be decoded (such as ")
    for path in shards[0].iterdir():
        assert (tmp_path / "made" / path.name).read_bytes() == path.read_bytes()
    index = (tmp_path / "made" / INDEX).read_text()
    (tmp_path / "made" / INDEX).unlink()
    done = edgeasr("corpus", "index", tmp_path / "made")
    assert (done.code, done.err) == (0, "")
    assert (tmp_path / "made" / INDEX).read_text() == index
    done = edgeasr("corpus", "shard", corpus, "--output", tmp_path / "made")
    assert done.code == 2
    assert "has shards: give another --output, or delete it" in done.err


def test_writing_that_is_stopped_leaves_no_index_and_no_half_shard(corpus, tmp_path):
    def stop(tally: Tally):
        if tally.utterances == 50:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_shards(open_source(str(corpus)), tmp_path, 1, stop)
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["shard-000000.tar"]
    with pytest.raises(ManifestError, match=r"got no .*index\.json, wanted an index of the shards: edgeasr corpus ind"):
        find_shards([str(tmp_path)], Path())
    assert write_shards(open_source(str(corpus)), tmp_path, 1).utterances == COUNT


def tar(path: Path, *members: tuple[str, bytes]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def wav(seconds: float) -> bytes:
    content = io.BytesIO()
    soundfile.write(content, np.zeros(round(seconds * RATE_HZ)), RATE_HZ, format="WAV")
    return content.getvalue()


def test_shards_of_others_are_indexed(tmp_path):
    members = [("x/a.1.txt", b"One!"), ("x/a.wav", wav(0.5)), ("x/b.json", b'{"text": "Two"}'), ("x/b.wav", wav(0.25))]
    path = tar(tmp_path / "theirs.tar", *members[1:2], ("x/a.txt", b"One!"), ("x/a.cls", b"7"), *members[2:])
    assert index_shards(tmp_path).utterances == 2
    (shard,) = read_index(tmp_path)[0].values()
    assert (shard.path, shard.durations_s, shard.text_bytes) == (path, (0.5, 0.25), (4, 3))
    assert [(s.name, s.text) for s in shard.samples()] == [("x/a", "One!"), ("x/b", "Two")]
    assert find_shards(["theirs.tar"], tmp_path).words == {"one", "two"}


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([("a.txt", b"one")], r"sample a of the shard .*bad\.tar has no flac, wav, opus, ogg, mp3 among txt: make the"),
        ([("a.wav", wav(0.1))], r"sample a of the shard .*bad\.tar has no text in \.json or \.txt"),
        ([("a.wav", wav(0.1)), ("a.json", b"[]")], r"has no text in \.json or \.txt"),
        ([("a.wav", wav(0.1)), ("a.txt", b"\xff")], r"has no text in \.json or \.txt"),
        ([("a.wav", wav(0.1)), ("a.txt", b"room 5")], r"the sample a of the shard .*bad\.tar has digits in the text"),
        ([("a.wav", b"no sound"), ("a.txt", b"one")], r"cannot read the audio of the sample a of the shard .*bad\.tar"),
        ([("a.wav", wav(0)), ("a.txt", b"one")], r"the sample a of the shard .*bad\.tar has no samples"),
        ([], r"no utterance that can be trained on \(the source is empty\)"),
    ],
)
def test_a_shard_that_cannot_be_trained_on_is_one_clear_line(tmp_path, members, message):
    tar(tmp_path / "bad.tar", *members)
    with pytest.raises(ManifestError, match=message) as caught:
        index_shards(tmp_path)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / INDEX).exists()


def damaged(shards, tmp_path, change) -> list:
    """The samples of a copy of the first shard of which something was changed, its size kept."""
    folder = tmp_path / "copy"
    folder.mkdir()
    for path in shards[0].iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    content = bytearray((folder / "shard-000000.tar").read_bytes())
    change(content)
    (folder / "shard-000000.tar").write_bytes(content)
    return list(find_shards(["shard-000000.tar"], folder).shards[0].samples())


def test_a_damaged_shard_is_named(shards, tmp_path):
    def in_audio(content):
        content[700] ^= 1

    def in_a_header(content):
        content[100] ^= 1

    def at_the_end(content):
        content[-200_000:] = bytes(200_000)

    def at_its_size(content):
        del content[-512:]

    wanted = {
        in_audio: r"the shard .*shard-000000\.tar is not what was indexed \(SHA-256 differs\): copy it again",
        in_a_header: r"the shard .*shard-000000\.tar is damaged \(.*\): copy it again",
        at_the_end: r"the shard .*shard-000000\.tar (is damaged|is not what was indexed|has no text)",
        at_its_size: r"the shard .*shard-000000\.tar has \d+ bytes, its index says \d+: copy it again",
    }
    for change, message in wanted.items():
        folder = tmp_path / change.__name__
        folder.mkdir()
        with pytest.raises(ManifestError, match=message):
            damaged(shards, folder, change)


def test_shards_are_named_by_ranges_folders_and_lists(shards, tmp_path):
    folder = shards[0]
    everything = [shard.path for shard in find_shards([str(folder)], Path()).shards]
    last = len(everything) - 1
    (tmp_path / "list.txt").write_text(f"{folder}/shard-000001.tar\n\n{folder}/shard-{{000000..000000}}.tar\n")

    def found(*patterns):
        return [shard.path for shard in find_shards(patterns, tmp_path).shards]

    assert found(f"{folder}/shard-{{000000..{last:06d}}}.tar") == everything
    assert found("list.txt") == [everything[1], everything[0]]
    assert found(f"{folder}/shard-000001.tar") == [everything[1]]


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("{folder}/shard-{{000009..000001}}.tar", r"got the range \{000009\.\.000001\} in .*: turn it round"),
        ("{folder}/shard-999999.tar", r"shard-999999\.tar is not in .*index\.json: index it with edgeasr corpus index"),
        ("none/shard-000000.tar", r"got no .*none/index\.json, wanted an index of the shards"),
        ("none.txt", r"cannot read the list of shards .*none\.txt"),
        ("twice.txt", r"data\.shards names .*shard-000000\.tar more than once: name each shard once"),
        ("other/a.tar", r"other/index\.json is not an index \(.*\): make it anew with edgeasr corpus index"),
    ],
)
def test_shards_that_are_not_there_are_named(shards, tmp_path, pattern, message):
    (tmp_path / "twice.txt").write_text(f"{shards[0]}/shard-000000.tar\n" * 2)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / INDEX).write_text('{"format": "another"}')
    with pytest.raises(ManifestError, match=message) as caught:
        find_shards([pattern.format(folder=shards[0])], tmp_path)
    assert "\n" not in str(caught.value)


def test_a_shard_that_is_gone_is_named(shards, tmp_path):
    (tmp_path / INDEX).write_bytes((shards[0] / INDEX).read_bytes())
    with pytest.raises(ManifestError, match=r"cannot read the shard .*shard-000000\.tar: No such file or directory"):
        find_shards([str(tmp_path)], Path())
