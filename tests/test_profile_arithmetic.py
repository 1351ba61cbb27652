import numpy as np
import onnxruntime
import pytest

from edgeasr.errors import NativeCodeError
from edgeasr.profile import arithmetic
from edgeasr.profile.arithmetic import Effort, fp32_product, int8_products, measure_arithmetic, usual_operators
from edgeasr.profile.onnx_writer import Node, Value, serialised

SHAPE = (3, 8, 8)


def run(model, **feed):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    (out,) = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"]).run(None, feed)
    return out


def test_the_fp32_product_is_one():
    x = np.eye(3, 8, dtype=np.float32)
    weight = np.random.default_rng(0).standard_normal((8, 8), np.float32)
    np.testing.assert_allclose(run(fp32_product(SHAPE), x=x), weight[:3], rtol=1e-6)


def test_the_int8_product_is_one_of_seven_bits():
    x = np.random.default_rng(2).standard_normal((3, 8), np.float32)
    weight = np.random.default_rng(0).integers(-64, 64, (8, 8), np.int8)
    np.testing.assert_allclose(run(int8_products(SHAPE), x=x), x @ (0.01 * weight), atol=0.05)
    assert run(int8_products(SHAPE, 3), x=x).shape == (3, 8)


@pytest.mark.parametrize("length", [8, 24])
def test_usual_operators_are_as_many_as_asked(length):
    model = usual_operators(length)
    x = np.random.default_rng(1).standard_normal((4, 192), np.float32)
    out = run(model, x=x, y=np.full((4, 192), 2.0, np.float32))
    # The last of each eight are shares of four heads, which add up to one in each.
    np.testing.assert_allclose(out.reshape(16, 48).sum(axis=1), 1.0, rtol=1e-5)
    products = length // 4
    for kind in (b"Concat", b"Slice", b"LayerNormalization", b"Transpose", b"Softmax"):
        assert model.count(b"\x22" + bytes([len(kind)]) + kind) == length // 8
    assert model.count(b"\x22\x07Reshape") == length // 4
    assert model.count(b"\x22\x0dMatMulInteger") == products
    assert model.count(b"\x22\x03Mul") == length // 8 + 2 * products


def test_rates_are_operations_over_the_best_time(monkeypatch):
    """A clock by which a call takes 1 us, a product 2 us more, an operator 0.5 us and a tensor handed over 0.25 us."""
    tiny, small = arithmetic._TINY_PRODUCT, arithmetic._SMALL_PRODUCT
    seconds = {}

    def note(kind, cost_us):
        def build(*arguments):
            model = f"{kind}{arguments}".encode()
            seconds[model] = (1.0 + cost_us(*arguments)) * 1e-6
            return model

        return build

    def sums_us(shape, length):
        return length * (0.5 + (2.0 if shape == arithmetic._LOOK_BACK else 0.0))

    def products_us(shape, length=1):
        return length * {tiny: 2.0, small: 4.0}.get(shape, 99.0)

    monkeypatch.setattr(arithmetic, "fp32_product", note("fp32", lambda shape: 199.0))
    monkeypatch.setattr(arithmetic, "int8_products", note("int8", products_us))
    monkeypatch.setattr(arithmetic, "usual_operators", note("usual", lambda length: (0.5 + 99.0 / 4) * length))
    monkeypatch.setattr(arithmetic, "_sums", note("sums", sums_us))
    monkeypatch.setattr(arithmetic, "_side_by_side", note("wide", lambda count: count * (0.5 + 2 * 0.25)))
    monkeypatch.setattr(arithmetic, "_runtimes", lambda: ("onnxruntime", "native"))
    monkeypatch.setattr(arithmetic, "_session", lambda runtime, model, threads: (runtime, model, threads))

    def rounds(session, feed, effort):
        """Natively all takes half of the time."""
        runtime, model, threads = session
        return [3.0, seconds[model] / threads / (2 if runtime == "native" else 1)]

    monkeypatch.setattr(arithmetic, "_rounds", rounds)
    found = measure_arithmetic((1, 2), Effort(shapes=((64, 100, 50),)))
    operations = 2 * 64 * 100 * 50
    assert found.fp32_gflops == pytest.approx({1: operations / 200e-6 / 1e9, 2: 2 * operations / 200e-6 / 1e9})
    # On one thread the native backend's products are the faster ones; it has no more threads.
    assert found.int8_gops == pytest.approx({1: 2 * operations / 100e-6 / 1e9, 2: 2 * operations / 100e-6 / 1e9})
    for runtime, faster in (("onnxruntime", 1), ("native", 2)):
        costs = found.costs[runtime]
        taken_us = costs.operator_us, costs.product_us, costs.tensor_us
        assert taken_us == pytest.approx((0.5 / faster, 2.0 / faster, 0.25 / faster))
        assert costs.few_rows_gops == pytest.approx(faster * 2 * 4 * (256**2 - 64**2) / 2e-6 / 1e9)
        assert costs.operator_gb_per_s == pytest.approx(faster * 3 * 4 * (100 - 4) * 192 / 2e-6 / 1e9)


