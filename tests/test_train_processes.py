# ruff: noqa: E402 - torch is looked for before the modules that import it
import json
import math
import os

import pytest

torch = pytest.importorskip("torch", reason="training needs the extra `train`")

from edgeasr.errors import ConfigError
from edgeasr.train.checkpoint import load_tensors
from edgeasr.train.data import Batch, BatchPlan
from edgeasr.train.loop import RESUME, Trainer, train
from edgeasr.train.processes import Observer, Outcome, Place, Progress, never, unheard

BETA = 0.9  # of the optimiser: after one step its first moment is (1 - BETA) times the gradient
PLAIN = {"speed": (1.0, 1.0), "noise": 0.0, "reverb": 0.0, "equalizer": 0.0, "band_limit": 0.0, "codec": 0.0}


def joined(batches: list[Batch]) -> Batch:
    """One batch of the rows of several."""

    def padded(rows):
        return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)

    return Batch(
        padded([row for batch in batches for row in batch.features]),
        torch.cat([batch.frames for batch in batches]),
        padded([row for batch in batches for row in batch.targets]),
        torch.cat([batch.target_lengths for batch in batches]),
        padded([row for batch in batches for row in batch.phones]),
        torch.cat([batch.phone_lengths for batch in batches]),
    )


def moments(recipe) -> dict[str, torch.Tensor]:
    """First moments of the optimiser in the saved state, by their names."""
    prefix, tensors = "optimizer.", load_tensors(recipe.directory / RESUME)[0]
    return {
        name[len(prefix) :]: t for name, t in tensors.items() if name.startswith(prefix) and name.endswith("exp_avg")
    }


def test_a_place_alone_sums_and_waits_for_nobody():
    place, tensor = Place(), torch.tensor([1.0, 2.0])
    place.sum(tensor)
    place.wait()
    assert tensor.tolist() == [1.0, 2.0]
    assert (place.leads, Place(1, 2).leads, Place(0, 2).leads) == (True, False, True)


def test_an_observer_hears_nothing_and_never_stops_unless_told_so():
    observer = Observer()
    assert (observer.report, observer.watch, observer.stop) == (unheard, unheard, never)
    assert observer.stop() is False


def test_two_processes_make_the_step_that_one_makes_on_both_batches(toy_recipe, toy_model, tmp_path):
    model = toy_model(dropout=0.0)
    options = {"model": model, "augment": PLAIN | {"clean_steps": 10**6}, "optimizer": {"bf16": False}}
    single = Trainer(toy_recipe(tmp_path, **options))
    single.begin()  # decodes, so that a stop cannot come before the first step
    single.model = single.encoder
    halves_s = single.recipe.data.batch_s / 2
    first = BatchPlan(single.corpus.plan.durations_s, single.corpus.plan.shares, halves_s, seed=1).epoch(0, True)[:2]
    batches = [single.corpus.collate(indices, (1, 0, 0, rank)) for rank, indices in enumerate(first)]
    assert batches[0].features.shape != batches[1].features.shape
    assert batches[0].target_lengths.sum() != batches[1].target_lengths.sum()
    single.train_step(joined(batches))

    environment, lines, progress = dict(os.environ), [], []
    recipe = toy_recipe(tmp_path, **options, run={"processes": 2})
    outcome = train(recipe, lines.append, watch=progress.append, stop=lambda: True)

    assert outcome == Outcome(step=1, finished=False, best=math.inf)
    assert [line for line in lines if line.endswith("2 processes, step 0")]
    assert [(p.what, p.done, p.total) for p in progress] == [("training", 1, 8), ("saved", 1, 8)]
    assert dict(os.environ) == environment
    wanted = {name: t for name, t in single.optimizer.tensors().items() if name.endswith("exp_avg")}
    found = moments(recipe)
    assert found.keys() == wanted.keys()
    for name, want in wanted.items():
        torch.testing.assert_close(found[name], want.contiguous(), rtol=1e-4, atol=1e-7)
    assert max(float(tensor.abs().max()) for tensor in found.values()) > (1 - BETA) * 0.01
    saved = json.loads(load_tensors(recipe.directory / RESUME)[1]["progress"])
    assert (saved["step"], saved["position"], saved["processes"]) == (1, 1, 2)

    with pytest.raises(ConfigError, match="was saved in 2 processes, this run has 1: go on with --processes 2"):
        train(toy_recipe(tmp_path, **options), unheard)


def test_an_error_in_a_process_is_one_of_the_caller(toy_recipe, tmp_path, capfd):
    recipe = toy_recipe(tmp_path, data={"noise": ("no such folder",)}, run={"processes": 2})
    with pytest.raises(ConfigError, match=r"got no recordings in the noise folder .*no such folder"):
        train(recipe, unheard)
    assert capfd.readouterr() == ("", "")


def test_a_stop_while_speech_is_decoded_is_an_interrupt(toy_recipe, tmp_path):
    progress: list[Progress] = []
    with pytest.raises(KeyboardInterrupt):
        train(toy_recipe(tmp_path), unheard, watch=progress.append, stop=lambda: len(progress) >= 3)
    assert [(p.what, p.done, p.total) for p in progress] == [("decoding", n, 20) for n in (1, 2, 3)]
    assert train(toy_recipe(tmp_path, optimizer={"steps": 3}), unheard).finished
