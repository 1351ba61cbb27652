import json
import re
import sys
from io import StringIO
from pathlib import Path
from runpy import run_path

import numpy as np
import pytest
import soundfile

pytest.importorskip("apsw", reason="the store needs the extra `memory`")

from edgeasr.store import schema, sound_search
from edgeasr.store.memory_store import MemoryStore
from edgeasr.store.records import ModelKey, Span, SpokenWord, Summary
from edgeasr.store.sound_search import Query, QuerySummary

SCRIPTED = run_path(str(Path(__file__).with_name("scripted_model.py")))
edgeasr, tone, silence = (SCRIPTED[name] for name in ("edgeasr", "tone", "silence"))
RATE = 16_000
SPEECH = np.concatenate([tone("so it goes"), silence(1.52), tone("and then it ended")])
TEXT = "so it goes\nand then it ended\n"
WIDTH = 192  # of the scripted model's configuration
TEXTS = ("so it goes", "and then it ended", "my secret word")


def vector(number):
    return np.random.default_rng(number).standard_normal(WIDTH).astype(np.float32)


@pytest.fixture(autouse=True)
def data_folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    return tmp_path / "data"


@pytest.fixture
def talk(tmp_path) -> Path:
    path = tmp_path / "talk.flac"
    soundfile.write(path, SPEECH, RATE)
    return path


@pytest.fixture
def store(tmp_path) -> Path:
    """Three segments of 4 s with their vectors; 3 more summaries were merged into the first. It is of ScriptedModel."""
    path = tmp_path / "memory.db"
    with MemoryStore.open(path, create=True) as opened, opened.transaction():
        stream = opened.begin_stream("talk.wav", ModelKey("scripted", WIDTH))
        for i, text in enumerate(TEXTS):
            span = Span(3600 + 4.0 * i, 3604 + 4.0 * i, text)
            opened.add_vector(stream, Summary(2, i, span, vector(i), pinned=i == 1))
            words = [SpokenWord(word, span.start_s + j, span.start_s + j + 1) for j, word in enumerate(text.split())]
            opened.add_segment(stream, span, words)
        opened.merge(stream, 0, Summary(2, 7, Span(3628, 3632), vector(7)))
    return path


def run(*arguments):
    return edgeasr("memory", *arguments)


def json_of(*arguments):
    code, out, err = run(*arguments, "--json")
    assert (code, err) == (0, "")
    return json.loads(out)


class TestRemember:
    def test_of_listen_stores_what_was_said(self, talk, data_folder):
        assert edgeasr("listen", "--source", talk, "--remember") == (0, TEXT, "")
        assert (data_folder / "edgeasr" / "memory.db").is_file()
        (stream,) = json_of("list")["streams"]
        assert (stream["name"], stream["segments"]) == (str(talk), 2)
        (hit,) = json_of("search", "then it ended")["hits"]
        assert hit["span"]["text"] == "then it ended"
        assert hit["span"]["start_s"] == pytest.approx(2.64, abs=0.1)

    @pytest.mark.parametrize(
        "form", [("--remember", "PATH"), ("--remember", "--store", "PATH"), ("PATH", "--remember")]
    )
    def test_takes_the_path_of_a_store(self, talk, tmp_path, data_folder, form):
        path = tmp_path / "other.db"
        options = [str(path) if option == "PATH" else option for option in form]
        assert edgeasr("listen", "--source", talk, *options) == (0, TEXT, "")
        assert path.is_file()
        assert not data_folder.exists()

    def test_of_transcribe_makes_a_stream_a_file(self, talk, tmp_path):
        path = tmp_path / "other.db"
        code, _, err = edgeasr("transcribe", talk, talk, "--remember", "--store", path)
        assert (code, err) == (0, "")
        assert [stream["segments"] for stream in json_of("list", "--store", path)["streams"]] == [2, 2]

    @pytest.mark.parametrize("command", [("listen", "--source"), ("transcribe",)])
    def test_without_a_usable_store_warns_once_and_hears_all(self, talk, tmp_path, command):
        code, out, err = edgeasr(*command, talk, "--remember", "--store", tmp_path / "none" / "memory.db")
        assert (code, out) == (0, TEXT)
        assert len(re.findall("warning: nothing is remembered for now.*its folder is missing", err)) == 1

    def test_without_its_packages_names_the_extra(self, talk, monkeypatch):
        for name in [name for name in sys.modules if name.startswith("edgeasr.store")]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.setitem(sys.modules, "apsw", None)
        code, out, err = edgeasr("listen", "--source", talk, "--remember")
        assert (code, out) == (2, "")
        assert "pip install edgeasr[memory]" in err

    @pytest.mark.parametrize("options", [("--store", "x.db"), ("x.db",), ("x.db", "--remember", "--store", "y.db")])
    def test_wants_one_path_and_only_with_it(self, talk, options):
        code, out, _ = edgeasr("listen", "--source", talk, *options)
        assert (code, out) == (2, "")


