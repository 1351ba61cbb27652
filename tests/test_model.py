# ruff: noqa: E402 - torch is looked for before the modules that import it
import json
import shutil

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the model is compared with torch, of the extra `train`")

from edgeasr.bundle import Bundle
from edgeasr.errors import BundleError
from edgeasr.memory import Decision, MemoryKeeper, Slots
from edgeasr.metrics import word_errors
from edgeasr.model import AcousticModel
from edgeasr.phones import PHONES
from edgeasr.tokenizer import CHARACTERS

CHUNKS = 40  # 160 frames: 20 summaries of 8, of which the bank keeps 4


@pytest.fixture(scope="module")
def features(exported):
    """(CHUNKS * chunk_features, num_mels) around the mean that the encoder expects."""
    config = exported.encoder.config
    rng = np.random.default_rng(0)
    shape = (CHUNKS * config.encoder.chunk_features, config.features.num_mels)
    return rng.normal(-8.0, 4.0, shape).astype(np.float32)


@pytest.fixture(scope="module")
def fp32(exported):
    return AcousticModel(exported.bundle, backend="onnx-fp32")


def chunks(model, features):
    return np.split(features, len(features) // model.config.encoder.chunk_features)


def run(model, features, policy=None):
    """Log-probabilities of a whole stream, and the last state."""
    state, parts, keeper = model.init_state(), [], MemoryKeeper(policy)
    for chunk in chunks(model, features):
        emissions, state = model.step(chunk, state, keeper)
        parts.append(emissions.tokens)
    return np.concatenate(parts), state


@torch.no_grad()
def run_torch(encoder, features, forget=False):
    """The same with the encoder's steps; `forget` empties the banks after each."""
    state = encoder.init_state(1)
    empty, parts = state.bank, []
    for chunk in torch.from_numpy(features)[None].split(encoder.config.encoder.chunk_features, dim=1):
        emissions, state = encoder.step(chunk, state)
        state = state._replace(bank=empty) if forget else state
        parts.append(emissions.final[0].numpy())
    return np.concatenate(parts), state


def test_a_stream_longer_than_every_window_is_that_of_torch(exported, fp32, features):
    found, state = run(fp32, features)
    wanted, torch_state = run_torch(exported.encoder, features)
    assert found.shape == (4 * CHUNKS, 29)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, wanted, atol=1e-4)
    assert state["state.seen"].tolist() == [4 * CHUNKS]
    assert sorted(state["state.bank.0.number"][0].tolist()) == [16, 17, 18, 19]
    for name in (*Slots._fields, "key", "value"):
        bank = getattr(torch_state.bank[0], name).numpy()
        np.testing.assert_allclose(state[f"state.bank.0.{name}"], bank, atol=1e-4)


def test_phones_are_those_of_torch(exported, fp32, features):
    state, torch_state, parts, wanted = fp32.init_state(), exported.encoder.init_state(1), [], []
    for chunk in chunks(fp32, features):
        emissions, state = fp32.step(chunk, state)
        with torch.no_grad():
            expected, torch_state = exported.encoder.step(torch.from_numpy(chunk)[None], torch_state)
        parts.append(emissions.phones)
        wanted.append(expected.phones[0].numpy())
    found = np.concatenate(parts)
    assert found.shape == (4 * CHUNKS, len(PHONES))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, np.concatenate(wanted), atol=1e-4)
    np.testing.assert_allclose(np.exp(found).sum(axis=1), 1.0, atol=1e-4)
    assert np.ptp(found, axis=0).max() > 1.0  # they tell something


def test_phones_of_speech_are_those_that_were_said(exported):
    from edgeasr.lm_tuning import emissions

    found = emissions(AcousticModel(exported.bundle), exported.recording).argmax(-1)
    heard = [PHONES[phone] for i, phone in enumerate(found) if phone and (i == 0 or phone != found[i - 1])]
    wanted = "AA B K D AA B K AA B D D AA K K K AA B D B K AA"
    assert word_errors(wanted, " ".join(heard)).errors <= 3


def test_the_same_graphs_run_from_a_zip(exported, fp32, features, tmp_path):
    from edgeasr.bundle import write_bundle

    manifest = json.loads((exported.bundle.path / "manifest.json").read_text())
    files = {name: exported.bundle.path / name for name in manifest.pop("files")}
    bundle = write_bundle(tmp_path / "toy.edgeasr", manifest, files)
    zipped = AcousticModel(bundle, backend="onnx-fp32")
    np.testing.assert_array_equal(run(zipped, features[:160])[0], run(fp32, features[:160])[0])


