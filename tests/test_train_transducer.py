# ruff: noqa: E402 - torch is looked for before the modules that import it
import dataclasses
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs the extra `train`")
pytest.importorskip("jiwer", reason="training needs the extra `train`")

from torch import nn

from edgeasr.bundle import Bundle
from edgeasr.errors import BundleError, ConfigError
from edgeasr.tokenizer import CHARACTERS, Tokenizer
from edgeasr.train import transducer as command
from edgeasr.train.checkpoint import Checkpoint, load_tensors
from edgeasr.train.frame_files import FrameFile
from edgeasr.train.loop import RESUME
from edgeasr.train.piece_text import PieceText
from edgeasr.train.transducer import TransducerJob, train
from edgeasr.train.transducer_config import DamageConfig, HeadConfig, LatticeConfig, TextConfig, TransducerConfig
from edgeasr.train.transducer_head import TransducerHead
from edgeasr.train.transducer_teachers import Teacher, Teachers, head_of, read_transducer
from edgeasr.train.unit_selection import UnitConfig
from edgeasr.transducer import Transducer
from edgeasr.transducer_decoder import SURE_BLANK, TransducerDecoder

HEAD = HeadConfig(
    behind=2,
    ahead=3,
    context=4,
    predictor_context=3,
    frame_width=10,
    width=24,
    inner_width=20,
    piece_width=6,
    text_width=14,
)
V, C = len(CHARACTERS), 12
SHIPPED = Path(command.__file__).parents[1] / "models" / "tiny-en"
UNITS = UnitConfig(passes=2, longest_phones=(2, 4), pause_frames=(0, 2), words=(1, 6), shard_sentences=20)
CONFIG = TransducerConfig(
    head=HEAD,
    units=UNITS,
    text=TextConfig(steps=0, warmup_steps=0),
    lattice=LatticeConfig(
        steps=30, warmup_steps=2, peak_rate=1e-3, ema_decay=0.9, utterances=24, speech_share=0.5, before=2, after=2
    ),
    steps=120,
    warmup_steps=3,
    peak_rate=5e-3,
    speech_share=0.5,
    noise_hours=0.01,
    own_errors_from=0.05,
    ema_decay=0.9,
    batch_frames=64,
    shard_steps=5,
    shards_open=2,
    evaluate_every=60,
    log_every=1,
    save_every=10,
)


def weighty(config: HeadConfig = HEAD, seed: int = 0) -> TransducerHead:
    """A head all of whose weights count: none is what it is at first."""
    torch.manual_seed(seed)
    emission = nn.Linear(C, V)
    with torch.no_grad():
        # The first channel says nothing but how blank a frame is.
        emission.weight[:, 0] = 0.0
        emission.weight[0, 0] = 10.0
    head = TransducerHead(emission, config)
    with torch.no_grad():
        for norm in (head.expand_norm, head.output_norm, head.text.expand_norm, head.text.output_norm):
            norm.weight.uniform_(0.5, 1.5)
            norm.bias.uniform_(-0.5, 0.5)
        head.output.weight.normal_(0, 0.7)
        head.output.bias.normal_()
        head.gain.fill_(0.8)
        head.text.output.weight.normal_(0, 0.7)
        head.text.output.bias.normal_()
        head.text_gain.fill_(0.6)
    return head.eval()


@torch.no_grad()
def decoded(head: TransducerHead, outputs: torch.Tensor) -> list[list[int]]:
    """The best token of every frame, given those before it, of a batch of outputs (B, T, C)."""
    config, (rows, frames, _) = head.config, outputs.shape
    padded = torch.nn.functional.pad(outputs, (0, 0, config.behind, config.ahead))
    absent = torch.ones(rows, padded.shape[1], dtype=torch.bool)
    absent[:, config.behind : config.behind + frames] = False
    context = torch.full((rows, config.context), V)
    said: list[list[int]] = [[] for _ in range(rows)]
    for t in range(frames):
        best = head(padded[:, t : t + config.window], absent[:, t : t + config.window], context).argmax(-1)
        sure = head.log_probs(outputs[:, t])[:, 0] >= SURE_BLANK
        for row, token in enumerate(torch.where(sure, 0, best).tolist()):
            if token:
                said[row].append(token)
                context[row] = torch.cat([context[row, 1:], torch.tensor([token])])
    return said


