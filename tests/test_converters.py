# ruff: noqa: E402 - torch is looked for before the modules that import it
import dataclasses
import json
import logging
import math

import numpy as np
import pytest
import soundfile

torch = pytest.importorskip("torch", reason="export needs the extra `train`")

import onnx
from onnx import numpy_helper

from edgeasr.backends import load_graph
from edgeasr.backends.preparation import PREPARED
from edgeasr.bundle import Bundle, default_bundle
from edgeasr.converters import raw_graph
from edgeasr.converters.artefacts import KINDS
from edgeasr.converters.check import Parity, parity, speech_features, torch_reference
from edgeasr.converters.export import ARTEFACTS, export
from edgeasr.converters.quantize import quantize_int8
from edgeasr.encoder import Encoder
from edgeasr.errors import AudioFormatError, BundleError, ConfigError
from edgeasr.features import log_mel
from edgeasr.model import AcousticModel, Emissions
from edgeasr.phones import PHONES
from edgeasr.train.checkpoint import Checkpoint

DTYPES = {onnx.TensorProto.FLOAT: "float32", onnx.TensorProto.INT64: "int64"}


@pytest.fixture
def ready(exported, monkeypatch):
    """The graphs are exported already."""
    monkeypatch.setattr(raw_graph, "to_onnx", lambda graph: exported.onnx[graph.name])
    return exported


def models(bundle, kind):
    return {part: onnx.load(path) for part, path in bundle.artefact(kind).items()}


def initializers(model):
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


# What is exported


def test_every_artefact_is_that_of_torch_chunk_by_chunk(exported):
    fp32, int8 = exported.parities["onnx-fp32"], exported.parities["onnx-int8"]
    # 3.12 s of speech, in chunks of 0.16 s; three times the 8 frames of a summary are less.
    assert fp32.chunks == int8.chunks == 20
    assert fp32.max_difference < 1e-4
    assert fp32.agreement == 1.0
    assert fp32.snr_db > 80
    assert int8.max_difference > 1e-4
    assert int8.agreement >= 0.97
    assert 20 < int8.snr_db < fp32.snr_db
    for result in exported.parities.values():
        result.enforce()


@pytest.mark.parametrize("kind", ARTEFACTS)
def test_the_signature_is_that_of_the_graphs(exported, kind):
    for part, path in exported.bundle.artefact(kind).items():
        signature, graph = exported.bundle.signature[part], load_graph("onnxruntime", path, threads=1)
        assert graph.inputs == dict(signature.inputs)
        assert graph.outputs == dict(signature.outputs)


@pytest.mark.parametrize("kind", ARTEFACTS)
def test_files_that_have_caches_whole_have_the_types_and_sizes_of_the_signature(exported, kind):
    for part, model in models(exported.bundle, kind).items():
        signature = exported.bundle.signature[part]
        specs = {**signature.inputs, **signature.outputs}
        for value in (*model.graph.input, *model.graph.output):
            tensor = value.type.tensor_type
            shape = [dim.dim_value for dim in tensor.shape.dim]
            if ".level1." not in value.name and not value.name.startswith(PREPARED):
                assert (shape, DTYPES[tensor.elem_type]) == (list(specs[value.name].shape), specs[value.name].dtype)


def test_the_names_are_those_of_the_state(exported):
    step, memory = exported.bundle.signature["step"], exported.bundle.signature["memory"]
    assert {"features", "state.level1.0.key", "state.level1.1.conv", "state.bank.0.number"} <= step.inputs.keys()
    assert {
        "log_probs",
        "phone_log_probs",
        "summary.vector",
        "next_state.level1.0.key",
        "next_state.seen",
    } <= step.outputs.keys()
    assert "state.bank.0.vector" not in step.inputs
    assert {"summary.vector", "summary.number", "state.bank.0.key"} <= memory.inputs.keys()
    assert {"entry.0.number", "entry.0.vector", "entry.0.value"} <= memory.outputs.keys()
    assert step.outputs["phone_log_probs"].shape == (1, 4, len(PHONES))
    assert step.inputs["state.pool.0.peak"].initial == -1e9
    assert step.inputs["state.bank.0.number"].initial == -1


