# ruff: noqa: E402 - torch is looked for before the modules that import it
import math

import pytest

torch = pytest.importorskip("torch", reason="the encoder needs the extra `train`")

from torch.testing import assert_close

from edgeasr.config import EncoderConfig
from edgeasr.hierarchy import BankState, MemoryLevel, MemoryReader, SegmentPool, admit, extended, slot_bias

WIDTH, HEADS, STRIDE, CAPACITY = 8, 2, 5, 3
SIZES = [1, 2, 3, 7]
JUNK = 1e9
CONFIG = EncoderConfig(
    d_model=WIDTH, num_heads=HEADS, ff_dim=12, upper_blocks=2, summary_strides=(STRIDE,), memory_capacities=(CAPACITY,)
)


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)
    with torch.no_grad():
        yield


@pytest.fixture
def pool():
    module = SegmentPool(WIDTH, HEADS, STRIDE)
    module.score.weight.mul_(5)
    return module


@pytest.fixture
def level():
    module = MemoryLevel(CONFIG, 0)
    for parameter in module.parameters():
        parameter.add_(0.3 * torch.randn_like(parameter))
    return module


def pool_by_hand(module, segment):
    """Softmax-weighted mean of one segment, (stride, C) -> (C,), head by head."""
    weights = module.score(segment).softmax(dim=0)
    heads = zip(weights.unbind(1), segment.chunk(HEADS, dim=1), strict=True)
    return torch.cat([(w[:, None] * part).sum(dim=0) for w, part in heads])


def pool_in_steps(module, x, sizes):
    """Complete summaries of one stream (1, T, C) by number, from steps of these sizes."""
    state, found = module.init_state(1), {}
    for part in x.split(sizes, dim=1):
        pooled, number, state = module.step(part, torch.tensor([part.shape[1]]), state)
        assert pooled.shape[1] == number.shape[1] == math.ceil(part.shape[1] / STRIDE)
        found |= {n: vector for n, vector in zip(number[0].tolist(), pooled[0], strict=True) if n >= 0}
    return found, state


@pytest.mark.parametrize("size", [*SIZES, 4, 5, 6, 10, 11, 23])
def test_a_pool_gives_the_weighted_mean_of_each_whole_segment(pool, size):
    x = torch.randn(1, 23, WIDTH)
    found, state = pool_in_steps(pool, x, size)
    assert list(found) == [0, 1, 2, 3]
    for number, vector in found.items():
        assert_close(vector, pool_by_hand(pool, x[0, number * STRIDE : (number + 1) * STRIDE]))
    assert (state.filled.item(), state.number.item()) == (3, 4)


def test_a_pool_of_ragged_steps_is_a_pool_of_the_whole(pool):
    x = torch.randn(1, 40, WIDTH)
    whole, last = pool_in_steps(pool, x, 40)
    found, state = pool_in_steps(pool, x, [3, 1, 9, 2, 12, 4, 9])
    assert list(found) == list(whole) == list(range(8))
    assert_close(torch.stack(list(found.values())), torch.stack(list(whole.values())))
    assert_close(state, last)


def test_a_pool_of_stride_one_gives_every_vector():
    x = torch.randn(1, 6, WIDTH)
    pooled, number, state = SegmentPool(WIDTH, HEADS, 1).step(
        x, torch.tensor([6]), SegmentPool(WIDTH, HEADS, 1).init_state(1)
    )
    assert_close(pooled, x)
    assert (number.tolist(), state.filled.tolist()) == ([[0, 1, 2, 3, 4, 5]], [0])


def test_a_pool_takes_the_first_count_of_each_row(pool):
    x = torch.randn(3, 7, WIDTH)
    counts = torch.tensor([7, 0, 5])
    given = torch.where(torch.arange(7)[None, :, None] < counts[:, None, None], x, torch.randn(3, 7, WIDTH))
    pooled, number, state = pool.step(given, counts, pool.init_state(3))
    assert number.tolist() == [[0, -1], [-1, -1], [0, -1]]
    assert_close(pooled[0, 0], pool_by_hand(pool, x[0, :5]))
    assert_close(pooled[2, 0], pool_by_hand(pool, x[2, :5]))
    assert (state.filled.tolist(), state.number.tolist()) == ([2, 0, 0], [1, 0, 1])
    pooled, number, _ = pool.step(x, torch.tensor([3, 5, 5]), state)
    assert number.tolist() == [[1, -1], [0, -1], [1, -1]]
    assert_close(pooled[0, 0], pool_by_hand(pool, torch.cat([x[0, 5:], x[0, :3]])))
    assert_close(pooled[1, 0], pool_by_hand(pool, x[1, :5]))
    assert_close(pooled[2, 0], pool_by_hand(pool, x[2, :5]))