@torch.no_grad()
def test_folded_and_without_torch_it_computes_the_same():
    head, generator = weighty(), torch.Generator().manual_seed(1)
    outputs = 2 * torch.randn(1, HEAD.window + 4, C, generator=generator)
    contexts = torch.randint(0, V + 1, (5, HEAD.context), generator=generator)
    windows = torch.stack([outputs[0, i : i + HEAD.window] for i in range(5)])
    want = head(windows, torch.zeros(5, HEAD.window, dtype=torch.bool), contexts).log_softmax(-1).numpy()
    log_probs = head.log_probs(outputs[0]).numpy()
    exact = head.to_transducer()
    for transducer, tolerance in ((exact, 1e-3), (Transducer.unpacked(exact.packed(), "it"), 0.3)):
        frames = transducer.project(log_probs)
        for i, context in enumerate(contexts.tolist()):
            predicted, now = transducer.predict(tuple(context)), HEAD.behind + i
            heard = transducer.hear(frames, np.array([i]))
            scores = transducer.join(heard, predicted, log_probs[now : now + 1])[0].astype(np.float64)
            got = scores - np.log(np.exp(scores).sum())
            np.testing.assert_allclose(got, want[i], atol=tolerance)


@torch.no_grad()
def test_a_head_takes_what_another_was_folded_to():
    head, generator = weighty(), torch.Generator().manual_seed(1)
    other = weighty(seed=4)
    other.emission_weight.copy_(head.emission_weight)
    other.emission_bias.copy_(head.emission_bias)
    outputs, absent = torch.randn(6, HEAD.window, C, generator=generator), torch.rand(6, HEAD.window) < 0.3
    given = outputs, absent, torch.randint(0, V + 1, (6, HEAD.context), generator=generator)
    want = head(*given).log_softmax(-1)
    assert not torch.allclose(other(*given).log_softmax(-1), want, atol=0.1)
    other.take(head.to_transducer())
    torch.testing.assert_close(other(*given).log_softmax(-1), want, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(other.text(given[2]).log_softmax(-1), head.text(given[2]).log_softmax(-1))
    assert HeadConfig.of(head.to_transducer()) == HEAD


def test_a_head_takes_nothing_of_another_size():
    with pytest.raises(ConfigError, match=r"got a transducer of 29 tokens and HeadConfig\(.*width=24.*wanted 29 and"):
        weighty(replace(HEAD, width=30)).take(weighty().to_transducer())


def written(folder, name: str, head: TransducerHead) -> Path:
    """A file of what was trained with the encoder of `weighty()`."""
    path = folder / name
    with torch.no_grad():
        head.emission_weight.copy_(weighty().emission_weight)
        head.emission_bias.copy_(weighty().emission_bias)
    path.write_bytes(head.to_transducer().packed())
    return path


def emission_of(head: TransducerHead) -> nn.Linear:
    emission = nn.Linear(C, V)
    emission.load_state_dict({"weight": head.emission_weight, "bias": head.emission_bias})
    return emission


@torch.no_grad()
def test_teachers_say_the_weighted_mean_of_what_they_say(tmp_path):
    emission = emission_of(weighty())
    # One that knows fewer pieces hears the last of them.
    files = [
        written(tmp_path, "a", weighty(seed=1)),
        written(tmp_path, "b", weighty(replace(HEAD, context=3), seed=2)),
    ]
    teachers = Teachers([Teacher(files[0], 3.0), Teacher(files[1], 1.0)], emission, HEAD, bf16=False)
    outputs, absent = torch.randn(4, HEAD.window, C), torch.rand(4, HEAD.window) < 0.3
    context, pairs = torch.randint(0, V + 1, (2, HEAD.context)), torch.tensor([[0, 3, 3], [1, 1, 0]])
    first, second = (head_of(read_transducer(path), emission).eval() for path in files)
    said = 0.75 * first(outputs, absent, context, pairs).log_softmax(-1)
    said += 0.25 * second(outputs, absent, context[:, -3:], pairs).log_softmax(-1)
    got = teachers.log_probs(outputs, absent, context, pairs)
    torch.testing.assert_close(got, said.log_softmax(-1))
    torch.testing.assert_close(got.exp().sum(-1), torch.ones(3))


def test_teachers_that_cannot_teach_are_refused(tmp_path):
    emission = emission_of(weighty())
    for other, heard in ((replace(HEAD, ahead=4), "4 ahead"), (replace(HEAD, context=5), "knows 5 pieces")):
        path = written(tmp_path, "other", weighty(other))
        with pytest.raises(ConfigError, match=heard):
            Teachers([Teacher(path)], emission, HEAD, bf16=False)
    with pytest.raises(ConfigError, match=r"the weight of .* is 0.0: it must be a positive number"):
        Teacher(path, 0.0)
    with pytest.raises(BundleError, match=r"cannot read the transducer .*nothing"):
        Teachers([Teacher(tmp_path / "nothing")], emission, HEAD, bf16=False)
    words = next(SHIPPED.glob("*.lm"))
    with pytest.raises(BundleError, match=r"is a language model, wanted a transducer"):
        Teachers([Teacher(words)], emission, HEAD, bf16=False)
    strange = emission_of(weighty(seed=3))
    with pytest.raises(ConfigError, match="got a transducer of another encoder"):
        Teachers([Teacher(written(tmp_path, "a", weighty()))], strange, HEAD, bf16=False)


@pytest.mark.parametrize("chunk", [1, 2, 5, 64])
def test_decoding_in_chunks_is_decoding_of_a_batch(chunk):
    head = weighty(seed=2)
    outputs = 3 * torch.randn(4, 40, C, generator=torch.Generator().manual_seed(3))
    # Silence at the end, so that of nothing that is said there is only a guess.
    outputs[..., 0] = 0.0
    outputs[:, -HEAD.ahead :, 0] = 3.0
    tokenizer, transducer = Tokenizer(), head.to_transducer()
    for row, said in zip(outputs, decoded(head, outputs), strict=True):
        assert len(said) > 10
        decoder, log_probs = TransducerDecoder(transducer, tokenizer, 0.04), head.log_probs(row).numpy()
        for start in range(0, 40, chunk):
            decoder.accept(log_probs[start : start + chunk])
        assert decoder.text == " ".join(tokenizer.decode(said).split())


@torch.no_grad()
def test_at_first_it_says_what_the_emissions_say():
    head = TransducerHead(nn.Linear(C, V), HEAD).eval()
    outputs = torch.randn(3, HEAD.window, C)
    absent = torch.rand(3, HEAD.window) < 0.5
    scores = head(outputs, absent, torch.randint(0, V, (3, HEAD.context)))
    torch.testing.assert_close(scores, head.log_probs(outputs[:, HEAD.behind]))


@torch.no_grad()
def test_frames_are_scored_with_the_contexts_that_are_named():
    head, outputs = weighty(), torch.randn(3, HEAD.window, C)
    absent, context = torch.rand(3, HEAD.window) < 0.3, torch.randint(0, V, (2, HEAD.context))
    pairs = torch.tensor([[0, 2, 2, 1], [1, 1, 0, 1]])
    want = head(outputs[pairs[0]], absent[pairs[0]], context[pairs[1]])
    torch.testing.assert_close(head(outputs, absent, context, pairs), want)


def test_what_is_absent_does_not_count():
    head, outputs = weighty(), torch.randn(2, HEAD.window, C)
    absent = torch.zeros(2, HEAD.window, dtype=torch.bool)
    absent[:, HEAD.behind + 1 :] = True
    other = outputs.clone()
    other[:, HEAD.behind + 1 :] = 5.0
    context = torch.zeros(2, HEAD.context, dtype=torch.int64)
    torch.testing.assert_close(head(outputs, absent, context), head(other, absent, context))
    assert not torch.allclose(head(outputs, absent, context), head(outputs, ~absent & False, context))


def test_a_model_whose_emissions_do_not_tell_its_output_is_refused():
    with pytest.raises(ConfigError, match="29 tokens and 29 channels, wanted more tokens than channels"):
        TransducerHead(nn.Linear(29, 29), HEAD)


# Training


def job(trained, folder, config: TransducerConfig = CONFIG, **changed) -> TransducerJob:
    text = folder / "text"
    if not text.exists():
        rng = np.random.default_rng(9)
        words = ["".join(rng.choice(list("abcd"), rng.integers(1, 5))) for _ in range(30)]
        text.write_text("".join(f"{' '.join(rng.choice(words, 4))}\n" for _ in range(60)))
    given = {"text": text, "directory": folder / "run", "hours": 0.03, "config": config} | changed
    return TransducerJob.load(trained.recipe, trained.recipe.directory / "best.safetensors", **given)


@pytest.fixture(scope="module")
def straight(trained, tmp_path_factory) -> SimpleNamespace:
    """A run from the first step to the last, and what it said."""
    folder, lines = tmp_path_factory.mktemp("transducer"), []
    one = job(trained, folder)
    outcome = train(one, lines.append)
    return SimpleNamespace(job=one, folder=folder, lines=lines, outcome=outcome)


def losses(lines: list[str]) -> list[float]:
    return [float(line.rpartition("loss ")[2]) for line in lines if "loss " in line]


def test_it_learns_and_writes_a_transducer_that_decodes(straight, trained):
    assert (straight.outcome.step, straight.outcome.finished) == (150, True)
    found = losses(straight.lines)
    assert len(found) == 150
    assert np.mean(found[110:120]) < 0.3 * np.mean(found[:3])
    assert np.mean(found[-10:]) < 0.9 * np.mean(found[120:123])
    transducer = Transducer.unpacked(straight.job.output.read_bytes(), "it")
    assert (transducer.vocabulary_size, transducer.behind, transducer.ahead) == (V, 2, 3)
    rates = [float(line.rpartition(" ")[2]) for line in straight.lines if "wer/dev" in line]
    assert len(rates) == 3
    stages = [line.partition(":")[0] for line in straight.lines if "wer/dev" in line]
    assert stages[1:] == ["step 120 of 150, aligned frames", "step 150 of 150, nearby alignments"]
    assert straight.outcome.best == pytest.approx(min(rates), abs=1e-4)
    assert rates[-1] < 0.6
    assert any("h of sentences" in line for line in straight.lines)
    noise = FrameFile.load(straight.job.output.parent / "noise" / "0.01-h.safetensors")
    assert len(noise.labels) * straight.job.recipe.model.frame_s >= 36
    assert not noise.labels.any()


class Stop:
    """A request that comes when it was asked for often enough."""

    def __init__(self, after: int) -> None:
        self.left = after

    def __call__(self) -> bool:
        self.left -= 1
        return self.left < 0


def stopped(one: TransducerJob, last: int) -> int:
    """Train up to a step. returns: where it stopped"""
    asked = Stop(10**6)
    stop = f"step {last} of "
    return train(one, lambda line: setattr(asked, "left", 0) if line.startswith(stop) else None, asked).step


def test_a_run_that_was_stopped_goes_on_to_the_same_weights(straight, trained, tmp_path):
    one = job(trained, tmp_path, text=straight.job.text)
    asked = Stop(10**6)
    with pytest.raises(KeyboardInterrupt):
        train(one, lambda line: setattr(asked, "left", 1) if line.startswith("decoding: 4") else None, asked)
    assert not list((tmp_path / "run" / "speech").glob("*.safetensors"))
    asked.left = 10**6
    outcome = train(one, lambda line: setattr(asked, "left", 7) if "parameters" in line else None, asked)
    assert (outcome.step, outcome.finished) == (8, False)
    made = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").glob("s*/*")}
    # At the end of a stage, behind its first step, and somewhere.
    for last in (120, 121, 137):
        assert stopped(one, last) == last
    assert train(one, lambda line: None).finished
    assert {path: path.stat().st_mtime_ns for path in made} == made
    ours, theirs = (load_tensors(folder / "run" / RESUME)[0] for folder in (tmp_path, straight.folder))
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert torch.equal(tensor, theirs[name]), name
    assert {"more.pass-0", "more.pass-1"} <= ours.keys()
    assert one.output.read_bytes() == straight.job.output.read_bytes()


def test_a_transducer_goes_on_and_is_taught(straight, tmp_path):
    """What it was is where it begins; taught by that alone, and by nothing else, it stays what it was."""
    shutil.copytree(straight.folder / "run", tmp_path / "run", ignore=shutil.ignore_patterns(RESUME, "*.npz"))
    recipe = replace(straight.job.recipe, run=replace(straight.job.recipe.run, directory=str(tmp_path / "run")))
    whole = DamageConfig(wrong_pieces=0.0, own_errors=0.0, ends=0.0, lost_frames=0.0)
    lattice = replace(CONFIG.lattice, steps=12, taught=1.0, peak_rate=1e-4)
    config = replace(
        CONFIG, damage=whole, steps=0, warmup_steps=0, lattice=lattice, head=replace(HEAD, dropout=0.0), log_every=1
    )
    one = replace(
        straight.job, recipe=recipe, config=config, start=straight.job.output, teachers=(Teacher(straight.job.output),)
    )
    lines: list[str] = []
    assert train(one, lines.append).step == 12
    assert max(losses(lines)) < 0.02
    said = straight.lines[-1].partition("wer/dev")[2], lines[-1].partition("wer/dev")[2]
    assert said[0] == said[1] != ""
    # The whole that one alone has of the weight does not change; another that teaches with it does.
    assert replace(one, teachers=(Teacher(straight.job.output, 2.0),)).settings == one.settings
    other = tmp_path / "other.npz"
    shutil.copy(straight.job.output, other)
    both = Teacher(straight.job.output, 1.0), Teacher(other, 3.0)
    assert replace(one, teachers=both).settings == replace(one, teachers=both[::-1]).settings
    with pytest.raises(ConfigError, match="has teachers_sha256"):
        train(replace(one, teachers=both), lambda line: None)
    with pytest.raises(ConfigError, match="this run writes, as what it begins with or is taught by: copy it"):
        replace(one, start=one.output)
    with pytest.raises(ConfigError, match="got teachers and no steps on nearby alignments"):
        replace(one, config=replace(CONFIG, lattice=CONFIG.lattice.of_steps(0)))


def test_what_it_said_itself_is_kept_with_the_weights(straight, monkeypatch, tmp_path):
    """What each file's pieces were depends on the weights at the step in which it was opened, and on nothing else."""

    def told(head, frames, place, bf16):
        return 1 + (int(head.gain.detach() * 2**22) + np.arange(len(frames.begun))) % (V - 1)

    monkeypatch.setattr(command, "own_pieces", told)
    lattice = replace(CONFIG.lattice, steps=20)
    config = replace(CONFIG, steps=40, lattice=lattice, damage=DamageConfig(own_errors=0.5), noise_hours=0.0)
    weights = []
    for name, stops in (("straight", ()), ("stopped", (8, 13, 20, 21, 42, 55))):
        folder = tmp_path / name
        shutil.copytree(straight.folder / "run", folder, ignore=shutil.ignore_patterns(RESUME, "*.npz"))
        run = replace(straight.job.recipe.run, directory=str(folder))
        one = replace(straight.job, recipe=replace(straight.job.recipe, run=run), config=config)
        for stop in stops:
            assert stopped(one, stop) == stop
        assert train(one, lambda line: None).finished
        weights.append(load_tensors(folder / RESUME)[0])
    assert weights[0].keys() == weights[1].keys()
    for name, tensor in weights[0].items():
        assert torch.equal(tensor, weights[1][name]), name


def test_a_kill_after_the_last_save_costs_no_more_than_the_steps_since(straight, trained, tmp_path):
    one = job(trained, tmp_path, text=straight.job.text)

    def report(line: str) -> None:
        if line.startswith("step 14 "):
            raise MemoryError

    with pytest.raises(MemoryError):
        train(one, report)
    lines: list[str] = []
    train(one, lines.append)
    assert any(line.endswith("step 10") for line in lines)
    assert losses(lines) == losses(straight.lines)[10:]


def test_two_processes_share_the_work(straight, trained, tmp_path):
    two = replace(trained.recipe, run=replace(trained.recipe.run, processes=2))
    text = TextConfig(steps=10, warmup_steps=2, peak_rate=1e-2, ema_decay=0.9, pieces=256)
    lattice = replace(CONFIG.lattice, steps=60, peak_rate=3e-3)
    config = replace(CONFIG, text=text, lattice=lattice, steps=40, evaluate_every=40)
    lines: list[str] = []
    given = {"text": straight.job.text, "teachers": (Teacher(straight.job.output),)}
    outcome = train(job(SimpleNamespace(recipe=two), tmp_path, config, **given), lines.append)
    assert outcome.finished
    assert len(list((tmp_path / "run" / "speech").glob("*.safetensors"))) == 2
    ones = sorted((straight.folder / "run" / "sentences").glob("*.safetensors"))
    for path in ones:
        twin = FrameFile.load(tmp_path / "run" / "sentences" / path.name)
        assert twin.labels.tolist() == FrameFile.load(path).labels.tolist()
    text_losses, found = losses(lines)[:10], losses(lines)[10:]
    assert text_losses[-1] < text_losses[0]
    assert np.mean(found[30:40]) < 0.7 * np.mean(found[:3])
    assert np.mean(found[-20:]) < np.mean(found[40:60])


def test_text_is_learned_first_and_then_left_alone(straight, trained, tmp_path):
    """Of the pieces of a text that repeats itself the language model knows the next; the head uses what it says."""
    text = TextConfig(steps=200, warmup_steps=2, peak_rate=1e-2, ema_decay=0.9, pieces=256)
    one = job(trained, tmp_path, replace(CONFIG, text=text, noise_hours=0.0), text=straight.job.text)
    one = replace(one, recipe=replace(one.recipe, run=replace(one.recipe.run, directory=str(tmp_path / "run"))))
    assert stopped(one, 200) == 200
    learned = load_tensors(tmp_path / "run" / RESUME)[0]
    lines: list[str] = []
    assert train(one, lines.append).finished
    stages = [line.partition(":")[0] for line in lines if "loss" in line]
    assert stages[0] == "step 201 of 350, aligned frames"
    then = load_tensors(tmp_path / "run" / RESUME)[0]
    names = [name for name in learned if name.startswith("average.text.")]
    assert names
    assert all(torch.equal(learned[name], then[name]) for name in names)
    model = Transducer.unpacked(one.output.read_bytes(), "it").text
    tokenizer, costs = one.recipe.tokenizer, []
    for line in straight.job.text.read_text().splitlines():
        context = (V,) * HEAD.context
        for piece in tokenizer.encode(line):
            costs.append(-float(model.log_probs(context)[piece]))
            context = (*context[1:], piece)
    assert np.mean(costs) < 0.8 * np.log(len("abcd "))


def test_the_pieces_of_a_text_and_what_is_before_them(tmp_path):
    path = tmp_path / "text"
    path.write_text("ab c\n\nd\n")
    text, tokenizer = PieceText(path, Tokenizer(), 3), Tokenizer()
    a, b, c, d, space = (tokenizer.encode(letter)[0] for letter in "abcd ")
    assert len(text) == 5
    contexts, pieces = text.draw(400, np.random.default_rng(1))
    seen = {(*context, piece) for context, piece in zip(contexts.tolist(), pieces.tolist(), strict=True)}
    assert seen == {(V, V, V, a), (V, V, a, b), (V, a, b, space), (a, b, space, c), (V, V, V, d)}


def test_frames_of_something_else_are_not_taken(straight, trained, tmp_path):
    (tmp_path / "other").write_text("a b c\n" * 30)
    other = replace(job(trained, tmp_path, text=tmp_path / "other"), recipe=straight.job.recipe)
    with pytest.raises(ConfigError, match="has frames of another text: take back the change, or choose another dir"):
        train(other, lambda line: None)
    units = replace(CONFIG, units=replace(UNITS, seed=5))
    with pytest.raises(ConfigError, match="another settings of units"):
        train(replace(straight.job, config=units), lambda line: None)
    wider = replace(CONFIG, head=replace(HEAD, width=30))
    with pytest.raises(ConfigError, match=r"has training\.head\.width 24, this run 30"):
        train(replace(straight.job, config=wider), lambda line: None)
    with pytest.raises(
        ConfigError, match=rf"training\.lattice\.steps {CONFIG.lattice.steps}, this run 77: take back the change"
    ):
        train(replace(straight.job, config=replace(CONFIG, lattice=CONFIG.lattice.of_steps(77))), lambda line: None)


def test_a_text_that_cannot_be_said_is_refused(trained, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))  # nobody guesses pronunciations
    (tmp_path / "text").write_text("xyz zyx\n" * 3)
    with pytest.raises(ConfigError, match="a text of which no sentence can be said"):
        train(job(trained, tmp_path), lambda line: None)


def test_what_does_not_fit_together_is_refused_at_once(trained, toy_recipe, toy_model, tmp_path):
    with pytest.raises(ConfigError, match=r"got the text .*nowhere, where no file is"):
        job(trained, tmp_path, text=tmp_path / "nowhere")
    with pytest.raises(ConfigError, match=r"got the dictionary .*nowhere, where no file is"):
        job(trained, tmp_path, dictionary=tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="hours is 0"):
        job(trained, tmp_path, hours=0)
    shards = replace(trained.recipe.data, train=(), shards=("a",))
    with pytest.raises(ConfigError, match=r"has data\.shards, wanted data\.train"):
        job(SimpleNamespace(recipe=replace(trained.recipe, data=shards)), tmp_path)
    with pytest.raises(ConfigError, match=r"no data\.dictionary"):
        job(SimpleNamespace(recipe=replace(trained.recipe, data=replace(trained.recipe.data, dictionary=""))), tmp_path)
    best = Checkpoint.load(trained.recipe.directory / "best.safetensors")
    weights = {name: tensor for name, tensor in best.weights.items() if "phone" not in name}
    config = replace(best.config, phone_vocabulary_size=0)
    replace(best, config=config, weights=weights).save(tmp_path / "deaf.safetensors")
    with pytest.raises(ConfigError, match="a model of 0 phones, wanted 41"):
        TransducerJob.load(trained.recipe, tmp_path / "deaf.safetensors", tmp_path / "text", tmp_path / "run", 1.0)
    with pytest.raises(BundleError, match="where no file is"):
        TransducerJob.load(trained.recipe, tmp_path / "none.safetensors", tmp_path / "text", tmp_path / "run", 1.0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 3}, "warmup_steps is 3, steps 3: wanted warmup_steps < steps"),
        ({"steps": 0, "lattice": {"steps": 0, "warmup_steps": 0}}, "steps and lattice.steps are 0"),
        ({"lattice": {"taught": 1.1}}, "taught is 1.1"),
        ({"batch_frames": 0}, "batch_frames is 0"),
        ({"peak_rate": 0.0}, "peak_rate is 0"),
        ({"ema_decay": 1.0}, "ema_decay is 1"),
        ({"speech_share": 1.1}, "speech_share is 1.1"),
        ({"speech_share": 0.8, "noise_share": 0.3}, "speech_share is 0.8, noise_share 0.3: wanted at most 1"),
        ({"own_errors_from": -0.1}, "own_errors_from is -0.1"),
        ({"noise_hours": -1.0}, "noise_hours is -1"),
        ({"weight_decay": -1.0}, "weight_decay is -1"),
        ({"text": {"steps": -1}}, "steps is -1"),
        ({"text": {"pieces": 0}}, "pieces is 0"),
        ({"text": {"ema_decay": 1.0}}, "ema_decay is 1"),
        ({"text": {"steps": 5, "warmup_steps": 5}}, "warmup_steps is 5, steps 5: wanted warmup_steps < steps"),
        ({"lattice": {"speech_share": 1.1}}, "speech_share is 1.1"),
        ({"lattice": {"short_contexts": -0.1}}, "short_contexts is -0.1"),
        ({"lattice": {"speech_share": 0.97}}, "speech_share is 0.97, noise_share 0.04: wanted at most 1"),
        ({"head": {"context": 3, "predictor_context": 4}}, "predictor_context is 4, context 3"),
        ({"lattice": {"before": -1}}, "before is -1"),
        ({"lattice": {"utterances": 0}}, "utterances is 0"),
        ({"lattice": {"ema_decay": 1.0}}, "ema_decay is 1"),
        ({"lattice": {"steps": 5, "warmup_steps": 5}}, "warmup_steps is 5, steps 5: wanted warmup_steps < steps"),
        ({"head": {"ahead": -1}}, "ahead is -1"),
        ({"head": {"width": 0}}, "width is 0"),
        ({"head": {"dropout": 1.0}}, "dropout is 1"),
        ({"damage": {"wrong_pieces": 0.6}}, "wrong_pieces is 0.6"),
        ({"damage": {"own_errors": 0.6}}, "own_errors is 0.6"),
        ({"damage": {"ends": 1.0}}, "ends is 1"),
    ],
)
def test_impossible_settings_are_refused(settings, message):
    parts = {"head": HeadConfig, "damage": DamageConfig, "text": TextConfig, "lattice": LatticeConfig}

    def build():
        made = {name: parts[name](**value) if name in parts else value for name, value in settings.items()}
        return dataclasses.replace(CONFIG, **made)

    with pytest.raises(ConfigError, match=message):
        build()


# The command


RECIPE = """
[data]
train = ["train.jsonl"]
dev = ["dev.jsonl"]
dictionary = "words.dict"
max_duration_s = 3.0
batch_s = 6.0
sources = [{ name = "tones", licence = "CC0-1.0" }]
"""


@pytest.fixture
def call(trained, toy_folder, exported, tmp_path, monkeypatch, capsys):
    """The command line, in the folder of the toy language, with small settings."""
    monkeypatch.chdir(toy_folder)
    monkeypatch.setattr(command, "DEFAULTS", CONFIG)
    (tmp_path / "recipe.toml").write_text(RECIPE)
    (tmp_path / "text").write_text("abc dab\nbad cab\nac dc\n" * 10)
    checkpoint = trained.recipe.directory / "best.safetensors"

    def run(*more: object, text: str = "text") -> SimpleNamespace:
        given = (tmp_path / "recipe.toml", checkpoint, "--text", tmp_path / text, "--directory", tmp_path / "run")
        arguments = (*given, "--hours", "0.01", "--text-steps", "0", "--steps", "4", "--lattice-steps", "2", *more)
        monkeypatch.setattr(sys, "argv", ["transducer", *map(str, arguments)])
        code = 0
        try:
            command.main()
        except SystemExit as done:
            code = done.code
        out, err = capsys.readouterr()
        return SimpleNamespace(code=code, out=out, err=err)

    return run


def test_the_command_trains_and_puts_the_transducer_into_a_bundle(call, exported, tmp_path):
    bundle = tmp_path / "toy-model"
    shutil.copytree(exported.bundle.path, bundle)
    done = call("--bundle", bundle, "--source", "a text", "--licence", "CC0-1.0")
    assert (done.code, done.err) == (0, "")
    assert "step 4 of 6, aligned frames: wer/dev" in done.out
    assert "step 6 of 6, nearby alignments: wer/dev" in done.out
    assert done.out.endswith(f"Wrote {tmp_path / 'run' / 'transducer.npz'}\nWrote {bundle}\n")
    made = Bundle.load(bundle)
    assert made.content(made.transducer.file) == (tmp_path / "run" / "transducer.npz").read_bytes()
    wanted = [{"name": "tones", "licence": "CC0-1.0"}, {"name": "a text", "licence": "CC0-1.0"}]
    assert list(made.transducer.sources) == wanted


def test_the_command_says_what_is_amiss_before_it_begins(call, exported, tmp_path):
    assert "nothing, where no file is" in call(text="nothing").err
    assert "--source and --licence, wanted both" in call("--bundle", exported.bundle.path).err
    assert "cannot read the transducer none.npz" in call("--start", "none.npz").err
    assert "got x, wanted a whole number, 0 or more" in call("--steps", "x").err
    assert "got the weight 'much' of a teacher, wanted a number" in call("--teacher", "a.npz", "much").err
    assert "cannot read the transducer a.npz" in call("--teacher", "a.npz", "1").err
    from edgeasr.bundle import default_bundle

    other = call("--bundle", default_bundle(), "--source", "a", "--licence", "b")
    assert "has other tokens than" in other.err
    assert (other.code, other.out) == (2, "")
    assert not (tmp_path / "run").exists()
