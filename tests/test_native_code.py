"""C of the package, compiled where it runs: what is kept, and what happens where nothing compiles."""

import os
import shutil

import pytest

from edgeasr import native_code
from edgeasr.errors import NativeCodeError
from edgeasr.native_code import load_native

SOURCE = "int answer(void) { return ANSWER; }"

needs_compiler = pytest.mark.skipif(not (shutil.which("cc") or shutil.which("gcc")), reason="no C compiler")


def load(folder, answer):
    return load_native("answer", SOURCE, folder, "answer", (f"-DANSWER={answer}",))


def forget():
    """As another process would begin."""
    native_code._known.clear()


@pytest.fixture(autouse=True)
def known(monkeypatch):
    monkeypatch.setattr(native_code, "_known", {})


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
    assert [load(tmp_path / "kept", number).answer() for number in (41, 42)] == [41, 42]
    assert len(list((tmp_path / "kept").glob("answer-*.so"))) == 2
    assert [record.getMessage() for record in caplog.records] == [
        "edgeasr: compiling answer.c for this processor, once; seconds, on a small board half a minute"
    ] * 2


@needs_compiler
def test_what_is_kept_is_not_compiled_again_and_needs_no_compiler(tmp_path, monkeypatch, caplog):
    load(tmp_path / "kept", 1)
    forget()
    caplog.clear()
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    assert load(tmp_path / "kept", 1).answer() == 1
    assert not caplog.records


def halved(kept):
    kept.write_bytes(kept.read_bytes()[: kept.stat().st_size // 2])


def zeroed(kept):
    content = bytearray(kept.read_bytes())
    content[4096:8192] = bytes(4096)
    kept.write_bytes(content)


def writable_by_others(kept):
    kept.chmod(0o666)


@needs_compiler
@pytest.mark.parametrize("damage", [halved, zeroed, writable_by_others])
def test_what_is_damaged_or_not_ours_alone_is_compiled_again(tmp_path, caplog, damage):
    load(tmp_path / "first", 5)
    (kept,) = (tmp_path / "first").iterdir()
    # Under another name: what is loaded already would be found by its own.
    folder = tmp_path / "second"
    folder.mkdir(mode=0o700)
    copy = folder / kept.name
    copy.write_bytes(kept.read_bytes())
    damage(copy)
    caplog.clear()
    assert load(folder, 5).answer() == 5
    assert [record.args for record in caplog.records] == [("answer",)]
    assert copy.read_bytes() == kept.read_bytes() or len(copy.read_bytes()) == len(kept.read_bytes())


@needs_compiler
def test_a_folder_that_others_can_write_keeps_nothing(tmp_path, caplog):
    folder = tmp_path / "kept"
    folder.mkdir()
    folder.chmod(0o777)
    assert load(folder, 7).answer() == 7
    assert not list(folder.iterdir())
    assert "it cannot be kept (others may write to" in caplog.records[-1].getMessage()


@needs_compiler
def test_a_folder_that_cannot_be_written_is_no_failure_and_said(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    assert load(tmp_path / "file" / "below", 3).answer() == 3
    assert load(tmp_path / "file" / "below", 3).answer() == 3
    assert len(caplog.records) == 2, "compiled once in a process"
    assert "it cannot be kept" in caplog.records[-1].getMessage()


def test_a_compiler_that_fails_is_said_and_not_run_again(tmp_path, failing, caplog):
    for _ in range(3):
        with pytest.raises(NativeCodeError, match=r"cannot compile answer.c \(no headers\): apt-get install gcc"):
            load(tmp_path / "kept", 1)
    assert failing.read_text().count("run") == 3, "once with each way to name the processor, and never again"
    assert "that failed (no headers)" in caplog.records[-1].getMessage()
    assert not (tmp_path / "kept").exists()


def test_no_compiler_is_said(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    with pytest.raises(NativeCodeError, match=r"found no C compiler \(cc, gcc, clang\): apt-get install gcc libc6-dev"):
        load(tmp_path, 1)


@needs_compiler
def test_a_compiler_may_have_options(tmp_path, monkeypatch):
    monkeypatch.setenv("CC", f"{shutil.which('cc') or shutil.which('gcc')} -DOTHER=9")
    source = "int answer(void) { return OTHER; }"
    assert load_native("answer", source, tmp_path / "kept", "answer").answer() == 9


def test_without_a_temporary_folder_there_is_no_library(tmp_path, monkeypatch):
    def none(*_, **__):
        raise FileNotFoundError(2, "No usable temporary directory found")

    monkeypatch.setattr(native_code.tempfile, "TemporaryDirectory", none)
    monkeypatch.setenv("CC", "true")
    with pytest.raises(NativeCodeError, match=r"No usable temporary directory found.*set TMPDIR"):
        load(tmp_path, 1)


@needs_compiler
def test_of_what_earlier_versions_left_a_few_stay(tmp_path):
    folder = tmp_path / "kept"
    for answer in range(6):
        load(folder, answer)
        for number, path in enumerate(sorted(folder.iterdir(), key=lambda one: one.stat().st_mtime_ns)):
            os.utime(path, (number, number))
    assert len(list(folder.iterdir())) == native_code._MAX_KEPT
    forget()
    assert [load(folder, answer).answer() for answer in (4, 5)] == [4, 5]