def test_a_step_does_not_change_what_it_is_given(fp32, features):
    _, state = run(fp32, features[: 16 * 7])  # the next step completes a summary
    before = {name: array.copy() for name, array in state.items()}
    chunk = features[16 * 7 : 16 * 8].copy()
    chunk.flags.writeable = False
    first, next_state = fp32.step(chunk, state)
    assert next_state["state.bank.0.number"].tolist() != before["state.bank.0.number"].tolist()
    assert state.keys() == before.keys() == next_state.keys()
    for name, array in state.items():
        np.testing.assert_array_equal(array, before[name])
    np.testing.assert_array_equal(fp32.step(chunk, state)[0].tokens, first.tokens)
    np.testing.assert_array_equal(fp32.step(chunk, state)[0].phones, first.phones)


def test_states_can_be_neither_set_nor_grown(fp32, features):
    initial = fp32.init_state()
    _, state = run(fp32, features)
    for mapping in (initial, state):
        with pytest.raises(TypeError, match="does not support item assignment"):
            mapping["state.seen"] = np.zeros(1)
    with pytest.raises(ValueError, match="read-only"):
        initial["state.seen"][0] = 5
    shapes = {name: (array.shape, array.dtype) for name, array in state.items()}
    assert shapes == {name: (array.shape, array.dtype) for name, array in initial.items()}


def test_the_first_state_is_that_of_torch(exported, fp32):
    from edgeasr.streaming import state_tensors

    wanted = {name: tensor.numpy() for name, tensor in state_tensors(exported.encoder.init_state(1), "state")}
    found = fp32.init_state()
    assert found.keys() == wanted.keys()
    for name, array in wanted.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == array.dtype


def test_what_is_empty_at_first_takes_memory_once(fp32):
    found = fp32.init_state()
    zeros = [array for array in found.values() if array.dtype == np.float32 and not array.any()]
    largest = max(zeros, key=lambda array: array.nbytes)
    assert len(zeros) > 10
    assert all(np.shares_memory(array, largest) for array in zeros)
    # Not so what is full of something else.
    assert not np.shares_memory(found["state.bank.0.number"], found["state.seen"])


def test_streams_share_a_model_and_nothing_else(fp32, features):
    alone, _ = run(fp32, features[:320])
    other = features[::-1][:320].copy()
    states, parts = [fp32.init_state(), fp32.init_state()], []
    for mine, its in zip(chunks(fp32, features[:320]), chunks(fp32, other), strict=True):
        part, states[0] = fp32.step(mine, states[0])
        _, states[1] = fp32.step(its, states[1])
        parts.append(part.tokens)
    np.testing.assert_array_equal(np.concatenate(parts), alone)


def test_a_policy_that_skips_everything_keeps_the_memory_empty(exported, fp32, features):
    seen = []

    def skip(summary, context):
        seen.append(context)
        return Decision.SKIP

    found, state = run(fp32, features, policy=skip)
    np.testing.assert_allclose(found, run_torch(exported.encoder, features, forget=True)[0], atol=1e-4)
    assert state["state.bank.0.number"].tolist() == [[-1] * 4]
    assert np.abs(found - run(fp32, features)[0]).max() > 1e-3  # what is remembered does matter
    assert [context.number for context in seen] == list(range(20))
    assert {context.level for context in seen} == {2}
    assert (seen[3].start_s, seen[3].end_s) == pytest.approx((3 * 8 * 0.04, 4 * 8 * 0.04))


def test_a_policy_chooses_what_is_stored(exported, fp32, features):
    vectors = []

    def every_third(summary, context):
        vectors.append(summary.copy())
        return Decision.STORE if context.number % 3 == 0 else Decision.SKIP

    _, state = run(fp32, features, policy=every_third)
    assert state["state.bank.0.number"].tolist() == [[12, 15, 18, 9]]
    np.testing.assert_array_equal(state["state.bank.0.vector"][0, 2], vectors[18])


def test_the_default_artefact_is_int8_and_close_to_torch(exported, features):
    model = AcousticModel(exported.bundle)
    backend = "native" if any(map(shutil.which, ("cc", "gcc", "clang"))) else "onnxruntime"
    assert (model.artefact, model.backend, model.threads, model.name) == ("onnx-int8", backend, 1, "toy-model")
    assert model.tokenizer.tokens == CHARACTERS
    found, wanted = run(model, features)[0], run_torch(exported.encoder, features)[0]
    assert 1e-3 < np.abs(np.exp(found) - np.exp(wanted)).max() < 0.5
    assert (found.argmax(-1) == wanted.argmax(-1)).mean() > 0.9


