# ruff: noqa: E402 - torch is looked for before the modules that import it
import json
import threading
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs the extra `train`")

from edgeasr.corpora.opening import Reading, shuffled
from edgeasr.corpora.shard_writing import write_shards
from edgeasr.corpora.shards import INDEX, find_shards
from edgeasr.errors import ConfigError, ManifestError
from edgeasr.train.ahead import made_ahead
from edgeasr.train.checkpoint import Checkpoint, load_tensors
from edgeasr.train.corpus import Corpus
from edgeasr.train.loop import LAST, RESUME, train
from edgeasr.train.processes import Observer, Place
from edgeasr.train.shard_corpus import ShardCorpus
from edgeasr.train.shard_plan import ShardPlan, Take


class Killed(BaseException):
    """Stands for a kill: nothing is done after it."""


def said(_: str) -> None:
    """Reports that no test looks at."""


def killed_at(step: int):
    def watch(progress):
        if progress.what == "training" and progress.done == step:
            raise Killed

    return watch


def assert_same(a, b) -> None:
    """Bit for bit."""
    assert a.keys() == b.keys()
    assert [name for name in a if not torch.equal(a[name], b[name])] == []


def saved_state(recipe):
    return load_tensors(recipe.directory / RESUME)[0]


@pytest.fixture(scope="module")
def shards(toy_folder, tmp_path_factory):
    """The training speech of the language of tones in five shards."""
    folder = tmp_path_factory.mktemp("shards")
    rows = [json.loads(line) for line in (toy_folder / "train.jsonl").read_text().splitlines()]
    for part in range(5):
        lines = [row | {"audio_filepath": str(toy_folder / row["audio_filepath"])} for row in rows[part::5]]
        (folder / f"{part}.jsonl").write_text("\n".join(map(json.dumps, lines)))
        write_shards(shuffled([str(folder / f"{part}.jsonl")], Reading(), part), folder / str(part), 1)
    return tuple(str(folder / str(part)) for part in range(5))


@pytest.fixture
def recipe(toy_recipe, shards):
    def made(folder, *, data=None, **tables):
        data = {"train": (), "shards": shards, "buffer_s": 10.0} | (data or {})
        return toy_recipe(folder, data=data, **{"run": {"chunk_frames": (2, 4)}} | tables)

    return made


def load(recipe, world: int = 1) -> ShardCorpus:
    return ShardCorpus.load(recipe, Place(0, world), Observer())


# ShardPlan

RNG = np.random.default_rng(0)
DURATIONS_S = [tuple(RNG.uniform(0.5, 12.0, RNG.integers(20, 60)).tolist()) for _ in range(16)]


def plan(**changes) -> ShardPlan:
    settings = {"batch_s": 40.0, "buffer_s": 400.0, "max_duration_s": 20.0, "seed": 1}
    return ShardPlan(DURATIONS_S, [1.0] * 16, **settings | changes)


@pytest.mark.parametrize("short_first", [True, False])
def test_alone_every_sample_comes_once_an_epoch_within_the_bound(short_first):
    (reading,) = plan().epoch(3, short_first, 1)
    takes = [take for batch in reading.batches for take in batch]
    assert Counter(takes) == Counter(Take(i, k) for i, held in enumerate(DURATIONS_S) for k in range(len(held)))
    assert sorted(reading.shards) == list(range(16))
    lengths_s = [[DURATIONS_S[i][k] for i, k in batch] for batch in reading.batches]
    assert all(max(batch) * len(batch) <= 40.0 for batch in lengths_s)
    padded_s = sum(max(batch) * len(batch) for batch in lengths_s)
    assert padded_s < 1.1 * sum(map(sum, lengths_s))


def test_processes_read_shards_of_their_own_and_make_equally_many_batches():
    readings = plan().epoch(0, False, 3)
    assert sorted(shard for reading in readings for shard in reading.shards) == list(range(16))
    assert len({len(reading.batches) for reading in readings}) == 1
    for reading in readings:
        assert {take.shard for batch in reading.batches for take in batch} <= set(reading.shards)
    takes = Counter(take for reading in readings for batch in reading.batches for take in batch)
    assert max(takes.values()) == 1
    # What is lost because shards are not equally long: less than one of each process.
    lost_s = sum(map(sum, DURATIONS_S)) - sum(DURATIONS_S[i][k] for i, k in takes)
    assert lost_s < 3 * max(map(sum, DURATIONS_S))