def test_nothing_pooled_leaves_the_pool_as_it_was(pool):
    _, _, state = pool.step(torch.randn(1, 3, WIDTH), torch.tensor([3]), pool.init_state(1))
    _, number, after = pool.step(torch.randn(1, 1, WIDTH), torch.tensor([0]), state)
    assert number.tolist() == [[-1]]
    assert_close(after, state, rtol=0, atol=0)


@pytest.mark.parametrize("scale", [1e-3, 1e4])
def test_a_pool_stays_finite_for_any_scores(pool, scale):
    pool.score.weight.mul_(scale)
    pool.score.bias.add_(-3 * scale)
    x = torch.randn(1, 10, WIDTH)
    found, _ = pool_in_steps(pool, x, 3)
    assert_close(found[0], pool_by_hand(pool, x[0, :5]))
    assert_close(found[1], pool_by_hand(pool, x[0, 5:]))


def test_a_segment_still_open_has_no_number_yet(pool):
    numbers, state = [], pool.init_state(1)
    for _ in range(11):
        _, number, state = pool.step(torch.randn(1, 1, WIDTH), torch.tensor([1]), state)
        numbers.append(number.item())
    assert numbers == [-1, -1, -1, -1, 0, -1, -1, -1, -1, 1, -1]


def bank_of(numbers, slots=None, readers=1):
    """A bank, or entries, whose tensors tell the number that they belong to; (B, slots) numbers."""
    number = torch.tensor(numbers)
    content = number.float()
    shape = (number.shape[0], readers, HEADS, number.shape[1], WIDTH // HEADS)
    return BankState(
        number,
        (number >= 0).float(),
        content[:, :, None].expand(-1, -1, WIDTH).clone(),
        (content + 100)[:, None, None, :, None].expand(shape).clone(),
        (content + 200)[:, None, None, :, None].expand(shape).clone(),
    )


def test_admission_evicts_the_oldest():
    bank, held = bank_of([[-1] * CAPACITY]), []
    for number in range(7):
        bank = admit(bank, bank_of([[number]]))
        held.append(bank.number[0].tolist())
        assert_close(bank, bank_of([bank.number[0].tolist()]), rtol=0, atol=0)
    assert held == [[0, -1, -1], [0, 1, -1], [0, 1, 2], [3, 1, 2], [3, 4, 2], [3, 4, 5], [6, 4, 5]]


def test_admission_of_many_is_admission_of_one_after_another():
    numbers = list(range(8))
    at_once = admit(bank_of([[-1] * CAPACITY]), bank_of([numbers]))
    bank = bank_of([[-1] * CAPACITY])
    for number in numbers:
        bank = admit(bank, bank_of([[number]]))
    assert_close(at_once, bank, rtol=0, atol=0)
    assert sorted(at_once.number[0].tolist()) == [5, 6, 7]


def test_rows_admit_on_their_own_and_skip_what_is_incomplete():
    bank = bank_of([[0, 1, 2], [3, 4, 2], [-1, -1, -1]])
    bank = admit(bank, bank_of([[3, 4], [-1, -1], [0, -1]]))
    assert_close(bank, bank_of([[3, 4, 2], [3, 4, 2], [0, -1, -1]]), rtol=0, atol=0)


def test_a_bank_without_slots_admits_nothing():
    bank = bank_of([[0]])
    empty = BankState(bank.number[:, :0], bank.merged[:, :0], bank.vector[:, :0], bank.key[..., :0, :], bank.value)
    assert admit(empty, bank_of([[1]])) is empty


def test_admission_does_not_change_the_bank_that_it_is_given():
    bank, entries = bank_of([[0, 1, 2]]), bank_of([[3]])
    admit(bank, entries)
    assert_close(bank, bank_of([[0, 1, 2]]), rtol=0, atol=0)
    assert_close(entries, bank_of([[3]]), rtol=0, atol=0)


def test_new_entries_stand_behind_the_slots():
    both = extended(bank_of([[5, 3, 4]], readers=2), bank_of([[6, -1]], readers=2))
    assert_close(both, bank_of([[5, 3, 4, 6, -1]], readers=2), rtol=0, atol=0)


@pytest.mark.parametrize("span", [1, 4, 10])
@pytest.mark.parametrize("capacity", [1, 3])
@pytest.mark.parametrize("first", [0, 10**12])
def test_a_slot_is_seen_when_complete_and_until_capacity_more_are(span, capacity, first):
    numbers = [first + 2, -1, first, first + 1, first + 4]
    bank = bank_of([numbers])._replace(merged=torch.tensor([[1.0, 9.0, 2.0, 5.0, 0.0]]))
    times = [first * span + t for t in range(9 * span)]
    bias = slot_bias(bank, torch.tensor([times]), span, capacity)[0]
    for time, row in zip(times, bias.tolist(), strict=True):
        complete = time // span  # numbers below it are complete, and the last `capacity` of them are in the window
        for number, merged, value in zip(numbers, bank.merged[0].tolist(), row, strict=True):
            if number >= 0 and complete - capacity <= number < complete:
                assert value == pytest.approx(math.log(max(merged, 1)))
            else:
                assert value == -math.inf


def test_every_row_of_a_batch_has_its_own_time():
    bank = bank_of([[0, 1], [0, 1], [-1, 1]])
    bias = slot_bias(bank, torch.tensor([[3], [4], [8]]), 4, 2)
    assert (bias > -math.inf).tolist() == [[[False, False]], [[True, False]], [[False, True]]]


@pytest.fixture
def reader():
    module = MemoryReader(WIDTH, HEADS)
    module.empty_key.normal_()
    module.empty_value.normal_()
    return module


def slots_of(count):
    return torch.randn(1, HEADS, count, WIDTH // HEADS), torch.randn(1, HEADS, count, WIDTH // HEADS)


def test_a_reader_of_nothing_gives_its_learned_slot(reader):
    x, (key, value) = torch.randn(1, 4, WIDTH), slots_of(3)
    expected = reader.output(reader.empty_value.flatten()).expand(1, 4, -1)
    assert_close(reader(x, key[:, :, :0], value[:, :, :0], torch.zeros(1, 4, 0)), expected)
    assert_close(reader(x, key * JUNK, value * JUNK, torch.full((1, 4, 3), -math.inf)), expected)


def test_a_reader_attends_by_content(reader):
    x, (key, value) = torch.randn(1, 4, WIDTH), slots_of(3)
    bias = torch.randn(1, 4, 3)
    keys, values = torch.cat([reader.empty_key, key], 2)[0], torch.cat([reader.empty_value, value], 2)[0]
    for q, query in enumerate(reader.query(x)[0]):
        read = []
        for head, part in enumerate(query.chunk(HEADS)):
            scores = keys[head] @ part / math.sqrt(WIDTH // HEADS)
            weights = (scores + torch.cat([torch.zeros(1), bias[0, q]])).softmax(0)
            read.append(weights @ values[head])
        assert_close(reader(x, key, value, bias)[0, q], reader.output(torch.cat(read)))


def test_a_slot_merged_three_times_counts_as_three(reader):
    x, (key, value) = torch.randn(1, 2, WIDTH), slots_of(2)
    bank = bank_of([[0, 1]])._replace(merged=torch.tensor([[3.0, 1.0]]))
    merged = reader(x, key, value, slot_bias(bank, torch.full((1, 2), 2), 1, 2))
    repeats = torch.tensor([0, 0, 0, 1])
    assert_close(merged, reader(x, key[:, :, repeats], value[:, :, repeats], torch.zeros(1, 2, 4)))


def entries_in_steps(level, pooled, size, bank):
    """Outputs and entries of all summaries, admitted in steps of `size`, and the bank in the end."""
    outputs, entries = [], []
    numbers = torch.arange(pooled.shape[1]).expand(pooled.shape[0], -1)
    for part, number in zip(pooled.split(size, dim=1), numbers.split(size, dim=1), strict=True):
        x, new = level.entries(part, number, bank)
        bank = admit(bank, new)
        outputs.append(x)
        entries.append(new)
    joined = entries[0]
    for new in entries[1:]:
        joined = extended(joined, new)
    return torch.cat(outputs, dim=1), joined, bank


@pytest.mark.parametrize("size", SIZES)
def test_a_level_in_steps_is_the_level_over_the_whole(level, size):
    pooled = torch.randn(2, 11, WIDTH)
    x, entries, _ = entries_in_steps(level, pooled, 11, level.init_state(2, slots=0))
    in_steps = entries_in_steps(level, pooled, size, level.init_state(2))
    assert_close(in_steps[0], x)
    assert_close(in_steps[1], entries)
    bank = in_steps[2]
    assert bank.number.tolist() == [[9, 10, 8]] * 2
    order = torch.tensor([9, 10, 8])
    assert_close(bank.vector, entries.vector[:, order])
    assert_close(bank.key, entries.key[..., order, :])
    assert_close(bank.value, entries.value[..., order, :])


def test_a_level_sees_exactly_the_last_summaries(level):
    pooled = torch.randn(1, 9, WIDTH)
    x, entries, _ = entries_in_steps(level, pooled, 1, level.init_state(1))
    for n in range(9):
        other = pooled.clone()
        other[:, n] += torch.randn(WIDTH)
        changed_x, changed, _ = entries_in_steps(level, other, 1, level.init_state(1))
        frames = torch.nonzero((changed_x != x).any(-1)[0]).flatten().tolist()
        assert frames == list(range(n, min(9, n + CAPACITY)))
        assert torch.nonzero((changed.vector != entries.vector).any(-1)[0]).flatten().tolist() == [n]


@pytest.mark.parametrize("size", [1, 2])
def test_a_level_never_reads_an_unwritten_slot(level, size):
    pooled = torch.randn(2, 6, WIDTH)
    empty = level.init_state(2)
    junk = empty._replace(
        merged=torch.full_like(empty.merged, JUNK),
        vector=torch.full_like(empty.vector, JUNK),
        key=torch.full_like(empty.key, JUNK),
        value=torch.full_like(empty.value, JUNK),
    )
    expected = entries_in_steps(level, pooled, size, empty)
    actual = entries_in_steps(level, pooled, size, junk)
    assert_close(actual[:2], expected[:2], rtol=0, atol=0)
    assert_close(actual[2], expected[2], rtol=0, atol=0)


def test_an_incomplete_summary_makes_no_entry(level):
    bank = entries_in_steps(level, torch.randn(2, 4, WIDTH), 1, level.init_state(2))[2]
    number = torch.tensor([[4], [-1]])
    _, new = level.entries(torch.full((2, 1, WIDTH), 1e3), number, bank)
    assert (new.number.tolist(), new.merged.tolist()) == ([[4], [-1]], [[1.0], [0.0]])
    after = admit(bank, new)
    assert after.number.tolist() == [[3, 4, 2], [3, 1, 2]]
    assert_close([part[1] for part in after], [part[1] for part in bank], rtol=0, atol=0)


def test_an_incomplete_summary_is_not_seen_by_others(level):
    pooled, number = torch.randn(1, 3, WIDTH), torch.tensor([[0, 1, -1]])
    x, _ = level.entries(pooled, number, level.init_state(1))
    pooled[:, 2] = 1e3
    changed, _ = level.entries(pooled, number, level.init_state(1))
    assert torch.equal(changed[:, :2], x[:, :2])


def test_a_bank_has_keys_and_values_for_every_reader(level):
    bank = level.init_state(2)
    assert bank.number.tolist() == [[-1] * CAPACITY] * 2
    assert bank.key.shape == bank.value.shape == (2, CONFIG.num_readers, HEADS, CAPACITY, CONFIG.head_dim)
    _, new = level.entries(torch.randn(2, 1, WIDTH), torch.zeros(2, 1, dtype=torch.int64), bank)
    assert new.key.shape == new.value.shape == (2, CONFIG.num_readers, HEADS, 1, CONFIG.head_dim)


def test_a_level_is_what_its_definition_says(level):
    pooled = torch.randn(1, 6, WIDTH)
    x, entries, _ = entries_in_steps(level, pooled, 6, level.init_state(1, slots=0))
    vector = level.norm(level.summary(pooled))
    assert_close(entries.vector, vector)
    for n in range(6):
        window = slice(max(0, n - CAPACITY + 1), n + 1)
        key, value = level.level_key_value(vector[:, window]).unflatten(2, (2, HEADS, -1)).permute(2, 0, 3, 1, 4)
        read = level.reader(vector[:, n : n + 1], key, value, torch.zeros(1, 1, key.shape[2]))
        y = vector[:, n : n + 1] + read
        assert_close(x[:, n : n + 1], y + level.ff(level.ff_norm(y)))


def test_keys_and_values_of_each_reader_are_their_own_part_of_the_projection(level):
    pooled, bank = torch.randn(1, 2, WIDTH), level.init_state(1, slots=0)
    x, new = level.entries(pooled, torch.tensor([[0, 1]]), bank)
    own = level.level_key_value(new.vector).unflatten(2, (2, HEADS, -1))
    upper = level.key_value(level.output_norm(x)).unflatten(2, (2, CONFIG.upper_blocks, HEADS, -1))
    assert_close(new.key[:, 0].transpose(1, 2), own[:, :, 0])
    assert_close(new.value[:, 0].transpose(1, 2), own[:, :, 1])
    for block in range(CONFIG.upper_blocks):
        assert_close(new.key[:, block + 1].transpose(1, 2), upper[:, :, 0, block])
        assert_close(new.value[:, block + 1].transpose(1, 2), upper[:, :, 1, block])
