# ruff: noqa: E402 - torch is looked for before the modules that import it
import dataclasses
import math

import pytest

torch = pytest.importorskip("torch", reason="the encoder needs the extra `train`")

from torch.testing import assert_close

from edgeasr.config import EncoderConfig, FeatureConfig, ModelConfig, preset
from edgeasr.encoder import Encoder, EncoderState, num_parameters
from edgeasr.hierarchy import BankState, settle
from edgeasr.layers import TURN
from edgeasr.streaming import replace_tensors, state_tensors

MELS, VOCABULARY, JUNK = 7, 5, 1e9
# Strides are no multiples of the chunk, so that segments end inside of chunks.
TWO_LEVELS = EncoderConfig(
    d_model=12,
    num_heads=2,
    lower_blocks=2,
    upper_blocks=2,
    ff_dim=16,
    conv_kernel=3,
    conv_channels=3,
    left_context=6,
    chunk_frames=2,
    summary_strides=(5,),
    memory_capacities=(3,),
    dropout=0.0,
)
THREE_LEVELS = dataclasses.replace(TWO_LEVELS, summary_strides=(5, 3), memory_capacities=(3, 2))
ONE_LEVEL = dataclasses.replace(TWO_LEVELS, summary_strides=(), memory_capacities=())
LEVELS = {
    "one level": ONE_LEVEL,
    "two levels": TWO_LEVELS,
    "three levels": THREE_LEVELS,
    "merging": dataclasses.replace(THREE_LEVELS, merge_similarity=0.4),
    "gated": dataclasses.replace(THREE_LEVELS, write_gate=True),
}
# More than all that three levels can see: level 3 fills its bank after 30 frames and evicts from 45 on.
FRAMES = 81


def build(config, seed=0):
    """An encoder whose every parameter, buffer and learned empty slot does something."""
    torch.manual_seed(seed)
    encoder = Encoder(ModelConfig(FeatureConfig(num_mels=MELS), config, VOCABULARY)).eval()
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(0.25 * torch.randn_like(parameter))
        encoder.feature_mean.normal_()
        encoder.feature_std.uniform_(0.5, 2)
    return encoder


@pytest.fixture(params=LEVELS)
def encoder(request):
    return build(LEVELS[request.param])


@pytest.fixture(autouse=True)
def _no_gradients(request):
    with torch.set_grad_enabled("gradient" in request.node.name):
        yield


def features(frames=FRAMES, batch=2, seed=1):
    """Random features of so many encoder frames, different in each row."""
    return torch.randn(batch, 4 * frames, MELS, generator=torch.Generator().manual_seed(seed))


def in_steps(encoder, x, chunks, state=None):
    """Log-probabilities of x from steps of so many chunks (or of the chunks in a list), and the last state."""
    size = encoder.config.encoder.chunk_features
    sizes = [size * n for n in chunks] if isinstance(chunks, list) else size * chunks
    state, parts = state or encoder.init_state(x.shape[0]), []
    for part in x.split(sizes, dim=1):
        emissions, state = encoder.step(part, state)
        parts.append(emissions.final)
    return torch.cat(parts, dim=1), state


def disturbed(x, frame):
    """Features that differ in the four frames of one encoder frame."""
    x = x.clone()
    x[:, 4 * frame : 4 * frame + 4] += 1.0
    return x


def changed_frames(before, after):
    return torch.nonzero((before != after).any(dim=2).any(dim=0)).flatten().tolist()


def filled_with_junk(state):
    """What nobody may read before it is written: caches of attention, and slots of banks."""
    unread = [name for name, _ in state_tensors(state) if name.endswith((".key", ".value", ".vector", ".merged"))]
    tensors = (torch.full_like(t, JUNK) if name in unread else t for name, t in state_tensors(state))
    return replace_tensors(state, tensors)


def without_empty_slots(state):
    """The state with zeros where banks hold nothing."""
    banks = []
    for bank in state.bank:
        full = bank.number >= 0
        axes = {"vector": full[:, :, None], "key": full[:, None, None, :, None], "value": full[:, None, None, :, None]}
        banks.append(BankState(*(part * axes.get(n, full) for n, part in zip(bank._fields, bank, strict=True))))
    return state._replace(bank=tuple(banks))


def assert_same_state(actual, expected, **tolerance):
    for (name, a), (_, b) in zip(state_tensors(actual), state_tensors(expected), strict=True):
        assert_close(a, b, msg=lambda text, name=name: f"{name}: {text}", **tolerance)


