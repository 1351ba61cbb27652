# ruff: noqa: E402 - torch is looked for before the modules that import it
import cmath
import math

import pytest

torch = pytest.importorskip("torch", reason="the encoder needs the extra `train`")

from torch.testing import assert_close

from edgeasr.config import EncoderConfig
from edgeasr.layers import (
    TURN,
    AttentionState,
    CausalConvolution,
    CausalSubsampling,
    FeedForward,
    WindowedAttention,
    attend,
    attend_within,
    merge_heads,
    phase_steps,
    rotate,
    rotation,
    split_heads,
)
from edgeasr.streaming import positions, visible

WIDTH, HEADS, LEFT_CONTEXT = 8, 2, 5
CHUNKS_IN_STEP = [1, 2, 3, 7]
JUNK = 1e9


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)
    with torch.no_grad():
        yield


def run_subsampling(module, x, size):
    state, parts = module.init_state(x.shape[0]), []
    for part in x.split(size, dim=1):
        y, state = module.step(part, state)
        parts.append(y)
    return torch.cat(parts, dim=1), state


def run_attention(module, x, size, chunk_frames, state=None, seen=0):
    """All of x in steps of `size` frames."""
    state, parts = state or module.init_state(x.shape[0]), []
    for part in x.split(size, dim=1):
        y, state = module.step(part, state, torch.full((x.shape[0],), seen), chunk_frames)
        seen += part.shape[1]
        parts.append(y)
    return torch.cat(parts, dim=1), state


def run_convolution(module, x, size):
    state, parts = module.init_state(x.shape[0]), []
    for part in x.split(size, dim=1):
        y, state = module.step(part, state)
        parts.append(y)
    return torch.cat(parts, dim=1), state


def changed_frames(before, after):
    """Frames, dim 1, at which two results differ at all."""
    return torch.nonzero((before != after).flatten(2).any(dim=2).any(dim=0)).flatten().tolist()


def disturbed(x, frame):
    x = x.clone()
    x[:, frame] += 1.0
    return x


@pytest.fixture
def subsampling():
    return CausalSubsampling(num_mels=11, channels=3, d_model=WIDTH)


@pytest.mark.parametrize("size", [4, 8, 12, 28, 1000])
def test_subsampling_in_steps_is_subsampling_of_the_whole(subsampling, size):
    x = torch.randn(2, 4 * 17, 11)
    y, state = run_subsampling(subsampling, x, size)
    assert_close(y, subsampling(x))
    assert torch.equal(state.features, x[:, -1:])
    assert state.hidden.shape == subsampling.init_state(2).hidden.shape


def test_subsampling_makes_one_frame_of_as_many_as_the_config_says(subsampling):
    factor = EncoderConfig().subsampling
    assert subsampling(torch.randn(1, 9 * factor, 11)).shape == (1, 9, WIDTH)


def test_a_subsampled_frame_sees_its_four_features_and_three_before(subsampling):
    x = torch.randn(1, 40, 11)
    for feature in range(40):
        expected = [t for t in range(10) if 4 * t - 3 <= feature <= 4 * t + 3]
        assert changed_frames(subsampling(x), subsampling(disturbed(x, feature))) == expected


@pytest.mark.parametrize("num_mels", [1, 2, 3, 40, 81])
def test_subsampling_takes_any_number_of_bands(num_mels):
    module = CausalSubsampling(num_mels, channels=2, d_model=WIDTH)
    x = torch.randn(1, 16, num_mels)
    assert_close(run_subsampling(module, x, 4)[0], module(x))


def rotated(x, first):
    """x, whose first vector is at position `first`."""
    position = first + torch.arange(x.shape[2])[None]
    return rotate(x, *rotation(position, phase_steps(x.shape[3])))


def test_rotation_turns_pairs_of_halves_by_position():
    x = torch.randn(1, 1, 3, 4)
    y = rotated(x, 5)[0, 0].tolist()
    for t, row in enumerate(x[0, 0].tolist()):
        for pair, frequency in enumerate([1.0, 1000**-0.5]):
            turned = complex(row[pair], row[pair + 2]) * cmath.exp(1j * (5 + t) * frequency)
            assert y[t][pair] == pytest.approx(turned.real, abs=1e-5)
            assert y[t][pair + 2] == pytest.approx(turned.imag, abs=1e-5)


@pytest.mark.parametrize("shift", [1, 7, 300, 3 * 10**15])
def test_scores_depend_on_relative_positions_only(shift):
    query, key = torch.randn(2, 1, 6, 24), torch.randn(2, 1, 9, 24)
    scores = rotated(query, 3) @ rotated(key, 0).transpose(2, 3)
    shifted = rotated(query, 3 + shift) @ rotated(key, shift).transpose(2, 3)
    assert_close(shifted, scores, rtol=0, atol=2e-5)
    nearer = rotated(query, 2) @ rotated(key, 0).transpose(2, 3)
    assert (nearer - scores).abs().max() > 0.1


