import json
import shutil
from pathlib import Path
from runpy import run_path

import numpy as np
import pytest

from edgeasr.bundle import Bundle
from edgeasr.bundle_transducer import add_transducer, remove_transducer
from edgeasr.errors import BundleError
from edgeasr.language_model_file import packed
from edgeasr.model import AcousticModel
from edgeasr.ngram_estimation import estimate
from edgeasr.piece_model import PieceModel
from edgeasr.recognizer import Recognizer
from edgeasr.transducer import Transducer
from edgeasr.transducer_decoder import TransducerDecoder

edgeasr = run_path(str(Path(__file__).with_name("scripted_model.py")))["edgeasr"]
SOURCES = [{"name": "a text", "licence": "CC0-1.0"}]


def transducer(tokens: int, seed: int = 0) -> Transducer:
    """Random weights that say little: the emissions are louder."""
    rng = np.random.default_rng(seed)
    behind, ahead, context, frame, width, inner, piece = 1, 2, 3, 4, 6, 5, 3

    def drawn(*shape: int) -> np.ndarray:
        return 0.1 * rng.standard_normal(shape).astype(np.float32)

    def read_out() -> dict[str, np.ndarray]:
        return {
            "expand": drawn(width, inner),
            "expand_bias": drawn(inner),
            "contract": drawn(inner, width),
            "contract_bias": drawn(width),
            "output": drawn(width, tokens),
            "output_bias": drawn(tokens),
        }

    embedding, first = drawn(tokens + 1, piece), drawn(context * piece, width)
    text = PieceModel(context, embedding, first, drawn(width), **read_out())
    return Transducer(
        behind,
        ahead,
        projection=drawn(tokens, frame),
        projection_bias=drawn(frame),
        absent=drawn(frame),
        acoustic=drawn((behind + 1 + ahead) * frame, width),
        embedding=drawn(tokens + 1, piece),
        predictor=drawn(context * piece, width),
        bias=drawn(width),
        gain=1.0,
        text=text,
        text_gain=0.1,
        **read_out(),
    )


@pytest.fixture
def bundle(exported, tmp_path) -> Path:
    return Path(shutil.copytree(exported.bundle.path, tmp_path / "toy-model"))


@pytest.fixture
def file(bundle, tmp_path) -> Path:
    path = tmp_path / "transducer.npz"
    path.write_bytes(transducer(len(Bundle.load(bundle).tokens)).packed())
    return path


def test_a_transducer_is_put_in_and_decodes(bundle, file):
    made = add_transducer(bundle, file, SOURCES, bundle)
    name = made.transducer.file
    assert name.startswith("transducer.")
    assert name.endswith(".npz")
    assert made.files[name].sha256.startswith(name.split(".")[1])
    assert list(made.transducer.sources) == SOURCES
    assert (bundle / name).read_bytes() == file.read_bytes()
    assert AcousticModel(Bundle.load(bundle)).transducer is not None
    assert isinstance(Recognizer(bundle, decoder="greedy")._decoder, TransducerDecoder)


def test_another_takes_its_place_and_it_can_be_taken_out(bundle, file, tmp_path):
    before = {path.name for path in bundle.iterdir()}
    first = add_transducer(bundle, file, SOURCES, bundle).transducer.file
    file.write_bytes(transducer(len(Bundle.load(bundle).tokens), seed=1).packed())
    second = add_transducer(bundle, file, SOURCES, bundle).transducer.file
    assert {path.name for path in bundle.iterdir()} == before | {second} != before | {first}
    assert remove_transducer(bundle, tmp_path / "without").transducer is None
    assert {path.name for path in (tmp_path / "without").iterdir()} == before
    assert Bundle.load(bundle).transducer.file == second
    with pytest.raises(BundleError, match="has no transducer: nothing was taken out"):
        remove_transducer(tmp_path / "without", tmp_path / "again")


