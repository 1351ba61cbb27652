from itertools import pairwise

import numpy as np
import onnxruntime
import pytest

from edgeasr.errors import ConfigError
from edgeasr.onnx_reader import read_onnx
from edgeasr.profile.operators import Effort, profile_graph
from edgeasr.profile.recurrent import KINDS, RECURRENT_LAYERS, baseline

LEAST = Effort(sessions=1, profiled=2, stretches=2, longest=1, timed=2)


def run(network, feed):
    session = onnxruntime.InferenceSession(network.model, providers=["CPUExecutionProvider"])
    return dict(zip([one.name for one in session.get_outputs()], session.run(None, feed), strict=True))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("weight_bytes", [300_000, 4_400_000])
def test_weights_take_as_many_bytes_as_wanted(kind, weight_bytes):
    network = baseline(kind, weight_bytes, 320, 541, 1)
    assert read_onnx(network.model).weight_bytes == pytest.approx(weight_bytes, rel=0.02)


@pytest.mark.parametrize("kind", KINDS)
def test_a_chunk_gives_what_its_vectors_give_one_by_one(kind):
    """But for quantisation, which takes the range of what it sees at a time."""
    one, four = baseline(kind, 60_000, 16, 8, 1), baseline(kind, 60_000, 16, 8, 4)
    assert one.width == four.width
    x = np.random.default_rng(1).standard_normal((1, 4, 16)).astype(np.float32)
    whole = run(four, four.feed | {"features": x})
    feed, outputs = dict(one.feed), []
    for t in range(4):
        found = run(one, feed | {"features": x[:, t : t + 1]})
        outputs.append(found["log_probs"])
        feed |= {name.removeprefix("next_"): value for name, value in found.items() if name.startswith("next_")}
    np.testing.assert_allclose(np.concatenate(outputs, 1), whole["log_probs"], atol=0.06)
    assert not np.allclose(outputs[0], outputs[1], atol=0.06), "the vectors differ"
    for name in four.feed.keys() - {"features"}:
        np.testing.assert_allclose(feed[name], whole[f"next_{name}"], atol=0.06)


def test_an_lstm_is_an_lstm():
    """Against numpy, with the weights that the graph has, in floating point."""
    network = baseline("lstm", 30_000, 8, 4, 1)
    onnx = pytest.importorskip("onnx", reason="the extra `train` is not installed")
    tensors = [onnx.numpy_helper.to_array(one) for one in onnx.load_from_string(network.model).graph.initializer]
    matrices = [m.astype(np.float32) * s for m, s in pairwise(tensors) if m.dtype == np.int8 and m.ndim == 2]
    width, x = network.width, network.feed["features"][0, 0]
    for layer in range(RECURRENT_LAYERS):
        # A layer's recurrent weights are made before those of its input.
        recurrent, from_input = matrices[2 * layer], matrices[2 * layer + 1]
        hidden, cell = (network.feed[f"state.{name}.{layer}"][0, 0] for name in ("hidden", "cell"))
        enter, forget, new, leave = np.split(x @ from_input + hidden @ recurrent, 4)
        cell = cell / (1 + np.exp(-forget)) + np.tanh(new) / (1 + np.exp(-enter))
        x = np.tanh(cell) / (1 + np.exp(-leave))
        assert x.shape == (width,)
    found = run(network, network.feed)
    np.testing.assert_allclose(found[f"next_state.hidden.{RECURRENT_LAYERS - 1}"][0, 0], x, atol=0.05)


@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_recurrent_weights_are_read_again_for_every_vector_of_a_chunk(kind):
    one, four = (baseline(kind, 200_000, 16, 8, vectors) for vectors in (1, 4))
    alone, chunk = (profile_graph(network.model, network.feed, effort=LEAST) for network in (one, four))
    assert alone.read_weight_bytes == pytest.approx(alone.weight_bytes, rel=0.001)
    assert chunk.weight_bytes == pytest.approx(alone.weight_bytes, rel=0.001)
    assert chunk.read_weight_bytes > 2 * chunk.weight_bytes
    assert chunk.macs(int8=True) == 4 * alone.macs(int8=True)


def test_convolutions_read_their_weights_once_a_chunk():
    network = baseline("tcn", 200_000, 16, 8, 4)
    found = profile_graph(network.model, network.feed, effort=LEAST)
    assert found.read_weight_bytes == pytest.approx(found.weight_bytes, rel=0.01)
    assert found.state_read_bytes == found.state_written_bytes > found.weight_bytes


def test_too_few_bytes_are_refused():
    with pytest.raises(ConfigError, match="got 10 bytes for a gru"):
        baseline("gru", 10, 320, 541, 1)
