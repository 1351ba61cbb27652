import json
import shutil
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeasr import bundle as bundle_module
from edgeasr.bundle import Bundle, default_bundle, write_bundle
from edgeasr.bundle_manifest import FileRecord, PartSignature, TensorSpec
from edgeasr.config import ModelConfig
from edgeasr.errors import BundleError
from edgeasr.tokenizer import CHARACTERS

STATE = {"shape": [1, 100, 192], "dtype": "float32"}
GIVEN = {
    "name": "tiny-en",
    "config": ModelConfig().to_dict(),
    "tokens": list(CHARACTERS),
    "artefacts": {
        "onnx-fp32": {"step": "step.onnx", "memory": "memory.onnx"},
        "onnx-int8": {"step": "step.int8.onnx", "memory": "memory.onnx"},
    },
    "default_artefact": "onnx-int8",
    "signature": {
        "step": {
            "inputs": {
                "state.level1.0.key": {**STATE, "initial": 0.0},
                "state.seen": {"shape": [1], "dtype": "int64", "initial": -1},
            },
            "outputs": {"next_state.level1.0.key": STATE, "emission": {"shape": [], "dtype": "float32"}},
        },
        "memory": {"inputs": {}, "outputs": {}},
    },
    "training": {"data": [{"name": "readers", "hours": 5.3, "licence": "CC BY 4.0", "what": "books"}]},
    "wer": {"dev": 0.41},
    "licence": "Apache-2.0",
}
FILES = {"step.onnx": b"fp32 weights", "step.int8.onnx": b"int8 weights", "memory.onnx": b"memory"}


@pytest.fixture(params=["model", "model.edgeasr"], ids=["folder", "zip"])
def written(request, tmp_path):
    """A bundle of each form as `write_bundle` returns it."""
    return write_bundle(tmp_path / request.param, GIVEN, FILES)


@pytest.fixture
def folder(tmp_path):
    return write_bundle(tmp_path / "model", GIVEN, FILES).path


@pytest.fixture
def archive(tmp_path):
    return write_bundle(tmp_path / "model.edgeasr", GIVEN, FILES).path


def refusal(path: Path) -> str:
    """What is wrong with a bundle, in one line that begins with its path."""
    with pytest.raises(BundleError) as caught:
        Bundle.load(path)
    message = str(caught.value)
    assert message.startswith(f"bundle {path}: ")
    assert "\n" not in message
    return message.removeprefix(f"bundle {path}: ")