@pytest.mark.parametrize("kind", ARTEFACTS)
def test_graphs_are_of_opset_18_and_tell_nothing_of_their_maker_s_files(exported, kind):
    for model in models(exported.bundle, kind).values():
        assert {opset.version for opset in model.opset_import if opset.domain == ""} == {18}
        assert not any(node.doc_string or node.metadata_props for node in model.graph.node)
        assert b".py" not in model.SerializeToString()
        assert b"ExportedProgram" not in model.SerializeToString()


def test_int8_weights_are_of_seven_bits_for_each_channel(exported):
    quantised = [w for m in models(exported.bundle, "onnx-int8").values() for w in initializers(m).values()]
    weights = [w for w in quantised if w.dtype == np.int8 and w.ndim == 2]
    assert len(weights) > 10
    for weight in weights:
        assert np.abs(weight.astype(int)).max(axis=0).min() >= 63  # each channel has a scale of its own
        assert np.abs(weight.astype(int)).max() <= 64
    for part, model in models(exported.bundle, "onnx-int8").items():
        assert any(node.op_type == "MatMulInteger" for node in model.graph.node)
        kept = initializers(model)
        assert not [n.name for n in model.graph.node if n.op_type == "MatMul" and n.input[1] in kept], part


def test_int8_products_are_not_told_that_weights_are_symmetric(exported):
    for model in models(exported.bundle, "onnx-int8").values():
        products = [node for node in model.graph.node if node.op_type == "MatMulInteger"]
        assert {len(node.input) for node in products} == {3}
        read = {name for node in model.graph.node for name in node.input}
        assert initializers(model).keys() <= read


@pytest.mark.parametrize(("zero_points", "inputs"), [([0, 0], 3), ([0, 1], 4)])
def test_only_zero_points_that_change_nothing_are_left_out(zero_points, inputs):
    from edgeasr.converters.quantize import _without_zero_points

    constants = {"weights": [[1, 2]], "zero_points": zero_points}
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("MatMulInteger", ["x", "weights", "x_zero_point", "zero_points"], ["y"])],
        "product",
        [
            onnx.helper.make_tensor_value_info("x", onnx.TensorProto.UINT8, [1, 1]),
            onnx.helper.make_tensor_value_info("x_zero_point", onnx.TensorProto.UINT8, []),
        ],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.INT32, [1, 2])],
        [onnx.numpy_helper.from_array(np.array(values, np.int8), name) for name, values in constants.items()],
    )
    found = _without_zero_points(onnx.helper.make_model(graph)).graph
    assert len(found.node[0].input) == inputs
    assert ("zero_points" in {tensor.name for tensor in found.initializer}) is (inputs == 4)


def test_int8_is_smaller(exported):
    sizes = {kind: exported.made.size_bytes(kind) for kind in ARTEFACTS}
    assert sizes["onnx-int8"] < sizes["onnx-fp32"]
    for kind, size in sizes.items():
        assert size == sum(path.stat().st_size for path in exported.bundle.artefact(kind).values())
    weights = [sum(w.nbytes for w in initializers(m).values()) for m in models(exported.bundle, "onnx-fp32").values()]
    int8 = [sum(w.nbytes for w in initializers(m).values()) for m in models(exported.bundle, "onnx-int8").values()]
    assert sum(int8) < 0.6 * sum(weights)


def test_the_manifest_tells_what_the_checkpoint_did(exported):
    bundle = Bundle.load(exported.bundle.path)
    assert bundle.name == "toy-model"
    assert (bundle.config, bundle.tokens) == (exported.checkpoint.config, exported.checkpoint.tokens)
    assert bundle.default_artefact == "onnx-int8"
    assert bundle.wer == exported.checkpoint.training["wer"]
    assert bundle.training["data"] == [{"name": "tones", "licence": "CC0-1.0"}]
    assert (bundle.training["step"], bundle.training["utterances"]) == (150, 20)
    assert not {"wer", "sources"} & bundle.training.keys()
    assert bundle.licence == "CC-BY-4.0"
    assert sorted(bundle.files) == ["memory.fp32.onnx", "memory.int8.onnx", "step.fp32.onnx", "step.int8.onnx"]


