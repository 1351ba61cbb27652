# ruff: noqa: E402 - torch is looked for before the modules that import it
import dataclasses
import math

import pytest

torch = pytest.importorskip("torch", reason="the encoder needs the extra `train`")

from torch.testing import assert_close

from edgeasr.config import EncoderConfig
from edgeasr.hierarchy import (
    BankState,
    Entries,
    MemoryLevel,
    MemoryReader,
    SegmentPool,
    admit,
    as_held,
    held,
    query_bias,
    settle,
)
from edgeasr.memory import Rules

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
    return level_of("everything")


def level_of(kind):
    """A level that stores everything, or merges what is similar, or has a gate that skips a part."""
    change = {"everything": {}, "similar": {"merge_similarity": 0.3}, "gated": {"write_gate": True}}[kind]
    module = MemoryLevel(dataclasses.replace(CONFIG, **change), 0).eval()
    for parameter in module.parameters():
        parameter.add_(0.3 * torch.randn_like(parameter))
    if module.write_gate is not None:
        module.write_gate.weight.mul_(3)
        module.write_gate.bias.zero_()
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


def bank_of(numbers, readers=1):
    """A bank whose tensors tell the number that they belong to; (B, slots) numbers, each stored on its own."""
    number = torch.tensor(numbers)
    content = number.float()
    shape = (number.shape[0], readers, HEADS, number.shape[1], WIDTH // HEADS)
    return BankState(
        number,
        (number >= 0).float(),
        number.clone(),
        torch.zeros_like(number, dtype=torch.bool),
        directions(number) * (number >= 0)[:, :, None],
        (content + 100)[:, None, None, :, None].expand(shape).clone(),
        (content + 200)[:, None, None, :, None].expand(shape).clone(),
    )


def entries_of(numbers, readers=1):
    """New entries of these numbers, of content like that of `bank_of`."""
    bank = bank_of(numbers, readers)
    return Entries(bank.number, torch.ones_like(bank.merged), directions(bank.number), bank.key, bank.value)


def directions(number):
    """(B, S) numbers to (B, S, C) vectors of which neighbours differ much."""
    return torch.nn.functional.one_hot(number % WIDTH, WIDTH).float()


RULES = Rules(CAPACITY, 1.0)


def admitted_to(bank, numbers, rules=RULES):
    """What becomes of entries of these numbers, and the bank afterwards."""
    entries = entries_of(numbers)
    admitted = admit(bank, entries.number, entries.write, entries.vector, rules)
    return admitted, settle(bank, entries, admitted)


def test_admission_evicts_the_oldest():
    bank, stored = bank_of([[-1] * CAPACITY]), []
    for number in range(7):
        _, bank = admitted_to(bank, [[number]])
        stored.append(bank.number[0].tolist())
        full = bank.number >= 0
        assert_close(bank.key[:, 0, 0, :, 0][full], bank.number[full] + 100.0)
        assert_close(bank.value[:, 0, 0, :, 0][full], bank.number[full] + 200.0)
        assert_close(bank.vector[full], directions(bank.number)[full])
    assert stored == [[0, -1, -1], [0, 1, -1], [0, 1, 2], [3, 1, 2], [3, 4, 2], [3, 4, 5], [6, 4, 5]]


@pytest.mark.parametrize("merge_similarity", [1.0, 0.5])
def test_admission_of_many_is_admission_of_one_after_another(merge_similarity):
    rules = Rules(CAPACITY, merge_similarity)
    numbers = [*range(5), WIDTH + 3, *range(6, 13)]  # WIDTH + 3 is like 3, and so are later ones of each other
    at_once, bank_at_once = admitted_to(bank_of([[-1] * CAPACITY]), [numbers], rules)
    bank = bank_of([[-1] * CAPACITY])
    for s, number in enumerate(numbers):
        assert_close(at_once.bias[0, s].exp().sum(), held(bank)[0].exp().sum())
        _, bank = admitted_to(bank, [[number]], rules)
    assert_close(bank_at_once, bank, rtol=0, atol=0)
    assert (bank.merged.sum() > CAPACITY) == (merge_similarity < 1)


def test_rows_admit_on_their_own_and_skip_what_is_incomplete():
    bank = bank_of([[0, 1, 2], [3, 4, 2], [-1, -1, -1]])
    admitted, after = admitted_to(bank, [[3, 4], [-1, -1], [0, -1]])
    assert_close(
        after._replace(vector=bank.vector),
        bank_of([[3, 4, 2], [3, 4, 2], [0, -1, -1]])._replace(vector=bank.vector, key=after.key, value=after.value),
        rtol=0,
        atol=0,
    )
    assert after.key[:, 0, 0, :, 0].tolist() == [[103.0, 104.0, 102.0], [103.0, 104.0, 102.0], [100.0, 99.0, 99.0]]
    assert admitted.source.tolist() == [[3, 4, 2], [0, 1, 2], [3, 1, 2]]


def test_a_bank_without_slots_stands_for_an_empty_one():
    none, empty = bank_of([[0]]), bank_of([[-1] * CAPACITY])
    none = BankState(*(part[:, :0] for part in none[:5]), none.key[..., :0, :], none.value[..., :0, :])
    numbers = [list(range(6))]
    admitted, after = admitted_to(none, numbers)
    expected, _ = admitted_to(empty, numbers)
    assert after is none
    assert torch.equal(admitted.bias, expected.bias[:, :, CAPACITY:])


def test_admission_does_not_change_the_bank_that_it_is_given():
    bank = bank_of([[0, 1, 2]])
    admitted_to(bank, [[3]])
    assert_close(bank, bank_of([[0, 1, 2]]), rtol=0, atol=0)


def test_what_is_held_counts_by_its_logarithm():
    bank = bank_of([[5, -1, 3]])._replace(merged=torch.tensor([[1.0, 9.0, 4.0]]))
    assert_close(held(bank), torch.tensor([[0.0, -math.inf, math.log(4)]]))


@pytest.mark.parametrize("span", [1, 4, 10])
@pytest.mark.parametrize("first", [0, 10**12])
def test_a_summary_is_seen_when_complete_and_until_it_makes_room(span, first):
    numbers = [first + n for n in range(5)]
    admitted, _ = admitted_to(bank_of([[-1] * CAPACITY]), [[*numbers, -1]])
    times = [first * span + t for t in range(7 * span)]
    bias = query_bias(admitted, torch.tensor([[*numbers, -1]]), torch.tensor([times]), span)[0]
    assert torch.all(bias[:, [*range(CAPACITY), -1]] == -math.inf)
    for time, row in zip(times, bias[:, CAPACITY:-1].tolist(), strict=True):
        complete = min(first + 5, time // span)
        for number, value in zip(numbers, row, strict=True):
            assert value == (0.0 if complete - CAPACITY <= number < complete else -math.inf)


def test_every_row_of_a_batch_has_its_own_time():
    number = torch.tensor([[0, 1], [0, 1], [0, -1]])
    admitted, _ = admitted_to(bank_of([[-1] * CAPACITY] * 3), number.tolist())
    bias = query_bias(admitted, number, torch.tensor([[3], [4], [8]]), 4)
    assert (bias[:, :, CAPACITY:] > -math.inf).tolist() == [[[False, False]], [[True, False]], [[True, False]]]


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
    merged = reader(x, key, value, held(bank)[:, None].expand(-1, 2, -1))
    repeats = torch.tensor([0, 0, 0, 1])
    assert_close(merged, reader(x, key[:, :, repeats], value[:, :, repeats], torch.zeros(1, 2, 4)))


def entries_in_steps(level, pooled, size, bank):
    """Outputs and entries of all summaries, admitted in steps of `size`, and the bank in the end."""
    outputs, entries = [], []
    numbers = torch.arange(pooled.shape[1]).expand(pooled.shape[0], -1)
    for part, number in zip(pooled.split(size, dim=1), numbers.split(size, dim=1), strict=True):
        x, new = level.entries(part, number, bank)
        bank = settle(bank, *new)
        outputs.append(x)
        entries.append(new.entries)
    joined = Entries(*(torch.cat(parts, dim=3 if i > 2 else 1) for i, parts in enumerate(zip(*entries, strict=True))))
    return torch.cat(outputs, dim=1), joined, bank


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", ["everything", "similar", "gated"])
def test_a_level_in_steps_is_the_level_over_the_whole(kind, size):
    level = level_of(kind)
    pooled = torch.randn(2, 23, WIDTH)
    x, entries, _ = entries_in_steps(level, pooled, 23, level.init_state(2, slots=0))
    in_steps = entries_in_steps(level, pooled, size, level.init_state(2))
    assert_close(in_steps[0], x)
    assert_close(in_steps[1], entries)
    bank = in_steps[2]
    assert bank.number.min() >= 0
    order = bank.number
    assert_close(bank.vector, entries.vector.take_along_dim(order[:, :, None], dim=1))
    assert_close(bank.key, entries.key.take_along_dim(order[:, None, None, :, None], dim=3))
    assert_close(bank.value, entries.value.take_along_dim(order[:, None, None, :, None], dim=3))
    if kind == "everything":
        assert order.tolist() == [[21, 22, 20]] * 2
    else:
        assert order.tolist() != [[21, 22, 20]] * 2
    assert (bank.merged.max() > 1) == (kind == "similar")


def test_a_level_sees_exactly_the_last_summaries_and_itself(level):
    pooled = torch.randn(1, 9, WIDTH)
    x, entries, _ = entries_in_steps(level, pooled, 1, level.init_state(1))
    for n in range(9):
        other = pooled.clone()
        other[:, n] += torch.randn(WIDTH)
        changed_x, changed, _ = entries_in_steps(level, other, 1, level.init_state(1))
        frames = torch.nonzero((changed_x != x).any(-1)[0]).flatten().tolist()
        assert frames == list(range(n, min(9, n + CAPACITY + 1)))
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


def test_an_incomplete_summary_is_not_admitted(level):
    bank = entries_in_steps(level, torch.randn(2, 4, WIDTH), 1, level.init_state(2))[2]
    number = torch.tensor([[4], [-1]])
    _, new = level.entries(torch.full((2, 1, WIDTH), 1e3), number, bank)
    after = settle(bank, *new)
    assert after.number.tolist() == [[3, 4, 2], [3, 1, 2]]
    assert_close([part[1] for part in after], [part[1] for part in bank], rtol=0, atol=0)


def test_an_incomplete_summary_is_not_seen_by_others(level):
    pooled, number = torch.randn(1, 3, WIDTH), torch.tensor([[0, 1, -1]])
    x, _ = level.entries(pooled, number, level.init_state(1))
    pooled[:, 2] = 1e3
    changed, _ = level.entries(pooled, number, level.init_state(1))
    assert torch.equal(changed[:, :2], x[:, :2])


def test_an_exported_level_leaves_the_decision_to_the_host(level):
    bank = entries_in_steps(level, torch.randn(1, 5, WIDTH), 1, level.init_state(1))[2]
    pooled, number = torch.randn(1, 1, WIDTH), torch.tensor([[5]])
    x, new = level.entries(pooled, number, bank)
    x_exported, exported = level.entries(pooled, number, bank, as_held)
    assert_close(x_exported, x)
    assert_close(exported.entries, new.entries)
    assert_close(settle(bank, *exported), bank)


def test_the_gate_decides_by_chance_in_training_and_is_told_what_a_write_is_worth():
    level = level_of("gated").train()
    pooled, number = torch.randn(1, 200, WIDTH), torch.arange(200)[None]
    with torch.enable_grad():
        x, new = level.entries(pooled, number, level.init_state(1, slots=0))
        x.square().sum().backward()
    stored = new.admitted.bias[0, 1:].diagonal() > -math.inf  # right after each was offered
    assert 0.2 < stored.float().mean() < 0.8
    below = stored & (new.entries.write[0] < 0.5)
    assert below.any(), "some are stored against the odds"
    assert level.write_gate.weight.grad.abs().max() > 0


def test_a_bank_has_keys_and_values_for_every_reader(level):
    bank = level.init_state(2)
    assert bank.number.tolist() == [[-1] * CAPACITY] * 2
    assert bank.key.shape == bank.value.shape == (2, CONFIG.num_readers, HEADS, CAPACITY, CONFIG.head_dim)
    _, new = level.entries(torch.randn(2, 1, WIDTH), torch.zeros(2, 1, dtype=torch.int64), bank)
    assert new.entries.key.shape == new.entries.value.shape == (2, CONFIG.num_readers, HEADS, 1, CONFIG.head_dim)


def test_a_level_is_what_its_definition_says(level):
    pooled = torch.randn(1, 6, WIDTH)
    x, entries, _ = entries_in_steps(level, pooled, 6, level.init_state(1, slots=0))
    vector = level.norm(level.summary(pooled))
    assert_close(entries.vector, vector)
    for n in range(6):
        window = slice(max(0, n - CAPACITY), n + 1)
        key, value = level.level_key_value(vector[:, window]).unflatten(2, (2, HEADS, -1)).permute(2, 0, 3, 1, 4)
        read = level.reader(vector[:, n : n + 1], key, value, torch.zeros(1, 1, key.shape[2]))
        y = vector[:, n : n + 1] + read
        assert_close(x[:, n : n + 1], y + level.ff(level.ff_norm(y)))


def test_keys_and_values_of_each_reader_are_their_own_part_of_the_projection(level):
    pooled, bank = torch.randn(1, 2, WIDTH), level.init_state(1, slots=0)
    x, (new, _) = level.entries(pooled, torch.tensor([[0, 1]]), bank)
    own = level.level_key_value(new.vector).unflatten(2, (2, HEADS, -1))
    upper = level.key_value(level.output_norm(x)).unflatten(2, (2, CONFIG.upper_blocks, HEADS, -1))
    assert_close(new.key[:, 0].transpose(1, 2), own[:, :, 0])
    assert_close(new.value[:, 0].transpose(1, 2), own[:, :, 1])
    for block in range(CONFIG.upper_blocks):
        assert_close(new.key[:, block + 1].transpose(1, 2), upper[:, :, 0, block])
        assert_close(new.value[:, block + 1].transpose(1, 2), upper[:, :, 1, block])