def test_no_more_waits_than_the_buffer_holds():
    (reading,) = plan().epoch(0, False, 1)
    order = [Take(i, k) for i in reading.shards for k in range(len(DURATIONS_S[i]))]
    place = {take: n for n, take in enumerate(order)}
    read, waiting = 0, set()
    for batch in reading.batches:
        while not waiting.issuperset(batch):
            waiting.add(order[read])
            read += 1
        assert sum(DURATIONS_S[i][k] for i, k in waiting) < 400.0 + 12.0
        waiting.difference_update(batch)
    assert read == len(place)


def test_an_epoch_is_a_function_of_seed_and_number():
    assert plan().epoch(2, False, 2) == plan().epoch(2, False, 2)
    assert plan().epoch(2, False, 2) != plan().epoch(3, False, 2)
    assert plan().epoch(2, False, 2) != plan(seed=2).epoch(2, False, 2)


def test_short_ones_come_first_where_that_is_wanted():
    lengths_s = [[DURATIONS_S[i][k] for i, k in b] for b in plan().epoch(0, True, 1)[0].batches]
    ups = [min(b) >= max(a) for a, b in pairwise(lengths_s)]
    fills = sum(map(sum, DURATIONS_S)) / 400.0
    assert ups.count(False) == int(fills)  # each buffer goes from short to long


def test_what_is_too_long_and_shards_of_less_weight_are_drawn_less():
    settings = {"batch_s": 40.0, "buffer_s": 400.0, "max_duration_s": 6.0, "seed": 1}
    (reading,) = ShardPlan(DURATIONS_S, [0.0] + [1.0] * 15, **settings).epoch(0, False, 1)
    takes = [take for batch in reading.batches for take in batch]
    assert sorted(takes) == [Take(i, k) for i in range(1, 16) for k, d in enumerate(DURATIONS_S[i]) if d <= 6.0]


# ShardCorpus


def test_a_batch_of_shards_is_that_of_the_manifest(recipe, toy_recipe, shards, tmp_path):
    streamed, whole = load(recipe(tmp_path / "a")), Corpus.load(toy_recipe(tmp_path / "b"), Place(), Observer())
    assert (streamed.num_utterances, streamed.hours) == (20, pytest.approx(whole.hours))
    number = {u.path.read_bytes(): i for i, u in enumerate(whole.utterances)}
    rows = {Take(i, k): number[s.audio] for i, held in enumerate(streamed.shards) for k, s in enumerate(held.samples())}
    for epoch in (0, 1):
        (reading,) = streamed.plan.epoch(epoch, False, 1)
        made = [make() for make in streamed.batches(epoch, False, Place(), 0, 1)]
        assert len(made) == len(reading.batches) > 2
        for position, (batch, takes) in enumerate(zip(made, reading.batches, strict=True)):
            want = whole.collate([rows[take] for take in takes], (1, epoch, position, 0))
            assert all(torch.equal(a, b) for a, b in zip(batch, want, strict=True))


@pytest.mark.parametrize("world", [1, 2])
def test_an_epoch_goes_on_from_any_position(recipe, tmp_path, monkeypatch, world):
    monkeypatch.setattr(Place, "wait", lambda self: None)
    corpus = load(recipe(tmp_path), world)
    for rank in range(world):
        whole = [make() for make in corpus.batches(1, False, Place(rank, world), 0, 1)]
        assert len(whole) > 1
        for position in range(len(whole) + 1):
            rest = [make() for make in corpus.batches(1, False, Place(rank, world), position, 1)]
            assert len(rest) == len(whole) - position
            for batch, want in zip(rest, whole[position:], strict=True):
                assert all(torch.equal(a, b) for a, b in zip(batch, want, strict=True))


def test_what_no_batch_needs_any_more_is_not_opened(recipe, shards, tmp_path, monkeypatch):
    corpus = load(recipe(tmp_path, data={"buffer_s": 6.0}))
    (reading,) = corpus.plan.epoch(0, False, 1)
    last = len(reading.batches) - 1
    needed = {take.shard for take in reading.batches[last]}
    opened = []
    samples = type(corpus.shards[0]).samples

    def watched(self):
        opened.append(self.path)
        return samples(self)

    monkeypatch.setattr(type(corpus.shards[0]), "samples", watched)
    assert len(list(corpus.batches(0, False, Place(), last, 1))) == 1
    assert {corpus.shards[i].path for i in needed} == set(opened)
    assert len(opened) < 5


