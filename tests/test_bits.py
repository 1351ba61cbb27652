import numpy as np
import pytest

from edgeasr.bits import bit_count, bits_by_bytes


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