@pytest.mark.parametrize(
    ("backend", "artefact"),
    [(None, "onnx-int8"), ("onnxruntime", "onnx-int8"), ("onnx-int8", "onnx-int8"), ("onnx-fp32", "onnx-fp32")],
)
def test_a_backend_is_a_runtime_or_an_artefact(exported, backend, artefact):
    assert AcousticModel(exported.bundle, backend=backend).artefact == artefact


def test_an_artefact_that_is_not_there_is_refused(exported):
    message = "has onnx-fp32, onnx-int8, which .*onnxruntime.* can run, and nothing for backend 'litert': choose one"
    with pytest.raises(BundleError, match=message):
        AcousticModel(exported.bundle, backend="litert")


def changed(bundle, folder, change):
    """A copy of a bundle with another manifest."""
    shutil.copytree(bundle.path, folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    change(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return Bundle.load(folder)


def resize(side, name, shape, also=None):
    def change(manifest):
        step = manifest["signature"]["step"]
        step[side][name]["shape"] = shape
        if also:
            step["outputs"][also]["shape"] = shape

    return change


def rename(manifest):
    inputs = manifest["signature"]["step"]["inputs"]
    inputs["state.other"] = inputs.pop("state.bank.0.merged")


def retype(manifest):
    manifest["signature"]["step"]["inputs"]["state.bank.0.number"]["dtype"] = "float32"


def without_memory(manifest):
    del manifest["signature"]["memory"]
    for parts in manifest["artefacts"].values():
        del manifest["files"][parts.pop("memory")]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (resize("inputs", "features", [1, 32, 20]), "'features' of step is float32 [1, 32, 20], its config wants"),
        (resize("outputs", "log_probs", [1, 4, 30]), "'log_probs' of step is float32 [1, 4, 30], its config wants"),
        (
            resize("outputs", "phone_log_probs", [1, 4, 40]),
            "'phone_log_probs' of step is float32 [1, 4, 40], its config wants float32 [1, 4, 41]",
        ),
        (
            lambda manifest: manifest["signature"]["step"]["outputs"].pop("phone_log_probs"),
            "'phone_log_probs' of step is nothing, its config wants float32 [1, 4, 41]",
        ),
        (
            resize("inputs", "state.level1.0.key", [1, 2, 9, 12], "next_state.level1.0.key"),
            "'state.level1.0.key' of step is float32 [1, 2, 8, 12], its manifest wants float32 [1, 2, 9, 12]",
        ),
        (rename, "'state.bank.0.merged' of step is float32 [1, 4], its manifest wants nothing"),
        (retype, "'state.bank.0.number' of step is int64 [1, 4], its manifest wants float32 [1, 4]"),
        (
            lambda manifest: manifest["config"]["encoder"].update(chunk_frames=2),
            "'features' of step is float32 [1, 16, 20], its config wants float32 [1, 8, 20]",
        ),
        (
            lambda manifest: manifest["config"]["features"].update(num_mels=30),
            "'features' of step is float32 [1, 16, 20], its config wants float32 [1, 16, 30]",
        ),
    ],
    ids=["features", "log_probs", "phones", "no phones", "state", "name", "type", "chunk", "mels"],
)
def test_a_signature_that_is_not_the_file_s_is_refused(exported, tmp_path, change, message):
    bundle = changed(exported.bundle, tmp_path / "model", change)
    with pytest.raises(BundleError) as caught:
        AcousticModel(bundle)
    assert str(caught.value).startswith(f"bundle {tmp_path / 'model'}: {message}")
    assert str(caught.value).endswith(": export the model again")


def test_a_memory_that_the_config_wants_must_be_there(exported, tmp_path):
    shutil.copytree(exported.bundle.path, tmp_path / "model")
    for file in (tmp_path / "model").glob("memory.*"):
        file.unlink()
    manifest = json.loads((tmp_path / "model" / "manifest.json").read_text())
    without_memory(manifest)
    (tmp_path / "model" / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match="has the parts step, its config wants memory, step: export the model again"):
        AcousticModel(Bundle.load(tmp_path / "model"))
