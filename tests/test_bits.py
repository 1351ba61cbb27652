import numpy as np
import pytest

from edgeasr.bits import as_index, bit_count, bits_by_bytes


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32, np.uint64])
def test_bits_are_counted_with_any_numpy(dtype):
    rng = np.random.default_rng(0)
    numbers = rng.integers(0, np.iinfo(dtype).max, (4, 6), dtype, endpoint=True)
    wanted = [[int(number).bit_count() for number in row] for row in numbers]
    for count in (bit_count, bits_by_bytes):
        assert count(numbers).tolist() == wanted
        assert count(numbers[:, ::2]).tolist() == [row[::2] for row in wanted]
        assert count(numbers[:0]).shape == (0, 6)
    assert bits_by_bytes(numbers).dtype == np.uint8


def test_indices_are_as_wide_as_a_pointer_and_copied_only_where_they_are_not():
    numbers = np.array([3, 1], np.intp)
    assert as_index(numbers) is numbers
    narrow = as_index(np.array([3, 1], np.uint16))
    assert (narrow.dtype, narrow.tolist()) == (np.intp, [3, 1])
