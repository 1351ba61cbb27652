# ruff: noqa: E402 - torch is looked for before the modules that import it
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs the extra `train`")

from torch import nn

from edgeasr.train import own_pieces as own_module
from edgeasr.train.frame_files import FrameFile, FrameWriter, HeardRow
from edgeasr.train.processes import Place
from edgeasr.train.transducer_config import DamageConfig, HeadConfig, LatticeConfig, TransducerConfig
from edgeasr.train.transducer_frames import FrameSet, Shards, with_errors, with_holes
from edgeasr.train.transducer_head import TransducerHead
from edgeasr.train.transducer_stages import LatticeStage, Sets

HEAD = HeadConfig(
    behind=2,
    ahead=3,
    context=3,
    predictor_context=2,
    frame_width=10,
    width=24,
    inner_width=20,
    piece_width=6,
    text_width=14,
)
V, C = 29, 12
CONFIG = TransducerConfig(head=HEAD, shard_steps=5, shards_open=2)


@pytest.fixture
def head() -> TransducerHead:
    """One that says something of its own, mostly blanks."""
    torch.manual_seed(0)
    made = TransducerHead(nn.Linear(C, V), HEAD)
    with torch.no_grad():
        made.output.weight.normal_(0, 0.7)
        made.output.bias[0] = 20.0
    return made.eval()


@pytest.fixture
def file(tmp_path) -> FrameFile:
    """Two rows whose outputs are the numbers of their frames."""
    labels = [np.array([0, 5, 0, 7, 0, 0]), np.array([3, 0, 0, 4])]
    blanks = [np.log([0.9, 0.5, 0.99, 0.5, 0.99, 0.99]), np.log([0.99, 0.99, 0.3, 0.3])]
    with FrameWriter(tmp_path / "rows.safetensors") as writer:
        for i, (label, blank) in enumerate(zip(labels, blanks, strict=True)):
            numbers = np.arange(len(label)) + 10 * i
            writer.add(HeardRow(np.repeat(numbers[:, None], C, axis=1), label, blank))
        writer.finish(C)
    return FrameFile.load(tmp_path / "rows.safetensors")


def test_frames_have_what_is_around_them_and_what_was_said_before(file):
    frames = FrameSet(file, HEAD, V, blank_share=0.0, seed=1)
    # All but the sure blanks: 0, 1 and 3 of the first row, 0, 2 and 3 of the second, where 0 begins a piece.
    got = frames.frames(np.arange(len(frames)))
    assert got.labels.tolist() == [0, 5, 7, 3, 0, 4]
    begin = [V, V, V]
    assert got.context.tolist() == [begin, begin, [V, V, 5], begin, [V, V, 3], [V, V, 3]]
    assert got.outputs[:, HEAD.behind, 0].tolist() == [0, 1, 3, 10, 12, 13]
    assert got.absent.int().tolist() == [
        [1, 1, 0, 0, 0, 0],
        [0 + 1, 0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 1],
        [1, 1, 0, 0, 0, 0],
        [0, 0, 0, 0, 1, 1],
        [0, 0, 0, 1, 1, 1],
    ]
    assert got.outputs[2, :5, 0].tolist() == [1, 2, 3, 4, 5]
    assert frames.piece_counts[[3, 4, 5, 7]].tolist() == [1, 1, 1, 1]
    assert len(FrameSet(file, HEAD, V, blank_share=1.0, seed=1)) == 10


def test_what_is_said_itself_stands_where_the_true_pieces_stand(file):
    frames = FrameSet(file, HEAD, V, blank_share=1.0, seed=1)
    numbers = np.arange(len(frames))
    before = frames.frames(numbers)
    assert torch.equal(before.own, before.context)
    assert before.labels[frames.begun].tolist() == [5, 7, 3, 4]
    frames.set_own(np.array([15, 17, 13, 14]))
    got = frames.frames(numbers)
    assert torch.equal(got.context, before.context)
    mistakes = {5: 15, 7: 17, 3: 13, 4: 14, V: V}
    assert got.own.tolist() == [[mistakes[piece] for piece in row] for row in before.context.tolist()]