def rewrite(folder: Path, change) -> Path:
    """Change the manifest of a bundle in place."""
    manifest = json.loads((folder / "manifest.json").read_text())
    change(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def test_a_written_bundle_is_loaded_with_the_same_values(written):
    bundle = Bundle.load(written.path)
    assert bundle == written
    assert bundle.name == "tiny-en"
    assert bundle.config == ModelConfig()
    assert bundle.tokens == CHARACTERS
    assert bundle.signature["memory"] == PartSignature({}, {})
    assert bundle.signature["step"].outputs["emission"] == TensorSpec((), "float32")
    assert bundle.training["data"][0]["licence"] == "CC BY 4.0"
    assert bundle.wer == {"dev": 0.41}
    assert bundle.licence == "Apache-2.0"
    # printf memory | sha256sum
    sha256 = "c064fbca9d9de8dd9bb0624984403b28d0da807a69365d4f7fb09123ecb0c405"
    assert bundle.files["memory.onnx"] == FileRecord(sha256, 6)


def test_artefacts_of_a_folder_are_its_files(folder):
    bundle = Bundle.load(folder)
    assert bundle.artefact() == {"step": folder / "step.int8.onnx", "memory": folder / "memory.onnx"}
    assert bundle.artefact("onnx-fp32")["step"] == folder / "step.onnx"


def test_artefacts_of_a_zip_are_contents_and_nothing_is_extracted(archive):
    bundle = Bundle.load(archive)
    assert bundle.artefact() == {"step": b"int8 weights", "memory": b"memory"}
    assert bundle.artefact("onnx-fp32")["step"] == b"fp32 weights"
    assert list(archive.parent.iterdir()) == [archive]


def test_an_unknown_artefact_is_refused_with_the_known_ones(written):
    with pytest.raises(BundleError, match="got artefact 'litert', wanted one of onnx-fp32, onnx-int8: choose"):
        written.artefact("litert")


def test_an_artefact_that_went_away_after_loading_is_a_bundle_error(archive):
    bundle = Bundle.load(archive)
    archive.unlink()
    with pytest.raises(BundleError, match="got a path without a file"):
        bundle.artefact()


def test_files_are_copied_from_paths(tmp_path):
    (tmp_path / "weights").write_bytes(b"int8 weights")
    copied = write_bundle(tmp_path / "model", GIVEN, FILES | {"step.int8.onnx": tmp_path / "weights"})
    assert (copied.path / "step.int8.onnx").read_bytes() == b"int8 weights"


def test_writing_replaces_a_bundle_and_leaves_nothing_else(written):
    replaced = write_bundle(written.path, GIVEN | {"name": "newer"}, FILES)
    assert Bundle.load(written.path) == replaced
    assert replaced.name == "newer"
    assert list(written.path.parent.iterdir()) == [written.path]


def test_a_refused_write_leaves_the_old_bundle(written):
    with pytest.raises(BundleError, match=r"name is '\.\./escape', wanted letters"):
        write_bundle(written.path, GIVEN | {"name": "../escape"}, FILES)
    assert Bundle.load(written.path) == written
    assert list(written.path.parent.iterdir()) == [written.path]


@pytest.mark.parametrize("name", ["notes", "model.edgeasr"])
def test_writing_over_something_else_is_refused(tmp_path, name):
    (tmp_path / name).mkdir()
    (tmp_path / name / "diary.txt").write_text("mine")
    with pytest.raises(BundleError, match="got a path where something else is"):
        write_bundle(tmp_path / name, GIVEN, FILES)
    assert (tmp_path / name / "diary.txt").read_text() == "mine"


def test_writing_into_an_empty_folder_and_missing_parents_is_fine(tmp_path):
    (tmp_path / "empty").mkdir()
    assert write_bundle(tmp_path / "empty", GIVEN, FILES).name == "tiny-en"
    assert write_bundle(tmp_path / "new" / "deep" / "model", GIVEN, FILES).name == "tiny-en"


def test_the_same_content_gives_the_same_zip(tmp_path):
    first = write_bundle(tmp_path / "a.edgeasr", GIVEN, FILES).path.read_bytes()
    assert write_bundle(tmp_path / "b.edgeasr", GIVEN, FILES).path.read_bytes() == first


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.update(format_version=2), "got format version 2, wanted 1: export the model again"),
        (lambda m: m.pop("format_version"), "got format version None, wanted 1"),
        (lambda m: m.update(colour="red"), "manifest.json has the unknown key 'colour', wanted artefacts, "),
        (lambda m: m.pop("licence"), "manifest.json lacks the key 'licence'"),
        (lambda m: m.update(name="../x"), "name is '../x', wanted letters, digits"),
        (lambda m: m.update(licence=""), "licence is '', wanted text"),
        (lambda m: m.update(wer=[0.4]), "wer is [0.4], wanted an object"),
        (lambda m: m["config"].update(depth=3), "config has the unknown key 'depth', wanted encoder, "),
        (lambda m: m["config"]["encoder"].pop("d_model"), "config.encoder lacks the key 'd_model'"),
        (lambda m: m["config"].update(features=5), "config.features is 5, wanted an object"),
        (lambda m: m["config"]["encoder"].update(d_model=-4), "d_model is -4: it must be positive"),
        (lambda m: m["tokens"].pop(), "got 28 tokens, wanted 29 as in config"),
        (lambda m: m["tokens"].insert(0, 7), "a token is 7, wanted text"),
        (lambda m: m["tokens"].reverse(), "got first token ('z',), wanted '<blank>'"),
        (
            lambda m: m.update(default_artefact="tflite"),
            "default_artefact is 'tflite', wanted one of onnx-fp32",
        ),
        (
            lambda m: m.update(default_artefact=["onnx-int8"]),
            "default_artefact is ['onnx-int8'], wanted text",
        ),
        (lambda m: m.update(artefacts={}), "artefacts is {}, wanted one kind or more: export"),
        (lambda m: m["artefacts"]["onnx-int8"].pop("memory"), "artefacts.onnx-int8 lacks the key 'memory'"),
        (
            lambda m: m["artefacts"]["onnx-int8"].update(step="gone.onnx"),
            "artefacts.onnx-int8.step is 'gone.onnx', wanted one of memory.onnx, step.int8.onnx, step.onnx",
        ),
        (
            lambda m: m["signature"].pop("step"),
            "signature has the parts ['memory'], wanted 'step' among them",
        ),
        (lambda m: m["signature"]["step"].pop("outputs"), "signature.step lacks the key 'outputs'"),
        (
            lambda m: m["signature"]["step"]["inputs"]["state.seen"].update(shape=[-1]),
            "signature.step.inputs.state.seen.shape has -1, wanted a whole number from 0",
        ),
        (
            lambda m: m["signature"]["step"]["inputs"]["state.seen"].update(dtype="object"),
            "signature.step.inputs.state.seen.dtype is 'object', wanted one of float32, ",
        ),
        (
            lambda m: m["signature"]["step"]["inputs"].pop("state.level1.0.key"),
            "signature.step gives next_state.level1.0.key as TensorSpec(shape=(1, 100, 192), dtype='float32')"
            ", takes it back as None",
        ),
        (lambda m: m["training"].pop("data"), "training.data is None, wanted a list"),
        (
            lambda m: m["training"]["data"][0].pop("licence"),
            "licence of a source in training.data is None, wanted text",
        ),
        (lambda m: m["files"]["step.onnx"].pop("sha256"), "files.step.onnx lacks the key 'sha256'"),
        (
            lambda m: m["files"]["step.onnx"].update(sha256="abc"),
            "files.step.onnx.sha256 is 'abc', wanted 64 hex digits",
        ),
        (
            lambda m: m["files"]["step.onnx"].update(bytes=True),
            "files.step.onnx.bytes has True, wanted a whole",
        ),
        (
            lambda m: m["files"].update({"../../step.onnx": m["files"]["step.onnx"]}),
            "a file of the manifest is '../../step.onnx', wanted letters, digits",
        ),
        (
            lambda m: m["files"].update({"manifest.json": m["files"]["step.onnx"]}),
            "files has manifest.json, wanted only the files beside it",
        ),
    ],
)
def test_a_manifest_that_is_wrong_is_refused(folder, change, message):
    assert refusal(rewrite(folder, change)).startswith(message)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "manifest.json is no JSON (Expecting value"),
        (b"{", "manifest.json is no JSON (Expecting property name"),
        (b"\xff\xfe\xff", "manifest.json is no JSON ("),
        (b"[" * 100_000, "manifest.json is no JSON ("),
        (b"[]", "manifest.json is [], wanted an object"),
        (b" " * (1 << 20) + b"{}", "manifest.json has 1048578 bytes, wanted 1048576 at most"),
    ],
    ids=["empty", "cut", "binary", "nested", "list", "huge"],
)
def test_a_manifest_that_cannot_be_read_is_refused(folder, content, message):
    (folder / "manifest.json").write_bytes(content)
    assert refusal(folder).startswith(message)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda folder: (folder / "memory.onnx").write_bytes(b"memorX"),
            "memory.onnx has SHA-256 f9c4c112b8c0…, wanted c064fbca9d9d…: the bundle is damaged, fetch",
        ),
        (lambda folder: (folder / "memory.onnx").write_bytes(b"memo"), "memory.onnx has 4 bytes, wanted 6"),
        (lambda folder: (folder / "memory.onnx").unlink(), "memory.onnx of the manifest is missing"),
        (lambda folder: (folder / "manifest.json").unlink(), "got no manifest.json, wanted one beside"),
        (
            lambda folder: (folder / "step.fp16.onnx").write_bytes(b"more"),
            "got 'step.fp16.onnx', wanted only the files of the manifest",
        ),
        (lambda folder: (folder / "cache").mkdir(), "got 'cache', which is no plain file"),
        (shutil.rmtree, "got a path without a file, wanted a folder or a .edgeasr file: check the path"),
    ],
    ids=["hash", "truncated", "missing", "no manifest", "extra", "folder", "nothing"],
)
def test_files_that_are_not_those_of_the_manifest_are_refused(folder, damage, message):
    damage(folder)
    assert refusal(folder).startswith(message)