def test_it_measures_with_the_runtime():
    shares = []
    effort = Effort(shapes=((16, 64, 64), (32, 64, 64)), rounds=2, sample_s=1e-4, chain=128)
    found = measure_arithmetic((1, 2), effort, lambda what, share: shares.append(share))
    assert shares == [0.0, 0.25, 0.5, 0.75]
    assert set(found.fp32_gflops) == set(found.int8_gops) == {1, 2}
    assert all(0 < rate < 1e6 for rate in (*found.fp32_gflops.values(), *found.int8_gops.values()))
    for costs in found.costs.values():
        assert 0 <= costs.operator_us < 1e4


def test_without_a_compiler_only_one_runtime_has_costs(monkeypatch):
    def none():
        raise NativeCodeError("found no C compiler")

    monkeypatch.setattr(arithmetic, "native_library", none)
    assert arithmetic._runtimes() == ("onnxruntime",)


# Graphs that are written without the package `onnx`.


def test_written_graphs_are_what_onnx_reads():
    onnx = pytest.importorskip("onnx", reason="the extra `train` is not installed")
    weight = np.arange(6, dtype=np.float32).reshape(3, 2)
    model = onnx.load_from_string(
        serialised(
            [
                Node("LeakyRelu", ["x"], ["bent"], {"alpha": 0.25}),
                Node("MatMul", ["bent", "weight"], ["product"]),
                Node("Transpose", ["product"], ["turned"], {"perm": (1, 0)}),
                Node("Concat", ["turned", "turned"], ["out"], {"axis": -1}),
            ],
            [Value("x", (4, 3))],
            [Value("out", (2, 8))],
            {"weight": weight},
        )
    )
    onnx.checker.check_model(model, full_check=True)
    attributes = [onnx.helper.get_attribute_value(node.attribute[0]) for node in model.graph.node if node.attribute]
    assert attributes == [0.25, [1, 0], -1]
    np.testing.assert_array_equal(onnx.numpy_helper.to_array(model.graph.initializer[0]), weight)
    x = np.full((4, 3), -4.0, np.float32)
    np.testing.assert_allclose(run(model.SerializeToString(), x=x), np.tile((0.25 * x @ weight).T, 2))


def test_large_tensors_survive():
    weight = np.random.default_rng(0).standard_normal((300, 200), np.float32)
    out = run(
        serialised(
            [Node("MatMul", ["x", "w"], ["out"])], [Value("x", (1, 300))], [Value("out", (1, 200))], {"w": weight}
        ),
        x=np.ones((1, 300), np.float32),
    )
    np.testing.assert_allclose(out[0], weight.sum(axis=0), rtol=1e-3, atol=1e-3)