@torch.no_grad()
def test_what_it_says_itself_is_the_best_piece_given_the_true_ones(file, head, monkeypatch):
    monkeypatch.setattr(own_module, "_AT_ONCE", 1)
    frames = FrameSet(file, HEAD, V, blank_share=1.0, seed=1)
    asked = frames.frames(frames.begun)
    scores = head(asked.outputs, asked.absent, asked.context)
    want = (scores[:, 1:].argmax(-1) + 1).tolist()
    assert scores.argmax(-1).tolist() != want  # else the blank would not count
    got = own_module.own_pieces(head.train(), frames, Place(), bf16=False)
    assert got.tolist() == want
    monkeypatch.setattr(Place, "sum", lambda place, tensor: None)
    first, second = (own_module.own_pieces(head, frames, Place(rank, 2), bf16=False) for rank in (0, 1))
    assert [first.tolist(), second.tolist()] == [[want[0], 0, want[2], 0], [0, want[1], 0, want[3]]]


def test_an_utterance_has_the_frames_that_are_not_sure_and_a_context_behind_every_piece(file):
    frames = FrameSet(file, HEAD, V, blank_share=1.0, seed=1)
    assert frames.num_utterances == 2
    frames.set_own(np.array([15, 17, 13, 14]))
    first, second = (frames.utterance(number) for number in (0, 1))
    assert [part.tolist() for part in first.aligned] == [[0, 1, 3], [1, 2], [5, 7]]
    assert [part.tolist() for part in second.aligned] == [[6, 8, 9], [0, 2], [3, 4]]
    assert first.context.tolist() == [[V, V, V], [V, V, 5], [V, 5, 7]]
    assert second.own.tolist() == [[V, V, V], [V, V, 13], [V, 13, 14]]
    alone = frames.frames(np.array([6, 8, 9]))
    assert torch.equal(second.outputs, alone.outputs)
    assert torch.equal(second.absent, alone.absent)


def test_holes_are_of_the_share_that_is_asked_for():
    torch.manual_seed(0)
    absent = torch.zeros(4000, HEAD.window, dtype=torch.bool)
    got = with_holes(absent, HEAD, DamageConfig(ends=0.5, lost_frames=0.0))
    assert not got[:, : HEAD.behind + 1].any()
    share = got[:, HEAD.behind + 1 :].float().mean(dim=0)
    torch.testing.assert_close(share, 0.5 * torch.tensor([1 / 3, 2 / 3, 1.0]), atol=0.03, rtol=0)
    lost = with_holes(absent, HEAD, DamageConfig(ends=0.0, lost_frames=0.3))
    assert not lost[:, HEAD.behind].any()
    assert lost.float().mean().item() == pytest.approx(0.3 * 5 / 6, abs=0.02)
    assert with_holes(~absent, HEAD, DamageConfig()).all()


def test_errors_are_of_the_share_that_is_asked_for():
    torch.manual_seed(0)
    rows = 4000
    context, own = (torch.tensor([[V, piece, piece]]).expand(rows, 3) for piece in (1, 5))
    counts = np.zeros(V, np.int64)
    counts[[2, 3]] = 1, 3
    got = with_errors(context, own, DamageConfig(wrong_pieces=0.2, own_errors=0.0), counts)
    assert (got[:, 0] == V).all()
    wrong = got[:, 1:][got[:, 1:] != 1]
    assert len(wrong) / (2 * rows) == pytest.approx(0.2, abs=0.02)
    assert (wrong == 3).float().mean().item() == pytest.approx(0.75, abs=0.04)
    told = with_errors(context, own, DamageConfig(wrong_pieces=0.0, own_errors=0.2), counts)
    assert (told[:, 0] == V).all()
    assert (told[:, 1:] == 5).float().mean().item() == pytest.approx(0.2, abs=0.02)
    assert (told[:, 1:] == 1).float().mean().item() == pytest.approx(0.8, abs=0.02)
    # Some contexts have many of them, others none.
    assert (told[:, 1:] == 5).all(dim=1).float().mean().item() == pytest.approx(0.4**2 / 3, abs=0.02)
    assert torch.equal(with_errors(context, own, DamageConfig(wrong_pieces=0.0, own_errors=0.0), counts), context)