def test_hidden_files_of_file_managers_are_let_be(folder):
    (folder / ".DS_Store").write_bytes(b"icons")
    assert Bundle.load(folder).name == "tiny-en"


@pytest.mark.parametrize("name", ["../escape.onnx", "/etc/escape", "inner/step.onnx", "..\\escape", "C:escape"])
def test_a_zip_with_a_name_that_leads_elsewhere_is_refused(archive, name):
    with zipfile.ZipFile(archive, "a") as damaged:
        damaged.writestr(name, b"escaped")
    assert refusal(archive).startswith(f"a file of the zip is {name!r}, wanted letters, digits")


def test_a_zip_with_two_files_of_one_name_is_refused(archive):
    with zipfile.ZipFile(archive, "a") as damaged, pytest.warns(UserWarning, match="Duplicate name"):
        damaged.writestr("memory.onnx", b"memorY")
    assert refusal(archive).startswith("got 5 files of 4 names, wanted each once")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the zip cannot be read (File is not a zip file): the bundle is damaged"),
        (b"RIFF....WAVEfmt ", "the zip cannot be read (File is not a zip file)"),
    ],
    ids=["empty", "other"],
)
def test_a_file_that_is_no_zip_is_refused(tmp_path, content, message):
    (tmp_path / "model.edgeasr").write_bytes(content)
    assert refusal(tmp_path / "model.edgeasr").startswith(message)