@pytest.mark.parametrize(("strides", "capacities"), [((4, 3), (3, 2)), ((), ())], ids=["three levels", "one level"])
def test_more_and_fewer_levels_are_exported_too(exported, toy_model, tmp_path, caplog, strides, capacities):
    torch.manual_seed(1)
    encoder = Encoder(toy_model(summary_strides=strides, memory_capacities=capacities))
    encoder.feature_mean.fill_(-8.0)
    encoder.feature_std.fill_(4.0)
    checkpoint = dataclasses.replace(exported.checkpoint, config=encoder.config, weights=encoder.state_dict())
    made = export(checkpoint, tmp_path / "model", ["onnx-fp32"], exported.recording)
    assert made.bundle.signature.keys() == ({"step", "memory"} if strides else {"step"})
    (result,) = made.parities
    assert result.chunks >= 3 * math.prod(strides) / 4  # every level is read
    assert (result.agreement, result.max_difference < 1e-4) == (1.0, True)
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
    assert "phone_log_probs" not in made.bundle.signature["step"].outputs
    model = AcousticModel(made.bundle)
    emissions, _ = model.step(np.zeros((16, 20), np.float32), model.init_state())
    assert (emissions.tokens.shape, emissions.phones) == ((4, 29), None)


# What is refused


def perturbed(model: bytes, suffix: str) -> bytes:
    """The model with one weight changed."""
    changed = onnx.load_from_string(model)
    tensor = next(t for t in changed.graph.initializer if t.name.endswith(suffix))
    array = numpy_helper.to_array(tensor).copy()
    array.flat[0] += 3.0
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    return changed.SerializeToString()


@pytest.mark.parametrize(
    ("part", "suffix"),
    [("step", "upper.0.ff.0.bias"), ("step", "phone_emission.bias"), ("memory", "levels.0.norm.bias")],
)
def test_a_broken_artefact_is_refused_and_nothing_is_written(ready, monkeypatch, tmp_path, part, suffix):

    def broken(graph):
        model = ready.onnx[graph.name]
        return perturbed(model, suffix) if graph.name == part else model

    monkeypatch.setattr(raw_graph, "to_onnx", broken)
    message = r"onnx-fp32 does not match torch: in chunks of 160 ms got a difference of .* \(chunk \d+\), an"
    with pytest.raises(BundleError, match=message):
        export(ready.checkpoint, tmp_path / "model", ["onnx-fp32"], ready.recording)
    assert list(tmp_path.iterdir()) == []


def test_a_refused_export_leaves_the_bundle_that_was_there(ready, monkeypatch, tmp_path):
    made = export(ready.checkpoint, tmp_path / "model", ["onnx-fp32"], ready.recording)
    monkeypatch.setitem(ready.onnx, "step", perturbed(ready.onnx["step"], "upper.0.ff.0.bias"))
    with pytest.raises(BundleError, match="does not match torch"):
        export(ready.checkpoint, tmp_path / "model", ["onnx-fp32"], ready.recording)
    assert Bundle.load(tmp_path / "model") == made.bundle
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_good_export_replaces_a_bundle(ready, tmp_path):
    export(ready.checkpoint, tmp_path / "model", ["onnx-fp32"], ready.recording)
    made = export(ready.checkpoint, tmp_path / "model", ["onnx-int8", "onnx-int8"], ready.recording)
    assert [result.artefact for result in made.parities] == ["onnx-int8"]
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == [
        "manifest.json",
        "memory.int8.onnx",
        "step.int8.onnx",
    ]


def test_an_export_says_what_it_does(ready, tmp_path):
    said = []
    made = export(ready.checkpoint, tmp_path / "toy.edgeasr", ["onnx-fp32", "onnx-int8"], ready.recording, said.append)
    assert said == [
        "hearing speech.wav with torch",
        "exporting the step graph",
        "exporting the memory graph",
        "comparing onnx-fp32 with torch on speech.wav",
        "comparing onnx-int8 with torch on speech.wav",
    ]
    assert (made.bundle.name, made.bundle.default_artefact) == ("toy", "onnx-fp32")
    assert Bundle.load(tmp_path / "toy.edgeasr") == made.bundle


@pytest.mark.parametrize("artefacts", [[], ["onnx-int4"], ["onnx-int8", "tflite"]])
def test_an_unknown_artefact_is_refused(exported, tmp_path, artefacts):
    with pytest.raises(ConfigError, match="wanted some of onnx-int8, onnx-fp32"):
        export(exported.checkpoint, tmp_path / "model", artefacts, exported.recording)