@pytest.fixture(scope="module")
def straight(toy_recipe, shards, tmp_path_factory):
    """A run of two epochs and more without a stop."""
    data = {"train": (), "shards": shards, "buffer_s": 10.0}
    recipe = toy_recipe(tmp_path_factory.mktemp("straight"), data=data, run={"chunk_frames": (2, 4), "loaders": 2})
    return recipe, train(recipe, said)


@pytest.mark.parametrize("save_every", [1, 3])
def test_a_killed_run_from_shards_goes_on_as_if_nothing_had_happened(straight, recipe, tmp_path, save_every):
    one = recipe(tmp_path, run={"chunk_frames": (2, 4), "loaders": 2, "save_every": save_every})
    threads = set(threading.enumerate())  # others' tests may have left some
    for kill_at in (4, 7):
        with pytest.raises(Killed):
            train(one, said, watch=killed_at(kill_at))
    assert train(one, said) == straight[1]
    assert_same(saved_state(one), saved_state(straight[0]))
    assert Checkpoint.load(one.directory / LAST).training["epoch"] >= 1
    assert not set(threading.enumerate()) - threads


def test_two_processes_train_from_shards_and_go_on(recipe, tmp_path):
    runs = [recipe(tmp_path / name, run={"processes": 2, "save_every": 2}) for name in ("straight", "stopped")]
    whole = train(runs[0], said)
    steps = []
    first = train(runs[1], said, watch=lambda p: steps.append(p.done), stop=lambda: len(steps) >= 2)
    assert first.step < whole.step == 8
    assert train(runs[1], said) == whole
    assert_same(saved_state(runs[1]), saved_state(runs[0]))


# Bad input


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        ({"train": ("train.jsonl",)}, ConfigError, "both train and shards are given: make shards of the manifests too"),
        ({"session_s": 10.0}, ConfigError, "session_s is given with shards, whose neighbours are strangers"),
        ({"buffer_s": 5.0}, ConfigError, r"buffer_s is 5\.0: it must be at least batch_s \(6\.0\)"),
        ({"shards": ("none.txt",)}, ManifestError, r"cannot read the list of shards .*none\.txt"),
        ({"max_duration_s": 0.01}, ManifestError, r"got 20 utterances longer than 0\.01 s in data\.shards, wanted sho"),
        (
            {"dictionary": "few.dict"},
            ManifestError,
            r"data\.shards: .* is not in the dictionary: add its pronunciation",
        ),
    ],
)
def test_what_shards_cannot_be_trained_on_is_one_clear_line(recipe, toy_folder, tmp_path, data, error, message):
    (toy_folder / "few.dict").write_text("nothing AH0\n")
    with pytest.raises(error, match=message) as caught:
        load(recipe(tmp_path, data=data))
    assert "\n" not in str(caught.value)


def test_fewer_shards_than_processes_are_refused(recipe, tmp_path):
    with pytest.raises(ConfigError, match=r"got 5 shards in data\.shards, wanted one or more for each of 6 processes"):
        load(recipe(tmp_path), world=6)


def test_a_shard_that_is_damaged_ends_the_run_and_is_named(recipe, shards, tmp_path):
    held = find_shards(shards, tmp_path).shards[2]
    (tmp_path / INDEX).write_bytes((held.path.parent / INDEX).read_bytes())
    content = bytearray(held.path.read_bytes())
    content[len(content) // 2] ^= 255
    (tmp_path / held.path.name).write_bytes(content)
    with pytest.raises(ManifestError, match=f"the shard {tmp_path}/{held.path.name} is not what was indexed"):
        train(recipe(tmp_path / "run", data={"shards": (str(tmp_path),)}, optimizer={"steps": 99}), said)


# made_ahead


@pytest.mark.parametrize("threads", [0, 1, 3])
def test_what_is_made_ahead_comes_in_order_and_not_too_far_ahead(threads):
    asked = []

    def makings():
        for i in range(20):
            asked.append(i)
            yield lambda i=i: i

    made = []
    for value in made_ahead(makings(), threads):
        made.append(value)
        assert len(asked) <= len(made) + 2 * threads
    assert made == list(range(20))


@pytest.mark.parametrize("threads", [0, 2])
def test_an_error_comes_in_its_turn(threads):
    def makings():
        for i in range(6):
            yield lambda i=i: 6 / (3 - i)

    made = made_ahead(makings(), threads)
    assert [next(made) for _ in range(3)] == [2.0, 3.0, 6.0]
    with pytest.raises(ZeroDivisionError):
        next(made)