class TestStats:
    def test_count_what_there_is(self, store):
        stats = json_of("stats", "--store", store)
        counts = {name: stats[name] for name in ("streams", "segments", "vectors", "pinned", "merged")}
        assert counts == {"streams": 1, "segments": 3, "vectors": 3, "pinned": 1, "merged": 1}
        assert stats["path"] == str(store)
        assert stats["size_bytes"] > 10_000

    def test_as_text(self, store):
        out = run("stats", "--store", store).out
        assert "3, 1 of them pinned, standing for 4" in out

    def test_of_a_store_that_is_missing_is_an_error(self, tmp_path):
        code, out, err = run("stats", "--store", tmp_path / "none.db")
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert "there is no store" in err


class TestList:
    def test_streams(self, store):
        head, line = run("list", "--store", store).out.splitlines()
        assert head.split() == ["stream", "began", "stored", "to", "vectors", "segments", "name"]
        assert line.split()[3:] == ["1:00:12.0", "3", "3", "talk.wav"]

    def test_vectors_of_a_stream(self, store):
        lines = run("list", "--store", store, "--stream", "1", "--after", "1").out.splitlines()
        assert [line.split() for line in lines[1:]] == [
            ["2", "2", "1:00:04.0", "1:00:08.0", "1", "pinned", "and", "then", "it", "ended"],
            ["3", "2", "1:00:08.0", "1:00:12.0", "1", "my", "secret", "word"],
        ]

    def test_of_an_unknown_stream_is_an_error(self, store):
        code, out, err = run("list", "--store", store, "--stream", "99")
        assert (code, out) == (2, "")
        assert err.startswith("edgeasr: error: got stream 99, the store has none of that id")

    def test_has_no_values_in_json(self, store):
        first, *_ = json_of("list", "--store", store, "--stream", "1")["vectors"]
        assert (first["count"], first["span"]) == (2, {"start_s": 3600.0, "end_s": 3604.0, "text": "so it goes"})
        assert "vector" not in first


class TestSearch:
    def test_prints_when_and_where(self, store):
        head, line = run("search", "Secret Word", "--store", store).out.splitlines()
        assert head.split() == ["from", "to", "score", "stream", "name", "text"]
        assert line.split() == ["1:00:09.0", "1:00:11.0", "1.00", "1", "talk.wav", "secret", "word"]

    def test_that_finds_nothing_says_so(self, store):
        assert run("search", "zebra", "--store", store) == (1, "", "edgeasr: nothing found\n")
        assert run("search", "zebra", "--store", store, "--json")[:2] == (1, '{"hits": []}\n')


class TestSimilar:
    def test_finds_the_span_and_what_was_said(self, store, talk, monkeypatch):
        # Two seconds into the span of the second vector.
        query = Query(2.0, [QuerySummary(0, -2.0, 2.0, 5 * vector(1))])
        monkeypatch.setattr(sound_search, "make_query", lambda model, source: query)
        best, *_ = json_of("similar", talk, "--store", store)["hits"]
        assert best["vectors"] == [2]
        assert best["span"] == {"start_s": 3606.0, "end_s": 3608.0, "text": "it ended"}
        assert best["score"] == pytest.approx(1, abs=1e-5)
        lines = run("similar", talk, "--store", store).out.splitlines()
        assert lines[1].split()[:3] == ["1:00:06.0", "1:00:08.0", "1.00"]

    def test_of_a_file_that_is_missing_is_an_error(self, store, tmp_path):
        code, out, err = run("similar", tmp_path / "none.wav", "--store", store)
        assert (code, out, err.count("\n")) == (2, "", 1)