def test_a_bad_place_a_bad_recording_and_bad_weights_are_refused_before_the_work(exported, tmp_path, monkeypatch):
    monkeypatch.setattr(raw_graph, "to_onnx", lambda graph: pytest.fail("exported"))
    taken = tmp_path / "notes.txt"
    taken.write_text("mine")
    with pytest.raises(BundleError, match=r"got .*notes\.txt, a file, wanted a folder or a name in \.edgeasr"):
        export(exported.checkpoint, taken, speech=exported.recording)
    with pytest.raises(BundleError, match="the bundle's name is 'my model', wanted letters"):
        export(exported.checkpoint, tmp_path / "my model", speech=exported.recording)
    with pytest.raises(AudioFormatError, match=r"notes\.txt"):
        export(exported.checkpoint, tmp_path / "model", speech=taken)
    with pytest.raises(AudioFormatError, match=r"missing\.wav"):
        export(exported.checkpoint, tmp_path / "model", speech=tmp_path / "missing.wav")
    wrong = dataclasses.replace(exported.checkpoint, weights={})
    with pytest.raises(BundleError, match="the weights are not those of the config"):
        export(wrong, tmp_path / "model", speech=exported.recording)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


# How it is compared


class Shifted:
    """Stands for an artefact: the encoder itself, but for what `change` does to one of a chunk's emissions."""

    artefact = "onnx-fp32"

    def __init__(self, encoder, change=lambda _, log_probs: log_probs, name="tokens"):
        self.encoder, self.change, self.name, self.chunk = encoder, change, name, -1
        self.config = encoder.config

    def init_state(self):
        return self.encoder.init_state(1)

    @torch.no_grad()
    def step(self, features, state):
        self.chunk += 1
        emissions, state = self.encoder.step(torch.from_numpy(features)[None], state)
        found = Emissions(emissions.final[0].numpy().copy(), emissions.phones[0].numpy().copy())
        return found._replace(**{self.name: self.change(self.chunk, getattr(found, self.name))}), state


@pytest.fixture(scope="module")
def features(exported):
    rng = np.random.default_rng(0)
    return rng.normal(-8, 4, (10 * 16, 20)).astype(np.float32)


def test_an_artefact_that_is_the_same_has_no_difference(exported, features):
    result = parity(torch_reference(exported.encoder, features), Shifted(exported.encoder))
    assert (result.chunks, result.max_difference, result.agreement, result.snr_db > 150) == (10, 0.0, 1.0, True)


@pytest.mark.parametrize("name", ["tokens", "phones"])
def test_what_differs_is_measured(exported, features, name):
    def change(chunk, log_probs):
        if chunk == 3:  # the two most likely tokens of one frame change places
            second, best = log_probs[2].argsort()[-2:]
            log_probs[2, [best, second]] = log_probs[2, [second, best]]
        return log_probs

    same = Shifted(exported.encoder)
    state, whole = same.init_state(), []
    for chunk in np.split(features, 10):
        emissions, state = same.step(chunk, state)
        whole.append(emissions)
    second, best = np.sort(getattr(whole[3], name)[2])[-2:]
    reference = np.concatenate([array.ravel() for emissions in whole for array in emissions])
    result = parity(torch_reference(exported.encoder, features), Shifted(exported.encoder, change, name))
    assert (result.worst_chunk, result.agreement) == (3, 39 / 40)
    assert result.max_difference == pytest.approx(np.exp(best) - np.exp(second), rel=1e-4)
    noise = 2 * (best - second) ** 2 / reference.size
    assert result.snr_db == pytest.approx(10 * np.log10(np.square(reference).mean() / noise), abs=0.01)
    with pytest.raises(BundleError, match=r"onnx-fp32 does not match torch: .* \(chunk 3\), .* and 97\.50% agreement"):
        result.enforce()


@pytest.mark.parametrize("name", ["tokens", "phones"])
def test_an_artefact_that_gives_no_numbers_is_refused(exported, features, name):
    def change(chunk, log_probs):
        return log_probs * np.nan if chunk == 5 else log_probs

    result = parity(torch_reference(exported.encoder, features), Shifted(exported.encoder, change, name))
    assert math.isnan(result.max_difference)
    with pytest.raises(BundleError, match="does not match torch"):
        result.enforce()