@pytest.mark.parametrize("chunks", [1, 2, 3, 7, 1000])
def test_steps_give_what_the_whole_gives(encoder, chunks):
    x = features()
    y, _ = in_steps(encoder, x, chunks)
    assert y.shape == (2, FRAMES, VOCABULARY)
    assert_close(y, encoder(x).final)


def test_steps_of_mixed_sizes_give_what_the_whole_gives(encoder):
    x = features()
    y, state = in_steps(encoder, x[:, : 4 * 80], [1, 5, 2, 20, 1, 1, 10])
    tail, _ = encoder.step(x[:, 4 * 80 :], state)
    assert_close(torch.cat([y, tail.final], dim=1), encoder(x).final)


@pytest.mark.parametrize("tail", [1, 2, 3])
@pytest.mark.parametrize("chunks", [1, 3])
def test_the_last_chunk_may_be_ragged(tail, chunks):
    encoder = build(dataclasses.replace(TWO_LEVELS, chunk_frames=4))
    x = features(40 + tail)
    assert_close(in_steps(encoder, x, chunks)[0], encoder(x).final)


@pytest.mark.parametrize("chunks", [2, 7, 40])
def test_the_state_does_not_depend_on_the_size_of_steps(encoder, chunks):
    x = features(80)
    assert_same_state(in_steps(encoder, x, chunks)[1], in_steps(encoder, x, 1)[1])


def test_rows_of_a_batch_do_not_mix(encoder):
    x = features(batch=3)
    together = encoder(x).final
    for row in range(3):
        assert_close(in_steps(encoder, x[row : row + 1], 1)[0], together[row : row + 1])


def test_streams_of_different_age_share_a_batch(encoder):
    old, young = features(52, batch=1, seed=2), features(12, batch=1, seed=3)
    expected = [in_steps(encoder, x, 1)[0][:, -2:] for x in (old, young)]
    states = [in_steps(encoder, x[:, :-8], 1)[1] for x in (old, young)]
    pairs = zip(*([t for _, t in state_tensors(state)] for state in states), strict=True)
    together = replace_tensors(states[0], (torch.cat(pair) for pair in pairs))
    y, _ = encoder.step(torch.cat([old[:, -8:], young[:, -8:]]), together)
    assert_close(y.final, torch.cat(expected))


def test_streams_in_turn_do_not_disturb_each_other(encoder):
    first, second = features(48, seed=2), features(48, seed=3)
    states, parts = [encoder.init_state(2)] * 2, ([], [])
    for chunks in zip(first.split(8, dim=1), second.split(8, dim=1), strict=True):
        for stream in range(2):
            y, states[stream] = encoder.step(chunks[stream], states[stream])
            parts[stream].append(y.final)
    assert_close(torch.cat(parts[0], dim=1), encoder(first).final)
    assert_close(torch.cat(parts[1], dim=1), encoder(second).final)


@pytest.mark.parametrize("output", ["final", "lower"])
@pytest.mark.parametrize("chunk_frames", [1, 2, 3, 5])
def test_a_frame_changes_its_own_chunk_and_what_follows_only(encoder, output, chunk_frames):
    x = features(36)
    before = getattr(encoder(x, chunk_frames), output)
    for frame in (0, 1, 5, 14, 24, 35):
        after = getattr(encoder(disturbed(x, frame), chunk_frames), output)
        chunk_start = frame - frame % chunk_frames
        changed = changed_frames(before, after)
        assert changed[0] == chunk_start
        assert set(range(chunk_start, frame + 1)) <= set(changed)


def test_what_is_not_heard_yet_does_not_matter(encoder):
    x = features(40)
    whole = encoder(x).final
    for frames in (2, 10, 24):
        assert_close(encoder(x[:, : 4 * frames]).final, whole[:, :frames])


@pytest.mark.parametrize("chunks", [1, 3])
def test_no_unwritten_slot_is_ever_read(encoder, chunks):
    x = features(60)
    expected, clean = in_steps(encoder, x, chunks)
    y, state = in_steps(encoder, x, chunks, filled_with_junk(encoder.init_state(2)))
    assert torch.equal(y, expected)
    assert_same_state(without_empty_slots(state), without_empty_slots(clean), rtol=0, atol=0)


