import pytest

from edgeasr.config import ModelConfig
from edgeasr.profile.operators import GraphProfile, Operator
from edgeasr.profile.traffic import chunk_traffic, recommended
from edgeasr.profile.work import Tensor

CONFIG = ModelConfig()  # chunks of 160 ms, 100 frames of look-back, a bank of 100


def operator(op_type, *shapes, kind="activation"):
    tensors = [Tensor("", "float", shape, kind) for shape in shapes]
    return Operator("", op_type, tuple(tensors[:-1]), tuple(tensors[-1:]), 1.0)


def traffic(*operators, chunks_ms=(40, 160, 320)):
    profile = GraphProfile(operators, 2000.0, 0.0, 4_000_000, 1_500_000, 500_000, threads=1)
    return {one.chunk_ms: one for one in chunk_traffic(profile, CONFIG, chunks_ms)}


def test_weights_and_state_cost_the_same_a_chunk_however_long():
    found = traffic()
    assert found[160].dram_bytes_per_s == pytest.approx(6e6 / 0.16)
    assert found[40].dram_bytes_per_s == pytest.approx(4 * found[160].dram_bytes_per_s)
    assert found[320].moved_bytes_per_s == pytest.approx(found[160].moved_bytes_per_s / 2)


def activation_bytes(found, chunk_ms):
    return found[chunk_ms].moved_bytes_per_s * chunk_ms / 1000 - 6e6


def test_frames_cost_the_same_each():
    found = traffic(operator("Add", (1, 4, 192), (1, 4, 192), (1, 4, 192)))
    assert activation_bytes(found, 160) == pytest.approx(3 * 4 * 4 * 192)
    assert activation_bytes(found, 320) == pytest.approx(2 * activation_bytes(found, 160))
    assert activation_bytes(found, 40) == pytest.approx(activation_bytes(found, 160) / 4)


def test_what_attention_sees_grows_by_the_chunk_and_scores_by_both():
    seen = traffic(operator("Transpose", (1, 4, 104, 48), (1, 4, 48, 104)[::-1]))
    keys = traffic(operator("Transpose", (1, 4, 104, 48), (1, 104, 4, 48)))
    assert activation_bytes(keys, 320) == pytest.approx(activation_bytes(keys, 160) * 108 / 104)
    scores = traffic(operator("Softmax", (1, 4, 4, 104), (1, 4, 4, 104)))
    assert activation_bytes(scores, 320) == pytest.approx(activation_bytes(scores, 160) * 2 * 108 / 104)
    assert activation_bytes(seen, 160) > 0


def test_caches_and_banks_stay_as_they_are():
    found = traffic(
        operator("Transpose", (1, 4, 100, 48), (1, 100, 4, 48)), operator("Neg", (1, 4, 101, 48), (1, 4, 101, 48))
    )
    assert activation_bytes(found, 320) == pytest.approx(activation_bytes(found, 160))


def test_views_move_nothing():
    assert activation_bytes(traffic(operator("Reshape", (4, 192), (1, 4, 192))), 160) == pytest.approx(0, abs=1e-3)


def test_latency_is_a_chunk_the_rest_of_a_window_and_a_step():
    found = traffic()
    assert found[160].step_ms == pytest.approx(2.0)
    assert found[160].latency_ms == pytest.approx(160 + 15 + 2)


def test_the_cheapest_within_the_budget():
    found = list(traffic().values())
    assert recommended(found, 200).chunk_ms == 160
    assert recommended(found, 176).chunk_ms == 40
    assert recommended(found, 1000).chunk_ms == 320
    assert recommended(found, 30) is None
