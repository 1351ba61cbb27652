"""Operators of the native backend in a profile, beside those of ONNX Runtime."""

import numpy as np
import pytest

from edgeasr.bundle import Bundle, default_bundle
from edgeasr.errors import NativeCodeError
from edgeasr.model import AcousticModel
from edgeasr.profile.model_profile import profile_model
from edgeasr.profile.native_operators import _calm
from edgeasr.recording import DEMO_RECORDING


@pytest.fixture(scope="module")
def profiles():
    """Of the shipped model, by backend."""
    bundle = Bundle.load(default_bundle())
    try:
        models = [AcousticModel(bundle, backend=backend) for backend in ("native", "onnxruntime")]
    except NativeCodeError as error:
        pytest.skip(str(error))
    return {model.backend: profile_model(model, bundle, DEMO_RECORDING, quick=True) for model in models}


def test_both_backends_multiply_the_same(profiles):
    native, other = (profiles[backend].step for backend in ("native", "onnxruntime"))
    for int8 in (True, False):
        assert native.macs(int8=int8) == other.macs(int8=int8) > 10**6
    assert profiles["native"].memory.macs(int8=True) == profiles["onnxruntime"].memory.macs(int8=True)


def test_both_backends_hold_the_same(profiles):
    native, other = (profiles[backend].step for backend in ("native", "onnxruntime"))
    assert native.weight_bytes == other.weight_bytes
    assert native.state_read_bytes == other.state_read_bytes
    assert native.state_written_bytes == other.state_written_bytes
    # Packed, a matrix has whole panels and the sums of its columns: a few percent more, and nothing is read twice.
    assert native.weight_bytes < native.read_weight_bytes < 1.05 * native.weight_bytes


def test_far_less_is_handed_between_fewer_operators(profiles):
    native, other = (profiles[backend].step for backend in ("native", "onnxruntime"))
    assert len(native.operators) < 0.7 * len(other.operators)
    assert native.activation_bytes < 0.5 * other.activation_bytes


def test_operators_have_their_names_and_what_they_read(profiles):
    step = profiles["native"].step
    by_type = {operator.op_type for operator in step.operators}
    assert {"DynamicQuantizeMatMul", "Attention", "Conv", "LayerNormalization", "RotaryEmbedding", "Copy"} <= by_type
    products = [operator for operator in step.operators if operator.op_type == "DynamicQuantizeMatMul"]
    assert all(operator.work.int8 and operator.work.weight_bytes > 0 for operator in products)
    attentions = [operator for operator in step.operators if operator.op_type == "Attention"]
    # Keys and values of 100 frames or slots, in fp32 and 192 numbers wide, and what came with them.
    assert all(2 * 100 * 192 * 4 <= operator.work.state_bytes < 2 * 110 * 192 * 4 for operator in attentions)
    assert all(operator.name for operator in step.operators)


def test_times_are_of_operators_and_add_up(profiles):
    step = profiles["native"].step
    assert step.profiled_us is None
    assert all(operator.time_us > 0 for operator in step.operators)
    longest = max(step.operators, key=lambda operator: operator.time_us)
    assert longest.work.macs > 100_000, "what multiplies most takes longest"


def test_runs_that_were_disturbed_do_not_count():
    times = np.full((40, 3), 100, np.int64)
    times[::2, 1] = 5_000
    times[3] = (90, 101, 103)
    np.testing.assert_allclose(_calm(times), (97.5, 100.25, 100.75))