class TestShow:
    def test_a_vector_and_its_occurrences(self, store):
        lines = run("show", "1", "--store", store).out.splitlines()
        assert lines[0].split() == ["of", "talk.wav"]
        assert lines[3].split() == ["1:00:00.0", "to", "1:00:04.0", "so", "it", "goes"]
        assert lines[4].split() == ["1:00:28.0", "to", "1:00:32.0"]

    def test_has_its_values_in_json(self, store):
        found = json_of("show", "3", "--store", store)
        np.testing.assert_allclose(found["vector"], vector(2), rtol=1e-6)

    def test_of_an_unknown_one_is_an_error(self, store):
        code, _, err = run("show", "99", "--store", store)
        assert code == 2
        assert "got vector 99" in err


class TestForget:
    @pytest.mark.parametrize(
        ("options", "left"),
        [
            (["3"], TEXTS[:2]),
            (["1", "2"], TEXTS[2:]),
            (["--text", "secret word"], TEXTS[:2]),
            (["--stream", "1"], ()),
            (["--before", "2999-01-01"], ()),
            (["--before", "1999-01-01T12:00:00"], TEXTS),
            (["--all"], ()),
        ],
    )
    def test_what_was_chosen(self, store, options, left):
        gone = json_of("forget", *options, "--yes", "--store", store)
        assert gone["segments"] == gone["vectors"] == 3 - len(left)
        with MemoryStore.open(store) as opened:
            assert [segment.text for segment in opened.segments()] == list(left)
            opened.check()

    @pytest.mark.parametrize(("answer", "code", "left"), [("", 1, 3), ("n\n", 1, 3), ("y\n", 0, 0)])
    def test_asks_first(self, store, monkeypatch, answer, code, left):
        monkeypatch.setattr("sys.stdin", StringIO(answer))
        done = run("forget", "--all", "--store", store)
        assert done.code == code
        assert done.out == ("" if code else "forgot 3 vectors, 3 segments, 1 whole stream\n")
        assert done.err.startswith(f"Forget everything in {store}? [y/N] ")
        assert json_of("stats", "--store", store)["vectors"] == left

    @pytest.mark.parametrize("options", [[], ["1", "--all"], ["--stream", "1", "--text", "so"]])
    def test_wants_one_choice(self, store, options):
        assert run("forget", *options, "--yes", "--store", store).code == 2

    def test_leaves_no_trace(self, store):
        run("forget", "--text", "secret word", "--yes", "--store", store)
        assert all(b"secret" not in file.read_bytes() for file in store.parent.glob("memory.db*"))


class TestExport:
    def test_gives_everything_as_json_lines(self, store):
        code, out, err = run("export", "--store", store)
        lines = [json.loads(line) for line in out.splitlines()]
        assert (code, err) == (0, "")
        assert [line["type"] for line in lines] == ["stream", *["segment"] * 3, *["vector"] * 3]
        assert lines[1]["words"][1] == {"word": "it", "start_s": 3601.0, "end_s": 3602.0}
        assert lines[4]["occurrences"] == [{"start_s": 3628.0, "end_s": 3632.0, "text": ""}]

    def test_gives_values_as_arrays(self, store, tmp_path):
        code, out, err = run(
            "export", "--store", store, "--output", tmp_path / "all.jsonl", "--vectors", tmp_path / "npy"
        )
        assert (code, out, err) == (0, "", f"edgeasr: 3 vectors are in {tmp_path / 'npy'}\n")
        assert len((tmp_path / "all.jsonl").read_text().splitlines()) == 7
        folder = tmp_path / "npy" / "scripted"
        np.testing.assert_array_equal(np.load(folder / "vectors-2.npy"), [vector(i) for i in range(3)])
        np.testing.assert_array_equal(np.load(folder / "ids-2.npy"), [1, 2, 3])

    def test_into_a_folder_that_is_missing_is_an_error(self, store, tmp_path):
        target = tmp_path / "none" / "all.jsonl"
        code, out, err = run("export", "--store", store, "--output", target)
        assert (code, out) == (2, "")
        assert err == f"edgeasr: error: cannot export to {target}: No such file or directory\n"