@pytest.mark.parametrize("kind", ARTEFACTS)
def test_tolerances_hold_at_their_edges(kind):
    edge = KINDS[kind].tolerance
    good = Parity(kind, 10, edge.max_difference, edge.min_snr_db, edge.min_agreement, 0, 160)
    good.enforce()
    nan = math.nan
    for change in (
        {"max_difference": edge.max_difference * 1.01},
        {"snr_db": edge.min_snr_db - 0.1},
        {"agreement": edge.min_agreement - 0.001},
    ):
        with pytest.raises(BundleError, match=f"{kind} does not match torch"):
            dataclasses.replace(good, **change).enforce()
        with pytest.raises(BundleError, match=f"{kind} does not match torch"):
            dataclasses.replace(good, **dict.fromkeys(change, nan)).enforce()


def test_a_short_recording_is_repeated_until_the_memory_is_read(exported, toy_model, tmp_path):
    rng = np.random.default_rng(0)
    waveform = (0.1 * rng.standard_normal(4000)).astype(np.float32)
    soundfile.write(tmp_path / "short.wav", waveform, 16000, subtype="FLOAT")
    features = speech_features([tmp_path / "short.wav"], exported.encoder)
    assert features.shape == (3 * 8 * 4, 20)
    assert len(features) % exported.encoder.config.encoder.chunk_features == 0
    wanted = log_mel(np.tile(waveform, 4)[: 96 * 160], exported.encoder.config.features)
    np.testing.assert_allclose(features[: len(wanted)], wanted, atol=1e-3)
    deep = Encoder(toy_model(summary_strides=(8, 100), memory_capacities=(4, 4)))
    assert len(speech_features([tmp_path / "short.wav"], deep)) == 60 * 100  # no more than a minute


def test_a_long_recording_is_used_as_it_is(exported, tmp_path):
    rng = np.random.default_rng(0)
    waveform = (0.1 * rng.standard_normal(20000)).astype(np.float32)
    soundfile.write(tmp_path / "long.wav", waveform, 8000, subtype="FLOAT")
    features = speech_features([tmp_path / "long.wav"], exported.encoder)
    assert features.shape == (16 * 16, 20)  # 2.5 s are 250 frames, 15.6 chunks
    assert features[-1].max() < math.log(1e-7) + 0.1  # silence behind the end


# What is heard of it


def test_quantising_says_nothing_and_leaves_logging_as_it_was(exported, capfd, caplog):
    root = logging.getLogger()
    before = (list(root.handlers), list(root.filters), root.level, logging.getLogger("torch.onnx").level)
    quantised = quantize_int8(exported.onnx["memory"])
    assert len(quantised) < len(exported.onnx["memory"])
    assert (list(root.handlers), list(root.filters), root.level, logging.getLogger("torch.onnx").level) == before
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
    assert capfd.readouterr() == ("", "")


def test_other_warnings_are_heard(exported, caplog, monkeypatch):
    from edgeasr.converters import quantize

    expected = quantize_int8(exported.onnx["memory"])
    without_warnings = quantize.quantize_dynamic

    def quantise(source, target, **options):
        logging.getLogger().warning("Please consider to run pre-processing before quantization")
        logging.getLogger().warning("the disk is full")
        without_warnings(source, target, **options)

    monkeypatch.setattr(quantize, "quantize_dynamic", quantise)
    assert quantize_int8(exported.onnx["memory"]) == expected
    assert [record.message for record in caplog.records] == ["the disk is full"]


def test_a_checkpoint_file_becomes_a_bundle(ready, tmp_path):
    ready.checkpoint.save(tmp_path / "best.safetensors")
    made = export(Checkpoint.load(tmp_path / "best.safetensors"), tmp_path / "model", speech=ready.recording)
    assert made.bundle.files == ready.bundle.files
    assert json.loads((tmp_path / "model" / "manifest.json").read_text())["format_version"] == 1


def test_weights_in_int8_leave_room_for_two_products_in_16_bits():
    # Without VNNI, x86 adds pairs of products with unsigned activations in 16 bits: 2 x 255 x 64 fits, x 127 does not.
    for path in Bundle.load(default_bundle()).artefact("onnx-int8").values():
        weights = [
            numpy_helper.to_array(tensor)
            for tensor in onnx.load(path).graph.initializer
            if tensor.data_type == onnx.TensorProto.INT8 and len(tensor.dims) > 1
        ]
        assert weights
        assert max(np.abs(tensor.astype(int)).max() for tensor in weights) <= 64