def test_a_transducer_of_other_tokens_is_refused(bundle, file):
    file.write_bytes(transducer(30).packed())
    before = (bundle / "manifest.json").read_bytes()
    with pytest.raises(BundleError, match=r"a transducer of 30 tokens, bundle .*toy-model has 29"):
        add_transducer(bundle, file, SOURCES, bundle)
    assert (bundle / "manifest.json").read_bytes() == before


@pytest.mark.parametrize("damage", ["cut", "other", "empty", "missing"])
def test_a_file_that_is_no_transducer_is_refused(bundle, file, damage):
    content = file.read_bytes()
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes({"cut": content[: len(content) // 2], "other": b"no zip", "empty": b""}[damage])
    with pytest.raises(BundleError, match=r"transducer.*transducer\.npz"):
        add_transducer(bundle, file, SOURCES, bundle)
    assert Bundle.load(bundle).transducer is None


def test_a_file_of_the_other_kind_is_named_so(bundle, file, tmp_path):
    words = tmp_path / "words.lm"
    words.write_bytes(packed(estimate(["a b", "b a"], order=2, max_words=9, max_ngrams=9), {"a": (("AX",),)}))
    licensed = ("--source", "a text", "--licence", "CC0-1.0")
    assert edgeasr("transducer", "add", bundle, words, *licensed).err == (
        f"edgeasr: error: {words} is a language model, wanted a transducer: put it into a bundle with "
        "`edgeasr lm add`\n"
    )
    assert edgeasr("lm", "add", bundle, file, *licensed).err == (
        f"edgeasr: error: {file} is a transducer, wanted a language model: put it into a bundle with "
        "`edgeasr transducer add`\n"
    )


def test_sources_need_a_licence(bundle, file):
    with pytest.raises(BundleError, match=r"licence of a source in transducer\.sources"):
        add_transducer(bundle, file, [{"name": "a text"}], bundle)


def test_it_is_described(bundle, file):
    without = json.loads(edgeasr("describe", bundle, "--json").out)
    assert without["transducer_bytes"] is None
    assert "transducer" not in edgeasr("describe", bundle).out
    add_transducer(bundle, file, SOURCES, bundle)
    size = file.stat().st_size
    assert json.loads(edgeasr("describe", bundle, "--json").out)["transducer_bytes"] == size
    assert f", transducer {size / 1e6:.1f} MB; state" in edgeasr("describe", bundle).out


def test_export_does_not_overwrite_it_unless_forced(exported, bundle, file):
    from edgeasr.converters.export import export

    add_transducer(bundle, file, SOURCES, bundle)
    with pytest.raises(BundleError, match="has a transducer, which would be gone: name another output, or say --force"):
        export(exported.checkpoint, bundle, ["onnx-fp32"], speech=exported.recording)
    assert Bundle.load(bundle).transducer is not None
    export(exported.checkpoint, bundle, ["onnx-fp32"], speech=exported.recording, force=True)
    assert Bundle.load(bundle).transducer is None


def test_the_command_puts_one_in_and_takes_it_out(bundle, file, exported, tmp_path):
    source = ("--source", "a text", "--licence", "CC0-1.0")
    done = edgeasr("transducer", "add", bundle, file, *source)
    assert (done.code, done.out) == (0, f"Wrote {bundle}\n")
    assert Bundle.load(bundle).transducer.sources == tuple(SOURCES)
    done = edgeasr("transducer", "remove", bundle, "--output", tmp_path / "plain.edgeasr")
    assert done.code == 0
    assert Bundle.load(tmp_path / "plain.edgeasr").files == exported.bundle.files
    assert Bundle.load(bundle).transducer is not None
    done = edgeasr("transducer", "remove", tmp_path / "plain.edgeasr")
    assert (done.code, "has no transducer" in done.err) == (2, True)
    done = edgeasr("transducer", "add", bundle, tmp_path / "no.npz", *source)
    assert (done.code, "no.npz" in done.err, "Traceback" in done.err) == (2, True, False)