class TestVacuum:
    def test_gives_room_back(self, store):
        with MemoryStore.open(store) as opened, opened.transaction():
            stream = opened.begin_stream("much", ModelKey("scripted", WIDTH))
            for i in range(500):
                opened.add_vector(stream, Summary(2, i, Span(i, i + 1), vector(i)))
            opened.run("DELETE FROM vectors WHERE stream = ?", stream)
        sizes = json_of("vacuum", "--store", store)
        assert sizes["bytes_after"] == store.stat().st_size < sizes["bytes_before"] / 2

    def test_of_a_damaged_store_is_an_error(self, store):
        content = bytearray(store.read_bytes())
        content[8192:12288] = b"\x7f" * 4096
        store.write_bytes(content)
        code, out, err = run("vacuum", "--store", store)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert "damaged" in err


DAMAGE = [
    ("UPDATE segments SET text = CAST(x'ff' AS TEXT)", ("search", "goes"), ("export",)),
    ("UPDATE segments SET words = '[[1'", ("search", "goes"), ("show", "1"), ("export",), ("forget", "1", "--yes")),
    ("UPDATE segments SET words = '[1, 2]'", ("list", "--stream", "1"), ("export",)),
    ("UPDATE vectors SET vector = x'010203'", ("show", "1"), ("list", "--stream", "1"), ("export",)),
    ("UPDATE vectors SET start_s = 'x'", ("show", "1"), ("list", "--stream", "1")),
    ("UPDATE streams SET name = CAST(x'ff' AS TEXT)", ("list",), ("export",), ("search", "goes")),
]


@pytest.mark.parametrize(
    ("damage", "command"), [(damage, command) for damage, *commands in DAMAGE for command in commands]
)
def test_values_that_no_store_holds_are_one_line(store, damage, command):
    with MemoryStore.open(store) as opened, opened.transaction():
        opened.run(damage)
    code, _, err = run(*command, "--store", store)
    assert (code, err.count("\n")) == (2, 1)
    assert f"store {store} is damaged" in err


class TestWhereNothingCanBeWritten:
    @pytest.fixture(autouse=True)
    def _protected(self, monkeypatch):
        monkeypatch.setattr(schema, "_can_be_written", lambda path: False)

    @pytest.mark.parametrize("command", [("stats",), ("list",), ("search", "goes"), ("show", "1"), ("export",)])
    def test_a_store_is_read(self, store, command):
        before = sorted(store.parent.iterdir()), store.read_bytes()
        code, out, err = run(*command, "--store", store)
        assert (code, err) == (0, "")
        assert out
        assert (sorted(store.parent.iterdir()), store.read_bytes()) == before

    def test_what_waits_beside_it_is_not_passed_over(self, store):
        store.with_name(f"{store.name}-wal").write_bytes(b"waits")
        code, _, err = run("stats", "--store", store)
        assert (code, err.count("\n")) == (2, 1)
        assert "memory.db-wal waits" in err

    def test_an_older_schema_is_named(self, store):
        with MemoryStore.open(store) as opened:
            opened.run("PRAGMA user_version = 0")
        code, _, err = run("stats", "--store", store)
        assert (code, err.count("\n")) == (2, 1)
        assert "schema version 0" in err


def test_an_export_is_as_private_as_the_store(store, tmp_path):
    assert run("export", "--store", store, "--output", tmp_path / "all.jsonl", "--vectors", tmp_path / "values")[0] == 0
    assert (tmp_path / "all.jsonl").stat().st_mode & 0o777 == 0o600
    (folder,) = (tmp_path / "values").iterdir()
    assert folder.stat().st_mode & 0o777 == 0o700


def test_a_picture_of_an_unknown_format_is_refused(talk):
    code, out, err = run("plot", talk, "--output", "memory.xyz")
    assert (code, out) == (2, "")
    assert "wanted a name that ends in .png, .svg, .pdf" in err


def test_names_of_streams_rule_no_terminal(store):
    with MemoryStore.open(store) as opened, opened.transaction():
        opened.run("UPDATE streams SET name = ?", "a\n\x1b[2Jb")
    for command in (("list",), ("show", "1"), ("search", "so it goes")):
        out = run(*command, "--store", store).out
        assert "a\\n\\u001b[2Jb" in out
        assert "\x1b" not in out