def test_angles_pass_the_end_of_a_turn_of_positions_without_a_jump():
    steps = phase_steps(6)
    before, after = (torch.complex(*rotation(torch.tensor([[t]]), steps)) for t in (TURN - 1, TURN))
    turned = torch.polar(torch.ones(3), 2 * math.pi * steps / TURN)
    assert_close(before * turned, after, rtol=0, atol=1e-6)


def test_heads_are_split_and_merged():
    x = torch.randn(2, 5, 6)
    heads = split_heads(x, 3)
    assert heads.shape == (2, 3, 5, 2)
    assert torch.equal(heads[1, 2, 4], x[1, 4, 4:])
    assert torch.equal(merge_heads(heads), x)


def test_attention_is_in_fp32_under_autocast():
    query, key, value = torch.randn(3, 1, 2, 4, 6).unbind()
    mask = torch.ones(1, 1, 4, 4, dtype=torch.bool).tril()
    expected = attend(query, key, value, mask)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(attend(query, key, value, mask), expected)


@pytest.fixture
def attention():
    return WindowedAttention(WIDTH, HEADS, LEFT_CONTEXT)


def attention_by_hand(module, x, chunk_frames):
    """One query, one head and one key at a time, with positions as complex rotations."""
    query, key, value = module.query_key_value(x).chunk(3, -1)
    half = module.head_dim // 2
    out = torch.zeros_like(x)
    for b in range(x.shape[0]):
        for q in range(x.shape[1]):
            chunk_end = (q // chunk_frames + 1) * chunk_frames
            keys = range(max(0, q - module.left_context), min(chunk_end, x.shape[1]))
            for head in range(module.num_heads):
                part = slice(head * module.head_dim, (head + 1) * module.head_dim)
                turn = torch.polar(torch.ones(half), 2 * math.pi * module.phase_steps / TURN)
                a, scores = query[b, q, part], []
                for k in keys:
                    c = key[b, k, part]
                    product = torch.complex(a[:half], a[half:]) * torch.complex(c[:half], c[half:]).conj()
                    scores.append((product * turn ** (q - k)).real.sum() / math.sqrt(module.head_dim))
                weights = torch.stack(scores).softmax(0)
                out[b, q, part] = sum(w * value[b, k, part] for w, k in zip(weights, keys, strict=True))
    return module.output(out)


@pytest.mark.parametrize("chunk_frames", [1, 3, 8])
def test_attention_is_what_its_definition_says(attention, chunk_frames):
    x = torch.randn(2, 14, WIDTH)
    expected = attention_by_hand(attention, x, chunk_frames)
    assert_close(run_attention(attention, x, 14, chunk_frames)[0], expected)


@pytest.mark.parametrize("chunk_frames", [1, 2, 4, 6])
@pytest.mark.parametrize("chunks_in_step", CHUNKS_IN_STEP)
def test_attention_in_steps_is_attention_over_the_whole(attention, chunk_frames, chunks_in_step):
    x = torch.randn(2, 8 * chunk_frames + chunk_frames // 2, WIDTH)
    whole, _ = run_attention(attention, x, x.shape[1], chunk_frames, attention.init_state(2, slots=0))
    y, state = run_attention(attention, x, chunks_in_step * chunk_frames, chunk_frames)
    assert_close(y, whole)
    assert [part.shape for part in state] == [(2, HEADS, LEFT_CONTEXT, WIDTH // HEADS)] * 2


@pytest.mark.parametrize(("left_context", "chunk_frames"), [(6, 2), (6, 4), (5, 3), (1, 1), (7, 10)])
@pytest.mark.parametrize("is_continued", [False, True])
@pytest.mark.parametrize("length", [41, 60])
def test_blocks_see_what_the_whole_sees(left_context, chunk_frames, is_continued, length):
    past = left_context if is_continued else 0
    key, value = torch.randn(2, 3, 2, past + length, 4).unbind(0)
    query = torch.randn(3, 2, length, 4)
    position = positions(torch.tensor([0, chunk_frames, 100 * chunk_frames]), past, length)
    mask = visible(position[:, past:], position, left_context, chunk_frames)
    expected = attend(query, key, value, mask[:, None])
    assert length > 2 * (left_context + chunk_frames)
    assert_close(attend_within(query, key, value, position, left_context, chunk_frames), expected)


def test_attention_sees_its_window_and_its_chunk_only(attention):
    x, chunk_frames = torch.randn(1, 20, WIDTH), 3
    before = run_attention(attention, x, 20, chunk_frames)[0]
    for frame in range(20):
        chunk_start = frame // chunk_frames * chunk_frames
        expected = [t for t in range(20) if chunk_start <= t <= frame + LEFT_CONTEXT]
        after = run_attention(attention, disturbed(x, frame), 20, chunk_frames)[0]
        assert changed_frames(before, after) == expected


@pytest.mark.parametrize("size", [2, 6])
def test_attention_never_reads_an_unwritten_slot(attention, size):
    x = torch.randn(2, 12, WIDTH)
    junk = AttentionState(*(torch.full_like(part, JUNK) for part in attention.init_state(2)))
    expected, _ = run_attention(attention, x, size, 2)
    assert torch.equal(run_attention(attention, x, size, 2, junk)[0], expected)


def test_attention_is_the_same_anywhere_in_an_endless_stream(attention):
    x, filled = torch.randn(1, 24, WIDTH), LEFT_CONTEXT + 1
    soon = run_attention(attention, x, 3, 3)[0]
    late = run_attention(attention, x, 3, 3, seen=3 * 10**15)[0]
    assert_close(late[:, filled:], soon[:, filled:])


def test_streams_of_different_age_share_a_batch(attention):
    old, young = torch.randn(1, 16, WIDTH), torch.randn(1, 8, WIDTH)
    expected_old, expected_young = (run_attention(attention, x, 2, 2)[0][:, -4:] for x in (old, young))
    states = [run_attention(attention, x[:, :-4], 2, 2)[1] for x in (old, young)]
    together = AttentionState(*(torch.cat(parts) for parts in zip(*states, strict=True)))
    y, _ = attention.step(torch.cat([old[:, -4:], young[:, -4:]]), together, torch.tensor([12, 4]), 2)
    assert_close(y, torch.cat([expected_old, expected_young]))


def test_the_cache_keeps_the_last_frames_in_order(attention):
    x = torch.randn(2, 9, WIDTH)
    _, state = run_attention(attention, x, 2, 2)
    _, key, value = attention.query_key_value(x[:, -LEFT_CONTEXT:]).chunk(3, -1)
    assert_close(state.key, rotated(split_heads(key, HEADS), 9 - LEFT_CONTEXT))
    assert_close(state.value, split_heads(value, HEADS))


@pytest.mark.parametrize("kernel", [1, 2, 5, 15])
@pytest.mark.parametrize("size", [*CHUNKS_IN_STEP, 23])
def test_convolution_in_steps_is_convolution_of_the_whole(kernel, size):
    module, x = CausalConvolution(WIDTH, kernel), torch.randn(2, 23, WIDTH)
    y, state = run_convolution(module, x, size)
    assert_close(y, run_convolution(module, x, 23)[0])
    assert state.shape == (2, kernel - 1, WIDTH)


def test_convolution_is_what_its_definition_says():
    module, x = CausalConvolution(WIDTH, 4), torch.randn(2, 9, WIDTH)
    value, gate = module.gated(x).chunk(2, -1)
    gated = value * gate.sigmoid()
    weight = module.depthwise.weight[:, 0, :, 0]  # (C, kernel)
    summed = module.depthwise.bias.expand_as(gated).clone()
    for t in range(9):
        for back in range(min(4, t + 1)):
            summed[:, t] += weight[:, 3 - back] * gated[:, t - back]
    expected = module.output(torch.nn.functional.silu(module.norm(summed)))
    assert_close(run_convolution(module, x, 9)[0], expected)


def test_convolution_sees_its_kernel_back_and_nothing_ahead():
    module, x = CausalConvolution(WIDTH, 4), torch.randn(1, 12, WIDTH)
    before = run_convolution(module, x, 12)[0]
    for frame in range(12):
        after = run_convolution(module, disturbed(x, frame), 12)[0]
        assert changed_frames(before, after) == list(range(frame, min(12, frame + 4)))


def test_feed_forward_works_on_each_frame_alone():
    module, x = FeedForward(WIDTH, 20), torch.randn(1, 6, WIDTH)
    first, _, second = module
    hidden = first(x)
    assert_close(module(x), second(hidden * hidden.sigmoid()))
    assert changed_frames(module(x), module(disturbed(x, 3))) == [3]


def test_no_layer_changes_the_state_that_it_is_given(subsampling, attention):
    convolution = CausalConvolution(WIDTH, 4)
    features, x = torch.randn(1, 8, 11), torch.randn(1, 4, WIDTH)
    _, frontend = subsampling.step(features, subsampling.init_state(1))
    _, cache = run_attention(attention, x, 2, 2)
    _, conv = convolution.step(x, convolution.init_state(1))
    tensors = [*frontend, *cache, conv]
    before = [tensor.clone() for tensor in tensors]
    subsampling.step(features, frontend)
    attention.step(x, cache, torch.tensor([4]), 2)
    convolution.step(x, conv)
    assert all(torch.equal(*pair) for pair in zip(tensors, before, strict=True))