def test_a_checkpoint_is_named_so(tmp_path):
    checkpoint = tmp_path / "averaged.safetensors"
    checkpoint.write_bytes((2).to_bytes(8, "little") + b"{}")
    assert refusal(checkpoint) == (
        "got a checkpoint of training, wanted a bundle: make one of it with "
        f"`edgeasr export {checkpoint} --output averaged.edgeasr`"
    )


@given(data=st.data())
def test_a_damaged_zip_is_refused_or_means_the_same(tmp_path_factory, data):
    bundle = write_bundle(tmp_path_factory.mktemp("damaged") / "model.edgeasr", GIVEN, FILES)
    content = bytearray(bundle.path.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        del content[place:]
    else:
        content[place] ^= data.draw(st.integers(1, 255))
    bundle.path.write_bytes(content)
    try:
        loaded = Bundle.load(bundle.path)
    except BundleError:
        loaded = bundle
    assert loaded == bundle


def test_the_default_bundle_is_the_only_one_that_ships(tmp_path, monkeypatch):
    monkeypatch.setattr(bundle_module, "_SHIPPED_MODELS", tmp_path)
    with pytest.raises(BundleError, match=r"got 0 bundles in .*, wanted one: install edgeasr again"):
        default_bundle()
    shipped = write_bundle(tmp_path / "tiny-en", GIVEN, FILES)
    assert default_bundle() == shipped.path
    write_bundle(tmp_path / "small-en", GIVEN, FILES)
    with pytest.raises(BundleError, match="got 2 bundles"):
        default_bundle()