def test_the_state_keeps_its_size(encoder):
    def sizes(state):
        return [(name, tensor.shape, tensor.dtype) for name, tensor in state_tensors(state)]

    state = encoder.init_state(2)
    expected = sizes(state)
    for chunk in features().split(8, dim=1):
        _, state = encoder.step(chunk, state)
        assert sizes(state) == expected
    assert state.seen.tolist() == [FRAMES, FRAMES]


def test_a_step_changes_neither_its_state_nor_its_input(encoder):
    x = features(44)
    _, state = in_steps(encoder, x[:, :120], 1)
    before, chunk = [tensor.clone() for _, tensor in state_tensors(state)], x[:, 120:].clone()
    encoder.step(chunk, state)
    assert all(torch.equal(t, b) for (_, t), b in zip(state_tensors(state), before, strict=True))
    assert torch.equal(chunk, x[:, 120:])


def test_the_parts_of_a_state_have_names():
    names = {name for name, _ in state_tensors(build(THREE_LEVELS).init_state(1), "state")}
    assert {"state.frontend.features", "state.frontend.hidden", "state.seen"} <= names
    assert {f"state.level1.{block}.{part}" for block in range(4) for part in ("key", "value", "conv")} <= names
    assert {f"state.bank.{level}.number" for level in range(2)} <= names
    assert {f"state.pool.{level}.total" for level in range(2)} <= names


def test_banks_hold_the_last_summaries_of_every_level():
    encoder = build(THREE_LEVELS)
    state, held = encoder.init_state(1), []
    for chunk in features(78, batch=1).split(8, dim=1):
        _, state = encoder.step(chunk, state)
        held.append([sorted(bank.number[0].tolist()) for bank in state.bank])
    for chunk, (level2, level3) in enumerate(held, 1):
        done2, done3 = 2 * chunk // 5, 2 * chunk // 15
        assert [n for n in level2 if n >= 0] == list(range(max(0, done2 - 3), done2))
        assert [n for n in level3 if n >= 0] == list(range(max(0, done3 - 2), done3))
    assert (done2, done3) == (15, 5)


def test_a_summary_reaches_exactly_as_far_as_two_levels_reach():
    config = dataclasses.replace(
        TWO_LEVELS, lower_blocks=1, upper_blocks=1, conv_kernel=2, left_context=4, summary_strides=(10,)
    )
    encoder, x = build(config), features(110, batch=1)
    # Frame 10 and what the lower block makes of it, frames 10 to 16, lie in summary 1. Level 2 passes it on to
    # summaries 2, 3 and 4, of which 4 leaves the bank of 3 when summary 7 is complete: at frame 80. The
    # convolution of the upper block carries the last read one frame on.
    changed = changed_frames(encoder(x).final, encoder(disturbed(x, 10)).final)
    assert changed == list(range(10, 81))
    assert 10 + config.lookback in changed


def test_a_summary_reaches_exactly_as_far_as_three_levels_reach():
    config = dataclasses.replace(
        TWO_LEVELS,
        lower_blocks=1,
        upper_blocks=1,
        conv_kernel=1,
        left_context=1,
        summary_strides=(4, 3),
        memory_capacities=(2, 2),
    )
    encoder, x = build(config), features(90, batch=1)
    # Frames 20 to 22 lie in summary 5 of level 2, which level 2 passes on to summaries 6 and 7: gone at frame 40. They
    # are in summaries 1 and 2 of level 3, passed on to summary 4: gone when summary 6 is complete, at frame 84.
    changed = changed_frames(encoder(x).final, encoder(disturbed(x, 20)).final)
    assert changed == list(range(20, 84))
    assert 20 + config.lookback in changed


def test_the_far_past_is_heard_through_the_memory_only():
    config = dataclasses.replace(TWO_LEVELS, lower_blocks=1, upper_blocks=1, conv_kernel=1, left_context=2)
    encoder, x = build(config), features(30)
    # Frame 7 lies in summary 1; after frame 20, the bank holds 1, 2 and 3, and level 1 has long lost sight of it.
    plain, other = (in_steps(encoder, y[:, :80], 1)[1] for y in (x, disturbed(x, 7)))
    assert_same_state(other._replace(bank=plain.bank), plain, rtol=0, atol=0)
    heard, heard_other = (encoder.step(x[:, 80:88], state)[0].final for state in (plain, other))
    assert (heard_other - heard).abs().max() > 1e-3


