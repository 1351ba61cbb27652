"""C of the package, compiled where it runs: what is kept, and what happens where nothing compiles."""

import ctypes
import shutil

import pytest

from edgeasr.errors import NativeCodeError
from edgeasr.native_code import load_native

SOURCE = "int answer(void) { return ANSWER; }"

needs_compiler = pytest.mark.skipif(not (shutil.which("cc") or shutil.which("gcc")), reason="no C compiler")


@pytest.fixture
def failing(tmp_path, monkeypatch):
    """A compiler that counts how often it was run, and fails."""
    compiler, runs = tmp_path / "cc", tmp_path / "runs"
    compiler.write_text(f"#!/bin/sh\necho run >> {runs}\necho 'no headers' >&2\nexit 1\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("CC", str(compiler))
    return runs


@needs_compiler
def test_a_source_becomes_a_library_of_its_flags(tmp_path, caplog):
    made = [load_native("answer", SOURCE, tmp_path, (f"-DANSWER={number}",)) for number in (41, 42)]
    assert [library.answer() for library in made] == [41, 42]
    assert len(list(tmp_path.glob("answer-*.so"))) == 2
    assert [record.getMessage() for record in caplog.records] == [
        "edgeasr: compiling answer.c for this processor, once; seconds, on a small board half a minute"
    ] * 2


@needs_compiler
def test_what_is_kept_is_not_compiled_again(tmp_path, caplog):
    load_native("answer", SOURCE, tmp_path, ("-DANSWER=1",))
    caplog.clear()
    assert load_native("answer", SOURCE, tmp_path, ("-DANSWER=1",)).answer() == 1
    assert not caplog.records


@needs_compiler
def test_a_kept_file_that_is_no_library_is_compiled_again(tmp_path):
    load_native("answer", SOURCE, tmp_path / "first", ("-DANSWER=5",))
    (kept,) = (tmp_path / "first").iterdir()
    (tmp_path / "second").mkdir()
    (tmp_path / "second" / kept.name).write_bytes(b"half")
    assert load_native("answer", SOURCE, tmp_path / "second", ("-DANSWER=5",)).answer() == 5
    ctypes.CDLL(str(tmp_path / "second" / kept.name))


@needs_compiler
def test_a_folder_that_cannot_be_written_is_no_failure(tmp_path):
    (tmp_path / "file").write_text("")
    assert load_native("answer", SOURCE, tmp_path / "file" / "below", ("-DANSWER=3",)).answer() == 3


def test_a_compiler_that_fails_is_said_and_not_run_again(tmp_path, failing):
    for _ in range(3):
        with pytest.raises(NativeCodeError, match=r"cannot compile answer.c \(no headers\): apt-get install gcc"):
            load_native("answer", SOURCE, tmp_path / "kept")
    assert failing.read_text().count("run") == 3, "once with each way to name the processor, and never again"
    assert not (tmp_path / "kept").exists()


def test_no_compiler_is_said(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    with pytest.raises(NativeCodeError, match=r"found no C compiler \(cc, gcc, clang\): apt-get install gcc libc6-dev"):
        load_native("answer", SOURCE, tmp_path)


@needs_compiler
@pytest.mark.parametrize("which", ["file", "folder"])
def test_what_others_can_write_is_not_loaded(tmp_path, caplog, which):
    folder = tmp_path / "kept"
    load_native("answer", SOURCE, folder, ("-DANSWER=7",))
    (kept,) = folder.iterdir()
    (kept if which == "file" else folder).chmod(0o777)
    caplog.clear()
    assert load_native("answer", SOURCE, folder, ("-DANSWER=7",)).answer() == 7
    assert len(caplog.records) == 1, "compiled again"