def test_shards_take_turns_and_each_is_open_as_long(file):
    files = [replace(file, path=file.path) for _ in range(5)]
    shards = Shards(files, CONFIG, V)
    opened = []
    for step in range(0, 125, 5):
        sets = shards.at(step)
        assert len(sets) <= CONFIG.shards_open
        assert [id(one) for one in shards.at(step + 4)] == [id(one) for one in sets]
        opened.append(sets)
    # The next ones but one are kept.
    assert all({id(a) for a in now} & {id(b) for b in then} for now, then in pairwise(opened))


# Stages


def lattice_stage(noise_share: float = CONFIG.noise_share, **settings: float) -> LatticeStage:
    """Utterances one by one, as aligned, without damage."""
    lattice = LatticeConfig(**{"utterances": 1, "before": 0, "after": 0, "short_contexts": 0.0} | settings)
    whole = DamageConfig(wrong_pieces=0.0, own_errors=0.0, ends=0.0, lost_frames=0.0)
    return LatticeStage(
        replace(CONFIG, damage=whole, lattice=lattice, speech_share=0.0, noise_share=noise_share), world=1
    )


@torch.no_grad()
def test_as_aligned_utterances_lose_what_their_frames_lose(file, head):
    frames = FrameSet(file, HEAD, V, blank_share=0.0, seed=1)
    asked = frames.frames(np.arange(len(frames)))
    lost = nn.functional.cross_entropy(head(asked.outputs, asked.absent, asked.context), asked.labels, reduction="none")
    # Each utterance has three frames and two pieces.
    want = {round(one.sum().item() / 2, 4) for one in lost.split(3)}
    sets = Sets([frames], [frames], [], frames.piece_counts, None)
    stage, rng = lattice_stage(), np.random.default_rng(0)
    assert {round(stage.loss(head, sets, rng).item(), 4) for _ in range(20)} == want


@torch.no_grad()
def test_of_noise_every_frame_that_is_not_sure_is_to_be_blank(file, head, tmp_path):
    with FrameWriter(tmp_path / "noise.safetensors") as writer:
        for blanks in ([0.99, 0.4, 0.3], [0.99, 0.99]):
            silent = np.zeros(len(blanks), np.int64)
            writer.add(HeardRow(np.ones((len(blanks), C)), silent, np.log(blanks)))
        writer.finish(C)
    speech = FrameSet(file, HEAD, V, blank_share=0.0, seed=1)
    noise = FrameSet(FrameFile.load(tmp_path / "noise.safetensors"), HEAD, V, blank_share=1.0, seed=1)
    assert (len(noise), noise.num_utterances) == (5, 1)
    heard = noise.frames(np.array([1, 2]))
    want = -head(heard.outputs, heard.absent, heard.context).log_softmax(-1)[:, 0].sum()
    sets = Sets([speech], [speech], [noise], speech.piece_counts, None)
    got = lattice_stage(speech_share=0.0, noise_share=1.0).loss(head, sets, np.random.default_rng(0))
    torch.testing.assert_close(got, want)


@torch.no_grad()
def test_recordings_are_heard_with_short_contexts_and_sentences_are_not(file, head):
    speech, sentences = (FrameSet(file, HEAD, V, blank_share=0.0, seed=1) for _ in range(2))
    rows = [sentences.utterance(number) for number in range(2)]
    begin = torch.tensor([V, V, V])
    assert [row.context[0].equal(begin) for row in rows] == [True, True]
    short = rows[0].with_short_context(1, V)
    # Of the second piece the one before is known, and of what follows both, only the last.
    assert short.context.tolist() == [[V, V, V], [V, V, 5], [V, V, 7]]
    assert short.own.tolist() == short.context.tolist()
    assert rows[0].context.tolist() == [[V, V, V], [V, V, 5], [V, 5, 7]]
    sets = Sets([speech], [sentences], [], speech.piece_counts, None)
    rng = np.random.default_rng(0)
    for share, lengths in ((1.0, {1, 2}), (0.0, {2})):
        stage = lattice_stage(utterances=200, speech_share=share, short_contexts=1.0, noise_share=0.0)
        last = [one.context[-1] for one in stage._drawn(sets, rng)]
        assert {int((context != V).sum()) for context in last} == lengths