def test_a_step_is_made_of_parts_that_run_apart(encoder):
    # As on a device: what is read was admitted before the step, and the memory runs when a summary is complete.
    state, apart = encoder.init_state(1), encoder.init_state(1)
    for chunk in features(60, batch=1).split(8, dim=1):
        y, state = encoder.step(chunk, state)
        x, frontend, lower = encoder.run_lower(chunk, apart, 2)
        top, upper = encoder.run_upper(x, apart, 2, ())
        assert_close(encoder.emit(top), y.final)
        pool, bank = apart.pool, apart.bank
        if encoder.levels:
            pooled, number, first = encoder.run_summaries(x, pool[0])
            pool = (first, *pool[1:])
            if number.max() >= 0:
                others, new = encoder.run_memory(pooled, number, pool[1:], bank)
                pool = (first, *others)
                bank = tuple(settle(old, *made) for old, made in zip(bank, new, strict=True))
        apart = EncoderState(frontend, lower + upper, pool, bank, apart.seen + x.shape[1])
    assert_same_state(apart, state)


def test_a_summary_is_not_read_before_its_chunk_is_over():
    encoder, x = build(TWO_LEVELS), features(12)
    # Summary 0 is complete at frame 5, within the chunk of frames 4 and 5: the next chunk is the first to read it.
    state, bank_is_read = encoder.init_state(2), []
    for chunk in x.split(8, dim=1):
        y, next_state = encoder.step(chunk, state)
        without, _ = encoder.step(chunk, state._replace(bank=encoder.init_state(2).bank))
        bank_is_read.append(not torch.equal(y.final, without.final))
        state = next_state
    assert bank_is_read == [False, False, False, True, True, True]


@pytest.mark.parametrize("part", ["key", "value"])
def test_every_upper_block_reads_its_own_part_of_the_bank(part):
    encoder, x = build(TWO_LEVELS), features(22)
    _, state = in_steps(encoder, x[:, :80], 1)
    expected = encoder.step(x[:, 80:], state)

    def changes(reader):
        """Whether the emissions change with what this reader reads, and the caches of the upper blocks."""
        other = getattr(state.bank[0], part).clone()
        other[:, reader] += torch.randn_like(other[:, reader])
        y, after = encoder.step(x[:, 80:], state._replace(bank=(state.bank[0]._replace(**{part: other}),)))
        blocks = zip(after.level1[2:], expected[1].level1[2:], strict=True)
        return [not torch.equal(y.final, expected[0].final), *(not torch.equal(a.key, b.key) for a, b in blocks)]

    assert changes(0) == [False, False, False]  # the level's own
    assert changes(1) == [True, False, True]
    assert changes(2) == [True, False, False]


def test_lower_emissions_come_from_below_the_memory():
    encoder, x = build(TWO_LEVELS), features(40)
    before = encoder(x)
    for parameter in [*encoder.upper.parameters(), *encoder.pools.parameters(), *encoder.levels.parameters()]:
        parameter.zero_()
    after = encoder(x)
    assert torch.equal(after.lower, before.lower)
    assert (after.final - before.final).abs().max() > 0.1


