import pytest

from edgeasr.profile.work import Tensor, operator_work


def tensor(*shape, dtype="float", kind="activation"):
    return Tensor("", dtype, shape, kind)


@pytest.mark.parametrize(
    ("op_type", "left", "right", "product", "macs"),
    [
        ("MatMul", (4, 192), (192, 500), (4, 500), 4 * 192 * 500),
        ("DynamicQuantizeMatMul", (1, 4, 192), (192, 576), (1, 4, 576), 4 * 192 * 576),
        ("FusedMatMul", (1, 4, 4, 48), (1, 4, 104, 48), (1, 4, 4, 104), 4 * 4 * 104 * 48),  # the right one transposed
        ("FusedMatMul", (192, 4), (192, 8), (4, 8), 4 * 192 * 8),  # the left one
        ("MatMul", (4, 3, 5), (5, 7), (4, 3, 7), 4 * 3 * 5 * 7),
        ("MatMul", (3, 5), (4, 5, 7), (4, 3, 7), 4 * 3 * 5 * 7),  # the left one is the same for all of a batch
        ("Gemm", (1, 64), (64, 10), (1, 10), 640),
    ],
)
def test_a_product_multiplies_rows_columns_and_what_is_summed(op_type, left, right, product, macs):
    assert operator_work(op_type, [tensor(*left), tensor(*right)], [tensor(*product)]).macs == macs


def test_a_convolution_multiplies_its_kernel_at_each_output():
    x, weight, y = tensor(1, 48, 9, 40), tensor(48, 48, 3, 3, kind="weight"), tensor(1, 48, 4, 20)
    assert operator_work("Conv", [x, weight], [y]).macs == 48 * 4 * 20 * 48 * 9
    depthwise = operator_work("Conv", [tensor(1, 8, 1, 10), tensor(8, 1, 1, 3, kind="weight")], [tensor(1, 8, 1, 8)])
    assert depthwise.macs == 8 * 8 * 3


def test_attention_as_one_operator_counts_scores_and_means():
    queries, keys = tensor(1, 4, 192), tensor(1, 104, 192)
    assert operator_work("MultiHeadAttention", [queries, keys, keys], [queries]).macs == 2 * 4 * 104 * 192


def test_attention_counts_what_is_cached_whichever_operators_it_is():
    queries, new, past = tensor(1, 4, 192), tensor(1, 4, 192), tensor(1, 4, 100, 48, kind="state")
    whole = tensor(1, 4, 104, 48)
    one = operator_work("MultiHeadAttention", [queries, new, new, past, past], [queries, whole, whole])
    rows, keys, weights = tensor(4, 1, 4, 48), tensor(104, 1, 4, 48), tensor(1, 4, 4, 104)
    scores = operator_work("FusedMatMul", [rows, keys], [weights])
    means = operator_work("FusedMatMul", [weights, keys], [tensor(1, 4, 4, 48)])
    assert one.macs == scores.macs + means.macs == 2 * 4 * 104 * 192


def test_bytes_are_told_apart_by_what_they_are():
    weight = tensor(192, 500, dtype="int8", kind="weight")
    work = operator_work("DynamicQuantizeMatMul", [tensor(4, 192), weight], [tensor(4, 500)])
    assert (work.weight_bytes, work.state_bytes, work.activation_bytes) == (96_000, 0, 4 * 192 * 4 + 4 * 500 * 4)
    assert work.int8
    assert work.intensity == pytest.approx(2 * 4 * 192 * 500 / (96_000 + 3_072 + 8_000))
    shifted = operator_work("Concat", [tensor(100, 48, kind="state"), tensor(4, 48)], [tensor(104, 48)])
    assert (shifted.state_bytes, shifted.activation_bytes, shifted.macs) == (19_200, 768 + 19_968, 0)
    assert not shifted.int8


def test_a_view_moves_nothing_and_a_selection_what_it_selects():
    x = tensor(4, 100, 48)
    assert operator_work("Reshape", [x, tensor(2, dtype="int64")], [tensor(400, 48)]).moved_bytes == 0
    assert operator_work("Gather", [x, tensor(dtype="int64")], [tensor(100, 48)]).moved_bytes == 2 * 19_200 + 8
    assert operator_work("Transpose", [x], [x]).moved_bytes == 2 * 4 * 19_200


def test_what_has_no_size_counts_nothing():
    assert tensor(3, dtype="string").size_bytes == 0
    assert operator_work("Reshape", [], []).intensity == 0.0