def test_a_stream_may_last_for_years(encoder):
    config = encoder.config.encoder
    _, state = in_steps(encoder, features(60), 1)
    # Far ahead, where every chunk, segment and slot is at the place that it has now, and rotary positions have turned.
    ahead = 5 * TURN * config.chunk_frames * math.prod(config.summary_strides) * math.prod(config.memory_capacities)
    spans = config.level_spans
    late = state._replace(
        seen=state.seen + ahead,
        pool=tuple(p._replace(number=p.number + ahead // s) for p, s in zip(state.pool, spans, strict=True)),
        bank=tuple(
            b._replace(number=b.number + ahead // s, last=b.last + ahead // s)
            for b, s in zip(state.bank, spans, strict=True)
        ),
    )
    x = features(40, seed=2)
    assert torch.equal(in_steps(encoder, x, 1, late)[0], in_steps(encoder, x, 1, state)[0])


@pytest.mark.parametrize("chunk_frames", [1, 2, 3, 4, 5])
def test_another_chunk_gives_what_a_config_of_that_chunk_gives(encoder, chunk_frames):
    other = build(dataclasses.replace(encoder.config.encoder, chunk_frames=chunk_frames))
    other.load_state_dict(encoder.state_dict())
    x = features(43)
    overridden = encoder(x, chunk_frames)
    assert_close(overridden.final, in_steps(other, x, 1)[0])
    assert_close(overridden.lower, other(x).lower)
    assert (chunk_frames == 2) == torch.equal(overridden.final, encoder(x).final)


def test_a_chunk_may_be_longer_than_a_segment():
    encoder, x = build(TWO_LEVELS), features(60)
    before = encoder(x, 12).final
    for frame in (0, 17, 30):
        assert changed_frames(before, encoder(disturbed(x, frame), 12).final)[0] == frame - frame % 12


def test_a_recording_of_one_chunk_is_one_step(encoder):
    x = features(2)
    assert_close(encoder(x).final, encoder.step(x, encoder.init_state(2))[0].final)


def test_emissions_are_log_probabilities(encoder):
    emissions = encoder(features(20))
    assert emissions.phones is None
    for log_probs in (emissions.final, emissions.lower):
        assert log_probs.dtype == torch.float32
        assert_close(log_probs.exp().sum(dim=2), torch.ones(2, 20))


def test_a_model_with_phones_emits_them_beside_the_characters():
    config = dataclasses.replace(build(TWO_LEVELS).config, phone_vocabulary_size=7)
    torch.manual_seed(0)
    encoder, x = Encoder(config).eval(), features(40)
    whole = encoder(x)
    assert (whole.final.shape, whole.lower.shape, whole.phones.shape) == ((2, 40, VOCABULARY), (2, 40, 7), (2, 40, 7))
    assert_close(whole.phones.exp().sum(dim=2), torch.ones(2, 40))
    state, parts = encoder.init_state(2), []
    for chunk in x.split(encoder.config.encoder.chunk_features, dim=1):
        emissions, state = encoder.step(chunk, state)
        parts.append(emissions.phones)
    assert_close(torch.cat(parts, dim=1), whole.phones)


def test_features_are_normalised(encoder):
    x, raw = features(20), build(encoder.config.encoder)
    raw.load_state_dict(encoder.state_dict())
    raw.feature_mean.zero_()
    raw.feature_std.fill_(1)
    assert_close(raw((x - encoder.feature_mean) / encoder.feature_std).final, encoder(x).final)


@pytest.mark.parametrize(("name", "low", "high"), [("nano", 0.8e6, 1.3e6), ("tiny", 3e6, 5e6), ("small", 10e6, 15e6)])
def test_presets_have_the_parameters_of_their_class(name, low, high):
    with torch.device("meta"):
        encoder = Encoder(ModelConfig(encoder=preset(name)))
    assert low <= num_parameters(encoder) <= high


def without_gradient(encoder, frames):
    """Parameters for which a step of training on recordings of so many frames computes no gradient, or rounding."""
    emissions = encoder.train()(features(frames))
    targets, lengths = torch.randint(1, VOCABULARY, (2, 2)), torch.tensor([2, 1])
    frame_counts = torch.full((2,), frames)
    for log_probs in (emissions.final, emissions.lower):
        loss = torch.nn.functional.ctc_loss(log_probs.transpose(0, 1), targets, frame_counts, lengths)
        loss.backward(retain_graph=True)
    gradients = {name: parameter.grad for name, parameter in encoder.named_parameters()}
    none = {name for name, gradient in gradients.items() if gradient is None}
    # A score that is the same for all vectors of a segment changes nothing: its gradient is rounding.
    named = {name: gradient for name, gradient in gradients.items() if not name.endswith("score.bias")}
    return none, {name for name, gradient in named.items() if name not in none and gradient.abs().max() < 1e-8}


def test_gradients_reach_every_parameter(encoder):
    assert without_gradient(encoder, 60) == (set(), set())


@pytest.mark.parametrize("frames", [4, 8])
def test_gradients_of_a_recording_without_a_summary_are_zero_but_there(frames):
    # Training in several processes wants a gradient of every parameter in every step.
    encoder = build(dataclasses.replace(TWO_LEVELS, chunk_frames=4, summary_strides=(10,)))
    # Where only the empty slot can be read, it does not matter how it is found.
    memory = ("pools.", "levels.")
    finding = (".reader_norm.", ".reader.query.", ".reader.empty_key")
    expected = {n for n, _ in encoder.named_parameters() if n.startswith(memory) or any(f in n for f in finding)}
    expected = {name for name in expected if not name.endswith("score.bias")}
    assert without_gradient(encoder, frames) == (set(), expected)


def test_gradients_of_a_whole_recording_do_not_look_ahead(encoder):
    x = features(24).requires_grad_()
    encoder(x).final[:, :10].sum().backward()
    assert x.grad[:, :40].abs().sum(dim=2).gt(0).all()
    assert not x.grad[:, 40:].any()
